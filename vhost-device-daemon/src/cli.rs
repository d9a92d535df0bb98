//! The command line contract: the options that every daemon has, and one way to parse them beside the device's own.

mod file;
mod plan;
mod refusal;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Command, CommandFactory, FromArgMatches, Parser, ValueEnum, value_parser};

use crate::exit::{Exit, StartError};

use file::FileOptions;
pub(crate) use plan::indexed;
pub use plan::{MAX_SOCKETS, SocketPlan};

const PRINT_CAPABILITIES: &str = "--print-capabilities";

/// The heading of the options that every daemon has.
pub const COMMON_OPTIONS: &str = "Common options";
/// The heading of the options that a device adds.
pub const DEVICE_OPTIONS: &str = "Device options";

/// The options of every daemon.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = COMMON_OPTIONS)]
pub struct CommonArgs {
    /// Listen for the frontend on a unix socket at PATH.
    #[arg(short, long, value_name = "PATH", visible_alias = "socket")]
    pub socket_path: Option<PathBuf>,

    /// Use the inherited descriptor N: a unix stream socket that listens or is connected to the frontend.
    #[arg(long, value_name = "N", visible_alias = "socket-fd", value_parser = value_parser!(RawFd).range(3..))]
    pub fd: Option<RawFd>,

    /// Serve N frontends, on the sockets PATH0 to PATH(N-1) [default: one, on PATH itself].
    #[arg(short = 'c', long, value_name = "N", value_parser = value_parser!(u16).range(1..=MAX_SOCKETS as i64))]
    pub socket_count: Option<u16>,

    /// Access mode of the socket [default: 0777 less the umask, or 0660 with --socket-group].
    #[arg(long, value_name = "OCTAL", value_parser = parse_mode)]
    pub socket_mode: Option<u32>,

    /// Group of the socket.
    #[arg(long, value_name = "NAME|GID")]
    pub socket_group: Option<String>,

    /// Exit after the first frontend has left.
    #[arg(long)]
    pub once: bool,

    /// Give the counters as OpenMetrics text to whoever connects to a unix socket at PATH; its mode is 0660.
    #[arg(long, value_name = "PATH")]
    pub control_path: Option<PathBuf>,

    /// Take options from FILE (TOML), under their long names; what the command line gives counts more.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check the options and the file of --config, and exit.
    #[arg(long)]
    pub check_config: bool,

    /// Check whether the daemon would start: sockets, host resources, limits, confinement; and exit.
    #[arg(long)]
    pub check: bool,

    /// Print what this program can do as JSON and exit; all other options are ignored.
    #[arg(long)]
    pub print_capabilities: bool,

    /// Keep looking for new requests for N microseconds before sleeping; 0 never does.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = value_parser!(u16).range(0..=1000))]
    pub poll_us: u16,

    /// Log this level and worse; libraries stay at warn or below [default: the RUST_LOG variable, or info].
    #[arg(long, value_name = "LEVEL", ignore_case = true)]
    pub log_level: Option<LogLevel>,

    /// Form of the log lines on stderr; json is one object a line.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// How far the process shuts itself off from the host [default: the strongest that works].
    #[arg(long, value_name = "LEVEL")]
    pub sandbox: Option<Sandbox>,

    /// What becomes of a system call that the daemon has no business making: it ends the daemon, or is told to the kernel's
    /// log; none filters nothing.
    #[arg(long, value_name = "ACTION", default_value = "kill")]
    pub seccomp: Seccomp,

    /// The sockets that the device's own options name, one for each device; see [`App::sockets`](crate::App::sockets).
    #[arg(skip)]
    pub device_sockets: Vec<PathBuf>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
#[allow(missing_docs)] // the levels of the log facade
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How far a process shuts itself off from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    /// Namespaces of its own with an empty file system, and all of `Landlock`.
    Namespace,
    /// No privileges, and of the file system, the network and signals only what is named.
    Landlock,
    /// As any program of the same user.
    None,
}

/// What becomes of a system call that is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // the texts are in the help of the option
pub enum Seccomp {
    Kill,
    Log,
    None,
}

/// The form of a log line: text for people, or a JSON object for collectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // texts on the values would spread the help over three times as many lines
pub enum LogFormat {
    Text,
    Json,
}

impl From<LogLevel> for log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::Off,
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

impl CommonArgs {
    /// How long a queue is polled before its worker sleeps; zero means not at all.
    pub fn poll(&self) -> Duration {
        Duration::from_micros(self.poll_us.into())
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Parsed<D> {
    /// Serve a device.
    Serve {
        /// The options of every daemon, validated.
        common: CommonArgs,
        /// The options of this device.
        device: D,
    },
    /// Look at what a start would meet, and exit.
    Check {
        /// The options of every daemon; they may leave the sockets to who will start it.
        common: CommonArgs,
        /// The options of this device.
        device: D,
    },
    /// Print the capabilities and exit: see [`crate::capabilities::print`].
    PrintCapabilities,
}

/// Parses `argv`, which starts with the program's own name. `sockets` are those that the device's options name.
///
/// # Errors
/// The exit code to end with. Help and version have been printed on stdout ([`Exit::Done`]), a mistake has been
/// explained in one line on stderr ([`Exit::Usage`]).
pub fn parse<D: Args>(
    name: &'static str,
    version: &'static str,
    about: &'static str,
    argv: impl IntoIterator<Item = OsString>,
    sockets: fn(&D) -> Vec<PathBuf>,
) -> Result<Parsed<D>, Exit> {
    interpret(name, version, about, argv, sockets).map_err(|stop| match stop {
        Stop::Answered(text) => {
            let _ = io::stdout().write_all(text.as_bytes());
            Exit::Done
        }
        Stop::Refused(error) => error.report(name),
    })
}

/// Why parsing does not end in a device to serve.
#[derive(Debug)]
enum Stop {
    /// The command line asked for this text.
    Answered(String),
    Refused(StartError),
}

#[derive(Parser)]
struct Cli<D: Args> {
    #[command(flatten, next_help_heading = DEVICE_OPTIONS)]
    device: D,
    #[command(flatten)]
    common: CommonArgs,
}

fn interpret<D: Args>(
    name: &'static str,
    version: &'static str,
    about: &'static str,
    argv: impl IntoIterator<Item = OsString>,
    sockets: fn(&D) -> Vec<PathBuf>,
) -> Result<Parsed<D>, Stop> {
    let argv: Vec<OsString> = argv.into_iter().collect();
    // Management software may add this option to a complete or to an empty command line, so it wins over everything,
    // also over options that are wrong or missing.
    if argv
        .iter()
        .skip(1)
        .any(|argument| argument == PRINT_CAPABILITIES)
    {
        return Ok(Parsed::PrintCapabilities);
    }
    let command = command::<D>(name, version, about);
    let file = FileOptions::of(&command, &argv).map_err(Stop::Refused)?;
    let argv = file
        .as_ref()
        .map_or(argv.clone(), |file| file.before(&argv));
    let Cli { device, mut common } = command
        .try_get_matches_from(argv)
        .and_then(|mut matches| Cli::<D>::from_arg_matches_mut(&mut matches))
        .map_err(|error| stop(&error, file.as_ref()))?;
    common.device_sockets = sockets(&device);
    if common.check_config {
        common.validate_given().map_err(Stop::Refused)?;
        return Err(Stop::Answered(format!("{name}: the options are fine\n")));
    }
    if common.check {
        return Ok(Parsed::Check { common, device });
    }
    common.validate().map_err(Stop::Refused)?;
    Ok(Parsed::Serve { common, device })
}

/// The definition of a daemon's command line, from which help, manual pages and completions are made.
pub fn command<D: Args>(name: &'static str, version: &'static str, about: &'static str) -> Command {
    Cli::<D>::command()
        .name(name)
        .bin_name(name)
        .version(version)
        .about(about)
}

fn stop(error: &clap::Error, file: Option<&FileOptions>) -> Stop {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Stop::Answered(error.to_string()),
        // What is missing is missing in both places.
        ErrorKind::MissingRequiredArgument => Stop::Refused(refusal::one_line(error)),
        _ => Stop::Refused(file.map_or_else(|| refusal::one_line(error), |file| file.blame(error))),
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o777 && !digits.starts_with('+') => Ok(mode),
        _ => Err("expected an octal mode from 0 to 0777, such as 0660".to_owned()),
    }
}

#[cfg(test)]
mod tests;
