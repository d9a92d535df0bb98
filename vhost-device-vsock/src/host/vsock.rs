//! The host's own AF_VSOCK.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::listener::{Door, Listener};
use super::socket::{Connecting, Socket, check};
use super::{Kind, OpenError};
use crate::config::Forward;

/// The context IDs that a host has itself: loopback, and the host as its guests know it.
const LOCAL: std::ops::RangeInclusive<u32> = 1..=2;

/// Listens on all ports of `forward`. Where the other side is not this host but one of its guests, only that one is let in.
pub fn listen(forward: &Forward) -> Result<Vec<Listener>, OpenError> {
    let (cid, only) = if LOCAL.contains(&forward.cid) {
        (forward.cid, None)
    } else {
        (libc::VMADDR_CID_ANY, Some(forward.cid))
    };
    let ports = forward.listen.0.iter();
    ports
        .map(|&port| {
            listen_on(cid, port, only)
                .map_err(|error| OpenError::listen(format_args!("vsock {cid}:{port}"), error))
        })
        .collect()
}

fn listen_on(cid: u32, port: u32, only: Option<u32>) -> io::Result<Listener> {
    let socket = Socket::new(libc::AF_VSOCK, Kind::Stream)?;
    let address = address(cid, port);
    // SAFETY: the address has the length that is told.
    check(unsafe {
        libc::bind(
            socket.as_fd().as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    })?;
    Listener::new(socket.into(), Kind::Stream, Door::Port { port, only })
}

/// Connects, which may take a while.
pub fn connect(cid: u32, port: u32, kind: Kind) -> io::Result<(Socket, Connecting)> {
    let socket = Socket::new(libc::AF_VSOCK, kind)?;
    let address = address(cid, port);
    // SAFETY: the address has the length that is told.
    let result = check(unsafe {
        libc::connect(
            socket.as_fd().as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    });
    match result {
        Ok(_) => Ok((socket, Connecting::Done)),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            Ok((socket, Connecting::Pending))
        }
        Err(error) => Err(error),
    }
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    libc::sockaddr_vm {
        svm_family: libc::AF_VSOCK as libc::sa_family_t,
        svm_reserved1: 0,
        svm_port: port,
        svm_cid: cid,
        svm_zero: [0; 4],
    }
}
