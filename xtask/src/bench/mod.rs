//! `cargo xtask bench DEVICE`: what a device reaches on this machine, beside what the machine can do.
//!
//! One file per device. The testkit drives the rings of a release build over the real socket; figures are ratios within
//! one run wherever the machine sets the limit.

mod gpio;
mod i2c;
mod rng;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use vhost_device_testkit::failure::{At, Failure, Result as Measured};
use vhost_device_testkit::process::{Daemon, Launch};
use vhost_device_testkit::session::{Options, Session};

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
