//! The command line: the only file that knows clap.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use vhost_device_core::DeviceId;
use vhost_device_daemon::{Compat, Profile, StartError};

use crate::config::{Config, Limit, Source};
use crate::device::Rng;
use crate::sandbox;

/// The options of vhost-device-rng.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where the random bytes come from: `getrandom`, a file or character device, or `sim[:SEED]` (the same bytes every
    /// time, for tests only).
    #[arg(short = 'f', long, value_name = "SOURCE", default_value = "getrandom")]
    rng_source: Source,

    /// Length of the period that --max-bytes is about, in milliseconds.
    #[arg(short, long, value_name = "MS", default_value = "60000")]
    period: NonZeroU32,

    /// Give the guest at most N bytes in each period [default: no limit].
    #[arg(short, long, value_name = "N")]
    max_bytes: Option<NonZeroU64>,
}

impl From<Args> for Config {
    fn from(args: Args) -> Self {
        Self {
            source: args.rng_source,
            limit: args.max_bytes.map(|bytes| Limit {
                bytes,
                period: Duration::from_millis(args.period.get().into()),
            }),
        }
    }
}

/// The daemon.
#[derive(Debug)]
pub struct App;

impl vhost_device_daemon::App for App {
    const NAME: &'static str = "vhost-device-rng";
    const ABOUT: &'static str = "Serves a virtio entropy device over vhost-user";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ID: DeviceId = DeviceId(4);
    const TYPE: &'static str = "rng";
    const COMPAT: Compat = Compat {
        index_symlink: true,
    };
    type Args = Args;
    type Device = Rng;

    fn open(args: Args, sockets: usize) -> Result<Vec<Rng>, StartError> {
        let config = Config::from(args);
        (0..sockets)
            .map(|_| {
                Rng::open(&config).map_err(|error| StartError::io("open", &config.source, &error))
            })
            .collect()
    }

    fn profile(args: &Args) -> Profile {
        sandbox::profile(&args.rng_source)
    }
}
