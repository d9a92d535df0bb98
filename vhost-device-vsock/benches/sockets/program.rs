//! The other end of a stream, as a process of its own: what a host's program costs must not be hidden in ours.

use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vhost_device_testkit::failure::{Failure, Result};
use vhost_device_testkit::sys;

/// How long a program may go on after its stream has ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// The first argument of this program when it is the other end.
pub const VERB: &str = "program";

/// What a program does with its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads as much as comes.
    Sink,
    /// Writes as much as goes.
    Source,
    /// Writes what it reads.
    Echo,
}

impl Role {
    const ALL: [(&str, Self); 3] = [
        ("sink", Self::Sink),
        ("source", Self::Source),
        ("echo", Self::Echo),
    ];

    fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, role)| *role == self);
        found.map_or("", |(name, _)| name)
    }
}

/// Serves the stream that is the standard input with reads or writes of some bytes, until it ends.
pub fn serve(role: &str, size: &str) -> Result<()> {
    let found = Role::ALL.iter().find(|(name, _)| *name == role);
    let Some((_, role)) = found else {
        return Err(Failure::new(format!("no program is called {role}")));
    };
    let mut stream = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut buffer = vec![0x5a; size.parse()?];
    loop {
        let over = match role {
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

fn echo(stream: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let length = stream.read(buffer)?;
    stream.write_all(buffer.get(..length).unwrap_or_default())?;
    Ok(length)
}

/// A running program; killed on drop.
pub struct Program(Child);

impl Program {
    /// Starts it on its end of a stream.
    pub fn start(role: Role, size: usize, stream: UnixStream) -> Result<Self> {
        let child = Command::new(env::current_exe()?)
            .args([VERB, role.name(), &size.to_string()])
            .stdin(Stdio::from(OwnedFd::from(stream)))
            .spawn()?;
        Ok(Self(child))
    }

    /// Waits for its end, which follows that of the stream.
    pub fn end(mut self) -> Result<()> {
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
