//! The guest's side of a vhost-user device, for tests and benchmarks.
//!
//! The crate plays a virtual machine monitor and the guest's driver against a device daemon that runs as a
//! process of its own, over a real unix socket. It speaks the vhost-user protocol by itself, byte by byte,
//! because a well-behaved frontend library cannot misbehave: most of what is tested here is what a daemon does when
//! its peer is wrong, slow, hostile or suddenly gone.
//!
//! | module | what it plays |
//! |---|---|
//! | [`memory`] | guest memory: shared memfd regions with holes |
//! | [`control`], [`message`] | the frontend's end of the control socket, correct or malformed |
//! | [`ring`], [`framing`] | the driver's side of a split virtqueue, any framing of a request |
//! | [`session`] | a negotiated connection with memory and rings |
//! | [`process`], [`namespace`], [`stats`], [`counters`] | the daemon process, what the kernel says about it, and what it counts |
//! | [`subject`], [`faults`], [`mod@conformance`] | the catalogue of misbehaviour that every device has to survive |
//! | [`mod@bench`], [`table`] | request rates, costs and latencies with as little overhead of our own as possible |
//!
//! A device gets all of the catalogue with one [`Subject`](subject::Subject) and one line of
//! [`conformance!`](crate::conformance!).

// A test library: a violated assumption is a failed test, and the backtrace names the place.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod bench;
pub mod conformance;
pub mod control;
pub mod counters;
pub mod failure;
pub mod faults;
pub mod framing;
pub mod json;
pub mod memory;
pub mod message;
pub mod namespace;
pub mod process;
pub mod random;
pub mod ring;
pub mod session;
pub mod stand;
pub mod stats;
pub mod subject;
pub mod sys;
pub mod table;
