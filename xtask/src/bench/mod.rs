//! `cargo xtask bench SUBJECT`: what a device reaches on this machine, beside what the machine can do; or what something costs that
//! all daemons do.
//!
//! One file per device, and [`pairs`]. The testkit drives the rings of a release build over the real socket; figures are ratios within
//! one run wherever the machine sets the limit.

mod gpio;
mod i2c;
mod pairs;
mod rng;
mod scmi;
mod uncounted;
mod vsock;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use vhost_device_testkit::bench::{Figures, Spread, eventfd_round_trips, idle};
use vhost_device_testkit::failure::{At, Failure, Result as Measured};
use vhost_device_testkit::process::{Daemon, Launch};
use vhost_device_testkit::session::{Options, Session};
use vhost_device_testkit::table;

use self::table::Table;
use crate::workspace::{Profile, Workspace};

/// Measures one device, or one thing that all daemons do.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A device, or what all of them are compared with and without.
    subject: Subject,

    /// Length of each measurement; with "metrics" 1 by default.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 2,
        default_value_if("subject", "metrics", "1")
    )]
    seconds: u64,

    /// Measurements with and without what daemons are compared by.
    #[arg(long, value_name = "NUMBER", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: u16,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Subject {
    Gpio,
    I2c,
    Rng,
    Scmi,
    Vsock,
    /// Each daemon confined as it is by default, and not at all
    Confinement,
    /// Daemons that count and ones built without counters; counters read every second, and never
    Metrics,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<ExitCode> {
    let bench = Bench {
        workspace: Workspace::load()?,
        duration: Duration::from_secs(args.seconds),
    };
    match args.subject {
        Subject::Gpio => gpio::run(&bench),
        Subject::I2c => i2c::run(&bench),
        Subject::Rng => rng::run(&bench),
        Subject::Scmi => scmi::run(&bench),
        Subject::Vsock => vsock::run(&bench),
        Subject::Confinement => pairs::confinement(&bench, args.pairs),
        Subject::Metrics => pairs::metrics(&bench, args.pairs),
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
        let launch = Launch::new(self.build(name)?)?;
        launch.arguments(arguments.iter().copied()).start()
    }

    /// Builds a daemon as it is shipped.
    pub fn build(&self, name: &str) -> Measured<PathBuf> {
        let folder = self
            .workspace
            .build(&[name.to_owned()], Profile::Release)
            .map_err(|error| Failure::new(format!("{error:#}")))?;
        Ok(folder.join(name))
    }

    /// Builds a daemon as it is shipped, but without counters.
    pub fn build_uncounted(&self, name: &str) -> Measured<PathBuf> {
        uncounted::build(&self.workspace, name, &["build", "--release", "--bins"])
            .map_err(|error| Failure::new(format!("{error:#}")))
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

/// A table of loads, which count what is called `unit`.
pub fn load_table(unit: &str) -> Table {
    Table::new(&[
        &format!("{unit}s"),
        "depth",
        &format!("{unit}s/s"),
        &format!("CPU us/{unit}"),
        "requests/kick",
    ])
}

/// Adds what was measured to a table of loads, each unit of which takes so many `requests`.
pub fn load_row(table: &mut Table, name: &str, depth: usize, requests: usize, figures: &Figures) {
    let requests = requests as f64;
    table.row([
        name.to_owned(),
        depth.to_string(),
        format!("{:.0}", figures.rate() / requests),
        format!("{:.3}", figures.cost() * requests),
        format!("{:.1}", figures.requests_per_kick()),
    ]);
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
