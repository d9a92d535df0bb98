//! A daemon process: started with its own directory, watched, and always ended.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::failure::{At, Failure, Result};
use crate::namespace;
use crate::stats::Stats;
use crate::sys::{self, Pid};
use crate::{ensure, fail};

/// How long a daemon may take from exec to a listening socket, on a busy machine.
pub const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A private directory, removed with all its contents on drop. Its path is short: socket paths end at 107 bytes.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// A fresh directory under the system's directory for temporary files.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("testkit-{}-{number}", std::process::id()));
        // Left over from a killed run with the same process id: nobody else uses this name.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Nothing can be done about a directory that will not go; it is only temporary.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where a daemon's stderr goes.
#[derive(Debug)]
pub enum Stderr {
    /// Into a file, readable with [`Daemon::log`].
    Log,
    /// Nowhere: the descriptor is closed before the daemon starts.
    Closed,
    /// Into this descriptor.
    To(OwnedFd),
}

/// How to start a daemon.
#[derive(Debug)]
pub struct Launch {
    binary: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    inherited: Vec<(OwnedFd, i32)>,
    stderr: Stderr,
    activated: bool,
    dir: Arc<TempDir>,
}

impl Launch {
    /// The binary, run in a fresh directory of its own.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(binary: PathBuf) -> io::Result<Self> {
        Ok(Self {
            binary,
            arguments: Vec::new(),
            environment: Vec::new(),
            inherited: Vec::new(),
            stderr: Stderr::Log,
            activated: false,
            dir: Arc::new(TempDir::new()?),
        })
    }

    /// Uses this directory instead of a fresh one.
    #[must_use]
    pub fn directory(mut self, dir: Arc<TempDir>) -> Self {
        self.dir = dir;
        self
    }

    /// The daemon's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Keeps the directory after the daemon is gone, for as long as the result lives.
    pub fn keep(&self) -> Arc<TempDir> {
        Arc::clone(&self.dir)
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<A: Into<OsString>>(mut self, more: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(more.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Hands a descriptor down under this number.
    #[must_use]
    pub fn inherit(mut self, fd: impl Into<OwnedFd>, number: i32) -> Self {
        self.inherited.push((fd.into(), number));
        self
    }

    /// Announces the inherited descriptors as a service manager does (LISTEN_PID, LISTEN_FDS).
    #[must_use]
    pub fn activated(mut self) -> Self {
        self.activated = true;
        self
    }

    /// Chooses where stderr goes.
    #[must_use]
    pub fn stderr(mut self, stderr: Stderr) -> Self {
        self.stderr = stderr;
        self
    }

    /// Starts the process, without waiting for anything.
    ///
    /// # Errors
    /// As fork and exec.
    pub fn spawn(mut self) -> Result<Daemon> {
        let mut command = self.command();
        command.args(&self.arguments);
        command.stdin(Stdio::null());
        let log = self.dir().join("log");
        let output = self.dir().join("stdout");
        command.stdout(File::create(&output)?);
        match std::mem::replace(&mut self.stderr, Stderr::Log) {
            Stderr::Log => command.stderr(File::options().create(true).append(true).open(&log)?),
            Stderr::Closed => {
                // SAFETY: the closure only makes a system call.
                unsafe {
                    command.pre_exec(|| {
                        sys::close_descriptor(2);
                        Ok(())
                    })
                }
            }
            Stderr::To(fd) => command.stderr(fd),
        };
        command.env_remove("NOTIFY_SOCKET");
        command.env_remove("RUST_LOG");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // Sources are moved far up first, so that no target number is the source of another.
        let sources = self
            .inherited
            .iter()
            .map(|(fd, number)| Ok((sys::duplicate_high(fd)?, *number)))
            .collect::<io::Result<Vec<(OwnedFd, i32)>>>()?;
        let plan: Vec<(i32, i32)> = sources
            .iter()
            .map(|(fd, number)| (fd.as_raw_fd(), *number))
            .collect();
        // SAFETY: the closure only makes system calls.
        unsafe {
            command.pre_exec(move || {
                plan.iter()
                    .try_for_each(|(fd, number)| sys::place_descriptor(*fd, *number))
            })
        };
        let child = command
            .spawn()
            .at(format!("start {}", self.binary.display()))?;
        Ok(Daemon {
            child,
            inner: OnceLock::new(),
            socket: self.dir().join("s"),
            log,
            output,
            dir: self.dir,
            trusted: false,
        })
    }

    fn command(&self) -> Command {
        if !self.activated {
            return traced(&self.binary);
        }
        // LISTEN_PID is the daemon's own id, known only after fork: a shell sets it and becomes the daemon.
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!(
            "LISTEN_PID=$$ LISTEN_FDS={} exec \"$0\" \"$@\"",
            self.inherited.len()
        ));
        command.arg(&self.binary);
        command
    }

    /// Starts the daemon on the socket `s` in its directory and waits until it listens.
    ///
    /// # Errors
    /// When it ends instead, or does not listen within [`START_TIMEOUT`].
    pub fn start(self) -> Result<Daemon> {
        let socket = self.dir().join("s");
        let mut launch = self.arguments([OsString::from("--socket-path"), socket.into()]);
        if env::var_os(TRACE).is_some() {
            // The tables that the calls are held against.
            let (name, value) = TELLS_TABLES;
            launch = launch.environment(name, value);
        }
        let mut daemon = launch.spawn()?;
        let socket = daemon.socket.clone();
        daemon.wait_listening(&socket)?;
        Ok(daemon)
    }
}

/// Names a folder; the system calls that daemons make are written to files there.
pub const TRACE: &str = "TESTKIT_TRACE";

/// The tracer's command line, up to the file that it writes. Threads are known by their numbers outside of a namespace.
pub const TRACER: [&str; 8] = [
    "strace",
    "-D",
    "-f",
    "-qq",
    "-s",
    "400",
    "--decode-pids=pidns",
    "-o",
];

/// What makes a daemon log its tables of system calls, as a variable of its environment.
pub const TELLS_TABLES: (&str, &str) = ("RUST_LOG", "info,vhost_device_daemon::confine=debug");

/// The program, or the tracer around it, in whose place the program is at once: it has the same process number.
fn traced(binary: &Path) -> Command {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let Some(folder) = env::var_os(TRACE) else {
        return Command::new(binary);
    };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let file = format!("{}.{number}", std::process::id());
    let [tracer, options @ ..] = TRACER;
    let mut command = Command::new(tracer);
    command
        .args(options)
        .arg(Path::new(&folder).join(file))
        .arg("--")
        .arg(binary);
    command
}

/// How a daemon ended.
#[derive(Debug)]
pub struct Ending {
    /// Its exit status.
    pub status: ExitStatus,
    /// From the signal to the exit.
    pub took: Duration,
}

impl Ending {
    /// Fails unless the exit code is 0.
    ///
    /// # Errors
    /// With the status that was seen.
    pub fn clean(self) -> Result<Self> {
        ensure!(
            self.status.code() == Some(0),
            "the daemon ended with {} instead of exit code 0",
            self.status
        );
        Ok(self)
    }
}

/// A running daemon. It is killed on drop, and its log is shown unless [`Daemon::trust`] said that all was well.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    inner: OnceLock<Pid>,
    socket: PathBuf,
    log: PathBuf,
    output: PathBuf,
    dir: Arc<TempDir>,
    trusted: bool,
}

impl Daemon {
    /// The socket that [`Launch::start`] told it to listen on.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Keeps the directory after the daemon is gone, for as long as the result lives.
    pub fn keep(&self) -> Arc<TempDir> {
        Arc::clone(&self.dir)
    }

    /// The process that serves, once it does: the one that was started, or its child, the first of a pid namespace.
    pub fn pid(&self) -> Pid {
        let started = self.started();
        match self.inner.get() {
            Some(inner) => *inner,
            None => match namespace::first_of(started) {
                Some(inner) => *self.inner.get_or_init(|| inner),
                None => started,
            },
        }
    }

    /// The process that was started, which a user knows: the one that serves, or the one that watches over it.
    pub fn started(&self) -> Pid {
        self.child.id() as Pid
    }

    /// A snapshot of the resources of the process that serves. Of wake-ups those of the one that watches over it count too.
    ///
    /// # Errors
    /// When it is gone.
    pub fn stats(&self) -> Result<Stats> {
        let (serving, started) = (self.pid(), self.started());
        let mut stats = Stats::of(serving).at("look at the daemon")?;
        if started != serving {
            let supervisor = Stats::of_tasks(started).at("look at the daemon's supervisor")?;
            stats.voluntary += supervisor.voluntary;
        }
        Ok(stats)
    }

    /// Time on a processor so far.
    ///
    /// # Errors
    /// When it is gone.
    pub fn run_time(&self) -> Result<Duration> {
        Ok(Stats::of_tasks(self.pid())
            .at("look at the daemon's threads")?
            .run_time)
    }

    /// Everything it wrote to stderr.
    pub fn log(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(&self.log) {
            // What cannot be read is shown as far as it could.
            let _ = file.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Everything it wrote to stdout.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// With its exit status and the end of its log when it does not.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => fail!("the daemon is gone: {status}"),
        }
    }

    /// Waits until something listens on `path`, looking without connecting.
    ///
    /// # Errors
    /// When the daemon ends instead, or does not listen within [`START_TIMEOUT`].
    pub fn wait_listening(&mut self, path: &Path) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !listens(path)? {
            if let Some(status) = self.child.try_wait()? {
                fail!(
                    "the daemon ended with {status} instead of listening: {}",
                    self.log()
                );
            }
            ensure!(
                Instant::now() < deadline,
                "nothing listens on {} after {START_TIMEOUT:?}",
                path.display()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Sends it a signal, as a user does: to the process that was started.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: i32) -> Result<()> {
        sys::kill(self.started(), signal).at(format!("signal {signal}"))
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not within `timeout`.
    pub fn wait_end(&mut self, timeout: Duration) -> Result<Ending> {
        let begin = Instant::now();
        match sys::wait_for(timeout, || self.child.try_wait().transpose()) {
            Some(status) => Ok(Ending {
                status: status?,
                took: begin.elapsed(),
            }),
            None => fail!("the daemon still runs after {timeout:?}"),
        }
    }

    /// Asks it to end with SIGTERM and waits for it.
    ///
    /// # Errors
    /// When it does not end within five seconds.
    pub fn terminate(&mut self) -> Result<Ending> {
        self.signal(libc::SIGTERM)?;
        self.wait_end(Duration::from_secs(5)).at("after SIGTERM")
    }

    /// Asks it to end, which must go well.
    ///
    /// # Errors
    /// When it does not end in time, or not with exit code 0.
    pub fn finish(&mut self) -> Result<()> {
        self.terminate()?.clean()?;
        self.trust();
        Ok(())
    }

    /// The case went well: the log need not be shown.
    pub fn trust(&mut self) {
        self.trusted = true;
    }

    fn show_log(&self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(25)..];
        eprintln!("--- end of the log of {} ---", self.socket.display());
        tail.iter().for_each(|line| eprintln!("{line}"));
        eprintln!("---");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Fails only when it has ended by itself in between, which is just as well.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if !self.trusted {
            self.show_log();
        }
    }
}

/// A daemon that is asked to end when the test is through with it, and must end well.
#[derive(Debug)]
pub struct Served(pub Daemon);

impl Deref for Served {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.0
    }
}

impl DerefMut for Served {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.0
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // A test that failed already has more to say; the log is shown then.
        if !std::thread::panicking() {
            let ended = self.finish();
            assert!(ended.is_ok(), "{ended:?}");
        }
    }
}

/// Whether a socket at this path is listening, according to the kernel's table of unix sockets.
///
/// # Errors
/// When the table cannot be read.
pub fn listens(path: &Path) -> Result<bool> {
    const ACCEPTS: &str = "00010000";
    let table = fs::read_to_string("/proc/net/unix")?;
    let wanted = path
        .to_str()
        .ok_or_else(|| Failure::new("a socket path that is not UTF-8"))?;
    // A daemon may listen under a name of its own before it links the socket to its path: PATH.PID.
    let is_wanted = |name: &str| match name.strip_prefix(wanted) {
        Some("") => true,
        Some(rest) => rest
            .strip_prefix('.')
            .is_some_and(|pid| pid.parse::<u32>().is_ok()),
        None => false,
    };
    Ok(path.exists()
        && table.lines().any(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            columns.get(3) == Some(&ACCEPTS) && columns.get(7).is_some_and(|name| is_wanted(name))
        }))
}

/// Runs a command of the daemon's binary that is expected to end by itself.
///
/// # Errors
/// When it cannot be started or does not end within [`START_TIMEOUT`].
pub fn run(launch: Launch) -> Result<(ExitStatus, String, String)> {
    let mut daemon = launch.spawn()?;
    let ending = daemon.wait_end(START_TIMEOUT)?;
    daemon.trust();
    Ok((ending.status, daemon.output(), daemon.log()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn shell(script: &str) -> Launch {
        Launch::new("/bin/sh".into())
            .unwrap()
            .arguments(["-c", script])
    }

    #[test]
    fn output_and_status_of_a_command_come_back() {
        let (status, out, err) = run(shell("echo out; echo err >&2; exit 3")).unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    }

    #[test]
    fn descriptors_arrive_under_their_number_and_are_announced() {
        let (reader, writer) = sys::pipe().unwrap();
        drop(reader);
        let launch = shell("echo $LISTEN_FDS; [ $LISTEN_PID = $$ ] && readlink /proc/$$/fd/3")
            .inherit(writer, 3)
            .activated();
        let (status, out, _) = run(launch).unwrap();
        assert!(status.success());
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[0], "1");
        assert!(lines[1].starts_with("pipe:"), "{out}");
    }

    #[test]
    fn a_process_ended_by_sigterm_reports_it() {
        let mut daemon = shell("exec sleep 60").spawn().unwrap();
        daemon.check_alive().unwrap();
        let ending = daemon.terminate().unwrap();
        assert!(ending.clean().is_err());
        assert!(daemon.check_alive().is_err());
        daemon.trust();
    }

    #[test]
    fn listening_is_told_from_bound_and_from_connected() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("s");
        assert!(!listens(&path).unwrap());
        let listener = UnixListener::bind(&path).unwrap();
        assert!(listens(&path).unwrap());
        let stream = UnixStream::connect(&path).unwrap();
        let (_peer, _) = listener.accept().unwrap();
        drop(listener);
        assert!(!listens(&path).unwrap());
        drop(stream);
    }
}
