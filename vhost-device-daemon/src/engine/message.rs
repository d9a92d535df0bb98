//! A look at a message's header before it is handled, to know what an error was about.

use std::fmt;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::FrontendReq;

const HEADER_BYTES: usize = 12;
const NEED_REPLY: u32 = 1 << 3;

/// What could be seen of the next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peeked {
    header: Option<[u32; 3]>,
    descriptors: usize,
}

impl Peeked {
    /// Whether the message can be handled at all.
    pub fn is_acceptable(&self) -> bool {
        self.descriptors <= MAX_DESCRIPTORS
    }

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

/// Most descriptors that a message may carry. The `vhost` crate loses a message with more, and its sender would wait for
/// ever.
const MAX_DESCRIPTORS: usize = 32;

/// Room for the control message of one descriptor too many.
#[repr(align(8))]
struct Ancillary([u8; 16 + 4 * (MAX_DESCRIPTORS + 2)]);

/// Waits for the next message and looks at its header without taking it. A header that arrives in pieces is not seen.
pub fn peek(stream: &UnixStream) -> Peeked {
    let mut bytes = [0u8; HEADER_BYTES];
    let mut ancillary = Ancillary([0; _]);
    let mut vector = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: an all-zero msghdr is valid; what matters is set below.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut vector;
    message.msg_iovlen = 1;
    message.msg_control = ancillary.0.as_mut_ptr().cast();
    message.msg_controllen = ancillary.0.len() as _;
    let flags = libc::MSG_PEEK | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the descriptor is open, and the message points to buffers of the lengths given.
    let count = unsafe { libc::recvmsg(stream.as_raw_fd(), &mut message, flags) };
    let complete = usize::try_from(count) == Ok(HEADER_BYTES);
    Peeked {
        header: complete.then(|| words(&bytes)),
        descriptors: descriptors(&message).len(),
    }
}

/// The descriptors that came with a message. They are copies made by the look, and closed when dropped.
fn descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut found = Vec::new();
    // SAFETY: the kernel filled in the control buffer and its length.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() };
    let Some(header) = header else {
        return found;
    };
    if header.cmsg_level != libc::SOL_SOCKET || header.cmsg_type != libc::SCM_RIGHTS {
        return found;
    }
    // SAFETY: computes a constant.
    let prefix = unsafe { libc::CMSG_LEN(0) } as usize;
    #[allow(
        clippy::unnecessary_cast,
        reason = "the field's type differs by C library"
    )]
    let count = (header.cmsg_len as usize).saturating_sub(prefix) / size_of::<RawFd>();
    // SAFETY: the header is followed by its data.
    let data = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
    for index in 0..count {
        // SAFETY: the kernel wrote `count` open descriptors, which belong to nobody else yet.
        found.push(unsafe { OwnedFd::from_raw_fd(data.add(index).read_unaligned()) });
    }
    found
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
    fn descriptors_are_counted_and_none_is_kept() {
        use std::io::IoSlice;

        use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        for (sent, acceptable) in [(0, true), (1, true), (32, true), (33, false), (200, false)] {
            let (frontend, backend) = UnixStream::pair().unwrap();
            let attached = vec![frontend.as_raw_fd(); sent];
            let rights = [ControlMessage::ScmRights(&attached)];
            let rights = if sent == 0 { &[] } else { &rights[..] };
            let header = [0; HEADER_BYTES];
            sendmsg::<()>(
                frontend.as_raw_fd(),
                &[IoSlice::new(&header)],
                rights,
                MsgFlags::empty(),
                None,
            )
            .unwrap();
            let before = open();
            assert_eq!(peek(&backend).is_acceptable(), acceptable, "{sent}");
            // Other tests of this process open and close descriptors meanwhile.
            assert!(open() < before + 20, "{sent}");
        }
    }

    #[test]
    fn an_incomplete_header_is_said_to_be_one() {
        let (mut frontend, backend) = UnixStream::pair().unwrap();
        frontend.write_all(&[1, 2, 3]).unwrap();
        assert_eq!(peek(&backend).to_string(), "incomplete message");
    }
}
