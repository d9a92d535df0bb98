//! What is in the place where a socket shall go.

use std::fs::{self, FileType};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// What is in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occupant {
    /// Nothing.
    Nobody,
    /// A socket that nobody listens on any more, or a symbolic link to one or to nothing.
    Dead,
    /// A socket, or a symbolic link to one, that somebody listens on.
    Alive,
    /// Something that is no socket, and that is never removed.
    Foreign(&'static str),
}

impl Occupant {
    /// Looks at `path`. A socket is told dead from alive by connecting to it.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Self::asked(path, SockType::Stream)
    }

    /// As [`Occupant::of`], without whoever listens there noticing: the kernel connects no sockets of different types, and
    /// says so only where there is somebody to connect to.
    pub(crate) fn noticed(path: &Path) -> io::Result<Self> {
        Self::asked(path, SockType::Datagram)
    }

    fn asked(path: &Path, kind_of_socket: SockType) -> io::Result<Self> {
        let Some(kind) = found(fs::symlink_metadata(path).map(|status| status.file_type()))? else {
            return Ok(Self::Nobody);
        };
        if kind.is_socket() {
            return probe(path, kind_of_socket);
        }
        if !kind.is_symlink() {
            return Ok(Self::Foreign(describe(kind)));
        }
        match found(fs::metadata(path))? {
            None => Ok(Self::Dead),
            Some(target) if target.file_type().is_socket() => probe(path, kind_of_socket),
            Some(_) => Ok(Self::Foreign(
                "a symbolic link to something else than a socket",
            )),
        }
    }
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn describe(kind: FileType) -> &'static str {
    if kind.is_file() {
        "a regular file"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else {
        "a device"
    }
}

/// Connects without waiting: a listener that is stopped or has a full backlog is alive, too.
fn probe(path: &Path, kind: SockType) -> io::Result<Occupant> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let client = socket(AddressFamily::Unix, kind, flags, None)?;
    match connect(client.as_raw_fd(), &UnixAddr::new(path)?) {
        // EPROTOTYPE: somebody has it open, but for sockets of another type.
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => Ok(Occupant::Alive),
        Err(Errno::ECONNREFUSED) => Ok(Occupant::Dead),
        Err(Errno::ENOENT) => Ok(Occupant::Nobody),
        Err(error) => Err(error.into()),
    }
}
