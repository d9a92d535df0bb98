//! Tests of the crate from outside: the driver's side of the rings against the device's side, and whole devices.

// Helpers outside of `#[test]` functions may fail a test too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../devices/mod.rs"]
mod devices;

mod completion;
mod dirty;
mod disk;
mod echo;
mod event_index;
mod events;
mod fairness;
mod framing;
mod malformed;
mod notifications;
mod stream;
mod stress;
