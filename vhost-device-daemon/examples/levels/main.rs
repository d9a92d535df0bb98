//! The test devices behind the real engine: `levels [DEVICE] OPTIONS`. The first three show the levels of effort of a device
//! model; `gate` waits for its host for as long as a test wants, `bomb` panics when asked to, `escape` tries what the guest
//! says, and `keeper` keeps a capability.

#[path = "../../../vhost-device-core/tests/devices/mod.rs"]
#[allow(dead_code, missing_docs, reason = "the core's tests use more of it")]
mod devices;
mod escape;
mod gate;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use vhost_device_core::DeviceId;
use vhost_device_daemon::confine::{Capability, Sysno};
use vhost_device_daemon::{App, Profile, StartError, run_from};

use devices::disk::Disk;
use devices::echo::Echo;
use devices::stream::Stream;
use escape::Escape;
use gate::{Bomb, Gate};

/// An ID that no specification will use.
const TEST: DeviceId = DeviceId(0xffff);

#[derive(clap::Args)]
struct Nothing {}

#[derive(clap::Args)]
struct Host {
    /// The host's resource.
    #[arg(long)]
    host: PathBuf,
}

macro_rules! app {
    ($app:ident, $name:literal, $args:ty, $device:ty, $open:expr, $profile:expr) => {
        struct $app;

        impl App for $app {
            const NAME: &'static str = concat!("levels ", $name);
            const ABOUT: &'static str = "A device for tests";
            const VERSION: &'static str = env!("CARGO_PKG_VERSION");
            const ID: DeviceId = TEST;
            const TYPE: &'static str = "levels";
            type Args = $args;
            type Device = $device;

            fn open(args: $args, sockets: usize) -> Result<Vec<$device>, StartError> {
                (0..sockets).map(|_| $open(&args)).collect()
            }

            fn profile(args: &$args) -> Profile {
                $profile(args)
            }
        }
    };
}

app!(
    EchoApp,
    "echo",
    Nothing,
    Echo,
    |_: &Nothing| Ok(Echo::default()),
    no_profile
);
app!(
    StreamApp,
    "stream",
    Host,
    Stream,
    |args: &Host| UnixStream::connect(&args.host)
        .and_then(Stream::new)
        .map_err(|error| StartError::io("connect to", args.host.display(), &error)),
    |_: &Host| Profile::new().call(Sysno::recvfrom).call(Sysno::sendto)
);
app!(
    DiskApp,
    "disk",
    Host,
    Disk,
    |args: &Host| OpenOptions::new()
        .read(true)
        .write(true)
        .open(&args.host)
        .map(Disk::new)
        .map_err(|error| StartError::io("open", args.host.display(), &error)),
    |_: &Host| Profile::new()
        .call(Sysno::io_uring_setup)
        .call(Sysno::io_uring_register)
        .call(Sysno::io_uring_enter)
        .call(Sysno::eventfd2)
);
app!(
    GateApp,
    "gate",
    Host,
    Gate,
    |args: &Host| Gate::open(&args.host).map_err(|error| StartError::io(
        "open",
        args.host.display(),
        &error
    )),
    no_profile
);
app!(
    BombApp,
    "bomb",
    Nothing,
    Bomb,
    |_: &Nothing| Ok(Bomb),
    no_profile
);
app!(
    EscapeApp,
    "escape",
    Host,
    Escape,
    |args: &Host| Ok(Escape::new(&args.host)),
    |args: &Host| escape::profile(&args.host)
);

app!(
    KeeperApp,
    "keeper",
    Nothing,
    Echo,
    |_: &Nothing| Ok(Echo::default()),
    |_: &Nothing| Profile::new().capability(Capability::WakeAlarm)
);

fn no_profile<A>(_: &A) -> Profile {
    Profile::new()
}

fn main() -> ExitCode {
    let mut argv: Vec<OsString> = std::env::args_os().collect();
    let named = argv
        .get(1)
        .and_then(|first| first.to_str())
        .is_some_and(|first| !first.starts_with('-'));
    let device = if named { argv.remove(1) } else { "echo".into() };
    match device.to_str() {
        Some("echo") => run_from::<EchoApp>(argv),
        Some("stream") => run_from::<StreamApp>(argv),
        Some("disk") => run_from::<DiskApp>(argv),
        Some("gate") => run_from::<GateApp>(argv),
        Some("bomb") => run_from::<BombApp>(argv),
        Some("escape") => run_from::<EscapeApp>(argv),
        Some("keeper") => run_from::<KeeperApp>(argv),
        _ => StartError::usage("the device is echo, stream, disk, gate, bomb, escape or keeper")
            .report("levels"),
    }
    .into()
}
