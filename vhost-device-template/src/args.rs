//! The command line: the only file that knows clap.

use vhost_device_core::DeviceId;
use vhost_device_daemon::{Profile, StartError};

use crate::config::{Config, Source};
use crate::device::Template;
use crate::sandbox;

/// The options of vhost-device-template.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// What translates bytes: a file of 256 bytes, the table of translations, or `sim[:MS]`, which changes nothing and
    /// takes MS milliseconds for a request.
    #[arg(short, long, value_name = "SOURCE", default_value = "sim")]
    translation: Source,
}

impl From<Args> for Config {
    fn from(args: Args) -> Self {
        Self {
            source: args.translation,
        }
    }
}

/// The daemon.
#[derive(Debug)]
pub struct App;

impl vhost_device_daemon::App for App {
    const NAME: &'static str = "vhost-device-template";
    const ABOUT: &'static str = "Serves a virtio template device over vhost-user";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ID: DeviceId = DeviceId(63);
    const TYPE: &'static str = "template";
    type Args = Args;
    type Device = Template;

    fn profile(args: &Args) -> Profile {
        sandbox::profile(&Config::from(args.clone()))
    }

    fn open(args: Args, sockets: usize) -> Result<Vec<Template>, StartError> {
        let config = Config::from(args);
        (0..sockets)
            .map(|_| {
                Template::open(&config)
                    .map_err(|error| StartError::io("open", &config.source, &error))
            })
            .collect()
    }
}
