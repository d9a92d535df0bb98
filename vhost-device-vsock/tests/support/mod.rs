//! A guest's side of a socket device, and the host's: shared by the tests and by the benchmark.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod data;
pub mod guest;
pub mod host;
pub mod link;
pub mod packet;
