//! One of the two daemons that are compared.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use vhost_device_testkit::bench::{Figures, Load, drive};
use vhost_device_testkit::ensure;
use vhost_device_testkit::failure::{At, Failure, Result};
use vhost_device_testkit::framing::Framing;
use vhost_device_testkit::process::{Daemon, Launch};

use super::{PARTS, Typical, Way};
use crate::bench::Bench;

/// Between two looks at the counters, and the most that one may take.
const SECOND: Duration = Duration::from_secs(1);

/// A daemon that runs in one of the ways.
pub struct Side {
    way: Way,
    daemon: Daemon,
    /// Where its counters are read.
    counters: PathBuf,
    /// How long it has been loaded since they were read.
    unread: Duration,
}

impl Side {
    /// Starts the daemon of a load, which was built at this path.
    pub fn start(binary: &Path, typical: &Typical, way: Way) -> Result<Self> {
        let launch = Launch::new(binary.to_owned())?;
        let counters = launch.dir().join("counters");
        let daemon = launch
            .arguments(typical.arguments.iter().chain(way.arguments).copied())
            .arguments(["--control-path".as_ref(), counters.as_os_str()])
            .start()?;
        Ok(Self {
            way,
            daemon,
            counters,
            unread: SECOND,
        })
    }

    /// Loads the daemon over a connection of its own, for a part of the time.
    pub fn measure(&mut self, bench: &Bench, typical: &Typical) -> Result<Figures> {
        let mut session = bench.connect(&self.daemon, typical.queues)?;
        if let Some(before) = &typical.before {
            let pending = session.submit(before, &Framing::whole())?;
            session.finish(before.queue, &pending)?;
        }
        let load = Load::new(&typical.request, typical.depth, bench.duration / PARTS);
        if !self.is_to_be_read(load.duration) {
            return drive(&mut session, &self.daemon, 0, &load);
        }
        thread::scope(|scope| {
            let (stop, stopped) = channel();
            let reader = scope.spawn(|| read_every_second(&self.counters, stopped));
            let figures = drive(&mut session, &self.daemon, 0, &load);
            drop(stop);
            let read = reader
                .join()
                .map_err(|_| Failure::new("the reader panicked"))?;
            read.at("read the counters")?;
            figures
        })
    }

    /// Whether the counters are to be read while the daemon is loaded for this time.
    fn is_to_be_read(&mut self, load: Duration) -> bool {
        let is_due = self.unread >= SECOND;
        self.unread = if is_due { load } else { self.unread + load };
        self.way.is_read && is_due
    }

    /// Ends the daemon, which must have counted what it was asked if that is its way, and nothing if not.
    pub fn finish(mut self) -> Result<()> {
        let counters = read(&self.counters).at("read the counters")?;
        ensure!(
            has_counted(&counters) == self.way.is_counted,
            "the daemon that runs \"{}\" was built otherwise; are there RUSTFLAGS in the environment?",
            self.way.name
        );
        self.daemon.finish()
    }
}

/// Reads counters now and every second, until the other end of `stopped` is gone.
fn read_every_second(path: &Path, stopped: Receiver<()>) -> Result<()> {
    loop {
        read(path)?;
        if stopped.recv_timeout(SECOND) != Err(RecvTimeoutError::Timeout) {
            return Ok(());
        }
    }
}

fn read(path: &Path) -> Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(SECOND))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.ends_with("# EOF\n"), "the counters were cut off");
    Ok(text)
}

/// Whether any counter of a queue is not zero.
fn has_counted(counters: &str) -> bool {
    let mut of_queues = counters.lines().filter(|line| line.contains(",queue=\""));
    of_queues.any(|line| !line.ends_with(" 0"))
}

#[cfg(test)]
mod tests {
    use super::has_counted;

    #[test]
    fn only_what_queues_count_tells_whether_a_daemon_counts() {
        let frontends = "vhost_device_frontends_total{socket=\"s\"} 1\n";
        let requests = "vhost_device_requests_total{socket=\"s\",queue=\"0\"} ";
        assert!(!has_counted(&format!("{frontends}{requests}0\n# EOF\n")));
        assert!(has_counted(&format!("{frontends}{requests}10\n# EOF\n")));
    }
}
