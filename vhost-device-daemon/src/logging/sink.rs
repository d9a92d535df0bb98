//! Where log lines go, without ever waiting.
//!
//! Making stderr itself non-blocking is no way: the flag belongs to the open file description, which the shell and other
//! programs on the same terminal or pipe share, and they would see errors that they do not expect.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use nix::sys::socket::{MsgFlags, sendmsg};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::write;
use vhost_device_core::Interest;

use crate::engine::Glance;

/// How much of a line was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    All,
    Part,
    Nothing,
}

/// A way to write to a descriptor without waiting.
#[derive(Debug)]
pub(super) enum Sink {
    /// A socket, as services have it: each call can say that it does not want to wait.
    Socket(OwnedFd),
    /// A pipe or terminal, opened once more: the flag on a file description of our own disturbs nobody.
    Reopened(File),
    /// A regular file, which never makes a writer wait for a reader. Or a pipe or terminal that cannot be opened again,
    /// for lack of permission or of /proc: then room for a line is looked for first, and only another writer that
    /// takes it in between could make us wait.
    Looked(Glance, OwnedFd),
}

impl Sink {
    /// The best way to write to stderr.
    pub(super) fn stderr() -> io::Result<Self> {
        Self::to(io::stderr().as_fd().try_clone_to_owned()?)
    }

    /// The best way to write to `descriptor`.
    pub(super) fn to(descriptor: OwnedFd) -> io::Result<Self> {
        let kind = match fstat(&descriptor) {
            Ok(status) => SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT,
            Err(_) => SFlag::empty(),
        };
        if kind == SFlag::S_IFSOCK {
            return Ok(Self::Socket(descriptor));
        }
        if matches!(kind, SFlag::S_IFIFO | SFlag::S_IFCHR)
            && let Ok(file) = reopen(&descriptor)
        {
            return Ok(Self::Reopened(file));
        }
        let room = Glance::at(&descriptor, Interest::WRITABLE)?;
        Ok(Self::Looked(room, descriptor))
    }

    /// Writes as much of `line` as is taken at once. A line of up to `PIPE_BUF` bytes goes into a pipe whole or not
    /// at all.
    pub(super) fn write(&self, line: &[u8]) -> Taken {
        let written = match self {
            Self::Socket(socket) => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                // As sendmsg, which is a system call that the engine makes as well, and sendto is not.
                sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(line)], &[], flags, None)
            }
            Self::Reopened(file) => write(file, line),
            Self::Looked(room, descriptor) if room.look().writable => write(descriptor, line),
            Self::Looked(..) => Ok(0),
        };
        match written {
            Ok(count) if count == line.len() => Taken::All,
            Ok(0) | Err(_) => Taken::Nothing,
            Ok(_) => Taken::Part,
        }
    }
}

fn reopen(descriptor: &OwnedFd) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenOptions::new()
        .write(true)
        .custom_flags(flags.bits())
        .open(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}
