//! What the demo shows of each device: the guest's view beside the host's, and whether they agree.

pub mod gpio;
pub mod i2c;
pub mod rng;
pub mod scmi;
pub mod vsock;

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;

/// One device's part of the demo. The same folder is handed to both functions.
#[derive(Debug)]
pub struct Tour {
    /// Puts what the daemon needs into a folder and returns the daemon's arguments.
    pub prepare: fn(&Path) -> Result<Vec<OsString>>,
    /// Runs in the guest; it must end with 0.
    pub script: &'static str,
    /// Sets the guest's output beside what the host has. An error tells where they differ.
    pub compare: fn(&Path, &str) -> Result<Comparison>,
}

/// What both sides saw.
#[derive(Debug)]
pub struct Comparison {
    /// Lines to show.
    pub view: String,
    /// What agrees, in a few words.
    pub verdict: String,
}
