//! The frontend's end of the control socket: any message, well formed or not.

use std::cell::Cell;
use std::fmt::{self, Display};
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::memory::{Memory, Place, Region};
use crate::message::{self, HEADER, VringAddress, flag, request};
use crate::sys;

/// How long a reply may take before the case fails.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an exchange on the control socket gave no value.
#[derive(Debug)]
pub enum ControlError {
    /// The device closed the connection.
    Closed,
    /// The device answered with this error code.
    Refused(u64),
    /// Neither a reply nor a hang-up within the time given.
    Silent(Duration),
    /// A reply that does not fit the request.
    Malformed(String),
    /// The socket itself failed.
    Io(io::Error),
}

impl Display for ControlError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => out.write_str("the connection was closed"),
            Self::Refused(code) => write!(out, "refused with code {code}"),
            Self::Silent(time) => write!(out, "no reply and no hang-up within {time:?}"),
            Self::Malformed(what) => write!(out, "malformed reply: {what}"),
            Self::Io(error) => write!(out, "socket: {error}"),
        }
    }
}

impl std::error::Error for ControlError {}

impl From<io::Error> for ControlError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A peer that closes with unread bytes in its buffer resets the connection instead of ending it.
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Closed,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent(REPLY_TIMEOUT),
            _ => Self::Io(error),
        }
    }
}

/// A result of the control socket.
pub type Result<T> = std::result::Result<T, ControlError>;

/// One received message.
#[derive(Debug)]
pub struct Reply {
    /// Header field `request`.
    pub request: u32,
    /// Header field `flags`.
    pub flags: u32,
    /// Everything behind the header.
    pub body: Vec<u8>,
    /// The attached descriptor, if there was one.
    pub file: Option<File>,
}

impl Reply {
    /// The body as one 64-bit number.
    ///
    /// # Errors
    /// When the body is not 8 bytes long.
    pub fn number(&self) -> Result<u64> {
        match <[u8; 8]>::try_from(self.body.as_slice()) {
            Ok(bytes) => Ok(u64::from_ne_bytes(bytes)),
            Err(_) => Err(ControlError::Malformed(format!(
                "{} answered with {} bytes instead of 8",
                request::name(self.request),
                self.body.len()
            ))),
        }
    }
}

/// What a device did with a message that it need not like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Acknowledged as done.
    Accepted,
    /// Acknowledged with an error code; the connection lives.
    Refused(u64),
    /// The connection was closed.
    Closed,
}

/// Where a frontend dies: after so many whole messages and so many bytes of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Messages that are sent whole.
    pub messages: u32,
    /// Bytes of the message after them.
    pub bytes: usize,
}

/// The frontend's end of one connection. Every wait ends after [`REPLY_TIMEOUT`].
#[derive(Debug)]
pub struct Control {
    stream: UnixStream,
    cut: Cell<Option<Cut>>,
    handed_over: bool,
    /// REPLY_ACK is agreed on: setters ask for an acknowledgement and wait for it.
    pub acknowledged: bool,
}

impl Control {
    /// Connects to a daemon's socket.
    ///
    /// # Errors
    /// As connect(2).
    pub fn connect(path: &Path) -> io::Result<Self> {
        Self::over(sys::connect(path, REPLY_TIMEOUT)?)
    }

    /// Uses an already connected socket.
    ///
    /// # Errors
    /// When the timeouts cannot be set.
    pub fn over(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Self {
            stream,
            cut: Cell::new(None),
            handed_over: false,
            acknowledged: false,
        })
    }

    /// The socket.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Another process has copies of the socket from now on: dropping this end leaves the connection open.
    pub fn hand_over(&mut self) {
        self.handed_over = true;
    }

    /// Makes this frontend die in the middle of its messages: see [`Cut`].
    pub fn cut(&self, cut: Cut) {
        self.cut.set(Some(cut));
    }

    /// Whether the death that [`Control::cut`] planned is still to come.
    pub fn is_cut_ahead(&self) -> bool {
        self.cut.get().is_some()
    }

    fn die(&self, bytes: &[u8], fds: &[RawFd]) -> Result<()> {
        self.cut.set(None);
        if !bytes.is_empty() {
            self.send_bytes(bytes, fds)?;
        }
        self.stream.shutdown(Shutdown::Both)?;
        Err(ControlError::Closed)
    }

    /// Sends bytes as they are, with descriptors attached to the first of them.
    ///
    /// # Errors
    /// [`ControlError::Closed`] when the peer is gone, or as sendmsg(2).
    pub fn send_bytes(&self, bytes: &[u8], fds: &[RawFd]) -> Result<()> {
        let mut sent = 0;
        while sent < bytes.len() {
            let fds = if sent == 0 { fds } else { &[] };
            match self.stream.send_with_fds(&[&bytes[sent..]], fds) {
                Ok(count) => sent += count,
                Err(error) => {
                    let error = io::Error::from(error);
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error.into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends a message whose header is consistent with its body.
    ///
    /// # Errors
    /// As [`Control::send_bytes`].
    pub fn send(&self, request: u32, flags: u32, body: &[u8], fds: &[RawFd]) -> Result<()> {
        let mut bytes = message::header(request, flags, body.len() as u32).to_vec();
        bytes.extend_from_slice(body);
        match self.cut.get() {
            Some(Cut {
                messages: 0,
                bytes: some,
            }) => {
                return self.die(&bytes[..some.min(bytes.len())], fds);
            }
            Some(Cut { messages, bytes }) => self.cut.set(Some(Cut {
                messages: messages - 1,
                bytes,
            })),
            None => {}
        }
        self.send_bytes(&bytes, fds)
    }

    /// Receives one message.
    ///
    /// # Errors
    /// [`ControlError::Closed`] at the end of the stream, [`ControlError::Silent`] after the timeout.
    pub fn receive(&self) -> Result<Reply> {
        let mut header = [0; HEADER];
        let file = self.receive_exactly(&mut header)?;
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| header[at + i]));
        let size = word(8);
        if size > 0x10000 {
            return Err(ControlError::Malformed(format!("a body of {size} bytes")));
        }
        let mut body = vec![0; size as usize];
        let late = self.receive_exactly(&mut body)?;
        Ok(Reply {
            request: word(0),
            flags: word(4),
            body,
            file: file.or(late),
        })
    }

    fn receive_exactly(&self, out: &mut [u8]) -> Result<Option<File>> {
        let mut file = None;
        let mut done = 0;
        while done < out.len() {
            match self.stream.recv_with_fd(&mut out[done..]) {
                Ok((0, _)) => return Err(ControlError::Closed),
                Ok((count, received)) => {
                    done += count;
                    file = file.or(received);
                }
                Err(error) => {
                    let error = io::Error::from(error);
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error.into());
                    }
                }
            }
        }
        Ok(file)
    }

    /// Receives the reply to `request`.
    ///
    /// # Errors
    /// As [`Control::receive`]; [`ControlError::Malformed`] for anything that is not a reply to it.
    pub fn receive_reply(&self, request: u32) -> Result<Reply> {
        let reply = self.receive()?;
        if reply.request != request || reply.flags & 0x7 != flag::VERSION | flag::REPLY {
            return Err(ControlError::Malformed(format!(
                "{} with flags {:#x} in answer to {}",
                request::name(reply.request),
                reply.flags,
                request::name(request)
            )));
        }
        Ok(reply)
    }

    /// Sends a request that is always answered and receives the answer.
    ///
    /// # Errors
    /// As [`Control::receive_reply`].
    pub fn ask(&self, request: u32, body: &[u8]) -> Result<Reply> {
        self.send(request, flag::VERSION, body, &[])?;
        self.receive_reply(request)
    }

    /// Sends a request that has no answer of its own, and waits for the acknowledgement where that is agreed on.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when the acknowledgement carries an error code.
    pub fn tell(&self, request: u32, body: &[u8], fds: &[RawFd]) -> Result<()> {
        if !self.acknowledged {
            return self.send(request, flag::VERSION, body, fds);
        }
        self.send(request, flag::VERSION | flag::NEED_REPLY, body, fds)?;
        match self.receive_reply(request)?.number()? {
            0 => Ok(()),
            code => Err(ControlError::Refused(code)),
        }
    }

    /// Sends a message and finds out what the device did with it, whatever that is.
    ///
    /// A question (see [`request::is_question`]) is answered or not. Where no acknowledgement is agreed on, a GET_FEATURES behind the message tells whether the connection lives.
    ///
    /// # Errors
    /// [`ControlError::Silent`] when it did nothing at all, [`ControlError::Malformed`] for a reply that is none.
    pub fn verdict(&self, request: u32, flags: u32, body: &[u8], fds: &[RawFd]) -> Result<Verdict> {
        let sent = self.send(request, flags, body, fds);
        self.verdict_of(request, flags, sent)
    }

    /// As [`Control::verdict`], for bytes whose header need not fit its body.
    ///
    /// # Errors
    /// As [`Control::verdict`].
    pub fn verdict_on_bytes(&self, bytes: &[u8], fds: &[RawFd]) -> Result<Verdict> {
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        let sent = self.send_bytes(bytes, fds);
        self.verdict_of(word(0), word(4), sent)
    }

    /// What the device does with a request that was already sent with these flags.
    ///
    /// # Errors
    /// As [`Control::verdict`].
    pub fn verdict_on_sent(&self, request: u32, flags: u32) -> Result<Verdict> {
        self.verdict_of(request, flags, Ok(()))
    }

    fn verdict_of(&self, request: u32, flags: u32, sent: Result<()>) -> Result<Verdict> {
        let acknowledged = flags & flag::NEED_REPLY != 0 && self.acknowledged;
        let outcome = sent.and_then(|()| {
            if request::is_question(request) {
                self.receive_reply(request).map(|reply| refusal_in(&reply))
            } else if acknowledged {
                self.receive_reply(request)?.number()
            } else {
                self.ask(request::GET_FEATURES, &[]).map(|_| 0)
            }
        });
        match outcome {
            Ok(0) => Ok(Verdict::Accepted),
            Ok(code) => Ok(Verdict::Refused(code)),
            Err(ControlError::Closed) => Ok(Verdict::Closed),
            Err(error) => Err(error),
        }
    }

    /// Waits until the device has closed the connection; whatever it still sends is dropped.
    ///
    /// # Errors
    /// [`ControlError::Silent`] when it has not after `timeout`.
    pub fn wait_closed(&self, timeout: Duration) -> Result<()> {
        let mut sink = [0; 4096];
        let closed = sys::wait_for(timeout, || {
            if !sys::readable(&self.stream, Duration::from_millis(1)).ok()? {
                return None;
            }
            match self.stream.recv_with_fd(&mut sink) {
                Ok((0, _)) => Some(()),
                Ok(_) => None,
                Err(error) => {
                    let error = io::Error::from(error);
                    (error.kind() == io::ErrorKind::ConnectionReset).then_some(())
                }
            }
        });
        closed.ok_or(ControlError::Silent(timeout))
    }

    /// Whether the connection still stands: no end of stream is waiting to be read.
    pub fn is_open(&self) -> bool {
        let events = sys::poll(&self.stream, libc::POLLRDHUP, Duration::ZERO);
        matches!(events, Ok(0))
    }
}

impl Drop for Control {
    /// Ends the connection now. Closing the descriptor would not do: while another test starts a process, the child has
    /// a copy of it for the time between fork and exec.
    fn drop(&mut self) {
        if !self.handed_over {
            // Fails when the peer has already closed, which is just as well.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }
}

/// The error code that the answer to a question carries in its own way; 0 for a good answer.
fn refusal_in(reply: &Reply) -> u64 {
    let number = reply.number().unwrap_or(0);
    match reply.request {
        // An empty payload behind offset, size and flags.
        request::GET_CONFIG => u64::from(reply.body.len() <= 12),
        request::CHECK_DEVICE_STATE => number,
        request::SET_DEVICE_STATE_FD => number & 0xff,
        request::GET_INFLIGHT_FD | request::GET_SHARED_OBJECT | request::POSTCOPY_ADVISE => {
            u64::from(reply.file.is_none())
        }
        request::SET_LOG_BASE => number,
        _ => 0,
    }
}

/// The messages of a well-behaved frontend.
impl Control {
    /// The device's virtio feature bits.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn features(&self) -> Result<u64> {
        self.ask(request::GET_FEATURES, &[])?.number()
    }

    /// The protocol feature bits on offer.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn protocol_features(&self) -> Result<u64> {
        self.ask(request::GET_PROTOCOL_FEATURES, &[])?.number()
    }

    /// Agrees on virtio features.
    ///
    /// # Errors
    /// As [`Control::tell`].
    pub fn set_features(&self, features: u64) -> Result<()> {
        self.tell(request::SET_FEATURES, &message::number(features), &[])
    }

    /// Agrees on protocol features; acknowledgements work from here on when REPLY_ACK is among them.
    ///
    /// # Errors
    /// As [`Control::tell`].
    pub fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        self.acknowledged = false;
        self.tell(
            request::SET_PROTOCOL_FEATURES,
            &message::number(features),
            &[],
        )?;
        self.acknowledged = features & message::protocol::REPLY_ACK != 0;
        Ok(())
    }

    /// Takes ownership of the session.
    ///
    /// # Errors
    /// As [`Control::tell`].
    pub fn set_owner(&self) -> Result<()> {
        self.tell(request::SET_OWNER, &[], &[])
    }

    /// The number of queues.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn queue_count(&self) -> Result<u64> {
        self.ask(request::GET_QUEUE_NUM, &[])?.number()
    }

    /// Hands over all of the guest's memory.
    ///
    /// # Errors
    /// As [`Control::tell`].
    pub fn set_memory(&self, memory: &Memory) -> Result<()> {
        let places: Vec<Place> = memory.regions().iter().map(Region::place).collect();
        let fds: Vec<RawFd> = memory
            .regions()
            .iter()
            .map(|region| region.file().as_raw_fd())
            .collect();
        self.tell(
            request::SET_MEM_TABLE,
            &message::memory_table(&places),
            &fds,
        )
    }

    /// Adds one region.
    ///
    /// # Errors
    /// As [`Control::tell`].
    pub fn add_region(&self, region: &Region) -> Result<()> {
        self.tell(
            request::ADD_MEM_REG,
            &message::single_region(region.place()),
            &[region.file().as_raw_fd()],
        )
    }

    /// Removes one region.
    ///
    /// # Errors
    /// As [`Control::tell`].
    pub fn remove_region(&self, place: Place) -> Result<()> {
        self.tell(request::REM_MEM_REG, &message::single_region(place), &[])
    }

    /// How many memory regions fit.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn memory_slots(&self) -> Result<u64> {
        self.ask(request::GET_MAX_MEM_SLOTS, &[])?.number()
    }

    /// Sets a ring's size.
    ///
    /// # Errors
    /// As [`Control::tell`].
    pub fn set_vring_num(&self, index: u32, num: u32) -> Result<()> {
        self.tell(
            request::SET_VRING_NUM,
            &message::vring_state(index, num),
            &[],
        )
    }

    /// Sets a ring's addresses.
    ///
    /// # Errors
    /// As [`Control::tell`].
    pub fn set_vring_address(&self, index: u32, address: VringAddress) -> Result<()> {
        self.tell(
            request::SET_VRING_ADDR,
            &message::vring_address(index, address),
            &[],
        )
    }

    /// Sets the next available index that the device looks at.
    ///
    /// # Errors
    /// As [`Control::tell`].
    pub fn set_vring_base(&self, index: u32, base: u16) -> Result<()> {
        self.tell(
            request::SET_VRING_BASE,
            &message::vring_state(index, u32::from(base)),
            &[],
        )
    }

    /// Stops a ring; its next available index.
    ///
    /// # Errors
    /// As [`Control::ask`]; [`ControlError::Malformed`] when the answer is for another ring.
    pub fn vring_base(&self, index: u32) -> Result<u16> {
        let reply = self.ask(request::GET_VRING_BASE, &message::vring_state(index, 0))?;
        let value = reply.number()?.to_ne_bytes();
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| value[at + i]));
        match u16::try_from(word(4)) {
            Ok(base) if word(0) == index => Ok(base),
            _ => Err(ControlError::Malformed(format!(
                "GET_VRING_BASE of ring {index} answered ring {} base {}",
                word(0),
                word(4)
            ))),
        }
    }

    /// Gives a ring its kick, call or error descriptor (`request` says which).
    ///
    /// # Errors
    /// As [`Control::tell`].
    pub fn set_vring_descriptor(&self, request: u32, index: u8, fd: &impl AsRawFd) -> Result<()> {
        self.tell(
            request,
            &message::vring_descriptor(index, true),
            &[fd.as_raw_fd()],
        )
    }

    /// Enables or disables a ring.
    ///
    /// # Errors
    /// As [`Control::tell`].
    pub fn set_vring_enable(&self, index: u32, enable: bool) -> Result<()> {
        self.tell(
            request::SET_VRING_ENABLE,
            &message::vring_state(index, u32::from(enable)),
            &[],
        )
    }

    /// Reads `size` bytes of the configuration space at `offset`.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when the device answers with an empty payload, the protocol's error.
    pub fn config(&self, offset: u32, size: u32) -> Result<Vec<u8>> {
        let body = message::config(offset, size, &vec![0; size as usize]);
        let reply = self.ask(request::GET_CONFIG, &body)?;
        let word = |at: usize| {
            reply
                .body
                .get(at..at + 4)
                .map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
        };
        match (word(0), word(4), reply.body.get(12..)) {
            (_, Some(0), Some([])) => Err(ControlError::Refused(1)),
            (_, _, Some([])) if size != 0 => Err(ControlError::Refused(1)),
            (Some(at), Some(len), Some(payload))
                if at == offset && len == size && payload.len() == size as usize =>
            {
                Ok(payload.to_vec())
            }
            _ => Err(ControlError::Malformed(format!(
                "GET_CONFIG {offset}+{size} answered with {} bytes, offset {:?}, size {:?}",
                reply.body.len(),
                word(0),
                word(4)
            ))),
        }
    }

    /// Writes bytes of the configuration space at `offset`.
    ///
    /// # Errors
    /// As [`Control::tell`].
    pub fn set_config(&self, offset: u32, data: &[u8]) -> Result<()> {
        self.tell(
            request::SET_CONFIG,
            &message::config(offset, data.len() as u32, data),
            &[],
        )
    }

    /// Hands over the dirty log: one bit per page, `len` bytes of the file from offset 0. This one is always answered.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub fn set_log(&self, len: u64, file: &File) -> Result<()> {
        self.send(
            request::SET_LOG_BASE,
            flag::VERSION,
            &message::log(len, 0),
            &[file.as_raw_fd()],
        )?;
        self.receive_reply(request::SET_LOG_BASE).map(drop)
    }

    /// Resets the device and disables its rings.
    ///
    /// # Errors
    /// As [`Control::tell`].
    pub fn reset_device(&self) -> Result<()> {
        self.tell(request::RESET_DEVICE, &[], &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;

    fn pair() -> (Control, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Control::over(ours).unwrap(), theirs)
    }

    fn answer(mut stream: &UnixStream, request: u32, body: &[u8]) {
        let flags = flag::VERSION | flag::REPLY;
        stream
            .write_all(&message::header(request, flags, body.len() as u32))
            .unwrap();
        stream.write_all(body).unwrap();
    }

    #[test]
    fn a_message_is_header_and_body_with_its_descriptors() {
        let (control, theirs) = pair();
        let (reader, _writer) = sys::pipe().unwrap();
        control
            .send(
                request::SET_VRING_KICK,
                flag::VERSION,
                &message::vring_descriptor(2, true),
                &[reader.as_raw_fd()],
            )
            .unwrap();
        let mut bytes = [0; 20];
        let (count, file) = theirs.recv_with_fd(&mut bytes).unwrap();
        assert_eq!((count, file.is_some()), (20, true));
        assert_eq!(bytes[..12], message::header(12, 1, 8));
        assert_eq!(bytes[12..], 2u64.to_ne_bytes());
    }

    #[test]
    fn verdicts_tell_acceptance_refusal_and_hang_up_apart() {
        let (mut control, theirs) = pair();
        control.acknowledged = true;
        let flags = flag::VERSION | flag::NEED_REPLY;
        let say = |code: u64| {
            answer(&theirs, request::SET_OWNER, &code.to_ne_bytes());
            control.verdict(request::SET_OWNER, flags, &[], &[])
        };
        assert_eq!(say(0).unwrap(), Verdict::Accepted);
        assert_eq!(say(22).unwrap(), Verdict::Refused(22));
        drop(theirs);
        assert_eq!(
            control
                .verdict(request::SET_OWNER, flags, &[], &[])
                .unwrap(),
            Verdict::Closed
        );
    }

    #[test]
    fn a_reply_to_something_else_is_malformed() {
        let (control, theirs) = pair();
        answer(&theirs, request::GET_QUEUE_NUM, &1u64.to_ne_bytes());
        assert!(matches!(
            control.features(),
            Err(ControlError::Malformed(_))
        ));
    }

    #[test]
    fn an_empty_config_payload_is_a_refusal() {
        let (control, theirs) = pair();
        answer(&theirs, request::GET_CONFIG, &message::config(0, 0, &[]));
        assert!(matches!(
            control.config(0, 8),
            Err(ControlError::Refused(_))
        ));
        answer(&theirs, request::GET_CONFIG, &message::config(4, 2, b"ab"));
        assert_eq!(control.config(4, 2).unwrap(), b"ab");
    }

    #[test]
    fn a_vring_base_of_another_ring_is_malformed() {
        let (control, theirs) = pair();
        answer(
            &theirs,
            request::GET_VRING_BASE,
            &message::vring_state(1, 7),
        );
        assert!(control.vring_base(0).is_err());
        answer(
            &theirs,
            request::GET_VRING_BASE,
            &message::vring_state(1, 7),
        );
        assert_eq!(control.vring_base(1).unwrap(), 7);
    }

    #[test]
    fn an_open_connection_is_open_until_the_peer_leaves() {
        let (control, mut theirs) = pair();
        assert!(control.is_open());
        assert!(control.wait_closed(Duration::from_millis(5)).is_err());
        control.send_bytes(b"unread", &[]).unwrap();
        theirs.write_all(b"late").unwrap();
        let mut some = [0; 2];
        theirs.read_exact(&mut some).unwrap();
        drop(theirs);
        control.wait_closed(Duration::from_secs(1)).unwrap();
        assert!(!control.is_open());
    }
}
