//! Events of the host: sockets, listeners and clocks.

use std::io;
use std::time::Instant;

use vhost_device_core::{Ready, limit};

use super::control::number;
use super::deadlines::Due;
use super::{Chore, VsockWorker};
use crate::connection::{Peer, Phase};
use crate::greeting::{self, Greeting, MAX_LINE};
use crate::host::{Accepted, Kind};
use crate::table::{Address, MAX_CONNECTIONS, Slot};
use crate::wire::HOST_CID;

impl VsockWorker {
    /// Something happened on a connection's socket.
    pub(super) fn socket_event(&mut self, slot: Slot, ready: Ready) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        connection.readable |= ready.readable || ready.hangup || ready.error;
        connection.hung_up |= ready.hangup || ready.error;
        match connection.phase {
            Phase::Greeting => self.greet(slot),
            Phase::Connecting => self.finish_connecting(slot),
            // If the guest has no buffer for the request, nothing else ends it.
            Phase::Asking if connection.hung_up => {
                self.deadlines.linger(slot, Phase::Asking, Instant::now());
            }
            Phase::Open | Phase::Draining => self.open_socket_event(slot, ready),
            Phase::Asking | Phase::Closing => {}
        }
    }

    fn open_socket_event(&mut self, slot: Slot, ready: Ready) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        let closed = (ready.hangup || ready.error)
            && connection.socket().is_some_and(|socket| socket.is_closed());
        if closed {
            self.host_stopped_receiving(slot);
        } else if connection.full && ready.writable {
            self.drain(slot);
        }
        self.enqueue_reader(slot);
    }

    /// Lines a connection up if its host program's bytes can go to the guest.
    fn enqueue_reader(&mut self, slot: Slot) {
        if self
            .table
            .get_mut(slot)
            .is_some_and(|connection| connection.wants_to_read())
        {
            self.enqueue(slot);
        }
    }

    /// Whether a host program has answered before an event says so.
    pub(super) fn has_answer(&mut self, slot: Slot) -> bool {
        let Some(connection) = self.table.get_mut(slot) else {
            self.recent = None;
            return false;
        };
        if connection.queued || connection.starved || connection.phase != Phase::Open {
            return false;
        }
        let Some(socket) = connection.socket() else {
            return false;
        };
        connection.readable = socket.peek(&mut [0], false).is_ok();
        connection.wants_to_read() && connection.readable
    }

    fn finish_connecting(&mut self, slot: Slot) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        match connection.socket().map(|socket| socket.connected()) {
            Some(Ok(())) => {
                connection.full = false;
                self.chores.push(Chore::Interest(slot));
                self.connected(slot);
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => self.reset(slot),
        }
    }

    /// Takes the host programs that wait at the listeners.
    pub(super) fn accept(&mut self) {
        self.accept_due = false;
        // One of them that is out of descriptors is out of them for all.
        for number in 0..self.device.host.listeners().len() {
            while !self.accept_due && self.accept_one(number) {}
        }
    }

    /// Takes one; false if there are no more, or no room for them.
    fn accept_one(&mut self, number: usize) -> bool {
        if self.table.len() >= MAX_CONNECTIONS {
            self.leave_waiting();
            return false;
        }
        let Some(listener) = self.device.host.listeners().get(number) else {
            return false;
        };
        match listener.accept() {
            Ok(Some(accepted)) => {
                self.admit_program(accepted);
                true
            }
            Ok(None) => false,
            Err(error) => {
                static LIMITER: limit::Limiter = limit::Limiter::new();
                limit::warn(
                    &LIMITER,
                    format_args!("cannot accept a host program: {error}"),
                );
                self.leave_waiting();
                false
            }
        }
    }

    fn leave_waiting(&mut self) {
        self.accept_due = true;
        self.deadlines.accept(Instant::now());
    }

    fn admit_program(&mut self, accepted: Accepted) {
        let peer = Peer::Host(accepted.socket);
        let Some(slot) = self.insert(accepted.kind, Phase::Greeting, peer, None) else {
            return;
        };
        self.chores.push(Chore::Watch(slot));
        if let Some(port) = accepted.port {
            self.ask(slot, port);
        }
    }

    /// Reads the line that says which port a program wants, if all of it is there. What comes after it stays where it is.
    fn greet(&mut self, slot: Slot) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        let Peer::Host(socket) = &connection.peer else {
            return;
        };
        let mut bytes = [0; MAX_LINE];
        let whole = connection.kind == Kind::Seqpacket;
        let seen = match socket.peek(&mut bytes, whole) {
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return self.end(slot),
        };
        let line = bytes.get(..seen).unwrap_or(&bytes);
        match greeting::parse(line) {
            Greeting::Connect { port, length } if !whole || length == seen => {
                match bytes
                    .get_mut(..length)
                    .map(|line| socket.receive_bytes(line))
                {
                    Some(Ok(_)) => {
                        connection.greeted = true;
                        self.ask(slot, port);
                    }
                    _ => self.end(slot),
                }
            }
            Greeting::Incomplete if !whole && !connection.hung_up => {}
            _ => {
                log::debug!("a host program did not say which port it wants");
                self.end(slot);
            }
        }
    }

    /// Asks the guest for a connection to `guest_port`.
    fn ask(&mut self, slot: Slot, guest_port: u32) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        let kind = connection.kind;
        if self.kind(number(kind)).is_none() {
            return self.end(slot);
        }
        let address = self
            .table
            .free_port(guest_port, HOST_CID)
            .map(|peer_port| Address {
                guest_port,
                peer_port,
                peer_cid: HOST_CID,
            });
        if address.is_none_or(|address| self.table.bind(slot, address).is_err()) {
            return self.end(slot);
        }
        if let Some(connection) = self.table.get_mut(slot) {
            connection.phase = Phase::Asking;
            connection.opening_due = true;
            if connection.hung_up {
                self.deadlines.linger(slot, Phase::Asking, Instant::now());
            }
        }
        self.enqueue(slot);
    }

    /// Time has passed.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(due) = self.deadlines.due(now) {
            match due {
                Due::Lingered(slot, phase) => self.lingered(slot, phase),
                Due::Starved(slot) => self.ask_for_room(slot),
                Due::Rested(slot) => self.rested(slot),
                Due::Retry => self.retry(now),
            }
        }
    }

    /// A socket that was left alone may have something.
    fn rested(&mut self, slot: Slot) {
        if let Some(connection) = self.table.get_mut(slot) {
            connection.readable = true;
        }
        self.enqueue_reader(slot);
    }

    fn lingered(&mut self, slot: Slot, phase: Phase) {
        let present = self.table.get_mut(slot).map(|connection| connection.phase);
        if present == Some(phase) {
            self.reset(slot);
        }
    }

    fn retry(&mut self, now: Instant) {
        for (deadline, slot) in self.deadlines.connecting() {
            self.connect(slot, deadline, now);
        }
        if self.accept_due {
            self.accept();
        }
    }
}
