//! Data of connections that keep the boundaries of messages.

use std::io;

use vhost_device_core::Queue;

use super::control::number;
use super::gather::{Item, Outcome, outcome as stream_outcome};
use super::receive::{Turn, packet};
use super::transmit::{complete, copy, log_violation};
use super::{MAX_BUFFERED, VsockWorker};
use crate::connection::{Outgoing, Peer};
use crate::host::Vectors;
use crate::seqpacket::{End, Messages};
use crate::table::Slot;
use crate::wire::{Header, OP_RW, SEQ_EOM, SEQ_EOR};

/// The largest message from a host program; a guest's own window is usually smaller.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// What an error of a socket that keeps boundaries means. One that is too large for it never goes through.
pub(super) fn outcome(error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => Outcome::Unreadable,
        _ => stream_outcome(error),
    }
}

/// What came of the attempt to read a message.
enum Fetched {
    /// There is one to be sent.
    Message,
    /// None; the connection may have ended.
    Nothing,
    /// There is one for which the guest has no room.
    NoRoom,
    /// There is one, and too much waits already.
    NoMemory,
}

fn end(header: &Header) -> End {
    let flags = header.flags.get();
    match (flags & SEQ_EOM != 0, flags & SEQ_EOR != 0) {
        (false, _) => End::Open,
        (true, false) => End::Message,
        (true, true) => End::Record,
    }
}

/// Messages without bytes that are looked for others behind, at the end.
const MAX_EMPTY: usize = 64;

impl VsockWorker {
    /// A packet of a message for a host program.
    pub(super) fn message(
        &mut self,
        slot: Slot,
        header: &Header,
        item: Item,
        queue: &mut Queue<'_>,
    ) {
        let end = end(header);
        let outcome = match self.send_whole(slot, &item, end) {
            Outcome::Full => self.keep_message(slot, &item, end),
            done => done,
        };
        complete(queue, item.ticket, item.segments);
        match outcome {
            Outcome::Gone => self.host_stopped_receiving(slot),
            Outcome::Unreadable => {
                log_violation("a message cannot be passed on");
                self.reset(slot);
            }
            Outcome::Full => self.wait_for_room(slot),
            Outcome::Sent => self.enqueue(slot),
        }
    }

    /// Sends a packet that is a whole message straight from guest memory, if nothing waits before it.
    fn send_whole(&mut self, slot: Slot, item: &Item, end: End) -> Outcome {
        let Some(connection) = self.table.get_mut(slot) else {
            return Outcome::Sent;
        };
        let (true, Peer::Host(socket)) = (connection.is_drained(), &connection.peer) else {
            return Outcome::Full;
        };
        if end == End::Open || item.left == 0 {
            return Outcome::Full;
        }
        let mut vectors = Vectors::new(std::mem::take(&mut self.room));
        let mut left = item.left as usize;
        for piece in item.segments.readable_pieces() {
            let Ok(piece) = piece.subslice(0, piece.len().min(left)) else {
                break;
            };
            if left == 0 || !vectors.push(&piece) {
                break;
            }
            left -= piece.len();
        }
        let result = match left {
            0 => socket.send(&mut vectors, end == End::Record),
            // It has too many pieces: it has to be copied.
            _ => Err(io::ErrorKind::WouldBlock.into()),
        };
        self.room = vectors.into_room();
        match result {
            Ok(_) => {
                connection.credit.forward(item.left);
                Outcome::Sent
            }
            Err(error) => outcome(&error),
        }
    }

    /// Keeps a packet until its message is complete and the host program reads.
    fn keep_message(&mut self, slot: Slot, item: &Item, end: End) -> Outcome {
        if self.buffered.saturating_add(Messages::cost(item.left)) > MAX_BUFFERED {
            return Outcome::Unreadable;
        }
        let Some(connection) = self.table.get_mut(slot) else {
            return Outcome::Sent;
        };
        let before = connection.buffered();
        let Some(seqpacket) = &mut connection.seqpacket else {
            return Outcome::Unreadable;
        };
        let kept = seqpacket
            .messages
            .append(item.left, end, |room| copy(&item.segments, room));
        let complete = seqpacket.messages.front().is_some();
        self.buffered = self.buffered + connection.buffered() - before;
        match (kept, complete && !connection.full) {
            (false, _) => Outcome::Unreadable,
            (true, false) => Outcome::Sent,
            (true, true) => {
                self.drain(slot);
                match self.table.get_mut(slot) {
                    Some(connection) if connection.has_messages() => Outcome::Full,
                    _ => Outcome::Sent,
                }
            }
        }
    }

    /// A message from the host's socket, in as many packets as the guest's buffers make of it.
    pub(super) fn read_message(&mut self, slot: Slot, queue: &mut Queue<'_>) -> Turn {
        let Some(connection) = self.table.get_mut(slot) else {
            return Turn::Idle;
        };
        if !connection.has_outgoing() {
            match self.fetch(slot) {
                Ok(Fetched::Message) => {}
                Ok(Fetched::Nothing) => return Turn::More,
                Ok(Fetched::NoRoom) => return self.starve(slot),
                Ok(Fetched::NoMemory) => return self.try_later(slot),
                Err(error) => return self.read_failed(slot, &error, queue),
            }
        }
        match self.send_fragments(slot, queue) {
            true => Turn::More,
            false => Turn::NoBuffer,
        }
    }

    /// Reads a message, if the guest has room for it.
    fn fetch(&mut self, slot: Slot) -> io::Result<Fetched> {
        let Some(connection) = self.table.get_mut(slot) else {
            return Ok(Fetched::Nothing);
        };
        // of one byte: AF_VSOCK tells nothing to who asks for none
        let Some(size) = connection
            .socket()
            .map(|socket| socket.peek(&mut [0], true))
        else {
            return Ok(Fetched::Nothing);
        };
        let size = size?;
        if size == 0 {
            self.end_or_empty(slot)?;
            return Ok(Fetched::Nothing);
        }
        let window = connection.credit.peer_window();
        if size > MAX_MESSAGE || size > window as usize {
            log_violation("a message of a host program is larger than what the guest takes");
            self.reset(slot);
            return Ok(Fetched::Nothing);
        }
        if size > connection.credit.available() as usize {
            return Ok(Fetched::NoRoom);
        }
        connection.feed();
        if self.buffered + size > MAX_BUFFERED {
            return Ok(Fetched::NoMemory);
        }
        let Some(socket) = connection.socket() else {
            return Ok(Fetched::Nothing);
        };
        let mut bytes = vec![0; size];
        let received = socket.receive_bytes(&mut bytes)?;
        bytes.truncate(received.bytes);
        self.buffered += bytes.len();
        if let Some(seqpacket) = &mut connection.seqpacket {
            seqpacket.outgoing = Some(Outgoing {
                bytes,
                sent: 0,
                end_of_record: received.end_of_record,
            });
        }
        Ok(Fetched::Message)
    }

    /// No bytes: the end, or a message without any, which is dropped. Of an end the socket is asked: its event may not have been
    /// looked at yet, and there is none while the guest has no room.
    fn end_or_empty(&mut self, slot: Slot) -> io::Result<()> {
        let Some(socket) = self
            .table
            .get_mut(slot)
            .and_then(|connection| connection.socket())
        else {
            return Ok(());
        };
        if !socket.is_ended() {
            socket.receive_bytes(&mut [0])?;
            return Ok(());
        }
        // Messages without bytes may be before others that have some.
        for _ in 0..MAX_EMPTY {
            socket.receive_bytes(&mut [0])?;
            if socket.peek(&mut [0], true)? > 0 {
                return Ok(());
            }
        }
        self.host_stopped_sending(slot);
        Ok(())
    }

    /// Sends what is left of the message. False if there are no more buffers.
    fn send_fragments(&mut self, slot: Slot, queue: &mut Queue<'_>) -> bool {
        let cid = self.cid();
        let (Some(address), Some(connection)) =
            (self.table.address(slot), self.table.get_mut(slot))
        else {
            return true;
        };
        let template = packet(address, connection.kind, cid, OP_RW);
        debug_assert_eq!(template.kind.get(), number(connection.kind));
        let Some(seqpacket) = &mut connection.seqpacket else {
            return true;
        };
        let Some(outgoing) = &mut seqpacket.outgoing else {
            return true;
        };
        while outgoing.sent < outgoing.bytes.len() {
            if self.scatter.reserve(queue, 1, 0) == 0 {
                return false;
            }
            let rest = outgoing.bytes.get(outgoing.sent..).unwrap_or_default();
            let record = outgoing.end_of_record;
            let credit = &mut connection.credit;
            outgoing.sent += self.scatter.send(queue, rest, |length| {
                let mut header = template;
                header.len = length.into();
                if length as usize == rest.len() {
                    header.flags = (SEQ_EOM | if record { SEQ_EOR } else { 0 }).into();
                }
                credit.stamp(&mut header);
                credit.send(length);
                header
            });
        }
        self.buffered = self.buffered.saturating_sub(outgoing.bytes.len());
        seqpacket.outgoing = None;
        true
    }
}
