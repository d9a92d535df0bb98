//! The virtio entropy device (VIRTIO 1.3, section 5.4; device ID 4).
//!
//! The guest sees one queue. It makes buffers available on it, and each comes back with random bytes. There are no device
//! feature bits and no configuration space. Buffers may be split over descriptors in any way; device-readable ones, which
//! the specification does not have here, are ignored. Each request gets at least one byte.
//!
//! The host provides a [`Source`]: the kernel's generator, a file or character device, or a deterministic sequence for
//! tests. A source that ends or fails is replaced by the kernel's generator, and the log says so once: a guest is never
//! left without random bytes, and never gets the same ones twice.
//!
//! A [`Limit`] bounds the bytes in each period. Requests beyond it wait in the ring for the next period; nothing sleeps.
//!
//! Not supported: the leak queues of the specification's later drafts.
#![deny(unsafe_code)]

#[cfg(feature = "daemon")]
mod args;
mod config;
mod device;
mod host;
mod limit;
mod pool;
#[cfg(feature = "daemon")]
mod sandbox;

#[cfg(feature = "daemon")]
pub use args::{App, Args};
pub use config::{Config, ConfigError, Limit, Source};
pub use device::{Rng, RngWorker};
