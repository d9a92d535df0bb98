//! The socket device, seen by a guest's driver on one side and by programs of the host on the other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod connections;
mod greeting;
mod packets;
mod seqpacket;
mod siblings;
mod transfers;

#[path = "../support/mod.rs"]
mod support;
