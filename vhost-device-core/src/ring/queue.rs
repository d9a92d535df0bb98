//! One batch on a ring: requests out, completions in, one publication and at most one signal at the end.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, VolatileSlice};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::layout::{Parts, USED_ENTRY_BYTES};
use super::{Chain, FLAGS_OFFSET, INDEX_OFFSET, Ring, load, store};
use crate::fault::{GuestFault, RingFault};
use crate::ids::QueueIndex;
use crate::limit;
use crate::memory::Memory;
use crate::meter::count;
use crate::request::{Request, Segments};

const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// Most requests served in one batch before other queues and events get their turn.
const MAX_BATCH: u16 = 1024;

/// Most bytes read and written in one batch before other queues and events get their turn.
const MAX_BATCH_BYTES: u64 = 1 << 20;

/// Bytes completed in one batch after which the driver is told early, so that it can work on them while we go on, if they are
/// half of what there was.
const FLUSH_BYTES: u64 = 32 * 1024;

/// Bytes after which it is told in any case.
const MAX_UNPUBLISHED_BYTES: u64 = 128 * 1024;

/// `struct virtq_used_elem` (section 2.7.8).
#[derive(IntoBytes, zerocopy::Immutable)]
#[repr(C)]
struct UsedElement {
    id: U32,
    len: U32,
}

/// The right to complete one request later. It is spent by [`Queue::complete`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a ticket that is dropped leaves its request open for ever"]
pub struct Ticket {
    queue: QueueIndex,
    head: u16,
    run: u32,
}

impl Ticket {
    /// The queue that the request came from.
    pub fn queue(&self) -> QueueIndex {
        self.queue
    }
}

/// How a run of a queue began; see [`Queue::origin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Distinguishes this run of the queue from all others of the same worker.
    pub run: u32,
    /// The available index that it began at.
    pub index: u16,
}

/// One batch. Dropping it publishes what was completed and signals the driver if it asked for that.
pub struct Queue<'a> {
    active: Option<Active<'a>>,
}

/// A ring with its parts mapped.
struct Active<'a> {
    ring: &'a mut Ring,
    memory: &'a Arc<Memory>,
    parts: Parts<'a>,
    /// The driver's available index as last read; entries up to it may be taken without reading it again.
    available: u16,
    left: u16,
}

impl<'a> Queue<'a> {
    pub(super) fn new(ring: &'a mut Ring, memory: &'a Arc<Memory>) -> Self {
        if ring.fault.is_some() {
            return Self::stopped();
        }
        ring.more = false;
        ring.batch_bytes = 0;
        match ring.layout.map(memory) {
            Ok(parts) => Self {
                active: Some(Active {
                    available: ring.next_available,
                    ring,
                    memory,
                    parts,
                    left: MAX_BATCH,
                }),
            },
            Err(fault) => {
                ring.fail(fault);
                Self::stopped()
            }
        }
    }

    /// A queue that is not running: it has no requests and takes no completions.
    pub fn stopped() -> Self {
        Self { active: None }
    }

    /// Takes no more than `requests` in this batch. The worker is kicked again for the rest after whatever else waits for
    /// the thread has had its turn.
    pub fn at_most(mut self, requests: u16) -> Self {
        if let Some(active) = &mut self.active {
            active.left = active.left.min(requests);
        }
        self
    }

    /// Whether the queue runs.
    pub fn is_running(&self) -> bool {
        self.active
            .as_ref()
            .is_some_and(|active| active.ring.fault.is_none())
    }

    /// Which run of the queue this is, and where in the available ring it began. A driver that starts anew begins at 0, one
    /// that was paused goes on where it was. `None` if the queue does not run.
    pub fn origin(&self) -> Option<Origin> {
        self.active.as_ref().map(|active| Origin {
            run: active.ring.run,
            index: active.ring.origin,
        })
    }

    /// Takes the next request. `None`: the ring is empty, stopped, or it is the other queues' turn; in the last case the
    /// worker is kicked again by itself.
    ///
    /// The driver is asked for kicks only once this was `None` for an empty ring. A worker that stops before leaves the
    /// rest on purpose, and has to come back for it by an event of its own.
    ///
    /// A chain that cannot be walked is answered here, with used length 0, and the next one is tried.
    #[expect(
        clippy::should_implement_trait,
        reason = "a request borrows its batch, which Iterator cannot express"
    )]
    pub fn next(&mut self) -> Option<Request<'_>> {
        let active = self.active.as_mut()?;
        if active.should_publish() {
            active.publish();
        }
        let head = active.take_walked()?;
        let chain = std::mem::take(&mut active.ring.chain);
        let slot = RequestSlot {
            ring: active.ring,
            memory: active.memory,
            used: active.parts.used,
            head,
        };
        Some(Request::new(slot, chain))
    }

    /// Completes a detached request: `written` bytes of its device-writable part are valid, from the first on.
    ///
    /// A ticket from before the queue was stopped or reset has nothing to complete any more and is ignored.
    pub fn complete(&mut self, ticket: Ticket, written: u32) {
        if let Some(active) = &mut self.active
            && ticket.queue == active.ring.index
            && ticket.run == active.ring.run
        {
            active
                .ring
                .push_used(active.memory, &active.parts.used, ticket.head, written);
        }
    }

    /// Leaves a detached request in the ring as if it had never been taken, for a queue that stops while a worker collects
    /// requests that belong together. Only the request taken last can be put back, so several go in reverse order, with
    /// nothing completed or taken in between.
    ///
    /// A ticket from before the queue was stopped or reset is ignored.
    pub fn put_back(&mut self, ticket: Ticket) {
        if let Some(active) = &mut self.active
            && ticket.queue == active.ring.index
            && ticket.run == active.ring.run
        {
            active.ring.put_back();
        }
    }

    /// How many chains were refused since the queue started. A worker that collects requests sees by it that one is
    /// missing between two that it was given.
    pub fn faults(&self) -> u64 {
        self.active
            .as_ref()
            .map_or(0, |active| active.ring.counters.faults)
    }

    /// Gives the lists of a finished detached request back for reuse, so that requests do not allocate.
    pub fn recycle(&mut self, segments: Segments) {
        if let Some(active) = &mut self.active {
            active.ring.recycle(segments.into_chain());
        }
    }

    /// Has the worker kicked again by itself, after other queues and events had their turn: for a worker that stops
    /// before the ring is empty.
    pub fn defer(&mut self) {
        if let Some(active) = &mut self.active {
            active.ring.more = true;
        }
    }

    /// Counts something that the device dropped because a limit was reached.
    pub fn count_dropped(&mut self) {
        if let Some(active) = &mut self.active {
            count(&mut active.ring.counters.dropped, 1);
        }
    }

    /// Makes the completions so far visible to the driver and signals it if it asked for that. Dropping the queue does it
    /// too; a device calls this only to answer early in a long batch.
    pub fn flush(&mut self) {
        if let Some(active) = &mut self.active {
            active.publish();
        }
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        if let Some(active) = &mut self.active {
            active.publish();
            active.ring.report();
        }
    }
}

impl Active<'_> {
    fn take_walked(&mut self) -> Option<u16> {
        loop {
            let head = self.take()?;
            let ring = &mut *self.ring;
            let walked = ring
                .chain
                .walk(head, &self.parts.descriptors, ring.indirect, self.memory);
            match walked {
                Ok(()) => return Some(head),
                Err(fault) => ring.refuse(self.memory, &self.parts.used, head, fault),
            }
        }
    }

    fn take(&mut self) -> Option<u16> {
        match self.try_take() {
            Ok(head) => head,
            Err(fault) => {
                self.ring.fail(fault);
                None
            }
        }
    }

    fn try_take(&mut self) -> Result<Option<u16>, RingFault> {
        if self.ring.fault.is_some() {
            return Ok(None);
        }
        if self.ring.next_available == self.available && !self.refresh()? {
            return Ok(None);
        }
        let Some(left) = self
            .left
            .checked_sub(1)
            .filter(|_| self.ring.batch_bytes < MAX_BATCH_BYTES)
        else {
            self.ring.more = true;
            return Ok(None);
        };
        let size = self.ring.layout.size();
        if self.ring.in_flight >= size {
            return Err(RingFault::Overcommitted);
        }
        let offset = self
            .ring
            .layout
            .avail_entry_offset(self.ring.next_available);
        let head = load(&self.parts.available, offset, Ordering::Relaxed)?;
        if head >= size {
            return Err(RingFault::HeadIndex);
        }
        self.left = left;
        self.ring.next_available = self.ring.next_available.wrapping_add(1);
        self.ring.in_flight += 1;
        count(&mut self.ring.counters.requests, 1);
        Ok(Some(head))
    }

    /// Reads the driver's index. False if there is nothing new.
    fn refresh(&mut self) -> Result<bool, RingFault> {
        let ring = &mut *self.ring;
        let available = load(&self.parts.available, INDEX_OFFSET, Ordering::Acquire)?;
        let ahead = available.wrapping_sub(ring.next_available);
        if ahead > ring.layout.size() {
            return Err(RingFault::AvailableIndex);
        }
        self.available = available;
        ring.drained = ahead == 0;
        if ahead > 0 {
            ring.suppress(self.memory, &self.parts)?;
        }
        Ok(ahead > 0)
    }

    /// Whether the driver should be told of completions in the midst of a batch.
    fn should_publish(&self) -> bool {
        let done = self.ring.next_used.wrapping_sub(self.ring.published);
        let left = self.available.wrapping_sub(self.ring.next_available);
        match self.ring.unpublished_bytes {
            MAX_UNPUBLISHED_BYTES.. => true,
            FLUSH_BYTES.. => done >= left,
            _ => false,
        }
    }

    fn publish(&mut self) {
        self.ring.unpublished_bytes = 0;
        if self.ring.next_used == self.ring.published {
            return;
        }
        match self.try_publish() {
            Ok(true) => {
                count(&mut self.ring.counters.notified, 1);
                self.ring.notifier.notify();
            }
            Ok(false) => count(&mut self.ring.counters.suppressed, 1),
            Err(fault) => self.ring.fail(fault),
        }
    }

    /// Stores the used index; true if the driver wants to be told.
    fn try_publish(&mut self) -> Result<bool, RingFault> {
        let ring = &mut *self.ring;
        let old = ring.published;
        let new = ring.next_used;
        store(&self.parts.used, INDEX_OFFSET, new, Ordering::Release)?;
        self.memory
            .mark(ring.layout.used_address() + INDEX_OFFSET as u64, 2);
        ring.published = new;
        // The index must be visible before we read the driver's wish: it stores its wish, then reads the index.
        fence(Ordering::SeqCst);
        if ring.event_index {
            let offset = ring.layout.used_event_offset();
            let event = load(&self.parts.available, offset, Ordering::Relaxed)?;
            Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
        } else {
            let flags = load(&self.parts.available, FLAGS_OFFSET, Ordering::Relaxed)?;
            Ok(flags & AVAIL_F_NO_INTERRUPT == 0)
        }
    }
}

impl Ring {
    fn push_used(&mut self, memory: &Memory, used: &VolatileSlice<'_>, head: u16, written: u32) {
        let offset = self.layout.used_entry_offset(self.next_used);
        let element = UsedElement {
            id: u32::from(head).into(),
            len: written.into(),
        };
        if used.write_slice(element.as_bytes(), offset).is_err() {
            return self.fail(RingFault::Unmapped);
        }
        memory.mark(
            self.layout.used_address() + offset as u64,
            USED_ENTRY_BYTES as u64,
        );
        self.unpublished_bytes += u64::from(written);
        self.batch_bytes += u64::from(written);
        count(&mut self.counters.bytes, u64::from(written));
        self.next_used = self.next_used.wrapping_add(1);
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    fn refuse(&mut self, memory: &Memory, used: &VolatileSlice<'_>, head: u16, fault: GuestFault) {
        // not for people only: workers ask for it
        self.counters.faults += 1;
        self.meter.refused(fault);
        limit::guest_fault(self.index, fault);
        self.push_used(memory, used, head, 0);
    }

    fn put_back(&mut self) {
        self.next_available = self.next_available.wrapping_sub(1);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.counters.requests = self.counters.requests.saturating_sub(1);
    }

    fn recycle(&mut self, chain: Chain) {
        if self.spare.len() < usize::from(self.layout.size()) {
            self.spare.push(chain);
        }
    }
}

/// A request's hold on its batch: each of the ways to end it consumes the slot.
pub(crate) struct RequestSlot<'q> {
    ring: &'q mut Ring,
    memory: &'q Arc<Memory>,
    used: VolatileSlice<'q>,
    head: u16,
}

impl<'q> RequestSlot<'q> {
    pub fn index(&self) -> QueueIndex {
        self.ring.index
    }

    pub fn memory(&self) -> &'q Arc<Memory> {
        self.memory
    }

    /// Completes the request. `read` counts against the batch as `written` does.
    pub fn complete(&mut self, chain: Chain, written: u32, read: u64) {
        self.ring.batch_bytes += read;
        count(&mut self.ring.counters.bytes, read);
        self.ring
            .push_used(self.memory, &self.used, self.head, written);
        self.ring.chain = chain;
    }

    pub fn refuse(&mut self, chain: Chain, fault: GuestFault) {
        self.ring.refuse(self.memory, &self.used, self.head, fault);
        self.ring.chain = chain;
    }

    pub fn put_back(&mut self, chain: Chain) {
        self.ring.put_back();
        self.ring.chain = chain;
    }

    pub fn detach(&mut self) -> Ticket {
        self.ring.chain = self.ring.spare.pop().unwrap_or_default();
        Ticket {
            queue: self.ring.index,
            head: self.head,
            run: self.ring.run,
        }
    }
}
