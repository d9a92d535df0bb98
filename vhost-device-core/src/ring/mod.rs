//! The device's side of a split virtqueue (VIRTIO 1.3, section 2.7).
//!
//! A [`Ring`] keeps the indices; it is the only place that knows them. A [`Queue`] is one batch: it maps the ring once,
//! hands out requests, publishes the used index once and signals the driver at most once.

mod chain;
mod layout;
mod queue;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::Bytes;

pub use chain::MAX_CHAIN_LENGTH;
pub use layout::{Layout, MAX_QUEUE_SIZE};
pub use queue::{Origin, Queue, Ticket};

pub(crate) use chain::Chain;
use layout::Parts;
pub(crate) use queue::RequestSlot;

use crate::fault::RingFault;
use crate::ids::QueueIndex;
use crate::limit;
use crate::memory::Memory;
use crate::meter::Meter;

const USED_F_NO_NOTIFY: u16 = 1;
const FLAGS_OFFSET: usize = 0;
const INDEX_OFFSET: usize = 2;

/// Tells the driver that used buffers are waiting.
pub trait Notifier: Send {
    /// Interrupts the driver. Must not block.
    fn notify(&self);
}

impl<F: Fn() + Send> Notifier for F {
    fn notify(&self) {
        self()
    }
}

/// A queue to start.
pub struct Start {
    /// Which queue.
    pub index: QueueIndex,
    /// Its size and addresses.
    pub layout: Layout,
    /// Where in the available ring to start.
    pub next_available: u16,
    /// The features that the driver acknowledged.
    pub features: u64,
    /// How to interrupt the driver.
    pub notifier: Box<dyn Notifier>,
    /// Where what happens on the queue is counted.
    pub meter: Arc<Meter>,
}

/// What happened on a ring since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests taken from the ring.
    pub requests: u64,
    /// Requests that ended with a [`GuestFault`](crate::GuestFault).
    pub faults: u64,
    /// Notifications sent to the driver.
    pub notified: u64,
    /// Batches after which the driver asked not to be notified.
    pub suppressed: u64,
    /// Bytes read from and written to requests' buffers.
    pub bytes: u64,
    /// What the device dropped because a limit was reached.
    pub dropped: u64,
}

/// The state of one running virtqueue.
pub struct Ring {
    index: QueueIndex,
    layout: Layout,
    /// Where in the available ring this run began.
    origin: u16,
    event_index: bool,
    indirect: bool,
    /// Next entry of the available ring to take; free running.
    next_available: u16,
    /// Next entry of the used ring to fill; free running.
    next_used: u16,
    /// The used index that the driver can see.
    published: u16,
    /// Bytes written by requests that the driver cannot see yet.
    unpublished_bytes: u64,
    /// Bytes read and written by requests of the present batch.
    batch_bytes: u64,
    /// Chains taken and neither completed nor put back.
    in_flight: u16,
    /// Distinguishes this run of the queue from earlier ones, for tickets that outlive a stop.
    run: u32,
    /// The driver may add buffers without a kick; it must be asked again before we sleep.
    suppressing: bool,
    /// The last look found the ring empty: ask for a kick before sleeping.
    drained: bool,
    /// The batch limit was reached with requests left.
    more: bool,
    /// The driver's available index when polling last looked.
    polled: u16,
    fault: Option<RingFault>,
    notifier: Box<dyn Notifier>,
    chain: Chain,
    /// Lists of finished detached requests, for reuse.
    spare: Vec<Chain>,
    counters: Counters,
    /// The counters when the meter was last told.
    metered: Counters,
    meter: Arc<Meter>,
}

impl Ring {
    /// A ring that starts at `next_available` under the features that the driver acknowledged. The used index starts at
    /// what the used ring holds, so that a ring taken over from another back-end goes on where it was.
    ///
    /// # Errors
    /// [`RingFault::Unmapped`] if the ring is not in `memory`.
    pub fn start(start: Start, memory: &Memory, run: u32) -> Result<Self, RingFault> {
        let Start {
            index,
            layout,
            next_available,
            features,
            notifier,
            meter,
        } = start;
        let parts = layout.map(memory)?;
        let published = load(&parts.used, INDEX_OFFSET, Ordering::Relaxed)?;
        meter.started();
        Ok(Self {
            index,
            layout,
            origin: next_available,
            event_index: features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0,
            indirect: features & (1 << VIRTIO_RING_F_INDIRECT_DESC) != 0,
            next_available,
            next_used: published,
            published,
            unpublished_bytes: 0,
            batch_bytes: 0,
            in_flight: 0,
            run,
            suppressing: true,
            drained: true,
            // The driver may have kicked before there was anyone to listen.
            more: true,
            polled: next_available,
            fault: None,
            notifier,
            chain: Chain::default(),
            spare: Vec::new(),
            counters: Counters::default(),
            metered: Counters::default(),
            meter,
        })
    }

    /// Which queue of the device this is.
    pub fn index(&self) -> QueueIndex {
        self.index
    }

    /// The available index to resume at, as GET_VRING_BASE reports it.
    pub fn next_available(&self) -> u16 {
        self.next_available
    }

    /// The used index as the driver sees it. While requests complete in order this is also the available index of the
    /// oldest request that the driver has not got back.
    pub fn published(&self) -> u16 {
        self.published
    }

    /// Chains taken and not yet given back.
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Why the ring stopped, if it did.
    pub fn fault(&self) -> Option<RingFault> {
        self.fault
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Tells the meter what happened since it was told last.
    fn report(&mut self) {
        self.meter.advance(&mut self.metered, &self.counters);
    }

    /// Exchanges the way to interrupt the driver, and interrupts it once through the new one: a signal sent to the old
    /// one just before may have been lost.
    pub fn set_notifier(&mut self, notifier: Box<dyn Notifier>) {
        self.notifier = notifier;
        self.notifier.notify();
    }

    /// Maps the ring for one batch.
    pub fn queue<'a>(&'a mut self, memory: &'a Arc<Memory>) -> Queue<'a> {
        Queue::new(self, memory)
    }

    /// Whether a batch ended at its limit with requests left. Told once: a worker that does not come back for them has
    /// left them there on purpose.
    pub(crate) fn take_more(&mut self) -> bool {
        std::mem::take(&mut self.more) && self.fault.is_none()
    }

    /// Whether the driver added requests since the last look, without asking it for a kick. What the worker left in the
    /// ring on purpose, such as receive buffers that wait for data, is no news.
    pub(crate) fn poll(&mut self, memory: &Memory) -> bool {
        if self.fault.is_some() {
            return false;
        }
        let Ok(index) = self
            .layout
            .map(memory)
            .and_then(|parts| load(&parts.available, INDEX_OFFSET, Ordering::Acquire))
        else {
            return false;
        };
        let before = std::mem::replace(&mut self.polled, index);
        index != before && index != self.next_available
    }

    /// Asks the driver for a kick, if the ring was found empty, and looks once more. True if requests arrived meanwhile.
    pub(crate) fn rearm(&mut self, memory: &Memory) -> bool {
        if !self.drained || !self.suppressing || self.fault.is_some() {
            return false;
        }
        match self.try_rearm(memory) {
            Ok(more) => more,
            Err(fault) => {
                self.fail(fault);
                false
            }
        }
    }

    fn try_rearm(&mut self, memory: &Memory) -> Result<bool, RingFault> {
        let parts = self.layout.map(memory)?;
        if self.event_index {
            self.store_used(
                memory,
                &parts,
                self.layout.avail_event_offset(),
                self.next_available,
            )?;
        } else {
            self.store_used(memory, &parts, FLAGS_OFFSET, 0)?;
        }
        self.suppressing = false;
        // Our wish must be visible before we look: the driver stores its index, then reads our wish (section 2.7.10).
        fence(Ordering::SeqCst);
        let index = load(&parts.available, INDEX_OFFSET, Ordering::Acquire)?;
        Ok(index != self.next_available)
    }

    /// Tells the driver that kicks are not needed while a batch runs. With the event index nothing has to be written.
    fn suppress(&mut self, memory: &Memory, parts: &Parts<'_>) -> Result<(), RingFault> {
        if !self.suppressing {
            self.suppressing = true;
            if !self.event_index {
                self.store_used(memory, parts, FLAGS_OFFSET, USED_F_NO_NOTIFY)?;
            }
        }
        Ok(())
    }

    fn store_used(
        &self,
        memory: &Memory,
        parts: &Parts<'_>,
        offset: usize,
        value: u16,
    ) -> Result<(), RingFault> {
        store(&parts.used, offset, value, Ordering::Relaxed)?;
        memory.mark(self.layout.used_address() + offset as u64, 2);
        Ok(())
    }

    /// Stops the ring for good: nothing on it can be trusted.
    fn fail(&mut self, fault: RingFault) {
        if self.fault.replace(fault).is_none() {
            self.meter.corrupted();
            limit::ring_fault(self.index, fault);
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("index", &self.index)
            .field("layout", &self.layout)
            .field("next_available", &self.next_available)
            .field("published", &self.published)
            .field("in_flight", &self.in_flight)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

fn load(
    part: &vm_memory::VolatileSlice<'_>,
    offset: usize,
    order: Ordering,
) -> Result<u16, RingFault> {
    part.load::<u16>(offset, order)
        .map(u16::from_le)
        .map_err(|_| RingFault::Unmapped)
}

fn store(
    part: &vm_memory::VolatileSlice<'_>,
    offset: usize,
    value: u16,
    order: Ordering,
) -> Result<(), RingFault> {
    part.store(value.to_le(), offset, order)
        .map_err(|_| RingFault::Unmapped)
}
