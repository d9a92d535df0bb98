//! The process around a device model: one command line, one way to listen, one life cycle, one vhost-user engine for all
//! daemons of the workspace.
//!
//! A device's binary is `vhost_device_daemon::run::<App>()`; its [`App`] says what it is called, which options it takes and
//! how its devices are opened. Nothing here knows any one device.
#![deny(unsafe_code)]

#[allow(
    unsafe_code,
    reason = "clears environment variables before there are threads"
)]
mod activation;
mod app;
pub mod capabilities;
mod check;
pub mod cli;
#[allow(
    unsafe_code,
    reason = "gives up capabilities and handles signals, which have no safe wrappers"
)]
pub mod confine;
#[allow(
    unsafe_code,
    reason = "maps guest memory, survives its truncation, and uses socket and timer options that std lacks"
)]
mod engine;
pub mod exit;
pub mod logging;
mod metrics;
mod notify;
mod run;
mod signals;
#[allow(
    unsafe_code,
    reason = "adopts inherited descriptors, sets modes and groups"
)]
mod socket;

pub use app::App;
pub use check::Finding;
pub use confine::Profile;
pub use exit::{Exit, StartError};
pub use run::{run, run_from};
pub use socket::Compat;
