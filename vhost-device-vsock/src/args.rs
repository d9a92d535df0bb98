//! The command line: the only file that knows clap.

use std::path::PathBuf;
use std::sync::Arc;

use vhost_device_core::DeviceId;
use vhost_device_daemon::{Profile, StartError};

use crate::config::{Config, ConfigError, Groups, GuestCid, Ports};
use crate::device::Vsock;
use crate::hub::Hub;
use crate::options::GuestSpec;
use crate::sandbox;

const GUEST: &str = "guest";

/// The options of vhost-device-vsock.
#[derive(clap::Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new(GUEST).multiple(true).conflicts_with("vm"))]
pub struct Args {
    /// The guest's context ID, its address [default: 3].
    #[arg(long, value_name = "CID", group = GUEST)]
    guest_cid: Option<GuestCid>,

    /// The host side is unix sockets: programs connect to PATH and write `CONNECT PORT`; the guest's connections to PORT go
    /// to the socket PATH_PORT.
    #[arg(long, value_name = "PATH", group = GUEST)]
    uds_path: Option<PathBuf>,

    /// The host side is AF_VSOCK: the guest's connections to the host go to CID; 1 is this host.
    #[arg(long, value_name = "CID", group = GUEST)]
    forward_cid: Option<u32>,

    /// With --forward-cid: connections from there to these ports, joined by `+`, go to the guest.
    #[arg(long, value_name = "PORTS", group = GUEST)]
    forward_listen: Option<Ports>,

    /// Bytes that a connection may have on the way to a host program that does not read; below 262144 means 262144
    /// [default: 262144].
    #[arg(long, value_name = "BYTES", group = GUEST)]
    tx_buffer_size: Option<u64>,

    /// Largest size of a virtqueue [default: 1024].
    #[arg(long, value_name = "N", group = GUEST)]
    queue_size: Option<u32>,

    /// Names joined by `+`: guests of this process that have one in common reach each other [default: default].
    #[arg(long, value_name = "NAMES", group = GUEST)]
    groups: Option<Groups>,

    /// One guest: the options above as guest-cid=CID,uds-path=PATH,..., and socket=PATH for its frontend's socket. Once for
    /// each guest.
    #[arg(long, value_name = "SETTINGS", alias = "vms")]
    vm: Vec<GuestSpec>,
}

impl Args {
    /// One specification for each guest.
    fn guests(self) -> Vec<GuestSpec> {
        if !self.vm.is_empty() {
            return self.vm;
        }
        vec![GuestSpec {
            guest_cid: self.guest_cid,
            socket: None,
            uds_path: self.uds_path,
            forward_cid: self.forward_cid,
            forward_listen: self.forward_listen,
            tx_buffer_size: self.tx_buffer_size,
            queue_size: self.queue_size,
            groups: self.groups,
        }]
    }

    /// The devices of all guests, one for each of the `sockets`.
    fn configs(self, sockets: usize) -> Result<Vec<Config>, StartError> {
        let named = self.vm.iter().filter(|vm| vm.socket.is_some()).count();
        let guests = self.guests();
        let count = guests.len();
        if named != 0 && named != count {
            return Err(
                StartError::usage("some guests have a socket and some have none")
                    .with_hint("give each --vm its socket=PATH"),
            );
        }
        if count != sockets {
            return Err(StartError::usage(format!(
                "the number of guests, {count}, is not the number of sockets, {sockets}"
            ))
            .with_hint("give each guest a --vm with a socket=PATH of its own"));
        }
        let configs: Vec<_> = guests
            .into_iter()
            .map(|guest| guest.config().map_err(explain))
            .collect::<Result<_, _>>()?;
        check_unique(&configs)?;
        Ok(configs)
    }
}

fn check_unique(configs: &[Config]) -> Result<(), StartError> {
    for (number, one) in configs.iter().enumerate() {
        for other in configs.iter().skip(number + 1) {
            if one.guest_cid == other.guest_cid {
                let cid = one.guest_cid.value();
                return Err(StartError::usage(format!(
                    "two guests have the context ID {cid}"
                )));
            }
        }
    }
    Ok(())
}

fn explain(error: ConfigError) -> StartError {
    let hint = match &error {
        ConfigError::NoHost => Some("for example --uds-path /run/vm3.vsock"),
        ConfigError::LongPath(_) => Some("use a shorter directory"),
        _ => None,
    };
    let refusal = StartError::usage(error.to_string());
    match hint {
        Some(hint) => refusal.with_hint(hint),
        None => refusal,
    }
}

/// The daemon.
#[derive(Debug)]
pub struct App;

impl vhost_device_daemon::App for App {
    const NAME: &'static str = "vhost-device-vsock";
    const ABOUT: &'static str = "Serves virtio socket devices over vhost-user";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ID: DeviceId = DeviceId(19);
    const TYPE: &'static str = "vsock";
    type Args = Args;
    type Device = Vsock;

    fn sockets(args: &Args) -> Vec<PathBuf> {
        args.vm.iter().filter_map(|vm| vm.socket.clone()).collect()
    }

    fn profile(args: &Args) -> Profile {
        sandbox::profile(&args.clone().guests())
    }

    fn open(args: Args, sockets: usize) -> Result<Vec<Vsock>, StartError> {
        let hub = Arc::new(Hub::default());
        args.configs(sockets)?
            .iter()
            .map(|config| {
                Vsock::open(config, &hub)
                    .map_err(|error| StartError::io(error.action, error.object, &error.source))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn configs(line: &str) -> Result<Vec<Config>, String> {
        let argv = std::iter::once("vsock").chain(line.split_whitespace());
        let args = Line::try_parse_from(argv)
            .map_err(|error| error.to_string())?
            .args;
        let sockets = <App as vhost_device_daemon::App>::sockets(&args)
            .len()
            .max(1);
        args.configs(sockets).map_err(|error| error.to_string())
    }

    #[test]
    fn public_command_lines_make_the_devices_they_describe() {
        let lines = [
            "--guest-cid=4 --uds-path=/tmp/vm4.vsock --tx-buffer-size=65536 --queue-size=1024 --groups=a+b",
            "--guest-cid=4 --forward-cid=1 --forward-listen=9001+9002",
            "--vm guest_cid=3,socket=/tmp/v,uds-path=/tmp/v.vsock",
            "--vm guest-cid=3,socket=/tmp/vhost3.socket,uds-path=/tmp/vm3.vsock,groups=group1+groupA \
             --vm guest-cid=4,socket=/tmp/vhost4.socket,uds-path=/tmp/vm4.vsock,tx-buffer-size=32768,queue-size=256 \
             --vm guest-cid=5,socket=/tmp/vhost5.socket,forward-cid=1,forward-listen=9001+9002,queue-size=1024",
        ];
        for (line, count) in lines.into_iter().zip([1, 1, 1, 3]) {
            assert_eq!(configs(line).unwrap().len(), count, "{line}");
        }
    }

    #[test]
    fn guests_that_contradict_each_other_are_refused() {
        let rows = [
            ("", "either uds-path or forward-cid"),
            (
                "--vm guest-cid=3,socket=/a,uds-path=/v --vm guest-cid=3,socket=/b,uds-path=/w",
                "two guests have the context ID 3",
            ),
            (
                "--vm guest-cid=3,socket=/a,uds-path=/v --vm guest-cid=4,uds-path=/w",
                "some have none",
            ),
            (
                "--vm guest-cid=3,uds-path=/v --vm guest-cid=4,uds-path=/w",
                "is not the number of sockets, 1",
            ),
            (
                "--guest-cid=3 --vm guest-cid=4,socket=/a,uds-path=/w",
                "cannot be used with",
            ),
        ];
        for (line, expected) in rows {
            let error = configs(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
