//! Level two, a [`Worker`] with host events: a byte stream between the guest and a socket, like a console.
//!
//! Nothing is buffered here. Without receive buffers the socket is not read, and its sender waits; while the socket takes
//! no bytes, the transmit queue is not served, and the driver waits.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vhost_device_core::{
    Device, GuestFault, HostError, Interest, Io, QueueIndex, QueueSpec, Ready, Segments, Setup,
    Ticket, Token, Worker,
};

pub const RECEIVE: QueueIndex = QueueIndex(0);
pub const TRANSMIT: QueueIndex = QueueIndex(1);

const HOST: Token = Token(1);

pub struct Stream {
    host: UnixStream,
}

impl Stream {
    /// A device whose other end is the peer of `host`.
    pub fn new(host: UnixStream) -> io::Result<Self> {
        host.set_nonblocking(true)?;
        Ok(Self { host })
    }
}

impl Device for Stream {
    type Worker = Streaming;

    fn queues(&self) -> Vec<QueueSpec> {
        vec![QueueSpec::new(); 2]
    }

    fn worker(self: &Arc<Self>, _: u16, setup: &mut Setup<'_>) -> Result<Streaming, HostError> {
        let failed = |source| HostError::new("the stream's socket", source);
        let host = self.host.try_clone().map_err(failed)?;
        let interest = Interest::NONE;
        setup
            .reactor()
            .watch(host.as_fd(), interest, HOST)
            .map_err(failed)?;
        Ok(Streaming {
            host,
            sending: None,
            ended: false,
            watched: true,
            interest,
        })
    }
}

pub struct Streaming {
    host: UnixStream,
    /// The transmit request that the socket took a part of.
    sending: Option<(Ticket, Segments)>,
    /// The socket gives no more bytes.
    ended: bool,
    /// Not after a hang-up: nothing new happens then, and reads and writes never block any more.
    watched: bool,
    /// What the socket is watched for.
    interest: Interest,
}

impl Worker for Streaming {
    fn kick(&mut self, queue: QueueIndex, io: &mut Io<'_>) {
        self.pump(queue, io);
    }

    fn event(&mut self, _: Token, ready: Ready, io: &mut Io<'_>) {
        if ready.readable || ready.hangup || ready.error {
            self.pump(RECEIVE, io);
        }
        if ready.writable || ready.hangup || ready.error {
            self.pump(TRANSMIT, io);
        }
        if ready.hangup || ready.error {
            // These are reported whether asked for or not, and would be again.
            io.reactor().unwatch(HOST);
            self.watched = false;
        }
    }

    fn quiesce(&mut self, queue: QueueIndex, io: &mut Io<'_>) {
        if queue == TRANSMIT
            && let Some((ticket, _)) = self.sending.take()
        {
            io.queue(TRANSMIT).complete(ticket, 0);
        }
    }
}

impl Streaming {
    /// Moves bytes of one direction until the queue or the socket is exhausted, and watches for what is missing.
    fn pump(&mut self, queue: QueueIndex, io: &mut Io<'_>) {
        let mut interest = self.interest;
        if queue == RECEIVE {
            interest.readable = self.receive(io);
        } else {
            interest.writable = self.transmit(io);
        }
        if interest != self.interest && self.watched {
            self.interest = interest;
            io.interest(HOST, interest);
        }
    }

    /// True if buffers wait for the socket.
    fn receive(&mut self, io: &mut Io<'_>) -> bool {
        let mut batch = io.queue(RECEIVE);
        while !self.ended
            && let Some(mut request) = batch.next()
        {
            let room = request.writable();
            if room == 0 {
                request.fail(GuestFault::ShortAnswer);
                continue;
            }
            match request.read_from(&mut self.host, room) {
                Ok(1..) => request.finish(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    request.put_back();
                    return true;
                }
                Ok(0) | Err(_) => {
                    request.put_back();
                    self.ended = true;
                }
            }
        }
        false
    }

    /// True if bytes wait for the socket.
    fn transmit(&mut self, io: &mut Io<'_>) -> bool {
        let mut batch = io.queue(TRANSMIT);
        loop {
            let (ticket, mut segments) = match self.sending.take() {
                Some(begun) => begun,
                None => match batch.next() {
                    Some(request) => request.detach(),
                    None => return false,
                },
            };
            let sent = segments.write_to(&mut self.host, u64::MAX);
            let blocked = match sent {
                Ok(_) => segments.readable() > 0,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            };
            if blocked {
                self.sending = Some((ticket, segments));
                return true;
            }
            // Sent, or nobody is there to take it.
            batch.complete(ticket, 0);
            batch.recycle(segments);
        }
    }
}
