//! The command line: the only file that knows clap.

use std::io;

use vhost_device_core::DeviceId;
use vhost_device_daemon::{Compat, Exit, Profile, StartError};

use crate::config::ChipSpec;
use crate::device::{Gpio, OpenError};
use crate::sandbox;

/// The options of vhost-device-gpio.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Chips, one for each socket, separated by colons: a number, node, name or label of a host's chip, or sN for a
    /// simulated one with N lines. Lines in brackets, as in gpiochip0[3,5-9], are the only ones that the guest gets, as
    /// its lines 0, 1, ... A single simulated chip is made for every socket.
    #[arg(short = 'l', long, value_name = "CHIPS", value_parser = parse_list)]
    device_list: Option<ChipList>,

    /// One chip, taken as it is, colons included; once for each socket. A simulated one has settings:
    /// sim,lines=N,names=A/B/..,wire=OUTPUT-INPUT,delay=MICROSECONDS,control=PATH.
    #[arg(long, value_name = "CHIP", conflicts_with = "device_list")]
    chip: Vec<ChipSpec>,
}

/// The chips of a list. A type of its own, because clap would take a vector for a repeated option.
#[derive(Clone, Debug)]
struct ChipList(Vec<ChipSpec>);

fn parse_list(text: &str) -> Result<ChipList, String> {
    text.split(':')
        .map(|chip| chip.parse().map_err(|error| format!("{error}")))
        .collect::<Result<_, _>>()
        .map(ChipList)
}

impl Args {
    fn chips(self, sockets: usize) -> Result<Vec<ChipSpec>, StartError> {
        let chips = self.device_list.map_or(self.chip, |list| list.0);
        match chips.len() {
            0 => Err(StartError::usage("no chip to serve")
                .with_hint("give --device-list CHIPS, for example `-l 0` or `-l s8`")),
            count if count == sockets => Ok(chips),
            1 if can_be_repeated(&chips) => Ok(chips.into_iter().cycle().take(sockets).collect()),
            count => Err(StartError::usage(format!(
                "the number of chips, {count}, is not the number of sockets, {sockets}"
            ))
            .with_hint(format!("give --socket-count {count}"))),
        }
    }
}

/// Whether a single chip can be made for every socket: one that is simulated, and leaves nothing outside.
fn can_be_repeated(chips: &[ChipSpec]) -> bool {
    matches!(chips, [ChipSpec::Sim(spec)] if spec.control.is_none())
}

/// The daemon.
#[derive(Debug)]
pub struct App;

impl vhost_device_daemon::App for App {
    const NAME: &'static str = "vhost-device-gpio";
    const ABOUT: &'static str = "Serves a virtio GPIO device over vhost-user";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ID: DeviceId = DeviceId(41);
    const TYPE: &'static str = "gpio";
    const COMPAT: Compat = Compat {
        index_symlink: true,
    };
    type Args = Args;
    type Device = Gpio;

    fn profile(args: &Args) -> Profile {
        let list = args.device_list.as_ref();
        sandbox::profile(list.map_or(&args.chip, |list| &list.0))
    }

    fn begin(devices: &[Gpio]) -> Result<(), StartError> {
        devices.iter().try_for_each(|device| {
            device
                .begin()
                .map_err(|error| StartError::io("start", "a thread", &error))
        })
    }

    fn open(args: Args, sockets: usize) -> Result<Vec<Gpio>, StartError> {
        args.chips(sockets)?
            .iter()
            .map(|chip| Gpio::open(chip).map_err(explain))
            .collect()
    }
}

fn explain(error: OpenError) -> StartError {
    match error {
        OpenError::Io {
            action,
            object,
            source,
        } => match StartError::io(action, &object, &source) {
            // not a simulated chip's control socket
            start if !object.contains("gpiochip") => start,
            start if start.exit() == Exit::Permission => {
                start.with_hint("the group of /dev/gpiochip* is usually gpio")
            }
            start if source.kind() == io::ErrorKind::NotFound => {
                start.with_hint("gpiodetect lists the chips of this host")
            }
            start => start,
        },
        OpenError::NoSuchLine { .. } => {
            StartError::missing(error.to_string()).with_hint("gpioinfo lists a chip's lines")
        }
        OpenError::Ambiguous(_) => StartError::missing(error.to_string())
            .with_hint("give its number or its node; gpiodetect lists them"),
        OpenError::TooManyLines { .. } => StartError::usage(error.to_string())
            .with_hint("choose some of them, as in gpiochip0[3,5-9]"),
        OpenError::Unsupported => StartError::usage(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_that_cannot_be_served_is_told_with_the_way_out() {
        let chip = || "gpiochip7".to_owned();
        let io = |number| OpenError::io("open", chip(), &io::Error::from_raw_os_error(number));
        let table = [
            (io(libc::EBUSY), Exit::Missing, "cannot open gpiochip7"),
            (
                io(libc::EACCES),
                Exit::Permission,
                "(the group of /dev/gpio",
            ),
            (io(libc::ENOENT), Exit::Missing, "(gpiodetect lists"),
            (
                OpenError::NoSuchLine {
                    chip: chip(),
                    line: 9,
                    count: 8,
                },
                Exit::Missing,
                "gpiochip7 has no line 9: it has 8 (gpioinfo",
            ),
            (
                OpenError::Ambiguous("pinctrl".into()),
                Exit::Missing,
                "the label pinctrl (give its number or its node; gpiodetect",
            ),
            (
                OpenError::TooManyLines {
                    chip: chip(),
                    count: 5000,
                },
                Exit::Usage,
                "1 to 1024 (choose some of them, as in gpiochip0[3,5-9])",
            ),
            (OpenError::Unsupported, Exit::Usage, "without libgpiod"),
        ];
        for (error, exit, expected) in table {
            let explained = explain(error);
            let text = explained.to_string();
            assert_eq!(explained.exit(), exit, "{text}");
            assert!(text.contains(expected), "{expected:?} is not in {text}");
        }
    }
}
