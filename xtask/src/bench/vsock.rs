//! The socket device against a plain unix stream socket between the same programs.
//!
//! Its guest keeps connections as a driver does, which the tests of the device do too: the benchmark is in their crate.

use std::time::Duration;

use vhost_device_testkit::failure::{At, Result};

use super::Bench;
use crate::workspace::cargo;

/// Longest time for building and measuring.
const LIMIT: Duration = Duration::from_secs(2700);

/// Prints all figures.
pub fn run(bench: &Bench) -> Result<()> {
    measure(bench, &[])
}

/// Prints what confinement costs, from so many pairs of measurements.
pub fn confinement(bench: &Bench, pairs: u16) -> Result<()> {
    measure(bench, &["--confinement", &pairs.to_string()])
}

fn measure(bench: &Bench, arguments: &[&str]) -> Result<()> {
    let status = cargo(LIMIT)
        .current_dir(&bench.workspace.root)
        .args(["bench", "--quiet", "--package", "vhost-device-vsock"])
        .args(["--bench", "sockets", "--", "--seconds"])
        .arg(bench.duration.as_secs().to_string())
        .args(arguments)
        .status()
        .at("start cargo")?;
    vhost_device_testkit::ensure!(status.success(), "the benchmark: {status}");
    Ok(())
}
