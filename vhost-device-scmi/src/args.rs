//! The command line: the only file that knows clap.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use vhost_device_core::DeviceId;
use vhost_device_daemon::{Profile, StartError};

use crate::config::{Config, Entry, SystemPower};
use crate::device::Scmi;
use crate::host::OpenError;
use crate::sandbox;
use crate::wire::protocol;

/// What `--help-devices` prints.
const DEVICES: &str = include_str!("devices.txt");

/// The options of vhost-device-scmi.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// A sensor or domain, as KIND,KEY=VALUE,... such as iio,path=/sys/bus/iio/devices/iio:device0,channel=in_accel; once
    /// for each. They are numbered in this order, each kind by itself.
    #[arg(short, long, value_name = "SPEC", value_parser = parse_entry)]
    device: Vec<Entry>,

    /// Describe all kinds of sensors and domains, and exit.
    #[arg(long)]
    help_devices: bool,

    /// Offer these protocols only: power, system, perf, clock, sensor, reset, voltage [default: system, and what has
    /// domains].
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    protocols: Vec<Protocol>,

    /// What a guest's wish to be shut down or reset comes to: refuse it, accept it, or tell=FILE, which accepts it and writes
    /// a line to FILE, which may be a pipe.
    #[arg(long, value_name = "POLICY", default_value = "refuse")]
    system_power: SystemPower,

    /// How long the host may take for a reading, in milliseconds; then the guest is told of a hardware error.
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    host_timeout: u32,

    /// Where the host's sysfs is.
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    sysfs: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Protocol {
    Power,
    System,
    Perf,
    Clock,
    Sensor,
    Reset,
    Voltage,
}

impl Protocol {
    fn id(self) -> u8 {
        match self {
            Self::Power => protocol::POWER_DOMAIN,
            Self::System => protocol::SYSTEM_POWER,
            Self::Perf => protocol::PERFORMANCE,
            Self::Clock => protocol::CLOCK,
            Self::Sensor => protocol::SENSOR,
            Self::Reset => protocol::RESET,
            Self::Voltage => protocol::VOLTAGE,
        }
    }
}

fn parse_entry(text: &str) -> Result<Entry, String> {
    text.parse().map_err(|error| format!("{error}"))
}

impl From<Args> for Config {
    fn from(args: Args) -> Self {
        let protocols: Vec<u8> = args.protocols.iter().map(|one| one.id()).collect();
        Self {
            entries: args.device,
            system_power: args.system_power,
            protocols: (!protocols.is_empty()).then_some(protocols),
            timeout: Duration::from_millis(args.host_timeout.into()),
            sysfs: args.sysfs,
        }
    }
}

/// The daemon.
#[derive(Debug)]
pub struct App;

impl vhost_device_daemon::App for App {
    const NAME: &'static str = "vhost-device-scmi";
    const ABOUT: &'static str = "Serves a virtio SCMI device over vhost-user";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ID: DeviceId = DeviceId(32);
    const TYPE: &'static str = "scmi";
    type Args = Args;
    type Device = Scmi;

    fn profile(args: &Args) -> Profile {
        sandbox::profile(&Config::from(args.clone()))
    }

    fn open(args: Args, sockets: usize) -> Result<Vec<Scmi>, StartError> {
        let config = Config::from(args);
        (0..sockets)
            .map(|_| Scmi::open(&config).map_err(explain))
            .collect()
    }
}

fn explain(error: OpenError) -> StartError {
    match error {
        OpenError::Io {
            action,
            object,
            source,
        } => StartError::io(action, object, &source),
        OpenError::Missing(message) => StartError::missing(message),
        OpenError::Bad(message) => StartError::usage(message),
    }
}

/// The program. `--help-devices` needs nothing else on the command line.
pub fn main() -> ExitCode {
    if std::env::args_os().any(|argument| argument == "--help-devices") {
        // Whoever does not read it does not want it.
        let _ = io::stdout().write_all(DEVICES.as_bytes());
        return ExitCode::SUCCESS;
    }
    vhost_device_daemon::run::<App>()
}
