//! What the fuzz targets have in common: each target is one function of the input's bytes that panics on a finding.
//!
//! | target | what is arbitrary | what must hold |
//! |---|---|---|
//! | `ring_walk` | all of guest memory, ring places, what device and driver do in which order | a naive model on flat bytes ends in the same memory, indices and counters |
//! | `request_reader` | framing of a request, ways to read and write it | the same as on flat bytes |
//! | `vsock_packets` | packets of a guest with correct rings, events of the host | no panic, all buffers come back in order, the guest's window is never exceeded |
//! | `vsock_line` | what a host program says first | a port only for a line that names it, and the same for each way to cut it |
//! | `device_*` | all of guest memory, kicks, events, stops, configuration access | no panic, no write that is not logged, and a correct request is served afterwards |

#![forbid(unsafe_code)]

mod arena;
pub mod common;
pub mod device;
mod model;
pub mod request_reader;
pub mod ring_walk;
mod tape;
pub mod vsock;
