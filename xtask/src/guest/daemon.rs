//! One of our daemons, running for as long as somebody holds it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::tracing;
use crate::process::{describe, tail_of, tethered};

/// How long a daemon has to get ready.
const START_LIMIT: Duration = Duration::from_secs(10);

/// How long it has to leave after SIGTERM: ten times what is promised for an idle one, for loaded machines.
const STOP_LIMIT: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(2);

/// What a daemon logs when it serves. It is not told that we are a service manager: under one it is confined less.
const READY: &str = ": listening on ";

/// A running daemon. It is killed on drop; [`Daemon::stop`] ends it in order.
pub struct Daemon {
    name: String,
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts `binary` with its socket and log in `folder` and waits until it says that it is
    /// ready.
    pub fn start(
        binary: &Path,
        arguments: &[OsString],
        folder: &Path,
        instance: &str,
    ) -> Result<Self> {
        let socket = folder.join(format!("{instance}.sock"));
        let own = ["--socket-path".into(), socket.clone().into_os_string()];
        let arguments = [&own[..], arguments].concat();
        let mut daemon = Self::start_bare(binary, &arguments, folder, instance)?;
        daemon.socket = socket;
        Ok(daemon)
    }

    /// The same with `arguments` that name its sockets: [`Daemon::socket`] means nothing then.
    pub fn start_bare(
        binary: &Path,
        arguments: &[OsString],
        folder: &Path,
        instance: &str,
    ) -> Result<Self> {
        let name = binary
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let log = folder.join(format!("{instance}.log"));
        let output = File::create(&log)?;
        let words = tracing::command(binary, instance);
        let (program, more) = words.split_first().context("a program has a name")?;
        let child = tethered(program)
            .args(more)
            .args(arguments)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("RUST_LOG")
            .envs(tracing::environment())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut daemon = Self {
            name,
            child,
            socket: PathBuf::new(),
            log,
        };
        daemon.wait_until_ready()?;
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

    /// Waits for the log to tell. A trial connection would be a frontend, and the real one might be refused beside it.
    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !fs::read_to_string(&self.log)?.contains(READY) {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} {}", self.name, self.story(status));
            }
            if Instant::now() > deadline {
                bail!(
                    "{} is not ready after {START_LIMIT:?}; it wrote:\n{}",
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
    use super::*;
    use crate::temp::Folder;

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
