//! The other end of a stream, as a process of its own: what a host's program costs must not be hidden in ours.

use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use vhost_device_testkit::failure::{Failure, Result as Measured};
use vhost_device_testkit::sys;

/// How long a program may go on after its stream has ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a program does with its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Reads as much as comes.
    Sink,
    /// Writes as much as goes.
    Source,
    /// Writes what it reads.
    Echo,
}

/// The verb by which this program starts itself once more: not for people.
#[derive(Debug, clap::Args)]
pub struct Args {
    role: Role,
    /// Bytes of each read or write.
    size: usize,
}

impl Args {
    /// Serves the stream that is the standard input, until it ends.
    pub fn run(&self) -> Result<()> {
        let mut stream = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let mut buffer = vec![0x5a; self.size];
        loop {
            let over = match self.role {
                Role::Sink => stream.read(&mut buffer),
                Role::Source => stream.write(&buffer),
                Role::Echo => echo(&mut stream, &mut buffer),
            };
            // a reset is an end like any other
            if over.unwrap_or(0) == 0 {
                return Ok(());
            }
        }
    }
}

fn echo(stream: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let length = stream.read(buffer)?;
    stream.write_all(buffer.get(..length).unwrap_or_default())?;
    Ok(length)
}

/// A running program; killed on drop.
pub struct Program(Child);

impl Program {
    /// Starts it on its end of a stream.
    pub fn start(role: Role, size: usize, stream: UnixStream) -> Measured<Self> {
        let role = match role {
            Role::Sink => "sink",
            Role::Source => "source",
            Role::Echo => "echo",
        };
        let child = Command::new(env::current_exe()?)
            .args(["stream-program", role, &size.to_string()])
            .stdin(Stdio::from(OwnedFd::from(stream)))
            .spawn()?;
        Ok(Self(child))
    }

    /// Waits for its end, which follows that of the stream.
    pub fn end(mut self) -> Measured<()> {
        match sys::wait_for(PATIENCE, || self.0.try_wait().transpose()) {
            Some(status) if status.as_ref().is_ok_and(|status| status.success()) => Ok(()),
            Some(status) => Err(Failure::new(format!("a program ended with {status:?}"))),
            None => Err(Failure::new("a program goes on without its stream")),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // it may have ended already, and then there is nothing to do
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
