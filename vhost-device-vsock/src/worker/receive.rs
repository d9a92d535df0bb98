//! The receive queue: replies, data from the host, and what the guest has to be told about its connections.

use std::time::Instant;

use vhost_device_core::{Io, Queue};

use super::control::number;
use super::{Chore, MAX_REPLIES, RX, VsockWorker};
use crate::connection::{Asking, Connection, Peer, Phase};
use crate::host::Kind;
use crate::table::{Address, Slot};
use crate::wire::{
    Header, OP_CREDIT_REQUEST, OP_CREDIT_UPDATE, OP_REQUEST, OP_RESPONSE, OP_RW, OP_SHUTDOWN,
    SHUTDOWN_RECEIVE, SHUTDOWN_SEND,
};

/// Most buffers filled by one system call.
const MAX_CHAINS: u16 = 64;

/// Most bytes of one connection in its turn, which are moved by one system call.
const TURN_BYTES: u32 = 256 * 1024;

/// Linux tells of room once its programs have read all of a window but this.
const LINUX_KEEPS: u32 = 64 * 1024;

/// The end of a window, which is sent by itself: so Linux tells of room while this is copied, and not only after.
const LAST_BYTES: u32 = 56 * 1024;

/// Most turns before others have theirs at the thread: not each takes a buffer, since a host program's message may be empty.
const MAX_TURNS: usize = 1024;

/// How a connection's turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has nothing more.
    Idle,
    /// It has more.
    More,
    /// The guest has to provide buffers, or others have their turn at the thread.
    NoBuffer,
}

/// A packet of a connection without length, flags and credit.
pub(super) fn packet(address: Address, kind: Kind, guest_cid: u64, op: u16) -> Header {
    Header {
        src_cid: address.peer_cid.into(),
        dst_cid: guest_cid.into(),
        src_port: address.peer_port.into(),
        dst_port: address.guest_port.into(),
        kind: number(kind).into(),
        op: op.into(),
        ..Header::default()
    }
}

impl VsockWorker {
    /// Fills the guest's buffers, as far as there are some.
    pub(super) fn receive(&mut self, io: &mut Io<'_>) {
        let mut queue = io.queue(RX);
        self.check_origin(RX, queue.origin());
        // Each of them may leave replies.
        let _ = self.send_replies(&mut queue)
            && self.send_arrivals(&mut queue)
            && self.send_replies(&mut queue)
            && self.take_turns(&mut queue);
        self.scatter.put_back(&mut queue);
    }

    /// Sends what belongs to no connection. False if there are no more buffers.
    fn send_replies(&mut self, queue: &mut Queue<'_>) -> bool {
        while let Some(header) = self.replies.front() {
            if self.scatter.reserve(queue, 1, 0) == 0 {
                return false;
            }
            self.scatter.send(queue, &[], |_| *header);
            self.replies.pop_front();
        }
        if self.replies.capacity() > MAX_REPLIES {
            self.replies.shrink_to(MAX_REPLIES);
        }
        true
    }

    /// Lets the connections have their turns. False if there are no more buffers, or others have their turn at the thread.
    fn take_turns(&mut self, queue: &mut Queue<'_>) -> bool {
        for _ in 0..MAX_TURNS {
            let Some(slot) = self.runs.pop_front() else {
                return true;
            };
            match self.turn(slot, queue) {
                Turn::More => self.runs.push_back(slot),
                Turn::NoBuffer => {
                    self.runs.push_front(slot);
                    return false;
                }
                Turn::Idle => {
                    if let Some(connection) = self.table.get_mut(slot) {
                        connection.queued = false;
                    }
                }
            }
            // A connection that ended in its turn leaves a packet.
            if !self.send_replies(queue) {
                return false;
            }
        }
        queue.defer();
        false
    }

    fn turn(&mut self, slot: Slot, queue: &mut Queue<'_>) -> Turn {
        let Some(connection) = self.table.get_mut(slot) else {
            return Turn::Idle;
        };
        if connection.opening_due && !self.send_opening(slot, queue) {
            return Turn::NoBuffer;
        }
        let turn = match self.table.get_mut(slot) {
            Some(connection) if connection.wants_to_read() => match connection.kind {
                Kind::Stream => self.read_stream(slot, queue),
                Kind::Seqpacket => self.read_message(slot, queue),
            },
            Some(_) => Turn::Idle,
            None => return Turn::Idle,
        };
        if turn == Turn::NoBuffer || !self.send_news(slot, queue) {
            return Turn::NoBuffer;
        }
        turn
    }

    /// REQUEST or RESPONSE.
    fn send_opening(&mut self, slot: Slot, queue: &mut Queue<'_>) -> bool {
        let op = match self.table.get_mut(slot).map(|connection| connection.phase) {
            Some(Phase::Asking) => OP_REQUEST,
            _ => OP_RESPONSE,
        };
        let sent = self.send_control(slot, op, 0, queue);
        if let Some(connection) = self.table.get_mut(slot).filter(|_| sent) {
            connection.opening_due = false;
            if op == OP_REQUEST {
                self.deadlines.linger(slot, Phase::Asking, Instant::now());
            }
        }
        sent
    }

    /// Credit that the guest should hear of, and halves that are shut.
    fn send_news(&mut self, slot: Slot, queue: &mut Queue<'_>) -> bool {
        let Some(connection) = self.table.get_mut(slot) else {
            return true;
        };
        let open = matches!(connection.phase, Phase::Open | Phase::Closing);
        if !open || self.table.address(slot).is_none() {
            return true;
        }
        self.send_request(slot, queue)
            && self.send_credit(slot, queue)
            && self.send_shutdown(slot, queue)
    }

    fn send_request(&mut self, slot: Slot, queue: &mut Queue<'_>) -> bool {
        let Some(connection) = self.table.get_mut(slot) else {
            return true;
        };
        if !std::mem::take(&mut connection.request_due) {
            return true;
        }
        let sent = self.send_control(slot, OP_CREDIT_REQUEST, 0, queue);
        if let Some(connection) = self.table.get_mut(slot) {
            connection.request_due = !sent;
        }
        sent
    }

    fn send_credit(&mut self, slot: Slot, queue: &mut Queue<'_>) -> bool {
        let Some(connection) = self.table.get_mut(slot) else {
            return true;
        };
        if !connection.update_due && !connection.credit.owes_update() {
            return true;
        }
        let sent = self.send_control(slot, OP_CREDIT_UPDATE, 0, queue);
        if let Some(connection) = self.table.get_mut(slot).filter(|_| sent) {
            connection.update_due = false;
        }
        sent
    }

    fn send_shutdown(&mut self, slot: Slot, queue: &mut Queue<'_>) -> bool {
        let Some(connection) = self.table.get_mut(slot) else {
            return true;
        };
        if connection.phase != Phase::Open {
            return true;
        }
        let Some(flags) = connection.halves.news() else {
            return true;
        };
        if !self.send_control(slot, OP_SHUTDOWN, flags, queue) {
            return false;
        }
        if let Some(connection) = self.table.get_mut(slot) {
            connection.halves.tell();
            if connection.halves.host_is_done() {
                self.close(slot);
            }
        }
        true
    }

    /// Sends a packet without data. False if there is no buffer.
    pub(super) fn send_control(
        &mut self,
        slot: Slot,
        op: u16,
        flags: u32,
        queue: &mut Queue<'_>,
    ) -> bool {
        let cid = self.cid();
        let (Some(address), Some(connection)) =
            (self.table.address(slot), self.table.get_mut(slot))
        else {
            return true;
        };
        if self.scatter.reserve(queue, 1, 0) == 0 {
            return false;
        }
        let mut header = packet(address, connection.kind, cid, op);
        header.flags = flags.into();
        connection.credit.stamp(&mut header);
        self.scatter.send(queue, &[], |_| header);
        true
    }

    /// The guest has no room. Until it has, what the host program does is no event; and it is asked for room if it does not
    /// tell of any by itself before long.
    pub(super) fn starve(&mut self, slot: Slot) -> Turn {
        let Some(connection) = self.table.get_mut(slot) else {
            return Turn::Idle;
        };
        connection.starved = true;
        self.try_later(slot)
    }

    /// Leaves what the host program sent in its socket for a while.
    pub(super) fn try_later(&mut self, slot: Slot) -> Turn {
        let Some(connection) = self.table.get_mut(slot) else {
            return Turn::Idle;
        };
        if connection.asking == Asking::Not {
            connection.asking = Asking::Soon;
            self.deadlines.starve(slot, Instant::now());
        }
        self.set_deaf(slot, true);
        Turn::Idle
    }

    /// Asks a guest for room that told of none for a while.
    pub(super) fn ask_for_room(&mut self, slot: Slot) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        connection.asking = match connection.starved {
            true => Asking::Asked,
            false => Asking::Not,
        };
        connection.request_due = connection.starved;
        self.enqueue(slot);
    }

    /// What comes next is no event, but read after a moment.
    fn rest(&mut self, slot: Slot, now: Instant) {
        self.set_deaf(slot, true);
        self.deadlines.rest(slot, now);
    }

    /// The host's socket is empty: what comes next is an event.
    fn listen(&mut self, slot: Slot) {
        self.set_deaf(slot, false);
    }

    /// Says whether something to read in the socket is no event.
    fn set_deaf(&mut self, slot: Slot, deaf: bool) {
        if let Some(connection) = self.table.get_mut(slot)
            && std::mem::replace(&mut connection.deaf, deaf) != deaf
        {
            self.chores.push(Chore::Interest(slot));
        }
    }

    /// Bytes from the host's socket straight into the guest's buffers.
    fn read_stream(&mut self, slot: Slot, queue: &mut Queue<'_>) -> Turn {
        let Some(connection) = self.table.get_mut(slot) else {
            return Turn::Idle;
        };
        let credit = &connection.credit;
        let Portion {
            bytes: allowed,
            is_last,
        } = portion(credit.available(), credit.peer_window());
        if allowed == 0 {
            return self.starve(slot);
        }
        if is_last {
            queue.flush();
        }
        connection.feed();
        let count = usize::from(connection.appetite);
        let Peer::Host(socket) = &connection.peer else {
            return Turn::Idle;
        };
        if self.scatter.reserve(queue, count, allowed) == 0 {
            return Turn::NoBuffer;
        }
        match self.scatter.receive(socket, count, allowed, &mut self.room) {
            Ok(brought) if brought.bytes == 0 => {
                self.host_stopped_sending(slot);
                Turn::More
            }
            Ok(brought) => self.hand_over(slot, brought.bytes, brought.room, queue),
            Err(error) => self.read_failed(slot, &error, queue),
        }
    }

    /// Completes the buffers that were filled with `bytes`, of `room` that was there.
    fn hand_over(&mut self, slot: Slot, bytes: usize, room: usize, queue: &mut Queue<'_>) -> Turn {
        let cid = self.cid();
        let (Some(address), Some(connection)) =
            (self.table.address(slot), self.table.get_mut(slot))
        else {
            return Turn::Idle;
        };
        let template = packet(address, connection.kind, cid, OP_RW);
        let mut left = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut used = 0u16;
        while left > 0 {
            let credit = &mut connection.credit;
            left -= self.scatter.complete(queue, left, |length| {
                let mut header = template;
                header.len = length.into();
                credit.stamp(&mut header);
                credit.send(length);
                header
            });
            used = used.saturating_add(1);
        }
        learn_appetite(connection, used, bytes == room);
        // A socket that had less than there was room for is empty: it tells when it is not, unless its end is near.
        connection.readable = bytes == room || connection.hung_up;
        if connection.readable {
            return Turn::More;
        }
        let now = Instant::now();
        match connection.pace.emptied(bytes, now) {
            true => self.rest(slot, now),
            false => self.listen(slot),
        }
        Turn::Idle
    }

    pub(super) fn read_failed(
        &mut self,
        slot: Slot,
        error: &std::io::Error,
        queue: &mut Queue<'_>,
    ) -> Turn {
        match (error.kind(), error.raw_os_error()) {
            (std::io::ErrorKind::WouldBlock, _) => {
                if let Some(connection) = self.table.get_mut(slot) {
                    connection.readable = false;
                    connection.pace.reset();
                }
                self.listen(slot);
                Turn::Idle
            }
            (std::io::ErrorKind::Interrupted, _) => Turn::More,
            // The buffers have room for headers only.
            (std::io::ErrorKind::StorageFull, None) => {
                self.scatter.discard(queue);
                Turn::More
            }
            (_, Some(libc::EFAULT)) => {
                self.scatter.discard(queue);
                self.reset(slot);
                Turn::Idle
            }
            _ => {
                self.host_stopped_sending(slot);
                self.host_stopped_receiving(slot);
                Turn::More
            }
        }
    }

    /// The host program will send no more.
    pub(super) fn host_stopped_sending(&mut self, slot: Slot) {
        if let Some(connection) = self.table.get_mut(slot) {
            connection.readable = false;
            connection.halves.shut_host(SHUTDOWN_SEND);
            // One that is closed as a whole does not receive either: one packet says both.
            let closed = connection.socket().is_some_and(|socket| socket.is_closed());
            if closed && connection.halves.host_receives() {
                connection.halves.shut_host(SHUTDOWN_RECEIVE);
                self.host_stopped_receiving(slot);
            }
        }
    }
}

/// What of a window may be sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Portion {
    bytes: u32,
    /// The guest should have what it was sent before.
    is_last: bool,
}

/// What may be sent at once if `available` bytes of a window are left. A small window is sent as a whole.
fn portion(available: u32, window: u32) -> Portion {
    let is_large = window / 4 >= LINUX_KEEPS;
    let is_last = is_large && available < LINUX_KEEPS;
    let kept = if is_large && !is_last { LAST_BYTES } else { 0 };
    Portion {
        bytes: (available - kept).min(TURN_BYTES),
        is_last,
    }
}

/// Buffers are taken by the number that was filled lately, and by more while all of them are.
fn learn_appetite(connection: &mut Connection, used: u16, full: bool) {
    connection.appetite = match full {
        true => connection
            .appetite
            .max(used)
            .saturating_mul(2)
            .min(MAX_CHAINS),
        false => used.max(connection.appetite / 2).clamp(1, MAX_CHAINS),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_window_is_sent_in_two_portions_and_a_small_one_in_one() {
        const LINUX: u32 = 256 * 1024;
        for (available, window, expected) in [
            (LINUX, LINUX, (LINUX - LAST_BYTES, false)),
            (LINUX_KEEPS, LINUX, (LINUX_KEEPS - LAST_BYTES, false)),
            (LINUX_KEEPS - 1, LINUX, (LINUX_KEEPS - 1, true)),
            (1, LINUX, (1, true)),
            (0, LINUX, (0, true)),
            (u32::MAX, u32::MAX, (TURN_BYTES, false)),
            (64 * 1024, 64 * 1024, (64 * 1024, false)),
            (1, 64 * 1024, (1, false)),
        ] {
            let portion = portion(available, window);
            assert_eq!(
                (portion.bytes, portion.is_last),
                expected,
                "{available} of {window}"
            );
        }
    }
}
