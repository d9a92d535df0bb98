//! What packets without data mean for a connection.

use std::time::Instant;

use super::deadlines::CONNECT;
use super::{Chore, VsockWorker};
use crate::connection::{Connection, Peer, Phase};
use crate::host::{Connecting, Kind};
use crate::table::{Address, Slot};
use crate::wire::{
    HOST_CID, Header, OP_CREDIT_REQUEST, OP_CREDIT_UPDATE, OP_REQUEST, OP_RESPONSE, OP_RST,
    OP_SHUTDOWN, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_SEQPACKET, TYPE_STREAM,
};

/// Where a packet from the guest goes to.
pub(super) fn destination(header: &Header) -> Address {
    Address {
        guest_port: header.src_port.get(),
        peer_port: header.dst_port.get(),
        peer_cid: header.dst_cid.get(),
    }
}

/// The number that packets have for a kind of socket.
pub(super) fn number(kind: Kind) -> u16 {
    match kind {
        Kind::Stream => TYPE_STREAM,
        Kind::Seqpacket => TYPE_SEQPACKET,
    }
}

impl VsockWorker {
    /// The connection that a packet of the guest belongs to: by its addresses, and of the same kind.
    pub(super) fn find(&mut self, header: &Header) -> Option<Slot> {
        if header.src_cid.get() != self.cid() {
            return None;
        }
        let slot = self.table.find(&destination(header))?;
        let connection = self.table.get_mut(slot)?;
        (number(connection.kind) == header.kind.get()).then_some(slot)
    }

    /// A packet without data, or one that belongs to no connection.
    pub(super) fn control(&mut self, header: &Header) {
        let op = header.op.get();
        match self.find(header) {
            Some(slot) => {
                if let Some(connection) = self.table.get_mut(slot) {
                    connection.credit.learn(header);
                }
                self.control_of(slot, header);
            }
            None if op == OP_RST => {}
            None if op == OP_REQUEST => self.request(header),
            None => self.refuse(header),
        }
    }

    fn refuse(&mut self, header: &Header) {
        self.replies.push_back(header.reset());
    }

    fn control_of(&mut self, slot: Slot, header: &Header) {
        if self.is_sibling(slot) {
            return self.control_to_sibling(slot, header);
        }
        match header.op.get() {
            OP_RST => self.guest_reset(slot),
            OP_RESPONSE => self.response(slot),
            OP_SHUTDOWN => self.guest_shutdown(slot, header.flags.get()),
            OP_CREDIT_UPDATE => self.enqueue(slot),
            OP_CREDIT_REQUEST => {
                if let Some(connection) = self.table.get_mut(slot) {
                    connection.update_due = true;
                }
                self.enqueue(slot);
            }
            // A request for what is connected already, or nothing that is known.
            _ => self.reset(slot),
        }
    }

    /// The guest asks for a connection.
    fn request(&mut self, header: &Header) {
        let address = destination(header);
        let ours = header.src_cid.get() == self.cid();
        let Some(kind) = self.kind(header.kind.get()).filter(|_| ours) else {
            return self.refuse(header);
        };
        let inserted = match address.peer_cid {
            HOST_CID => self.insert(kind, Phase::Connecting, Peer::Nobody, Some(address)),
            _ => self.request_to_sibling(header, kind, address),
        };
        let Some(slot) = inserted else {
            return self.refuse(header);
        };
        if let Some(connection) = self.table.get_mut(slot) {
            connection.credit.learn(header);
        }
        if address.peer_cid == HOST_CID {
            let now = Instant::now();
            self.connect(slot, now + CONNECT, now);
        }
    }

    /// Adds a connection.
    pub(super) fn insert(
        &mut self,
        kind: Kind,
        phase: Phase,
        peer: Peer,
        address: Option<Address>,
    ) -> Option<Slot> {
        let connection = Connection::new(kind, phase, peer, self.device.window);
        let slot = self.table.insert(connection).ok()?;
        if let Some(address) = address
            && self.table.bind(slot, address).is_err()
        {
            self.table.remove(slot);
            return None;
        }
        Some(slot)
    }

    /// Connects to the host for the guest, until `deadline` if the listener has too many waiting.
    pub(super) fn connect(&mut self, slot: Slot, deadline: Instant, now: Instant) {
        let (Some(address), Some(connection)) =
            (self.table.address(slot), self.table.get_mut(slot))
        else {
            return;
        };
        if connection.phase != Phase::Connecting {
            return;
        }
        match self.device.host.connect(address.peer_port, connection.kind) {
            Ok((socket, Connecting::Done)) => {
                connection.peer = Peer::Host(socket);
                self.chores.push(Chore::Watch(slot));
                self.connected(slot);
            }
            Ok((socket, Connecting::Pending)) => {
                connection.peer = Peer::Host(socket);
                // An event comes when it is connected, which is when it is writable.
                connection.full = true;
                self.chores.push(Chore::Watch(slot));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && now < deadline => {
                self.deadlines.connect(slot, deadline, now);
            }
            Err(error) => {
                log::debug!("port {}: cannot connect: {error}", address.peer_port);
                self.reset(slot);
            }
        }
    }

    /// The host is connected: the guest is told.
    pub(super) fn connected(&mut self, slot: Slot) {
        let window = self.device.window;
        if let Some(connection) = self.table.get_mut(slot) {
            connection.phase = Phase::Open;
            connection.opening_due = true;
            prepare(connection, window);
        }
        self.enqueue(slot);
    }

    /// The guest accepts a connection that it was asked for.
    fn response(&mut self, slot: Slot) {
        let address = self.table.address(slot);
        let (Some(address), Some(connection)) = (address, self.table.get_mut(slot)) else {
            return;
        };
        if connection.phase != Phase::Asking || connection.opening_due {
            return self.reset(slot);
        }
        connection.phase = Phase::Open;
        prepare(connection, self.device.window);
        // Data may have come right behind the line.
        connection.readable = true;
        let line = format!("OK {}\n", address.peer_port);
        let told = match &connection.peer {
            Peer::Host(socket) if connection.greeted => {
                socket.send_bytes(line.as_bytes(), false).is_ok()
            }
            _ => true,
        };
        if !told {
            self.host_stopped_receiving(slot);
        }
        self.enqueue(slot);
    }

    /// The guest will not receive, not send, or both.
    fn guest_shutdown(&mut self, slot: Slot, flags: u32) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        let news = connection.halves.shut_guest(flags);
        if connection.phase != Phase::Open {
            if connection.halves.guest_is_done() {
                self.reset(slot);
            }
            return;
        }
        if news & SHUTDOWN_RECEIVE != 0 {
            connection.readable = false;
            if let Some(socket) = connection.socket() {
                socket.shut_down(true, false);
            }
        }
        if news & SHUTDOWN_SEND != 0 {
            let abandoned = connection.seqpacket.as_mut().map_or(0, |seqpacket| {
                let before = seqpacket.messages.len();
                let bytes = seqpacket.messages.abandon();
                self.buffered = self
                    .buffered
                    .saturating_sub(before - seqpacket.messages.len());
                bytes
            });
            connection.credit.forward(abandoned);
        }
        self.end_sending(slot);
    }

    /// Once the host program has all that it will get: ends its input, or the connection, if the guest is done.
    pub(super) fn end_sending(&mut self, slot: Slot) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        if !connection.is_drained() {
            return;
        }
        match connection.phase {
            Phase::Draining => self.end(slot),
            Phase::Open if connection.halves.guest_is_done() => self.reset(slot),
            Phase::Open if !connection.halves.guest_sends() => {
                if let Some(socket) = connection.socket() {
                    socket.shut_down(false, true);
                }
            }
            _ => {}
        }
    }

    /// The guest is done with a connection at once. What the host program has not taken yet it still gets.
    fn guest_reset(&mut self, slot: Slot) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        let before = connection.buffered();
        if let Some(seqpacket) = &mut connection.seqpacket {
            seqpacket.messages.abandon();
            seqpacket.outgoing = None;
        }
        self.buffered = self.buffered.saturating_sub(before - connection.buffered());
        if connection.phase == Phase::Open && !connection.is_drained() {
            connection.phase = Phase::Draining;
            self.table.unbind(slot);
        } else {
            self.end(slot);
        }
    }

    /// The host is done with a connection, and the guest has been told: it has to confirm.
    pub(super) fn close(&mut self, slot: Slot) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        connection.phase = Phase::Closing;
        let peer = std::mem::replace(&mut connection.peer, Peer::Nobody);
        if let Peer::Host(socket) = peer {
            self.chores.push(Chore::Close(slot, socket));
        }
        self.deadlines.linger(slot, Phase::Closing, Instant::now());
    }
}

/// A message is sent as a whole, so that the largest one has to fit into the socket.
fn prepare(connection: &mut Connection, window: u32) {
    if connection.kind == Kind::Seqpacket {
        connection.grow(window);
    }
}
