//! The transmit queue: packets from the guest, and their data to the host.

use vhost_device_core::{Io, Queue, Segments, Ticket};

use super::gather::{Item, Outcome, outcome};
use super::{Chore, MAX_BUFFERED, MAX_REPLIES, TX, VsockWorker};
use crate::connection::{Connection, Peer, Phase};
use crate::host::Kind;
use crate::table::Slot;
use crate::wire::{Header, OP_RW, SHUTDOWN_RECEIVE};

/// Most backlogs whose memory is kept when they are empty, and the largest of them.
const MAX_SPARE: usize = 4;
const MAX_SPARE_BYTES: usize = 512 * 1024;

impl VsockWorker {
    /// Takes the guest's packets, as long as there is room for replies to them.
    pub(super) fn transmit(&mut self, io: &mut Io<'_>) {
        let mut queue = io.queue(TX);
        self.check_origin(TX, queue.origin());
        self.update_owed = false;
        loop {
            self.held_up = self.replies.len() >= MAX_REPLIES;
            if self.held_up {
                break;
            }
            // The guest goes on sooner if it hears of room between two packets than behind all of them.
            if self.update_owed {
                queue.defer();
                break;
            }
            let Some(mut request) = queue.next() else {
                break;
            };
            let header = match request.read::<Header>() {
                Ok(header) => header,
                Err(fault) => {
                    request.fail(fault);
                    continue;
                }
            };
            if header.op.get() == OP_RW
                && let Some(slot) = self.find(&header)
            {
                let (ticket, segments) = request.detach();
                self.data(slot, &header, ticket, segments, &mut queue);
            } else {
                request.finish();
                self.flush(&mut queue);
                self.control(&header);
            }
        }
        self.flush(&mut queue);
    }

    /// Data of a connection.
    fn data(
        &mut self,
        slot: Slot,
        header: &Header,
        ticket: Ticket,
        segments: Segments,
        queue: &mut Queue<'_>,
    ) {
        if self.gather.slot != Some(slot) {
            self.flush(queue);
        }
        let Some(connection) = self.table.get_mut(slot) else {
            return complete(queue, ticket, segments);
        };
        connection.credit.learn(header);
        connection.pace.reset();
        if connection.starved && connection.credit.available() > 0 {
            self.enqueue(slot);
        }
        let length = header.len.get();
        if u64::from(length) > segments.readable() {
            log_violation("a packet is shorter than it says");
            self.flush(queue);
            complete(queue, ticket, segments);
            return self.reset(slot);
        }
        if !self.admit(slot, length) {
            self.flush(queue);
            complete(queue, ticket, segments);
            return self.reset(slot);
        }
        let item = Item {
            ticket,
            segments,
            left: length,
        };
        self.pass_on(slot, header, item, queue);
    }

    /// Whether the guest may send this much now.
    fn admit(&mut self, slot: Slot, length: u32) -> bool {
        let Some(connection) = self.table.get_mut(slot) else {
            return false;
        };
        if matches!(connection.peer, Peer::Guest(_)) {
            return true;
        }
        let may_send = matches!(connection.phase, Phase::Open | Phase::Closing)
            && connection.halves.guest_sends();
        if !may_send {
            return false;
        }
        if connection.credit.receive(length).is_err() {
            log_violation("the guest sends more than it may");
            return false;
        }
        true
    }

    fn pass_on(&mut self, slot: Slot, header: &Header, item: Item, queue: &mut Queue<'_>) {
        let Some(connection) = self.table.get_mut(slot) else {
            return complete(queue, item.ticket, item.segments);
        };
        if matches!(connection.peer, Peer::Guest(_)) {
            return self.data_to_sibling(slot, header, item, queue);
        }
        if !connection.halves.host_receives() {
            connection.credit.forward(item.left);
            complete(queue, item.ticket, item.segments);
            return self.enqueue_update(slot);
        }
        match connection.kind {
            Kind::Seqpacket => self.message(slot, header, item, queue),
            Kind::Stream if connection.full => self.keep(slot, item, queue),
            Kind::Stream => {
                if self.gather.push(slot, item) {
                    self.flush(queue);
                }
            }
        }
    }

    /// Sends what was gathered.
    pub(super) fn flush(&mut self, queue: &mut Queue<'_>) {
        let Some(slot) = self.gather.slot else {
            return;
        };
        let outcome = self.send_gathered(slot);
        let mut items = std::mem::take(&mut self.gather.items);
        self.gather.clear();
        let mut broken = outcome == Outcome::Unreadable;
        for item in items.drain(..) {
            if outcome == Outcome::Full && item.left > 0 && !broken {
                broken = !self.try_keep(slot, &item);
            }
            complete(queue, item.ticket, item.segments);
        }
        self.gather.items = items;
        if broken {
            return self.reset(slot);
        }
        match outcome {
            Outcome::Full => self.wait_for_room(slot),
            Outcome::Gone => self.host_stopped_receiving(slot),
            _ => {}
        }
        self.enqueue_update(slot);
    }

    fn send_gathered(&mut self, slot: Slot) -> Outcome {
        let Some(connection) = self.table.get_mut(slot) else {
            return Outcome::Sent;
        };
        let Peer::Host(socket) = &connection.peer else {
            return Outcome::Gone;
        };
        self.recent = Some(slot);
        let (mut sent, mut outcome) = self.gather.send(socket, &mut self.room);
        // Rather than copying what the kernel could keep as well.
        if outcome == Outcome::Full
            && connection.grow(self.device.window)
            && let Some(socket) = connection.socket()
        {
            let (more, then) = self.gather.send(socket, &mut self.room);
            (sent, outcome) = (sent.saturating_add(more), then);
        }
        connection.credit.forward(sent);
        outcome
    }

    /// Keeps a packet's data until the host program reads.
    fn keep(&mut self, slot: Slot, item: Item, queue: &mut Queue<'_>) {
        let kept = self.try_keep(slot, &item);
        complete(queue, item.ticket, item.segments);
        if !kept {
            self.reset(slot);
        }
    }

    fn try_keep(&mut self, slot: Slot, item: &Item) -> bool {
        let length = item.left as usize;
        if self.buffered.saturating_add(length) > MAX_BUFFERED {
            log_violation("too much waits for host programs");
            return false;
        }
        let Some(connection) = self.table.get_mut(slot) else {
            return true;
        };
        if connection.backlog.is_bare()
            && let Some(memory) = self.spare.pop()
        {
            connection.backlog.adopt(memory);
        }
        let kept = connection
            .backlog
            .append(length, |room| copy(&item.segments, room));
        self.buffered += if kept { length } else { 0 };
        kept
    }

    /// Waits until the host program has read something.
    pub(super) fn wait_for_room(&mut self, slot: Slot) {
        if let Some(connection) = self.table.get_mut(slot)
            && !std::mem::replace(&mut connection.full, true)
        {
            self.chores.push(Chore::Interest(slot));
        }
    }

    /// The host program has read something: goes on with what was kept.
    pub(super) fn drain(&mut self, slot: Slot) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        let before = connection.buffered();
        let outcome = match connection.kind {
            Kind::Stream => drain_bytes(connection),
            Kind::Seqpacket => drain_messages(connection),
        };
        let taken = before - connection.buffered();
        self.buffered = self.buffered.saturating_sub(taken);
        match outcome {
            Outcome::Sent => self.drained(slot),
            Outcome::Gone => self.host_stopped_receiving(slot),
            Outcome::Unreadable => return self.reset(slot),
            Outcome::Full => {}
        }
        self.enqueue_update(slot);
    }

    fn drained(&mut self, slot: Slot) {
        if let Some(connection) = self.table.get_mut(slot) {
            if let Some(memory) = connection.backlog.release()
                && self.spare.len() < MAX_SPARE
                && memory.capacity() <= MAX_SPARE_BYTES
            {
                self.spare.push(memory);
            }
            if let Some(seqpacket) = &mut connection.seqpacket {
                seqpacket.messages.shrink();
            }
            if std::mem::take(&mut connection.full) {
                self.chores.push(Chore::Interest(slot));
            }
        }
        self.end_sending(slot);
    }

    /// The host program will not get what is kept for it, nor anything else.
    pub(super) fn host_stopped_receiving(&mut self, slot: Slot) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        connection.halves.shut_host(SHUTDOWN_RECEIVE);
        let held = connection.credit.held();
        connection.credit.forward(held);
        let before = connection.buffered();
        connection.backlog = Default::default();
        if let Some(seqpacket) = &mut connection.seqpacket {
            seqpacket.messages = Default::default();
        }
        self.buffered = self.buffered.saturating_sub(before - connection.buffered());
        if std::mem::take(&mut connection.full) {
            self.chores.push(Chore::Interest(slot));
        }
        self.end_sending(slot);
        self.enqueue(slot);
    }

    fn enqueue_update(&mut self, slot: Slot) {
        if let Some(connection) = self.table.get_mut(slot)
            && connection.credit.owes_update()
        {
            self.update_owed = true;
            self.enqueue(slot);
        }
    }
}

fn drain_bytes(connection: &mut Connection) -> Outcome {
    while !connection.backlog.is_empty() {
        let Peer::Host(socket) = &connection.peer else {
            return Outcome::Gone;
        };
        match socket.send_bytes(connection.backlog.front(), false) {
            Ok(sent) => {
                connection.backlog.take(sent);
                connection
                    .credit
                    .forward(u32::try_from(sent).unwrap_or(u32::MAX));
            }
            Err(error) => return outcome(&error),
        }
    }
    Outcome::Sent
}

fn drain_messages(connection: &mut Connection) -> Outcome {
    let (Some(seqpacket), Peer::Host(socket)) = (&mut connection.seqpacket, &connection.peer)
    else {
        return Outcome::Gone;
    };
    while let Some((message, end_of_record)) = seqpacket.messages.front() {
        match socket.send_bytes(message, end_of_record) {
            Ok(_) => connection.credit.forward(seqpacket.messages.take()),
            Err(error) => return super::message::outcome(&error),
        }
    }
    Outcome::Sent
}

pub(super) fn complete(queue: &mut Queue<'_>, ticket: Ticket, segments: Segments) {
    queue.complete(ticket, 0);
    queue.recycle(segments);
}

/// Copies what is left of a packet's data; false if guest memory cannot be read.
pub(super) fn copy(segments: &Segments, room: &mut [u8]) -> bool {
    let mut room = room;
    for piece in segments.readable_pieces() {
        let length = piece.len().min(room.len());
        let (now, later) = std::mem::take(&mut room).split_at_mut(length);
        if piece
            .subslice(0, length)
            .map(|piece| piece.copy_to(now))
            .is_err()
        {
            return false;
        }
        room = later;
        if room.is_empty() {
            return true;
        }
    }
    room.is_empty()
}

/// Tells of a guest that breaks the rules, not too often.
pub(super) fn log_violation(what: &str) {
    static LIMITER: vhost_device_core::limit::Limiter = vhost_device_core::limit::Limiter::new();
    vhost_device_core::limit::warn(&LIMITER, format_args!("{what}; the connection is reset"));
}
