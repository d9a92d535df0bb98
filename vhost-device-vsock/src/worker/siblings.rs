//! Packets from and to other guests of the process.

use std::sync::Arc;

use vhost_device_core::Queue;
use zerocopy::FromBytes;

use super::VsockWorker;
use super::control::number;
use super::gather::Item;
use super::receive::packet;
use super::transmit::{complete, copy, log_violation};
use crate::connection::{Peer, Phase};
use crate::host::Kind;
use crate::hub::{Member, OP_GONE};
use crate::table::{Address, Slot};
use crate::wire::{HEADER_BYTES, Header, OP_REQUEST, OP_RST, OP_RW};

/// Memory that a list of packets keeps when it is empty.
const KEEP: usize = 256 * 1024;

/// Packets of other guests for this one.
#[derive(Default)]
pub(super) struct Arrivals {
    packets: Vec<u8>,
    /// Bytes of them that are done with: packets, and a part of the present one's data.
    done: usize,
    /// Bytes of the present packet's data that were sent.
    sent: usize,
    /// There may be more in the inbox.
    more: bool,
}

impl Arrivals {
    /// The inbox has something.
    pub fn look(&mut self) {
        self.more = true;
    }

    fn next(&self) -> Option<(Header, &[u8])> {
        let rest = self.packets.get(self.done..)?;
        let (header, rest) = Header::read_from_prefix(rest).ok()?;
        let data = rest.get(..header.len.get() as usize)?;
        Some((header, data.get(self.sent..)?))
    }

    fn advance(&mut self, header: &Header) {
        self.done += HEADER_BYTES as usize + header.len.get() as usize;
        self.sent = 0;
    }

    fn clear(&mut self) {
        self.packets.clear();
        self.packets.shrink_to(KEEP);
        self.done = 0;
    }
}

/// Where a packet from another guest comes from, as this guest sees it.
fn source(header: &Header) -> Address {
    Address {
        guest_port: header.dst_port.get(),
        peer_port: header.src_port.get(),
        peer_cid: header.src_cid.get(),
    }
}

impl VsockWorker {
    pub(super) fn is_sibling(&mut self, slot: Slot) -> bool {
        self.sibling(slot).is_some()
    }

    fn sibling(&mut self, slot: Slot) -> Option<Arc<Member>> {
        match &self.table.get_mut(slot)?.peer {
            Peer::Guest(member) => Some(Arc::clone(member)),
            _ => None,
        }
    }

    /// The guest asks another one for a connection.
    pub(super) fn request_to_sibling(
        &mut self,
        header: &Header,
        kind: Kind,
        address: Address,
    ) -> Option<Slot> {
        let member = self.membership.reach(address.peer_cid)?;
        let peer = Peer::Guest(Arc::clone(&member));
        let slot = self.insert(kind, Phase::Open, peer, Some(address))?;
        let header = Header {
            len: 0.into(),
            ..*header
        };
        if member.deliver(&header, |_| true).is_err() {
            self.end(slot);
            return None;
        }
        Some(slot)
    }

    /// A packet without data for another guest.
    pub(super) fn control_to_sibling(&mut self, slot: Slot, header: &Header) {
        let Some(member) = self.sibling(slot) else {
            return;
        };
        let header = Header {
            len: 0.into(),
            ..*header
        };
        if header.op.get() == OP_RST {
            member.tell(&header);
            return self.end(slot);
        }
        if header.op.get() == OP_REQUEST || member.deliver(&header, |_| true).is_err() {
            self.reset(slot);
        }
    }

    /// Data for another guest.
    pub(super) fn data_to_sibling(
        &mut self,
        slot: Slot,
        header: &Header,
        item: Item,
        queue: &mut Queue<'_>,
    ) {
        let Some(member) = self.sibling(slot) else {
            return complete(queue, item.ticket, item.segments);
        };
        let mut readable = true;
        let delivered = member.deliver(header, |room| {
            readable = copy(&item.segments, room);
            readable
        });
        complete(queue, item.ticket, item.segments);
        if delivered.is_err() {
            log_violation("too much waits for another guest");
        }
        if delivered.is_err() || !readable {
            self.reset(slot);
        }
    }

    /// Tells another guest that a connection is reset.
    pub(super) fn tell_sibling(&mut self, slot: Slot) {
        let Some(member) = self.sibling(slot) else {
            return;
        };
        let (Some(address), Some(connection)) =
            (self.table.address(slot), self.table.get_mut(slot))
        else {
            return;
        };
        let kind = connection.kind;
        // From the other one's point of view.
        member.tell(&packet(address, kind, self.cid(), OP_RST).reset());
    }

    /// Passes packets of other guests on. False if there are no more buffers.
    pub(super) fn send_arrivals(&mut self, queue: &mut Queue<'_>) -> bool {
        loop {
            if self.arrivals.next().is_none() {
                self.arrivals.clear();
                if !std::mem::take(&mut self.arrivals.more) {
                    return true;
                }
                self.membership.take(&mut self.arrivals.packets);
                continue;
            }
            if !self.send_arrival(queue) {
                return false;
            }
        }
    }

    /// Passes one packet on, or a part of its data.
    fn send_arrival(&mut self, queue: &mut Queue<'_>) -> bool {
        let Some((header, _)) = self.arrivals.next() else {
            return true;
        };
        if header.op.get() == OP_GONE {
            self.arrivals.advance(&header);
            self.forget_sibling(header.src_cid.get());
            return true;
        }
        if self.arrivals.sent == 0 && !self.is_expected(&header) {
            self.arrivals.advance(&header);
            return true;
        }
        if self.scatter.reserve(queue, 1, 0) == 0 {
            return false;
        }
        let Some((header, data)) = self.arrivals.next() else {
            return true;
        };
        let rest = data.len();
        let sent = self.scatter.send(queue, data, |length| {
            let last = length as usize == rest;
            Header {
                len: length.into(),
                flags: match (last, header.op.get()) {
                    // The end of a message is with its last piece.
                    (false, OP_RW) => 0.into(),
                    _ => header.flags,
                },
                ..header
            }
        });
        self.arrivals.sent += sent;
        if sent == rest {
            self.arrivals.advance(&header);
            if header.op.get() == OP_RST
                && let Some(slot) = self.table.find(&source(&header))
            {
                self.end(slot);
            }
        }
        true
    }

    /// Whether a packet belongs to a connection, or begins one. Its sender is told if not.
    fn is_expected(&mut self, header: &Header) -> bool {
        let address = source(header);
        let found = self
            .table
            .find(&address)
            .filter(|slot| self.is_sibling(*slot));
        let expected = match (header.op.get(), found) {
            (OP_REQUEST, None) => self.begin_from_sibling(header, address),
            (OP_REQUEST, Some(_)) => false,
            (_, found) => found.is_some(),
        };
        if !expected
            && header.op.get() != OP_RST
            && let Some(member) = self.membership.reach(address.peer_cid)
        {
            member.tell(&header.reset());
        }
        expected
    }

    fn begin_from_sibling(&mut self, header: &Header, address: Address) -> bool {
        let Some(kind) = self.kind(header.kind.get()) else {
            return false;
        };
        let Some(member) = self.membership.reach(address.peer_cid) else {
            return false;
        };
        debug_assert_eq!(number(kind), header.kind.get());
        self.insert(kind, Phase::Open, Peer::Guest(member), Some(address))
            .is_some()
    }

    /// Another guest is gone, and all connections with it.
    fn forget_sibling(&mut self, cid: u64) {
        for slot in self.table.slots() {
            let with_it = self
                .table
                .address(slot)
                .is_some_and(|address| address.peer_cid == cid);
            if with_it {
                self.reset(slot);
            }
        }
    }
}
