//! The socket device against a plain unix stream socket between the same programs.
//!
//! Its guest keeps connections as a driver does, which the tests of the device do too: the benchmark is in their crate.

use std::time::Duration;

use vhost_device_testkit::failure::{At, Failure, Result};

use super::{Bench, uncounted};
use crate::workspace::cargo;

const NAME: &str = "vhost-device-vsock";
/// Cargo's arguments for the benchmark.
const BENCHMARK: [&str; 4] = ["bench", "--quiet", "--bench", "sockets"];

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

/// Prints what counting costs, from so many pairs.
pub fn counting(bench: &Bench, pairs: u16) -> Result<()> {
    // by the same command as the daemon that counts: the features of libraries depend on what else is built
    let command = [&BENCHMARK[..], &["--no-run"]].concat();
    let daemon = uncounted::build(&bench.workspace, NAME, &command)
        .map_err(|error| Failure::new(format!("{error:#}")))?;
    let daemon = daemon.to_string_lossy();
    measure(bench, &["--counting", &pairs.to_string(), &daemon])
}

fn measure(bench: &Bench, arguments: &[&str]) -> Result<()> {
    let status = cargo(LIMIT)
        .current_dir(&bench.workspace.root)
        .args(BENCHMARK)
        .args(["--package", NAME, "--", "--seconds"])
        .arg(bench.duration.as_secs().to_string())
        .args(arguments)
        .status()
        .at("start cargo")?;
    vhost_device_testkit::ensure!(status.success(), "the benchmark: {status}");
    Ok(())
}
