//! The virtio device model of the workspace: guest memory, rings, requests, and the traits that a device implements.
//!
//! It knows no sockets, no command line, no files and no processes, and opens no descriptor. A daemon drives it over
//! vhost-user; a VMM drives it from rings of its own through [`embed`].
//!
//! A device is a [`Device`] (offers features, owns host resources) that makes [`Worker`]s (serve queues). Most devices need
//! only a [`Service`]: read a [`Request`], write its answer.
//!
//! Numbers chosen by the guest are bounded here: a chain by [`MAX_CHAIN_LENGTH`], a queue by [`MAX_QUEUE_SIZE`], a batch
//! and a turn by constants of their own. A guest's mistake is a [`GuestFault`]; only a corrupt ring ([`RingFault`]) stops.
#![forbid(unsafe_code)]

mod config;
mod device;
pub mod embed;
mod fault;
mod ids;
pub mod limit;
mod memory;
mod meter;
mod pause;
mod poll;
mod request;
mod ring;
mod runner;

pub use config::read_struct;
pub use device::{
    ConfigRefused, Device, HostError, Interest, QueueSpec, Reactor, Ready, Serve, Service, Setup,
    StateError, Timer, Waker, Worker,
};
pub use fault::{GuestFault, LayoutFault, RingFault};
pub use ids::{DeviceId, QueueIndex, Token};
pub use memory::{DirtyLog, Memory, Segment};
pub use meter::{Meter, Totals};
pub use pause::pause;
pub use poll::Poll;
pub use request::{Buffers, Request, Segments};
pub use ring::{
    Counters, Layout, MAX_CHAIN_LENGTH, MAX_QUEUE_SIZE, Notifier, Origin, Queue, Ring, Start,
    Ticket,
};
pub use runner::{Io, Runner, Stopped};
