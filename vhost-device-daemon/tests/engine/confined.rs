//! What a daemon can still do when a guest has got hold of its device model: the `escape` device tries.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vhost_device_testkit::ensure;
use vhost_device_testkit::failure::Result;
use vhost_device_testkit::framing::Framing;
use vhost_device_testkit::process::{Daemon, Launch, run};
use vhost_device_testkit::session::{Options, Request, Session};
use vhost_device_testkit::sys::{self, Pid};

use crate::levels;

const DONE: i32 = 0;

/// Longest wait for what must happen at once.
const SOON: Duration = Duration::from_secs(5);

/// A device that may use the folder `free`, which has a file, and the folder `locked` beside it, which has one as well.
struct Prison {
    daemon: Daemon,
}

impl Prison {
    fn new(options: &[&str]) -> Result<Self> {
        let launch = Launch::new(levels())?;
        for folder in ["free", "locked"] {
            let folder = launch.dir().join(folder);
            fs::create_dir(&folder)?;
            fs::write(folder.join("file"), "content")?;
        }
        let free = launch.dir().join("free");
        let daemon = launch
            .arguments([Path::new("escape"), Path::new("--host"), &free])
            .arguments(options)
            .start()?;
        Ok(Self { daemon })
    }

    fn session(&self) -> Result<Session> {
        Session::open(self.daemon.socket(), &Options::usual(1))
    }

    /// Has the device try something, and returns the error number.
    fn attempt(&self, what: u8, path: &str) -> Result<i32> {
        let mut session = self.session()?;
        let pending = session.submit(&request(what, path), &Framing::whole())?;
        let answer = session.finish(0, &pending)?;
        let number = answer.written().try_into().unwrap_or_default();
        Ok(i32::from_le_bytes(number))
    }

    /// Has the device try something that ends the daemon.
    fn fatal(mut self, what: u8, name: &str) -> Result<()> {
        let mut session = self.session()?;
        session.submit(&request(what, "file"), &Framing::whole())?;
        let ending = self.daemon.wait_end(SOON)?;
        ensure!(
            ending.status.code() == Some(5),
            "ended with {} instead of exit code 5",
            ending.status
        );
        let log = self.daemon.log();
        ensure!(
            log.contains(&format!("({name}) is not in this daemon's table")),
            "the log does not name {name}: {log}"
        );
        self.daemon.trust();
        Ok(())
    }

    fn close(mut self) -> Result<()> {
        let socket = self.daemon.socket().to_owned();
        self.daemon.terminate()?.clean()?;
        ensure!(!socket.exists(), "the socket is still there");
        self.daemon.trust();
        Ok(())
    }
}

fn request(what: u8, path: &str) -> Request {
    Request {
        queue: 0,
        readable: [&[what], path.as_bytes()].concat(),
        writable: 4,
    }
}

/// Each kind of sandbox, and what the kernel says about places that it does not let the device have.
fn each_sandbox(mut check: impl FnMut(&Prison) -> Result<()>) -> Result<()> {
    for level in [&[][..], &["--sandbox", "landlock"]] {
        let prison = Prison::new(level)?;
        check(&prison)?;
        prison.close()?;
    }
    Ok(())
}

fn is_refused(number: i32) -> bool {
    // Out of sight with an empty root, out of reach with Landlock alone.
    number == libc::ENOENT || number == libc::EACCES
}

#[test]
fn files_of_a_named_folder_can_be_used_and_no_others() -> Result<()> {
    each_sandbox(|prison| {
        for how in [b'r', b'w'] {
            ensure!(
                prison.attempt(how, "file")? == DONE,
                "the folder's own file"
            );
            for foreign in ["../locked/file", "/etc/passwd", "/proc/self/mem"] {
                let number = prison.attempt(how, foreign)?;
                ensure!(is_refused(number), "{foreign}: {number}");
            }
        }
        let number = prison.attempt(b'c', "new")?;
        ensure!(number == libc::EACCES, "a new file: {number}");
        Ok(())
    })
}

#[test]
fn without_a_sandbox_the_same_device_opens_everything() -> Result<()> {
    let prison = Prison::new(&["--sandbox", "none"])?;
    for path in ["file", "../locked/file", "/etc/passwd"] {
        ensure!(prison.attempt(b'r', path)? == DONE, "{path}");
    }
    prison.close()
}

#[test]
fn what_vanishes_from_a_named_folder_and_comes_back_is_opened_again() -> Result<()> {
    each_sandbox(|prison| {
        let file = prison.daemon.dir().join("free/file");
        for round in 0..3 {
            fs::remove_file(&file)?;
            let number = prison.attempt(b'r', "file")?;
            ensure!(number == libc::ENOENT, "round {round}: {number}");
            fs::write(&file, "back")?;
            ensure!(prison.attempt(b'r', "file")? == DONE, "round {round}");
        }
        Ok(())
    })
}

#[test]
fn a_socket_made_later_in_a_named_folder_is_connected_to() -> Result<()> {
    each_sandbox(|prison| {
        let path = prison.daemon.dir().join("free/later");
        let _listener = UnixListener::bind(&path)?;
        ensure!(prison.attempt(b's', "later")? == DONE, "cannot connect");
        fs::remove_file(path)?;
        Ok(())
    })
}

#[test]
fn a_forbidden_call_ends_the_daemon_and_is_named() -> Result<()> {
    Prison::new(&[])?.fatal(b'd', "socketpair")?;
    Prison::new(&[])?.fatal(b'l', "linkat")
}

#[test]
fn a_call_with_a_forbidden_argument_ends_the_daemon_and_is_named() -> Result<()> {
    Prison::new(&[])?.fatal(b'n', "socket")
}

#[test]
fn memory_grows_without_calls_for_it() -> Result<()> {
    let prison = Prison::new(&[])?;
    for _ in 0..3 {
        ensure!(prison.attempt(b'h', "")? == DONE, "the heap is not whole");
    }
    prison.close()
}

#[test]
fn who_waits_for_a_while_waits_on_after_a_stop() -> Result<()> {
    let prison = Prison::new(&[])?;
    let mut session = prison.session()?;
    let pid = prison.daemon.pid();
    let pending = session.submit(&request(b'p', ""), &Framing::whole())?;
    let is = |file: &str, start: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        text.lines()
            .any(|line| line.starts_with(start))
            .then_some(())
    };
    for round in 0..3 {
        let waits = || is("syscall", &format!("{} ", libc::SYS_futex));
        ensure!(
            sys::wait_for(SOON, waits).is_some(),
            "round {round}: it does not wait"
        );
        sys::kill(pid, libc::SIGSTOP)?;
        let stops = || is("status", "State:\tT");
        ensure!(
            sys::wait_for(SOON, stops).is_some(),
            "round {round}: it is not stopped"
        );
        sys::kill(pid, libc::SIGCONT)?;
        let goes_on = || is("status", "State:\tS");
        ensure!(
            sys::wait_for(SOON, goes_on).is_some(),
            "round {round}: it does not go on"
        );
    }
    let answer = session.finish(0, &pending)?;
    ensure!(answer.written() == DONE.to_le_bytes(), "another answer");
    drop(session);
    prison.close()
}

#[test]
fn without_a_filter_or_with_one_that_only_tells_the_calls_work() -> Result<()> {
    for action in ["none", "log"] {
        let prison = Prison::new(&["--seccomp", action])?;
        ensure!(prison.attempt(b'd', "")? == DONE, "--seccomp {action}");
        prison.close()?;
    }
    Ok(())
}

/// A start where no namespaces are to be had: inside of one that allows none.
fn without_namespaces(options: &[&str]) -> Result<Launch> {
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && \
        echo 0 > /proc/sys/user/max_mnt_namespaces && exec \"$0\" \"$@\"";
    let launch = Launch::new("/usr/bin/unshare".into())?
        .arguments(["--user", "--map-root-user", "/bin/sh", "-c", script])
        .arguments([levels().as_path(), Path::new("echo")]);
    Ok(launch.arguments(options))
}

#[test]
fn a_level_that_cannot_be_had_is_not_silently_left_out() -> Result<()> {
    let launch = without_namespaces(&["--socket-path", "/nonexistent/s"])?;
    let (status, _, log) = run(launch)?;
    ensure!(status.code() == Some(3), "the detour works: {log}");
    let launch = without_namespaces(&["--sandbox", "namespace"])?;
    let socket = launch.dir().join("s");
    let launch = launch.arguments([Path::new("--socket-path"), &socket]);
    let (status, _, log) = run(launch)?;
    ensure!(status.code() == Some(5), "{status}: {log}");
    ensure!(log.contains("--sandbox namespace cannot be had"), "{log}");
    ensure!(!socket.exists(), "the socket is still there");
    Ok(())
}

#[test]
fn without_namespaces_the_strongest_that_works_is_taken_and_told_in_one_line() -> Result<()> {
    let mut daemon = without_namespaces(&[])?.start()?;
    drop(Session::open(daemon.socket(), &Options::usual(1))?);
    let log = daemon.log();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("confined:"))
        .collect();
    ensure!(
        matches!(lines[..], [line] if line.contains("no capabilities") && line.contains("refused: namespaces")),
        "{log}"
    );
    daemon.finish()
}

/// The only capability that `keeper` names.
const WAKE_ALARM: u64 = 1 << 35;
const CAPABILITIES: [&str; 5] = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"];

/// The sets of a process, in the order of the names.
fn capabilities(process: Pid) -> Result<[u64; 5]> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let set = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(rest.trim(), 16).ok()
    };
    Ok(CAPABILITIES.map(|name| set(name).unwrap_or(u64::MAX)))
}

fn user_namespace(process: &str) -> Result<PathBuf> {
    Ok(fs::read_link(format!("/proc/{process}/ns/user"))?)
}

#[test]
fn a_capability_that_the_profile_names_is_kept_by_the_daemon_alone() -> Result<()> {
    for level in [&["keeper"][..], &["keeper", "--sandbox", "landlock"]] {
        let mut daemon = Launch::new(levels())?
            .arguments(level.iter().copied())
            .start()?;
        let session = Session::open(daemon.socket(), &Options::usual(1))?;
        let (serving, started) = (daemon.pid(), daemon.started());
        let sets = capabilities(serving)?;
        ensure!(sets == [0, WAKE_ALARM, WAKE_ALARM, 0, 0], "{sets:x?}");
        if serving != started {
            let sets = capabilities(started)?;
            ensure!(sets == [0; 5], "its parent: {sets:x?}");
        }
        ensure!(
            user_namespace(&serving.to_string())? == user_namespace("self")?,
            "the capability counts for nothing"
        );
        let log = daemon.log();
        ensure!(
            log.contains("no capabilities but CAP_WAKE_ALARM, and so no user namespace")
                && !log.contains("refused"),
            "{log}"
        );
        drop(session);
        daemon.finish()?;
    }
    Ok(())
}

/// A start of `keeper` without the capability that it would keep.
fn without_capability() -> Result<Launch> {
    let launch = Launch::new("/usr/bin/setpriv".into())?;
    Ok(launch
        .arguments(["--bounding-set", "-wake_alarm"])
        .arguments([levels().as_path(), Path::new("keeper")]))
}

#[test]
fn a_capability_that_is_not_there_to_keep_is_told_and_no_reason_not_to_serve() -> Result<()> {
    const TOLD: &str = "refused: CAP_WAKE_ALARM: the process does not have it";
    let mut daemon = without_capability()?.start()?;
    let session = Session::open(daemon.socket(), &Options::usual(1))?;
    let sets = capabilities(daemon.pid())?;
    ensure!(sets == [0; 5], "{sets:x?}");
    let log = daemon.log();
    ensure!(
        log.contains("no capabilities, ") && log.contains("(user, ") && log.contains(TOLD),
        "{log}"
    );
    drop(session);
    daemon.finish()?;

    let launch = without_capability()?;
    let socket = launch.dir().join("s");
    let launch = launch.arguments([Path::new("--check"), Path::new("--socket-path"), &socket]);
    let (status, output, _) = run(launch)?;
    ensure!(
        status.success()
            && output
                .lines()
                .any(|line| line.starts_with("note ") && line.contains(TOLD)),
        "{status}: {output}"
    );
    Ok(())
}
