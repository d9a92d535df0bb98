//! A daemon as its units start it: the command line, the socket, the environment, and the system calls that are left.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use vhost_device_testkit::failure::Failure;
use vhost_device_testkit::process::{Daemon, Launch};
use vhost_device_testkit::session::{Options, Session};

use super::INSTANCE;
use super::root::{LIMIT, Root};
use super::units;
use crate::dist::devices::Device;
use crate::process::{bounded, capture};

/// How long a daemon may take to say that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// The call that a service may not make and that the daemon tries all the same: it takes what it gets.
const TRIED: &str = "unshare";

/// A service that is configured as its example says.
pub struct Example {
    words: Vec<String>,
    socket: PathBuf,
    watchdog: String,
    configuration: PathBuf,
}

impl Example {
    /// Writes the configuration and finds out what the units say.
    pub fn new(root: &Root, device: &Device) -> Result<Self> {
        let example = format!("usr/share/doc/{}/examples/example.toml", device.binary());
        let example = root.inside(&root.text(&example)?);
        let configuration = root
            .path()
            .join("etc/vhost-device")
            .join(device.name)
            .join(format!("{INSTANCE}.toml"));
        fs::write(&configuration, example)?;
        let service = units::text(root, device, "service")?;
        let line = root.inside(&units::setting(&service, "ExecStart", INSTANCE)?);
        let socket = units::text(root, device, "socket")?;
        let socket = root.inside(&units::setting(&socket, "ListenStream", INSTANCE)?);
        let seconds: u64 = units::setting(&service, "WatchdogSec", INSTANCE)?.parse()?;
        if let Ok(folder) = units::setting(&service, "RuntimeDirectory", INSTANCE) {
            fs::create_dir_all(root.path().join("run").join(folder))?;
        }
        Ok(Self {
            words: line.split_whitespace().map(str::to_owned).collect(),
            socket: PathBuf::from(socket),
            watchdog: (seconds * 1_000_000).to_string(),
            configuration,
        })
    }

    /// Where the frontend connects.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs the command line with another option behind it, to the end.
    fn run_with(&self, option: &str) -> Result<String> {
        let (program, rest) = self.words.split_first().context("an empty ExecStart")?;
        capture(bounded(program, LIMIT).args(rest).arg(option))
    }

    /// Starts it as the service manager does, below a tracer that writes to `trace` and refuses what the unit refuses.
    pub fn start(&self, trace: &Path) -> Result<Daemon> {
        let folder = self.socket.parent().context("a socket without a folder")?;
        fs::create_dir_all(folder)?;
        let _ = fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket)?;
        // As a grandchild, so that the process is the one that the environment is for.
        let tracer = ["-D", "-f", "-qq", "-o"].map(str::to_owned);
        let refuse = format!("inject={TRIED}:error=EPERM");
        let launch = Launch::new("strace".into())?;
        let notify = launch.dir().join("notify");
        let manager = UnixDatagram::bind(&notify)?;
        manager.set_read_timeout(Some(READY_LIMIT))?;
        let daemon = launch
            .arguments(tracer)
            .arguments([trace])
            .arguments(["-e", "trace=all", "-e", &refuse])
            .arguments(&self.words)
            .environment("NOTIFY_SOCKET", notify)
            .environment("WATCHDOG_USEC", &self.watchdog)
            .inherit(listener, 3)
            .activated()
            .spawn()
            .map_err(told)?;
        let mut message = [0; 64];
        let length = manager
            .recv(&mut message)
            .with_context(|| format!("not ready; it wrote: {}", daemon.log()))?;
        ensure!(
            &message[..length] == b"READY=1",
            "something else than ready"
        );
        Ok(daemon)
    }

    /// Removes what the packages did not bring.
    pub fn clean(&self, root: &Root) -> Result<()> {
        fs::remove_file(&self.configuration)?;
        fs::remove_dir_all(root.path().join("run"))?;
        Ok(())
    }
}

/// Starts a daemon from its unit, connects to it, ends it.
pub fn check(root: &Root, device: &Device) -> Result<()> {
    let example = Example::new(root, device)?;
    let findings = example.run_with("--check").context("--check")?;
    ensure!(
        findings.lines().count() > 2,
        "--check says little: {findings}"
    );
    example.run_with("--check-config")?;
    let trace = root
        .path()
        .with_file_name(format!("{}-start.trace", device.name));
    let mut daemon = example.start(&trace)?;
    let session = Session::open(example.socket(), &Options::usual(1)).map_err(told)?;
    drop(session);
    daemon.finish().map_err(told)?;
    ensure!(
        daemon.log().contains("confined: "),
        "it does not say how it is confined: {}",
        daemon.log()
    );
    let service = units::text(root, device, "service")?;
    let refused: Vec<String> = made(&fs::read_to_string(&trace)?)
        .difference(&units::allowed_calls(&service)?)
        .filter(|call| *call != TRIED)
        .cloned()
        .collect();
    ensure!(
        refused.is_empty(),
        "the service may not make the system calls {refused:?}"
    );
    example.clean(root)
}

/// The names of the system calls in a trace.
fn made(trace: &str) -> BTreeSet<String> {
    let is_name = |word: &str| {
        !word.is_empty()
            && word.chars().all(|letter| {
                letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'
            })
    };
    trace
        .lines()
        .filter_map(|line| {
            // PID NAME(ARGUMENTS) = RESULT
            let (_, rest) = line.split_once(' ')?;
            let (name, _) = rest.trim_start().split_once('(')?;
            is_name(name).then(|| name.to_owned())
        })
        .collect()
}

fn told(failure: Failure) -> anyhow::Error {
    anyhow!("{failure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_calls_are_read_from_a_trace() {
        let trace = "7 execve(\"/x\", []) = 0\n8  <... read resumed>) = 1\n7 epoll_wait(3,  <unfinished ...>\n\
                     7 --- SIGTERM {si_signo=SIGTERM} ---\n7 +++ exited with 0 +++\n";
        let expected = ["epoll_wait", "execve"].map(str::to_owned);
        assert_eq!(made(trace), BTreeSet::from(expected));
    }
}
