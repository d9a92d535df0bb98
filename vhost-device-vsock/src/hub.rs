//! How guests of one process reach each other.
//!
//! Each guest that is there has an inbox, into which the others' threads put packets for it. The guests keep each other's
//! credit themselves: packets go from one to the other with their counters as they are, so what an inbox holds is bounded by
//! the windows of honest guests, and by [`MAX_INBOX`] in any case.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vhost_device_core::Waker;
use zerocopy::IntoBytes;

use crate::config::Groups;
use crate::wire::{HEADER_BYTES, Header};

/// Bytes of packets that wait for one guest; a connection that brings more is reset.
pub const MAX_INBOX: usize = 16 * 1024 * 1024;

/// The operation of a packet that no guest sends: the guest that it comes from is gone.
pub const OP_GONE: u16 = 0;

/// All guests of the process that are there.
#[derive(Debug, Default)]
pub struct Hub {
    members: Mutex<BTreeMap<u64, Arc<Member>>>,
}

/// A guest that is there.
pub struct Member {
    cid: u64,
    groups: Groups,
    inbox: Mutex<Vec<u8>>,
    waker: Waker,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member")
            .field("cid", &self.cid)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

/// The inbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A panic while a lock is held leaves nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Member {
    /// Puts a packet into the inbox. `payload` fills the room behind the header, which is as long as the header says, and
    /// says whether it could.
    ///
    /// # Errors
    /// [`Full`]: the packet is not in it.
    pub fn deliver(
        &self,
        header: &Header,
        payload: impl FnOnce(&mut [u8]) -> bool,
    ) -> Result<(), Full> {
        let length = header.len.get() as usize;
        let mut inbox = lock(&self.inbox);
        let start = inbox.len();
        if start + HEADER_BYTES as usize + length > MAX_INBOX {
            return Err(Full);
        }
        inbox.extend_from_slice(header.as_bytes());
        let body = inbox.len();
        inbox.resize(body + length, 0);
        if !inbox.get_mut(body..).is_some_and(payload) {
            inbox.truncate(start);
        }
        drop(inbox);
        if start == 0 {
            self.waker.wake();
        }
        Ok(())
    }

    /// Puts a packet without payload into the inbox, also if that is full: for the end of a connection, of which there are
    /// not more than connections.
    pub fn tell(&self, header: &Header) {
        let mut inbox = lock(&self.inbox);
        inbox.extend_from_slice(header.as_bytes());
        let first = inbox.len() == HEADER_BYTES as usize;
        drop(inbox);
        if first {
            self.waker.wake();
        }
    }
}

/// A guest's place in the hub; it leaves when this is dropped.
#[derive(Debug)]
pub struct Membership {
    hub: Arc<Hub>,
    member: Arc<Member>,
}

impl Membership {
    /// Joins `hub`. One that has the same context ID already is replaced.
    pub fn new(hub: &Arc<Hub>, cid: u64, groups: Groups, waker: Waker) -> Self {
        let member = Arc::new(Member {
            cid,
            groups,
            inbox: Mutex::default(),
            waker,
        });
        lock(&hub.members).insert(cid, Arc::clone(&member));
        Self {
            hub: Arc::clone(hub),
            member,
        }
    }

    /// Another guest, if it is there and may be reached from here.
    pub fn reach(&self, cid: u64) -> Option<Arc<Member>> {
        let members = lock(&self.hub.members);
        let other = members.get(&cid).filter(|other| {
            other.cid != self.member.cid && other.groups.intersect(&self.member.groups)
        });
        other.cloned()
    }

    /// Exchanges the packets that wait with an empty list.
    pub fn take(&self, packets: &mut Vec<u8>) {
        std::mem::swap(&mut *lock(&self.member.inbox), packets);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut members = lock(&self.hub.members);
        if members
            .get(&self.member.cid)
            .is_some_and(|member| Arc::ptr_eq(member, &self.member))
        {
            members.remove(&self.member.cid);
        }
        let gone = Header {
            src_cid: self.member.cid.into(),
            op: OP_GONE.into(),
            ..Header::default()
        };
        for member in members.values() {
            if member.groups.intersect(&self.member.groups) {
                member.tell(&gone);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn join(hub: &Arc<Hub>, cid: u64, groups: &str) -> (Membership, Arc<AtomicU32>) {
        let wakes = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&wakes);
        let waker = Waker::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        (
            Membership::new(hub, cid, groups.parse().unwrap(), waker),
            wakes,
        )
    }

    fn packet(len: u32) -> Header {
        Header {
            len: len.into(),
            ..Header::default()
        }
    }

    #[test]
    fn guests_reach_those_with_a_group_in_common_while_they_are_there() {
        let hub = Arc::default();
        let (three, _) = join(&hub, 3, "a+b");
        let (four, _) = join(&hub, 4, "b");
        let (five, _) = join(&hub, 5, "c");
        assert!(three.reach(4).is_some() && four.reach(3).is_some());
        assert!(three.reach(5).is_none() && five.reach(3).is_none());
        assert!(three.reach(3).is_none() && three.reach(6).is_none());
        drop(four);
        assert!(three.reach(4).is_none());
        let mut packets = Vec::new();
        three.take(&mut packets);
        assert_eq!(packets.len(), HEADER_BYTES as usize, "told that it is gone");
        five.take(&mut packets);
        three.take(&mut packets);
        assert!(packets.len() <= HEADER_BYTES as usize, "five never knew it");
    }

    #[test]
    fn packets_wait_in_order_and_wake_once() {
        let hub = Arc::default();
        let (three, wakes) = join(&hub, 3, "a");
        let (four, _) = join(&hub, 4, "a");
        let member = four.reach(3).unwrap();
        for byte in [1, 2] {
            member
                .deliver(&packet(3), |room| {
                    room.fill(byte);
                    true
                })
                .unwrap();
        }
        member.deliver(&packet(9), |_| false).unwrap();
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        let mut packets = Vec::new();
        three.take(&mut packets);
        let expected = [packet(3).as_bytes(), &[1; 3], packet(3).as_bytes(), &[2; 3]].concat();
        assert_eq!(packets, expected);
    }

    #[test]
    fn an_inbox_that_nobody_empties_takes_no_more_than_its_bound() {
        let hub = Arc::default();
        let (_three, _) = join(&hub, 3, "a");
        let (four, _) = join(&hub, 4, "a");
        let member = four.reach(3).unwrap();
        let mut delivered = 0;
        while member.deliver(&packet(1 << 20), |_| true).is_ok() {
            delivered += 1;
        }
        assert_eq!(delivered, MAX_INBOX / ((1 << 20) + HEADER_BYTES as usize));
        member.tell(&packet(0));
    }
}
