//! Sockets on which host programs ask for connections to the guest.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::socket::{Socket, check};
use super::{BACKLOG, Kind};

/// A host program that connected.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub socket: Socket,
    /// Of which kind it is.
    pub kind: Kind,
    /// The guest's port; if it is not known, the program will tell.
    pub port: Option<u32>,
}

/// Which port of the guest a listener is for, and who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Whoever can open the path; programs say which port they want.
    Any,
    /// This port, for peers with this context ID, if there is one.
    Port { port: u32, only: Option<u32> },
}

/// One listening socket. It never blocks.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    kind: Kind,
    door: Door,
}

impl Listener {
    /// Listens on a socket that is bound.
    pub(super) fn new(socket: OwnedFd, kind: Kind, door: Door) -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
        Ok(Self {
            fd: socket,
            kind,
            door,
        })
    }

    /// Takes the next program, if there is one.
    ///
    /// # Errors
    /// The system has no descriptor or memory for it; it goes on waiting.
    pub fn accept(&self) -> io::Result<Option<Accepted>> {
        loop {
            match self.try_accept() {
                Ok(accepted @ Some(_)) => return Ok(accepted),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// `None` is somebody who may not connect here.
    fn try_accept(&self) -> io::Result<Option<Accepted>> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let mut address = libc::sockaddr_vm {
            svm_family: 0,
            svm_reserved1: 0,
            svm_port: 0,
            svm_cid: 0,
            svm_zero: [0; 4],
        };
        let mut length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
        // SAFETY: the address has the length that is told; of a longer one the kernel writes only that much.
        let fd = check(unsafe {
            libc::accept4(
                self.fd.as_raw_fd(),
                (&raw mut address).cast(),
                &raw mut length,
                flags,
            )
        })?;
        // SAFETY: the descriptor was just made and is nobody else's.
        let socket = Socket::from_owned(unsafe { OwnedFd::from_raw_fd(fd) });
        let port = match self.door {
            Door::Any => None,
            Door::Port { only, .. } if only.is_some_and(|cid| cid != address.svm_cid) => {
                return Ok(None);
            }
            Door::Port { port, .. } => Some(port),
        };
        Ok(Some(Accepted {
            socket,
            kind: self.kind,
            port,
        }))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
