//! One of our daemons, running for as long as somebody holds it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{describe, tail_of, tethered};

/// How long a daemon has to listen.
const START_LIMIT: Duration = Duration::from_secs(10);

/// How long it has to leave after SIGTERM: ten times what is promised for an idle one, for loaded machines.
const STOP_LIMIT: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(2);

/// A flag of /proc/net/unix: the socket accepts connections (`__SO_ACCEPTCON`).
const LISTENING: &str = "00010000";

/// A running daemon. It is killed on drop; [`Daemon::stop`] ends it in order.
pub struct Daemon {
    name: String,
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts `binary` with its socket and log in `folder` and waits until it listens.
    pub fn start(
        binary: &Path,
        arguments: &[OsString],
        folder: &Path,
        instance: &str,
    ) -> Result<Self> {
        let name = binary
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let socket = folder.join(format!("{instance}.sock"));
        let log = folder.join(format!("{instance}.log"));
        let output = File::create(&log)?;
        let child = tethered(binary)
            .arg("--socket-path")
            .arg(&socket)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut daemon = Self {
            name,
            child,
            socket,
            log,
        };
        daemon.wait_until_listening()?;
        Ok(daemon)
    }

    /// The path of its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks it to end, waits, and fails unless it ends with status 0.
    pub fn stop(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "{} did not wait for its end: {}",
                self.name,
                self.story(status)
            );
        }
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).with_context(|| format!("cannot signal {}", self.name))?;
        match wait(&mut self.child, STOP_LIMIT)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{} was asked to end and {}", self.name, self.story(status)),
            None => bail!(
                "{} does not end within {STOP_LIMIT:?} of SIGTERM",
                self.name
            ),
        }
    }

    /// What it has logged so far.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Seen from outside: a trial connection would be a frontend, and the real one might be refused beside it.
    fn wait_until_listening(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !is_listening(&self.socket) {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} {}", self.name, self.story(status));
            }
            if Instant::now() > deadline {
                bail!(
                    "{} does not listen after {START_LIMIT:?}; it wrote:\n{}",
                    self.name,
                    tail_of(&self.log)
                );
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn story(&self, status: ExitStatus) -> String {
        format!("{}; it wrote:\n{}", describe(status), tail_of(&self.log))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // it may have ended already, and then there is nothing to do
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_listening(socket: &Path) -> bool {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    table.lines().any(|line| {
        // Num RefCount Protocol Flags Type St Inode Path
        let mut words = line.split_whitespace().skip(3);
        words.next() == Some(LISTENING)
            && words.nth(3).is_some_and(|path| Path::new(path) == socket)
    })
}

/// Waits for a child, but not longer than `limit`.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::temp::Folder;

    #[test]
    fn a_listening_socket_is_told_from_a_left_over_one() {
        let folder = Folder::new("daemon").unwrap();
        let path = folder.path().join("s");
        assert!(!is_listening(&path));
        let listener = UnixListener::bind(&path).unwrap();
        assert!(is_listening(&path));
        drop(listener);
        assert!(path.exists());
        assert!(!is_listening(&path));
    }

    #[test]
    fn a_daemon_that_dies_at_start_is_reported_with_its_words() {
        let folder = Folder::new("daemon").unwrap();
        // a program that is there everywhere and knows no such option
        let binary = Path::new("/bin/ls");
        let error = Daemon::start(binary, &[], folder.path(), "x")
            .err()
            .unwrap();
        let text = format!("{error:#}");
        assert!(
            text.contains("status 2") && text.contains("socket-path"),
            "{text}"
        );
    }
}
