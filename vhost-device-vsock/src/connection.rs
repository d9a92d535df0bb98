//! One connection of the guest: how far it is, which halves of it are open, and what is due.

use std::sync::Arc;

use vhost_device_core::Interest;

use crate::backlog::Backlog;
use crate::credit::Credit;
use crate::host::{Kind, Socket};
use crate::hub::Member;
use crate::pace::Pace;
use crate::seqpacket::Messages;
use crate::wire::{SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A host program connected and has not said its port.
    Greeting,
    /// The guest is asked for a connection.
    Asking,
    /// The guest asked for a connection, and the host is being connected to.
    Connecting,
    /// Both sides may send.
    Open,
    /// The guest is done with it and has its address back; the host program has not taken all yet.
    Draining,
    /// The host is done with it; the guest has been told and has to confirm.
    Closing,
}

/// Which halves of a connection are still open. What is shut stays shut (VIRTIO 1.3, section 5.10.6.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Halves {
    guest: u32,
    host: u32,
    told: u32,
}

impl Halves {
    /// The guest said that it does not receive, not send, or both. Returns what is new.
    pub fn shut_guest(&mut self, flags: u32) -> u32 {
        let news = flags & SHUTDOWN_BOTH & !self.guest;
        self.guest |= news;
        news
    }

    /// The host's end does not receive, not send, or both.
    pub fn shut_host(&mut self, flags: u32) {
        self.host |= flags & SHUTDOWN_BOTH;
    }

    /// Whether the guest still sends.
    pub fn guest_sends(&self) -> bool {
        self.guest & SHUTDOWN_SEND == 0
    }

    /// Whether the guest still receives.
    pub fn guest_receives(&self) -> bool {
        self.guest & SHUTDOWN_RECEIVE == 0
    }

    /// Whether the host's end still sends.
    pub fn host_sends(&self) -> bool {
        self.host & SHUTDOWN_SEND == 0
    }

    /// Whether the host's end still receives.
    pub fn host_receives(&self) -> bool {
        self.host & SHUTDOWN_RECEIVE == 0
    }

    /// Whether the guest is done with the connection.
    pub fn guest_is_done(&self) -> bool {
        self.guest == SHUTDOWN_BOTH
    }

    /// Whether the host is done with the connection.
    pub fn host_is_done(&self) -> bool {
        self.host == SHUTDOWN_BOTH
    }

    /// What the guest has to be told: the flags of a SHUTDOWN packet.
    pub fn news(&self) -> Option<u32> {
        (self.host != self.told).then_some(self.host)
    }

    /// The guest has been told all.
    pub fn tell(&mut self) {
        self.told = self.host;
    }
}

/// The other end.
#[derive(Debug)]
pub enum Peer {
    /// A program of the host.
    Host(Socket),
    /// Another guest.
    Guest(Arc<Member>),
    /// Nobody: not yet connected, or closed.
    Nobody,
}

/// A message from a host program that is being sent to the guest.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Those that were sent.
    pub sent: usize,
    /// It ends a record.
    pub end_of_record: bool,
}

/// What a connection that keeps the boundaries of messages needs beyond others.
#[derive(Debug, Default)]
pub struct Seqpacket {
    /// Messages for the host program.
    pub messages: Messages,
    /// The message for the guest that is being sent.
    pub outgoing: Option<Outgoing>,
}

/// Whether the guest is asked for room for what the host program sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// There was room lately.
    Not,
    /// If it does not tell of some before long.
    Soon,
    /// It was asked. Once is enough: it tells when there is some.
    Asked,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// What it keeps the order of.
    pub kind: Kind,
    /// How far it is.
    pub phase: Phase,
    /// The other end.
    pub peer: Peer,
    /// Which halves are open.
    pub halves: Halves,
    /// Who may send how much.
    pub credit: Credit,
    /// Bytes that the host program has not taken.
    pub backlog: Backlog,
    /// The same for messages.
    pub seqpacket: Option<Box<Seqpacket>>,
    /// How many receive buffers to fill at once: grows while they are all filled.
    pub appetite: u16,
    /// It is in the queue of those that have something for the guest.
    pub queued: bool,
    /// The host's socket may have something to read.
    pub readable: bool,
    /// The host program has ended its half, or all: reading goes on until the end is seen.
    pub hung_up: bool,
    /// There is something to read, and the guest has no room.
    pub starved: bool,
    /// There is room for the guest's window in the host's socket.
    pub grown: bool,
    /// The host's socket was full: an event tells when it is not.
    pub full: bool,
    /// Something to read in the socket is no event: it is read once the guest has room.
    pub deaf: bool,
    /// How soon what the host program writes is read.
    pub pace: Pace,
    /// What of the socket is an event at present.
    pub watched: Interest,
    /// Whether the guest is asked for room.
    pub asking: Asking,
    /// The packet that asks is to be sent.
    pub request_due: bool,
    /// The packet that begins the connection, REQUEST or RESPONSE, is to be sent.
    pub opening_due: bool,
    /// The guest asked for a credit update.
    pub update_due: bool,
    /// The host program asked for a port of the guest by a line, and gets one back.
    pub greeted: bool,
}

impl Connection {
    /// A connection with nothing sent either way.
    pub fn new(kind: Kind, phase: Phase, peer: Peer, window: u32) -> Self {
        Self {
            kind,
            phase,
            peer,
            halves: Halves::default(),
            credit: Credit::new(window),
            backlog: Backlog::default(),
            seqpacket: (kind == Kind::Seqpacket).then(Box::default),
            appetite: 1,
            queued: false,
            readable: false,
            hung_up: false,
            starved: false,
            grown: false,
            full: false,
            deaf: false,
            pace: Pace::default(),
            watched: Interest::NONE,
            asking: Asking::Not,
            request_due: false,
            opening_due: false,
            update_due: false,
            greeted: false,
        }
    }

    /// The host's socket, while there is one.
    pub fn socket(&self) -> Option<&Socket> {
        match &self.peer {
            Peer::Host(socket) => Some(socket),
            _ => None,
        }
    }

    /// The guest has room.
    pub fn feed(&mut self) {
        self.starved = false;
        if self.asking == Asking::Asked {
            self.asking = Asking::Not;
        }
    }

    /// Makes room for the guest's window in the host's socket, as far as the system allows. False if that was done before.
    pub fn grow(&mut self, window: u32) -> bool {
        let grows = !std::mem::replace(&mut self.grown, true);
        if let Some(socket) = self.socket().filter(|_| grows) {
            socket.grow_send_buffer(window);
        }
        grows
    }

    /// What of the host's socket should be an event.
    pub fn interest(&self) -> Interest {
        Interest {
            readable: !self.deaf,
            writable: self.full,
        }
    }

    /// Bytes of memory that wait for the host program or the guest.
    pub fn buffered(&self) -> usize {
        let messages = self.seqpacket.as_ref().map_or(0, |seqpacket| {
            let outgoing = seqpacket.outgoing.as_ref();
            seqpacket.messages.len() + outgoing.map_or(0, |outgoing| outgoing.bytes.len())
        });
        self.backlog.len() + messages
    }

    /// Whether the host program has everything that it will get.
    pub fn is_drained(&self) -> bool {
        let messages = self.seqpacket.as_ref();
        self.backlog.is_empty() && messages.is_none_or(|seqpacket| seqpacket.messages.is_empty())
    }

    /// Whether the host's bytes can go to the guest now.
    pub fn wants_to_read(&self) -> bool {
        self.phase == Phase::Open
            && self.halves.host_sends()
            && self.halves.guest_receives()
            && (self.readable || self.has_outgoing())
    }

    /// Whether complete messages wait for the host program.
    pub fn has_messages(&self) -> bool {
        self.seqpacket
            .as_ref()
            .is_some_and(|seqpacket| seqpacket.messages.front().is_some())
    }

    /// Whether a message was read and not completely sent.
    pub fn has_outgoing(&self) -> bool {
        self.seqpacket
            .as_ref()
            .is_some_and(|seqpacket| seqpacket.outgoing.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shut_stays_shut_and_is_told_once() {
        let mut halves = Halves::default();
        assert_eq!(halves.shut_guest(SHUTDOWN_SEND), SHUTDOWN_SEND);
        assert_eq!(halves.shut_guest(0), 0);
        assert!(!halves.guest_sends() && halves.guest_receives());
        assert_eq!(halves.shut_guest(u32::MAX), SHUTDOWN_RECEIVE);
        assert!(halves.guest_is_done());

        assert_eq!(halves.news(), None);
        halves.shut_host(SHUTDOWN_SEND);
        assert_eq!(halves.news(), Some(SHUTDOWN_SEND));
        halves.tell();
        assert_eq!(halves.news(), None);
        halves.shut_host(SHUTDOWN_RECEIVE);
        assert_eq!(halves.news(), Some(SHUTDOWN_BOTH), "hints do not go away");
        assert!(halves.host_is_done());
    }

    #[test]
    fn an_idle_connection_is_small() {
        assert!(
            size_of::<Connection>() <= 256,
            "{}",
            size_of::<Connection>()
        );
    }
}
