//! A daemon that is the first process of a pid namespace, and the process that was started, which watches over it.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use vhost_device_testkit::ensure;
use vhost_device_testkit::failure::{At, Result};
use vhost_device_testkit::framing::Framing;
use vhost_device_testkit::process::{Daemon, Launch, listens};
use vhost_device_testkit::session::{Options, Request, Session};
use vhost_device_testkit::sys::{self, Pid};

use crate::echo::echo;
use crate::levels;

/// Longest wait for what must happen at once.
const SOON: Duration = Duration::from_secs(5);

fn serve(daemon: &Daemon) -> Result<Session> {
    let mut session = Session::open(daemon.socket(), &Options::usual(1))?;
    exchange(&mut session)?;
    Ok(session)
}

fn exchange(session: &mut Session) -> Result<()> {
    let pending = session.submit(&echo(b"hello"), &Framing::whole())?;
    let answer = session.finish(0, &pending)?;
    ensure!(answer.written().starts_with(b"hello"), "another answer");
    Ok(())
}

/// A daemon that serves, in two processes.
fn start() -> Result<(Daemon, Session)> {
    let daemon = Launch::new(levels())?.arguments(["echo"]).start()?;
    let session = serve(&daemon)?;
    ensure!(
        daemon.pid() != daemon.started(),
        "there is one process: {}",
        daemon.log()
    );
    Ok((daemon, session))
}

/// The rest of a line of a process's status.
fn status(process: Pid, name: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.unwrap_or_default().trim().to_owned())
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let seen = sys::wait_for(SOON, || match is_so() {
        Ok(false) => None,
        other => Some(other),
    });
    ensure!(seen.is_some(), "not within {SOON:?}: {what}");
    seen.unwrap_or(Ok(true)).map(drop)
}

/// Both processes are gone: nobody listens, and the frontend is told.
fn nothing_is_left(socket: &Path, session: &Session) -> Result<()> {
    wait_until("nobody listens", || Ok(!listens(socket)?))?;
    session.control.wait_closed(SOON)?;
    Ok(())
}

/// Waits for an end by this signal.
fn ended_by(mut daemon: Daemon, session: &Session, signal: i32) -> Result<()> {
    let ending = daemon.wait_end(SOON)?;
    ensure!(
        ending.status.signal() == Some(signal),
        "ended with {} instead of signal {signal}",
        ending.status
    );
    nothing_is_left(daemon.socket(), session)?;
    daemon.trust();
    Ok(())
}

#[test]
fn the_daemon_is_the_first_process_of_its_namespace() -> Result<()> {
    let (mut daemon, session) = start()?;
    let numbers = status(daemon.pid(), "NSpid:")?;
    ensure!(
        numbers.split_whitespace().next_back() == Some("1"),
        "{numbers}"
    );
    drop(session);
    daemon.finish()
}

#[test]
fn whoever_ends_the_started_process_ends_the_daemon() -> Result<()> {
    for signal in [libc::SIGKILL, libc::SIGHUP, libc::SIGQUIT] {
        let (daemon, session) = start()?;
        daemon.signal(signal)?;
        ended_by(daemon, &session, signal)?;
    }
    Ok(())
}

#[test]
fn however_early_the_started_process_is_killed_nobody_listens() -> Result<()> {
    for round in 0..40 {
        let mut daemon = Launch::new(levels())?.arguments(["echo"]).start()?;
        sleep(Duration::from_micros(100) * round);
        daemon.signal(libc::SIGKILL)?;
        daemon.wait_end(SOON)?;
        let socket = daemon.socket();
        wait_until("nobody listens", || Ok(!listens(socket)?)).at(format!("round {round}"))?;
        daemon.trust();
    }
    Ok(())
}

#[test]
fn a_daemon_that_was_killed_is_told_from_one_that_ended() -> Result<()> {
    let (daemon, session) = start()?;
    sys::kill(daemon.pid(), libc::SIGKILL)?;
    ended_by(daemon, &session, libc::SIGKILL)
}

#[test]
fn what_kills_a_process_kills_the_first_of_a_namespace_too() -> Result<()> {
    let launch = Launch::new(levels())?;
    let folder = launch.dir().to_owned();
    let mut daemon = launch
        .arguments([Path::new("escape"), Path::new("--host"), &folder])
        .arguments(["--seccomp", "none"])
        .start()?;
    let mut session = Session::open(daemon.socket(), &Options::usual(1))?;
    let abort = Request {
        queue: 0,
        readable: b"a".to_vec(),
        writable: 4,
    };
    session.submit(&abort, &Framing::whole())?;
    let ending = daemon.wait_end(SOON)?;
    // SIGABRT is not for number 1; the C library then makes the processor raise something.
    ensure!(
        ending.status.signal().is_some() && !ending.status.core_dumped(),
        "ended with {}",
        ending.status
    );
    nothing_is_left(daemon.socket(), &session)?;
    daemon.trust();
    Ok(())
}

#[test]
fn a_second_interrupt_waits_for_nothing() -> Result<()> {
    let (daemon, session) = start()?;
    // So it cannot end by itself meanwhile.
    sys::kill(daemon.pid(), libc::SIGSTOP)?;
    daemon.signal(libc::SIGINT)?;
    wait_until("the first is passed on", || {
        let pending = u64::from_str_radix(&status(daemon.pid(), "ShdPnd:")?, 16);
        Ok(pending.unwrap_or_default() & (1 << (libc::SIGINT - 1)) != 0)
    })?;
    daemon.signal(libc::SIGINT)?;
    ended_by(daemon, &session, libc::SIGINT)
}

#[test]
fn a_stop_from_the_terminal_stops_both_until_they_go_on() -> Result<()> {
    let (mut daemon, mut session) = start()?;
    let both_are = |stopped: bool| -> Result<bool> {
        let mut states = Vec::new();
        for process in [daemon.pid(), daemon.started()] {
            states.push(status(process, "State:")?.starts_with('T'));
        }
        Ok(states == [stopped; 2])
    };
    for _ in 0..3 {
        daemon.signal(libc::SIGTSTP)?;
        wait_until("both are stopped", || both_are(true))?;
        daemon.signal(libc::SIGCONT)?;
        wait_until("both go on", || both_are(false))?;
        exchange(&mut session)?;
    }
    drop(session);
    daemon.finish()
}

#[test]
fn the_daemon_is_in_the_background_of_the_same_session() -> Result<()> {
    let (mut daemon, session) = start()?;
    // behind the name: state, parent, group, session
    let ids = |process: Pid| -> Result<[String; 2]> {
        let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let behind = text.rsplit(") ").next().unwrap_or_default();
        let mut words = behind.split(' ').skip(2).map(str::to_owned);
        Ok([(); 2].map(|()| words.next().unwrap_or_default()))
    };
    let [own, parents] = [ids(daemon.pid())?, ids(daemon.started())?];
    ensure!(own[0] != parents[0], "a terminal's signals come twice");
    ensure!(own[1] == parents[1], "the scheduler tells them apart");
    let ignored = u64::from_str_radix(&status(daemon.pid(), "SigIgn:")?, 16);
    let stops = 1 << (libc::SIGTTOU - 1);
    ensure!(
        ignored.unwrap_or_default() & stops != 0,
        "it may be stopped when it logs"
    );
    drop(session);
    daemon.finish()
}

#[test]
fn a_service_managers_process_stays_the_daemon() -> Result<()> {
    let launch = Launch::new(levels())?.arguments(["echo"]);
    let path = launch.dir().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(SOON))?;
    let notified = launch.environment("NOTIFY_SOCKET", path).start()?;
    let mut message = [0; 64];
    let length = manager.recv(&mut message)?;
    ensure!(
        message.get(..length) == Some(b"READY=1"),
        "it is told otherwise"
    );
    is_one_process(notified).at("with NOTIFY_SOCKET")?;

    let launch = Launch::new(levels())?.arguments(["echo"]);
    let listener = UnixListener::bind(launch.dir().join("s"))?;
    let activated = launch.inherit(listener, 3).activated().spawn()?;
    is_one_process(activated).at("with LISTEN_PID")
}

fn is_one_process(mut daemon: Daemon) -> Result<()> {
    let session = serve(&daemon)?;
    let log = daemon.log();
    ensure!(
        daemon.pid() == daemon.started() && !log.contains("pid") && !log.contains("refused"),
        "{log}"
    );
    ensure!(log.contains("own namespaces (user, mount"), "{log}");
    drop(session);
    daemon.finish()
}
