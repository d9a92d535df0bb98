//! Taking over descriptors that the process was started with.

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockType, UnixAddr, getpeername, getsockname, getsockopt, sockopt};

use super::Source;
use crate::exit::StartError;

/// Takes over the inherited descriptor `number`, a unix stream socket that listens or is connected. `label` names it in
/// messages.
///
/// Sets close-on-exec. A listening socket becomes non-blocking, because another process may hold it as well and
/// accept the connection that made it readable; a connection becomes blocking.
///
/// # Errors
/// The descriptor is not there, is not such a socket, or was not inherited; the exit code is 2.
pub(super) fn adopt(number: RawFd, label: &str) -> Result<Source, StartError> {
    let refused = |what: &str| StartError::usage(format!("{label} {what}"));
    match getsockname::<UnixAddr>(number) {
        Ok(_) => {}
        Err(Errno::EBADF) => {
            return Err(
                refused("is not open").with_hint("whoever starts the program has to pass it on")
            );
        }
        Err(Errno::ENOTSOCK) => return Err(refused("is not a socket")),
        Err(_) => return Err(refused("is not a unix socket")),
    }
    let Some(descriptor) = claim(number).map_err(|error| refused(error.desc()))? else {
        return Err(refused(
            "was not inherited, the program opened it by itself",
        ));
    };
    if !matches!(
        getsockopt(&descriptor, sockopt::SockType),
        Ok(SockType::Stream)
    ) {
        return Err(refused("is not a stream socket"));
    }
    let source = if getsockopt(&descriptor, sockopt::AcceptConn) == Ok(true) {
        let listener = UnixListener::from(descriptor);
        listener
            .set_nonblocking(true)
            .map(|()| Source::Listening(listener))
    } else if getpeername::<UnixAddr>(number).is_ok() {
        let stream = UnixStream::from(descriptor);
        stream
            .set_nonblocking(false)
            .map(|()| Source::Connected(Some(stream)))
    } else {
        return Err(refused("neither listens nor is connected"));
    };
    source.map_err(|error| StartError::io("use", label, &error))
}

/// Owns the open descriptor `number`, or `None` if it is one that this process opened itself.
fn claim(number: RawFd) -> nix::Result<Option<OwnedFd>> {
    // SAFETY: the caller has just used the descriptor, so it is open. It is not closed during this borrow: nobody else
    // owns it if it was inherited, and if not, its owner does not run concurrently with the process's start.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    // What came through exec has close-on-exec clear, or it would not be here. All that this process opens has it
    // set. So this flag tells whether the descriptor has an owner already, also when it is claimed a second time.
    let flags = FdFlag::from_bits_retain(fcntl(borrowed, FcntlArg::F_GETFD)?);
    if flags.contains(FdFlag::FD_CLOEXEC) {
        return Ok(None);
    }
    fcntl(borrowed, FcntlArg::F_SETFD(flags | FdFlag::FD_CLOEXEC))?;
    // SAFETY: the descriptor is open and was inherited, so nothing in this process owns it, and the flag that was
    // just set keeps it from being claimed again.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }))
}
