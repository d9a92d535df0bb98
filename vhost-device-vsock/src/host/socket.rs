//! A socket that never blocks, and system calls on it that move bytes from and to guest memory.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null;

use super::Kind;
use super::vectors::Vectors;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connecting {
    /// It is there.
    Done,
    /// It is there, or has failed, once the socket is writable: see [`Socket::connected`].
    Pending,
}

/// What came from a host program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes; 0 is the end of a stream.
    pub bytes: usize,
    /// The message ends a record.
    pub end_of_record: bool,
}

/// A connection with a host program.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// A socket of this family.
    pub(super) fn new(family: i32, kind: Kind) -> io::Result<Self> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers are passed.
        let fd = check(unsafe { libc::socket(family, kind.number() | flags, 0) })?;
        // SAFETY: the descriptor was just made and is nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// A socket that was accepted without blocking.
    pub(super) fn from_owned(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends from guest memory. For a seqpacket socket this is one message, which is sent as a whole or not at all.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if the host program has to read first; others if it is gone.
    pub fn send(&self, vectors: &mut Vectors<'_>, end_of_record: bool) -> io::Result<usize> {
        let message = message(vectors.as_mut_ptr(), vectors.count());
        // SAFETY: the vectors' pieces are mapped as long as `vectors` is borrowed; the kernel only reads them. All else in the
        // message is null.
        let sent = unsafe { libc::sendmsg(self.0.as_raw_fd(), &message, flags(end_of_record)) };
        length(sent)
    }

    /// Sends bytes of this process, as [`send`](Self::send) does.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_bytes(&self, bytes: &[u8], end_of_record: bool) -> io::Result<usize> {
        let mut vector = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let message = message(&raw mut vector, 1);
        // SAFETY: the one vector is a slice that lives through the call; the kernel only reads it. All else in the message is null.
        let sent = unsafe { libc::sendmsg(self.0.as_raw_fd(), &message, flags(end_of_record)) };
        length(sent)
    }

    /// Receives into guest memory.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is nothing; others if the host program is gone.
    pub fn receive(&self, vectors: &mut Vectors<'_>) -> io::Result<usize> {
        let mut message = message(vectors.as_mut_ptr(), vectors.count());
        // SAFETY: the vectors' pieces are mapped, writable and guest memory as long as `vectors` is borrowed: nothing of this
        // process refers to them. All else in the message is null.
        let received =
            unsafe { libc::recvmsg(self.0.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) };
        length(received)
    }

    /// Receives into a buffer of this process: some of a stream, or one message, of which what does not fit is lost.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_bytes(&self, bytes: &mut [u8]) -> io::Result<Received> {
        self.receive_to(bytes, 0)
    }

    fn receive_to(&self, bytes: &mut [u8], flags: i32) -> io::Result<Received> {
        let mut vector = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        let mut message = message(&raw mut vector, 1);
        let flags = libc::MSG_DONTWAIT | flags;
        // SAFETY: the one vector is a slice that is borrowed mutably through the call. All else in the message is null.
        let received = unsafe { libc::recvmsg(self.0.as_raw_fd(), &mut message, flags) };
        Ok(Received {
            bytes: length(received)?,
            end_of_record: message.msg_flags & libc::MSG_EOR != 0,
        })
    }

    /// Looks at what comes next and leaves it there. Returns how many bytes there are: those that fit, or of a `message`
    /// all.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn peek(&self, bytes: &mut [u8], message: bool) -> io::Result<usize> {
        let all = if message { libc::MSG_TRUNC } else { 0 };
        Ok(self.receive_to(bytes, libc::MSG_PEEK | all)?.bytes)
    }

    /// Ends the connection in these directions, as seen from here. One that is gone already is as good as ended.
    pub fn shut_down(&self, receive: bool, send: bool) {
        let how = match (receive, send) {
            (true, true) => libc::SHUT_RDWR,
            (true, false) => libc::SHUT_RD,
            (false, true) => libc::SHUT_WR,
            (false, false) => return,
        };
        // SAFETY: no pointers are passed.
        let _ = unsafe { libc::shutdown(self.0.as_raw_fd(), how) };
    }

    /// Whether the host program has closed its end, so that nothing can be sent to it any more.
    pub fn is_closed(&self) -> bool {
        self.look(0)
            .is_ok_and(|seen| seen & (libc::POLLHUP | libc::POLLERR) != 0)
    }

    /// Whether the host program will send no more. What it sent before may still be there.
    pub fn is_ended(&self) -> bool {
        let end = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
        self.look(libc::POLLRDHUP).is_ok_and(|seen| seen & end != 0)
    }

    /// Which of these events, hang-ups and errors there are now. By ppoll: not all architectures have poll.
    fn look(&self, events: libc::c_short) -> io::Result<libc::c_short> {
        let mut poll = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events,
            revents: 0,
        };
        let at_once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: one valid pollfd, a valid timespec, and no change of the signals that are blocked.
        check(unsafe { libc::ppoll(&raw mut poll, 1, &raw const at_once, null()) })?;
        Ok(poll.revents)
    }

    /// How an attempt to connect that took a while ended.
    ///
    /// # Errors
    /// From the operating system: it failed. [`io::ErrorKind::WouldBlock`] if it goes on.
    pub fn connected(&self) -> io::Result<()> {
        let seen = self.look(libc::POLLOUT)?;
        match self.option(libc::SO_ERROR)? {
            0 if seen & libc::POLLOUT != 0 => Ok(()),
            0 if seen != 0 => Err(io::ErrorKind::ConnectionReset.into()),
            0 => Err(io::ErrorKind::WouldBlock.into()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Makes room for messages of `bytes`, as far as the system allows.
    pub fn grow_send_buffer(&self, bytes: u32) {
        let size = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // SAFETY: the option is an int, and so is what the pointer is to.
        let _ = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_SNDBUF,
                (&raw const size).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
    }

    fn option(&self, name: i32) -> io::Result<i32> {
        let mut value: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the option is an int, and so is what the pointer is to; its length is told.
        check(unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                name,
                (&raw mut value).cast(),
                &raw mut length,
            )
        })?;
        Ok(value)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn flags(end_of_record: bool) -> i32 {
    let record = if end_of_record { libc::MSG_EOR } else { 0 };
    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | record
}

fn message(vectors: *mut libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: a msghdr is numbers and pointers; zero and null are valid for all of them.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors;
    message.msg_iovlen = count as _;
    message
}

/// The result of a system call.
pub(super) fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn length(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.0
    }
}
