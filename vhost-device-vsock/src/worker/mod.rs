//! Serves one guest, on one thread: packets from the guest, sockets of the host, and what goes from one to the other.
//!
//! | file | what is in it |
//! |---|---|
//! | `transmit.rs` | the transmit queue: packets from the guest, data to the host |
//! | `control.rs` | what packets without data mean for a connection |
//! | `receive.rs` | the receive queue: replies, data from the host, control packets |
//! | `message.rs` | data of connections that keep the boundaries of messages |
//! | `outside.rs` | events of the host's sockets, listeners and clocks |
//! | `siblings.rs` | packets from and to other guests |
//! | `gather.rs`, `scatter.rs` | chains of buffers that one system call empties or fills |

mod control;
mod deadlines;
mod gather;
mod message;
mod outside;
mod receive;
mod scatter;
mod siblings;
mod transmit;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use vhost_device_core::{
    HostError, Interest, Io, Origin, QueueIndex, Ready, Setup, Timer, Token, Worker,
};

use crate::connection::{Connection, Peer};
use crate::device::Vsock;
use crate::host::{Kind, Room, Socket};
use crate::hub::Membership;
use crate::table::{Slot, Table};
use crate::wire::{
    EVENT_TRANSPORT_RESET, Event, F_NO_IMPLIED_STREAM, F_SEQPACKET, F_STREAM, Header,
    TYPE_SEQPACKET, TYPE_STREAM,
};
use deadlines::Deadlines;
use gather::Gather;
use scatter::Scatter;
use siblings::Arrivals;

/// Buffers for packets to the guest.
const RX: QueueIndex = QueueIndex(0);
/// Packets from the guest.
const TX: QueueIndex = QueueIndex(1);
/// Buffers for events.
const EVENTS: QueueIndex = QueueIndex(2);

/// Most replies that wait for receive buffers; no more packets are taken from the guest then (section 5.10.6.1).
const MAX_REPLIES: usize = 1024;

/// Most bytes of one guest that wait for host programs or, as messages, for the guest. A connection that would bring more
/// is reset.
pub const MAX_BUFFERED: usize = 256 * 1024 * 1024;

/// Tokens above the slots' 31 bits.
const TIMER: Token = Token(1 << 31);
const INBOX: Token = Token(1 << 31 | 1);
const FIRST_LISTENER: u32 = 1 << 31 | 2;

/// What has to wait until no queue is borrowed.
enum Chore {
    /// Watch a connection's socket.
    Watch(Slot),
    /// Watch for room to write in it, or not any more.
    Interest(Slot),
    /// Forget a socket.
    Close(Slot, Socket),
}

/// The worker of a [`Vsock`].
pub struct VsockWorker {
    device: Arc<Vsock>,
    features: u64,
    table: Table<Connection>,
    /// Packets that belong to no connection.
    replies: VecDeque<Header>,
    /// Connections that have something for the guest, in turn.
    runs: VecDeque<Slot>,
    gather: Gather,
    scatter: Scatter,
    room: Room,
    chores: Vec<Chore>,
    /// Memory of backlogs that were emptied, for the next ones.
    spare: Vec<Vec<u8>>,
    /// Sum of [`Connection::buffered`] of all connections.
    buffered: usize,
    membership: Membership,
    arrivals: Arrivals,
    deadlines: Deadlines,
    timer: Box<dyn Timer>,
    /// How the present runs of the receive and transmit queue began.
    origins: [Option<Origin>; 2],
    /// The driver has to be told that its connections are gone.
    reset_due: bool,
    /// Packets were left in the transmit queue.
    held_up: bool,
    /// A connection has to tell the guest of room.
    update_owed: bool,
    /// The connection that last sent data to the host: its answer is likely to come next.
    recent: Option<Slot>,
    /// Host programs were left waiting at the listeners.
    accept_due: bool,
}

impl VsockWorker {
    pub(crate) fn new(
        device: &Arc<Vsock>,
        again: bool,
        setup: &mut Setup<'_>,
    ) -> Result<Self, HostError> {
        let features = setup.features();
        let reactor = setup.reactor();
        let fail = |error| HostError::new("wait for events", error);
        for (token, listener) in (FIRST_LISTENER..).zip(device.host.listeners()) {
            use std::os::fd::AsFd;
            reactor
                .watch_edges(listener.as_fd(), Interest::READABLE, Token(token))
                .map_err(|error| HostError::new("watch a listener", error))?;
        }
        let waker = reactor.waker(INBOX).map_err(fail)?;
        let cid = device.guest_cid.value();
        Ok(Self {
            timer: reactor.timer(TIMER).map_err(fail)?,
            membership: Membership::new(&device.hub, cid, device.groups.clone(), waker),
            device: Arc::clone(device),
            features,
            table: Table::default(),
            replies: VecDeque::new(),
            runs: VecDeque::new(),
            gather: Gather::default(),
            scatter: Scatter::default(),
            room: Room::default(),
            chores: Vec::new(),
            spare: Vec::new(),
            buffered: 0,
            arrivals: Arrivals::default(),
            deadlines: Deadlines::default(),
            origins: [None; 2],
            reset_due: again,
            held_up: false,
            update_owed: false,
            recent: None,
            accept_due: false,
        })
    }

    fn cid(&self) -> u64 {
        self.device.guest_cid.value()
    }

    /// The kind of socket that a number means to a driver with these features (section 5.10.3).
    fn kind(&self, number: u16) -> Option<Kind> {
        let has = |bit| self.features & bit != 0;
        match number {
            TYPE_STREAM if has(F_STREAM) || !has(F_NO_IMPLIED_STREAM) => Some(Kind::Stream),
            TYPE_SEQPACKET if has(F_SEQPACKET) => Some(Kind::Seqpacket),
            _ => None,
        }
    }

    /// Serves both queues: the transmit queue if `transmit`, or if packets were left there.
    fn pump(&mut self, transmit: bool, io: &mut Io<'_>) {
        if transmit || self.held_up {
            self.transmit(io);
        }
        self.receive(io);
        if self.held_up && self.replies.len() < MAX_REPLIES {
            self.transmit(io);
            self.receive(io);
        }
        self.do_chores(io);
        if !self.replies.is_empty() || !self.chores.is_empty() {
            self.receive(io);
            self.do_chores(io);
        }
        self.send_event(io);
        self.deadlines.arm(self.timer.as_mut());
    }

    /// A driver that starts anew knows nothing of the connections of the one before it. One that goes on does, but not of
    /// those that this process had before.
    fn check_origin(&mut self, queue: QueueIndex, origin: Option<Origin>) {
        let (Some(origin), Some(known)) = (origin, self.origins.get_mut(queue.position())) else {
            return;
        };
        match known.replace(origin) {
            Some(before) if before.run == origin.run => {}
            Some(_) if origin.index == 0 => self.forget_all(),
            Some(_) => {}
            None => self.reset_due |= origin.index != 0,
        }
    }

    /// Ends all connections that the driver had a part in, without a word to it.
    fn forget_all(&mut self) {
        for slot in self.table.slots() {
            if self.table.address(slot).is_some() {
                self.tell_sibling(slot);
                self.end(slot);
            }
        }
        self.replies.clear();
    }

    /// Tells the driver that its connections are gone, if that is due and there is a buffer.
    fn send_event(&mut self, io: &mut Io<'_>) {
        if !self.reset_due {
            return;
        }
        let mut queue = io.queue(EVENTS);
        let Some(mut request) = queue.next() else {
            return;
        };
        let event = Event {
            id: EVENT_TRANSPORT_RESET.into(),
        };
        match request.write(&event) {
            Ok(()) => {
                request.finish();
                self.reset_due = false;
            }
            Err(fault) => request.fail(fault),
        }
    }

    /// Lines a connection up for its turn at the receive queue.
    fn enqueue(&mut self, slot: Slot) {
        if let Some(connection) = self.table.get_mut(slot)
            && !std::mem::replace(&mut connection.queued, true)
        {
            self.runs.push_back(slot);
        }
    }

    /// Resets a connection: the guest is told, if it still has a part in it.
    fn reset(&mut self, slot: Slot) {
        self.tell_sibling(slot);
        if let Some(address) = self.table.address(slot)
            && let Some(connection) = self.table.get_mut(slot)
        {
            let kind = match connection.kind {
                Kind::Stream => TYPE_STREAM,
                Kind::Seqpacket => TYPE_SEQPACKET,
            };
            self.replies.push_back(Header {
                src_cid: address.peer_cid.into(),
                dst_cid: self.device.guest_cid.value().into(),
                src_port: address.peer_port.into(),
                dst_port: address.guest_port.into(),
                kind: kind.into(),
                op: crate::wire::OP_RST.into(),
                ..Header::default()
            });
        }
        self.end(slot);
    }

    /// Ends a connection without a word to the guest.
    fn end(&mut self, slot: Slot) {
        let Some(connection) = self.table.remove(slot) else {
            return;
        };
        self.buffered = self.buffered.saturating_sub(connection.buffered());
        if let Peer::Host(socket) = connection.peer {
            self.chores.push(Chore::Close(slot, socket));
        }
    }

    fn do_chores(&mut self, io: &mut Io<'_>) {
        let mut chores = std::mem::take(&mut self.chores);
        for chore in chores.drain(..) {
            match chore {
                Chore::Watch(slot) => self.watch(slot, io),
                Chore::Interest(slot) => self.change_interest(slot, io),
                Chore::Close(slot, socket) => {
                    io.reactor().unwatch(Token(slot.bits()));
                    drop(socket);
                    if self.accept_due {
                        self.accept();
                    }
                }
            }
        }
        // A connection that could not be watched leaves its socket.
        chores.append(&mut self.chores);
        self.chores = chores;
    }

    /// Watches for room to write while a socket is full. That is said each time it is found full: so no edge is missed.
    fn change_interest(&mut self, slot: Slot, io: &mut Io<'_>) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        let interest = connection.interest();
        let before = std::mem::replace(&mut connection.watched, interest);
        if connection.full || interest != before {
            io.interest(Token(slot.bits()), interest);
        }
    }

    fn watch(&mut self, slot: Slot, io: &mut Io<'_>) {
        use std::os::fd::AsFd;
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        let interest = connection.interest();
        connection.watched = interest;
        let Some(socket) = connection.socket() else {
            return;
        };
        let token = Token(slot.bits());
        if let Err(error) = io.reactor().watch_edges(socket.as_fd(), interest, token) {
            log::warn!("cannot watch a connection: {error}");
            self.reset(slot);
        }
    }
}

impl Worker for VsockWorker {
    fn kick(&mut self, queue: QueueIndex, io: &mut Io<'_>) {
        match queue {
            EVENTS => self.send_event(io),
            queue => self.pump(queue == TX, io),
        }
    }

    fn event(&mut self, token: Token, ready: Ready, io: &mut Io<'_>) {
        match token {
            TIMER => self.expire(Instant::now()),
            INBOX => self.arrivals.look(),
            Token(number) if number >= FIRST_LISTENER => self.accept(),
            Token(bits) => self.socket_event(Slot::from_bits(bits), ready),
        }
        self.pump(false, io);
    }

    fn poll(&mut self, io: &mut Io<'_>) -> bool {
        let Some(slot) = self.recent else {
            return false;
        };
        if !self.has_answer(slot) {
            return false;
        }
        self.enqueue(slot);
        self.pump(false, io);
        true
    }
}
