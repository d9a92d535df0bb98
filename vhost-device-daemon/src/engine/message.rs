//! A look at a message's header before it is handled, to know what an error was about.

use std::fmt;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::FrontendReq;

const HEADER_BYTES: usize = 12;
const NEED_REPLY: u32 = 1 << 3;

/// What could be seen of the next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peeked {
    header: Option<[u32; 3]>,
}

impl Peeked {
    /// Whether the sender waits for an acknowledgement.
    pub fn needs_reply(&self) -> bool {
        self.header
            .is_some_and(|[_, flags, _]| flags & NEED_REPLY != 0)
    }
}

impl fmt::Display for Peeked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.header {
            None => f.write_str("incomplete message"),
            Some([request, ..]) => match FrontendReq::try_from(request) {
                Ok(request) => write!(f, "{request:?}"),
                Err(_) => write!(f, "unknown request {request}"),
            },
        }
    }
}

/// Waits for the next message and looks at its header without taking it. A header that arrives in pieces is not seen.
pub fn peek(stream: &UnixStream) -> Peeked {
    let mut bytes = [0u8; HEADER_BYTES];
    // SAFETY: the descriptor is open and the buffer has the length given.
    let count = unsafe {
        libc::recv(
            stream.as_raw_fd(),
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            libc::MSG_PEEK,
        )
    };
    let complete = usize::try_from(count) == Ok(HEADER_BYTES);
    Peeked {
        header: complete.then(|| words(&bytes)),
    }
}

fn words(bytes: &[u8; HEADER_BYTES]) -> [u32; 3] {
    let mut words = [0; 3];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        // Chunks of four always convert.
        *word = bytes.try_into().map_or(0, u32::from_ne_bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn peeking_takes_nothing_and_names_the_request() {
        let (mut frontend, backend) = UnixStream::pair().unwrap();
        let header: Vec<u8> = [8u32, 1 | NEED_REPLY, 0]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        frontend.write_all(&header).unwrap();
        for _ in 0..2 {
            let peeked = peek(&backend);
            assert!(peeked.needs_reply());
            assert_eq!(peeked.to_string(), "SET_VRING_NUM");
        }
    }

    #[test]
    fn an_incomplete_header_is_said_to_be_one() {
        let (mut frontend, backend) = UnixStream::pair().unwrap();
        frontend.write_all(&[1, 2, 3]).unwrap();
        assert_eq!(peek(&backend).to_string(), "incomplete message");
    }
}
