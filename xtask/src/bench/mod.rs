//! `cargo xtask bench DEVICE`: what a device reaches on this machine, beside what the machine can do.
//!
//! One file per device. The testkit drives the rings of a release build over the real socket; figures are ratios within
//! one run wherever the machine sets the limit.

mod gpio;
mod i2c;
mod rng;
mod scmi;
mod vsock;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use vhost_device_testkit::bench::{Spread, eventfd_round_trips, idle};
use vhost_device_testkit::failure::{At, Failure, Result as Measured};
use vhost_device_testkit::process::{Daemon, Launch};
use vhost_device_testkit::session::{Options, Session};
use vhost_device_testkit::table;

use self::table::Table;
use crate::workspace::{Profile, Workspace};

/// Measures one device.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The device.
    device: Subject,

    /// Length of each measurement.
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    seconds: u64,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Subject {
    Gpio,
    I2c,
    Rng,
    Scmi,
    Vsock,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<ExitCode> {
    let bench = Bench {
        workspace: Workspace::load()?,
        duration: Duration::from_secs(args.seconds),
    };
    match args.device {
        Subject::Gpio => gpio::run(&bench),
        Subject::I2c => i2c::run(&bench),
        Subject::Rng => rng::run(&bench),
        Subject::Scmi => scmi::run(&bench),
        Subject::Vsock => vsock::run(&bench),
    }
    .map_err(anyhow::Error::msg)?;
    Ok(ExitCode::SUCCESS)
}

/// What each benchmark needs.
pub struct Bench {
    workspace: Workspace,
    /// Length of each measurement.
    pub duration: Duration,
}

impl Bench {
    /// Builds a daemon as it is shipped and starts it with these arguments.
    pub fn start(&self, name: &str, arguments: &[&str]) -> Measured<Daemon> {
        let folder = self
            .workspace
            .build(&[name.to_owned()], Profile::Release)
            .map_err(|error| Failure::new(format!("{error:#}")))?;
        Launch::new(folder.join(name))?
            .arguments(arguments.iter().copied())
            .start()
    }

    /// Builds the peer of a device, the same on vhost-user-backend's engine, and starts it. It serves one frontend.
    pub fn start_peer(&self, name: &str) -> Measured<Daemon> {
        let binary = self
            .workspace
            .build_example("vhost-device-testkit", name)
            .map_err(|error| Failure::new(format!("{error:#}")))?;
        Launch::new(binary)?.start()
    }

    /// Connects to a daemon as a driver that uses everything.
    pub fn connect(&self, daemon: &Daemon, queues: usize) -> Measured<Session> {
        Session::open(daemon.socket(), &Options::usual(queues)).at("connect")
    }
}

/// Round trips made for a row of percentiles.
pub const ROUND_TRIPS: usize = 20_000;

/// A table of round trips, which begins with the least that the machine can do.
pub fn round_trip_table(title: &str) -> Measured<Table> {
    let mut table = Table::new(&[title, "p50 us", "p99 us"]);
    let floor = eventfd_round_trips(ROUND_TRIPS)?;
    round_trip_row(&mut table, "two eventfd wake-ups (the machine)", &floor);
    Ok(table)
}

/// Adds what was measured to a table of round trips.
pub fn round_trip_row(table: &mut Table, name: &str, spread: &Spread) {
    let us = |percent| format!("{:.1}", spread.percentile(percent).as_secs_f64() * 1e6);
    table.row([name.to_owned(), us(50), us(99)]);
}

/// A table of what daemons cost while nothing is asked of them.
pub fn idle_table() -> Table {
    Table::new(&["idle", "wake-ups/s", "threads", "RSS MiB"])
}

impl Bench {
    /// Watches an idle daemon and adds what it costs to a table.
    pub fn idle_row(&self, table: &mut Table, name: &str, daemon: &Daemon) -> Measured<()> {
        let figures = idle(daemon, self.duration)?;
        table.row([
            name.to_owned(),
            format!("{:.1}", figures.wakeups),
            figures.threads.to_string(),
            format!("{:.2}", figures.resident_kib as f64 / 1024.0),
        ]);
        Ok(())
    }
}
