//! What the daemon counts: per queue, in the core's meters, and per socket, here.

mod control;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vhost_device_core::{Meter, QueueIndex};

pub(crate) use control::ControlSocket;
pub(crate) use text::Page;

/// The counters of one socket over the life of the process.
#[derive(Debug)]
pub(crate) struct SocketMetrics {
    /// How the socket is called in the text.
    pub label: String,
    /// The meters of the device's queues.
    pub queues: Vec<Arc<Meter>>,
    /// Frontends that were served.
    pub frontends: AtomicU64,
    /// Frontends that were turned away because another was served.
    pub turned_away: AtomicU64,
    /// Messages of frontends that were refused.
    pub refused_messages: AtomicU64,
    /// RESET_DEVICE and RESET_OWNER messages, and resets that no message told.
    pub resets: AtomicU64,
    /// Whether a frontend is being served.
    pub connected: AtomicBool,
}

impl SocketMetrics {
    /// All zero.
    pub fn new(label: String, queues: usize) -> Self {
        Self {
            label,
            queues: (0..queues).map(|_| Arc::default()).collect(),
            frontends: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            refused_messages: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            connected: AtomicBool::new(false),
        }
    }

    /// The meter of a queue.
    pub fn meter(&self, queue: QueueIndex) -> Arc<Meter> {
        self.queues
            .get(queue.position())
            .map_or_else(Arc::default, Arc::clone)
    }

    /// One line for each queue that was ever started, for the log.
    pub fn log(&self) {
        for (number, meter) in self.queues.iter().enumerate() {
            let totals = meter.totals();
            if totals.starts == 0 {
                continue;
            }
            log::info!(
                "{} queue {number}: {} requests, {} bytes, {} faults, {} notifications sent and {} suppressed, {} dropped, \
                 {} starts, {} corruptions",
                self.label,
                totals.requests,
                totals.bytes,
                totals.faults.iter().sum::<u64>(),
                totals.notified,
                totals.suppressed,
                totals.dropped,
                totals.starts,
                totals.corruptions,
            );
        }
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        log::info!(
            "{}: {} frontends served, {} turned away, {} messages refused, {} resets",
            self.label,
            load(&self.frontends),
            load(&self.turned_away),
            load(&self.refused_messages),
            load(&self.resets),
        );
    }
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
