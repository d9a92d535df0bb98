//! The control socket: whoever connects gets the counters as text and the end of the stream.
//!
//! Nothing is read from a reader, so there is nothing to get wrong for it. A reader that does not take its text delays nobody:
//! there may be so many of them, and then the next one takes the place of the oldest.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::write;

use crate::socket::Endpoint;

/// The most readers at a time.
const MAX_READERS: usize = 8;

/// One that has not taken all of its text.
#[derive(Debug)]
struct Reader {
    stream: UnixStream,
    text: String,
    sent: usize,
}

impl Reader {
    /// Sends what the reader takes now. True if nothing is left to do for it.
    fn send(&mut self) -> bool {
        while let Some(rest) = self
            .text
            .as_bytes()
            .get(self.sent..)
            .filter(|r| !r.is_empty())
        {
            // Not by send, which std would: the filter of system calls has no sendto.
            match write(&self.stream, rest) {
                Ok(0) => return true,
                Ok(count) => self.sent += count,
                Err(Errno::EINTR) => {}
                Err(error) => return error != Errno::EAGAIN,
            }
        }
        true
    }
}

/// The listening socket and its readers.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    endpoint: Endpoint,
    readers: [Option<Reader>; MAX_READERS],
    /// Where the next reader goes if there is no free place.
    oldest: usize,
}

impl ControlSocket {
    /// Serves readers on `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            readers: [const { None }; MAX_READERS],
            oldest: 0,
        }
    }

    /// The listening socket, to be polled.
    pub fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.endpoint.listener()
    }

    /// Takes the next reader and sends it what it takes of `text`. Returns its place and its descriptor, to be polled
    /// for writing, if there is a rest; closing the descriptor of the reader that was there before ends its polling.
    pub fn accept(&mut self, text: impl FnOnce() -> String) -> io::Result<Option<(usize, RawFd)>> {
        let Some(stream) = self.endpoint.accept()? else {
            return Ok(None);
        };
        // Not by the ioctl that std uses: the filter of system calls has no ioctl.
        fcntl(&stream, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut reader = Reader {
            stream,
            text: text(),
            sent: 0,
        };
        if reader.send() {
            return Ok(None);
        }
        let place = self.place();
        let descriptor = reader.stream.as_raw_fd();
        if let Some(slot) = self.readers.get_mut(place) {
            *slot = Some(reader);
        }
        Ok(Some((place, descriptor)))
    }

    /// The reader at `place` takes more, or is gone.
    pub fn resume(&mut self, place: usize) {
        if let Some(slot) = self.readers.get_mut(place)
            && slot.as_mut().is_some_and(Reader::send)
        {
            *slot = None;
        }
    }

    fn place(&mut self) -> usize {
        let free = self.readers.iter().position(Option::is_none);
        free.unwrap_or_else(|| {
            let place = self.oldest;
            self.oldest = (place + 1) % MAX_READERS;
            place
        })
    }
}
