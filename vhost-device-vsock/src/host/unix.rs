//! Unix sockets in the hybrid style: host programs connect to the path and say which port they want, the guest's connections
//! go to the path with the port behind it.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::listener::{Door, Listener};
use super::socket::{Connecting, Socket, check};
use super::{Kind, OpenError};

/// What is behind the path of the socket that takes programs with messages.
const SEQPACKET: &str = ".seqpacket";

/// The names of a guest's sockets.
#[derive(Debug)]
pub struct Sockets {
    path: PathBuf,
    /// Removed when dropped.
    _names: Vec<Name>,
}

/// The name of a socket that was made here, removed when dropped if it is still the same file.
#[derive(Debug)]
struct Name {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Name {
    fn new(path: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: meta.dev(),
            inode: meta.ino(),
        })
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == (self.device, self.inode));
        if ours {
            // As unlinkat, which a confined daemon may call, and unlink it may not. Somebody may have removed it already.
            if let Ok(path) = CString::new(self.path.as_os_str().as_bytes()) {
                // SAFETY: the path ends with a zero.
                let _ = unsafe { libc::unlinkat(libc::AT_FDCWD, path.as_ptr(), 0) };
            }
        }
    }
}

impl Sockets {
    /// Listens at `path` for streams and at `path.seqpacket` for messages. A socket that an earlier process has left there is
    /// replaced.
    pub fn open(path: &Path) -> Result<(Self, Vec<Listener>), OpenError> {
        let mut names = Vec::new();
        let mut listeners = Vec::new();
        for (path, kind) in [
            (path.to_owned(), Kind::Stream),
            (append(path, SEQPACKET), Kind::Seqpacket),
        ] {
            let (listener, name) =
                listen(&path, kind).map_err(|error| OpenError::listen(path.display(), error))?;
            listeners.push(listener);
            names.push(name);
        }
        let sockets = Self {
            path: path.to_owned(),
            _names: names,
        };
        Ok((sockets, listeners))
    }

    /// Connects to the program that serves `port`.
    pub fn connect(&self, port: u32, kind: Kind) -> io::Result<(Socket, Connecting)> {
        let socket = Socket::new(libc::AF_UNIX, kind)?;
        connect(&socket, &append(&self.path, &format!("_{port}")))?;
        Ok((socket, Connecting::Done))
    }
}

fn append(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn listen(path: &Path, kind: Kind) -> io::Result<(Listener, Name)> {
    let socket = match bind(path, kind) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_dead(path, kind) => {
            fs::remove_file(path)?;
            bind(path, kind)?
        }
        other => other?,
    };
    let name = Name::new(path)?;
    Ok((Listener::new(socket, kind, Door::Any)?, name))
}

/// Whether a path is a socket that nobody listens on.
fn is_dead(path: &Path, kind: Kind) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let refused = || {
        let socket = Socket::new(libc::AF_UNIX, kind)?;
        connect(&socket, path)
    };
    is_socket && refused().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn bind(path: &Path, kind: Kind) -> io::Result<OwnedFd> {
    let socket = Socket::new(libc::AF_UNIX, kind)?;
    let (address, length) = address(path)?;
    // SAFETY: the address is a sockaddr_un of which `length` bytes are told.
    check(unsafe {
        libc::bind(
            socket.as_fd().as_raw_fd(),
            (&raw const address).cast(),
            length,
        )
    })?;
    Ok(socket.into())
}

fn connect(socket: &Socket, path: &Path) -> io::Result<()> {
    let (address, length) = address(path)?;
    // SAFETY: the address is a sockaddr_un of which `length` bytes are told.
    check(unsafe {
        libc::connect(
            socket.as_fd().as_raw_fd(),
            (&raw const address).cast(),
            length,
        )
    })?;
    Ok(())
}

fn address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    let bytes = path.as_os_str().as_bytes();
    let mut address = libc::sockaddr_un {
        sun_family: libc::AF_UNIX as libc::sa_family_t,
        sun_path: [0; 108],
    };
    // One byte stays zero.
    if bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    let length = offset_of!(libc::sockaddr_un, sun_path) + bytes.len() + 1;
    Ok((address, length as libc::socklen_t))
}
