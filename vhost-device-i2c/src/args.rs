//! The command line: the only file that knows clap.

use std::fmt::Write;
use std::time::Duration;

use vhost_device_core::DeviceId;
use vhost_device_daemon::{Compat, Exit, Profile, StartError};

use crate::config::{Buses, Config};
use crate::device::I2c;
use crate::host::OpenError;
use crate::sandbox;

/// The options of vhost-device-i2c.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// What the guest may use: BUS:TARGET[:TARGET...], with a comma between buses.
    ///
    /// BUS is an adapter of the host, by number or by name, and TARGET an address or a range of addresses (32, 0x20,
    /// 0x20-0x27; 10 bits from 0x80 on, or as t0x20). Or BUS is sim and any letters or digits, and TARGET a chip at an
    /// address, ADDRESS=CHIP: 24c01, 24c02, 24c32, 24c64 or 24c256, a memory, in FILE if given as 24c02@FILE; lm75, a
    /// temperature sensor, with degrees or a file of millidegrees, lm75@21.5; regs, 256 registers; stuck, which hangs.
    ///
    /// Given once, it is for all sockets; else once for each of them, in order.
    #[arg(short = 'l', long, value_name = "LIST", required = true)]
    device_list: Vec<Buses>,

    /// Also use addresses that a driver of this host holds.
    #[arg(long)]
    force: bool,

    /// After how many milliseconds a bus that does not answer is an error. An adapter keeps this setting for all its
    /// users.
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = clap::value_parser!(u32).range(10..=60_000))]
    bus_timeout: u32,
}

impl Args {
    /// The configuration of each of so many devices.
    fn configs(self, sockets: usize) -> Result<Vec<Config>, StartError> {
        let config = |buses: &Buses| Config {
            buses: buses.clone(),
            force: self.force,
            timeout: Duration::from_millis(self.bus_timeout.into()),
        };
        match self.device_list.as_slice() {
            [one] => Ok(vec![config(one); sockets]),
            lists if lists.len() == sockets => Ok(lists.iter().map(config).collect()),
            lists => Err(StartError::usage(format!(
                "{} device lists for {sockets} sockets",
                lists.len()
            ))
            .with_hint("give --device-list once for all sockets, or once for each")),
        }
    }
}

/// The daemon.
#[derive(Debug)]
pub struct App;

impl vhost_device_daemon::App for App {
    const NAME: &'static str = "vhost-device-i2c";
    const ABOUT: &'static str = "Serves a virtio I2C adapter over vhost-user";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ID: DeviceId = DeviceId(34);
    const TYPE: &'static str = "i2c";
    const COMPAT: Compat = Compat {
        index_symlink: true,
    };
    type Args = Args;
    type Device = I2c;

    fn profile(args: &Args) -> Profile {
        sandbox::profile(&args.device_list)
    }

    fn open(args: Args, sockets: usize) -> Result<Vec<I2c>, StartError> {
        args.configs(sockets)?
            .iter()
            .map(|config| I2c::open(config).map_err(explain))
            .collect()
    }
}

/// What a reader can do about it.
fn explain(error: OpenError) -> StartError {
    let plain = |exit| StartError::new(exit, error.to_string());
    match &error {
        OpenError::Io {
            action,
            object,
            error,
        } => match StartError::io(action, object, error) {
            start if start.exit() == Exit::Permission => {
                start.with_hint("the group of /dev/i2c-* is usually i2c")
            }
            start if object.starts_with("/dev/") => {
                start.with_hint("is the i2c-dev module loaded? `i2cdetect -l` lists the adapters")
            }
            start => start,
        },
        OpenError::NoAdapter { known, .. } => plain(Exit::Missing).with_hint(adapters(known)),
        OpenError::Ambiguous { .. } => plain(Exit::Usage).with_hint("give a number"),
        OpenError::Held { .. } => {
            plain(Exit::Missing).with_hint("unbind the driver, or give --force")
        }
        OpenError::NoTenBit { .. } => plain(Exit::Usage),
        OpenError::TooLong { .. } => {
            plain(Exit::Missing).with_hint("name another file, or a larger chip")
        }
    }
}

fn adapters(known: &[(u32, String)]) -> String {
    if known.is_empty() {
        return "this host has no I2C adapters".to_owned();
    }
    let mut text = "there are".to_owned();
    for (position, (number, name)) in known.iter().enumerate() {
        let comma = if position == 0 { "" } else { "," };
        // writing to a String cannot fail
        let _ = write!(text, "{comma} {number} {name:?}");
    }
    text
}
