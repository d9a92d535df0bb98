//! What a device crate tells the daemon about itself.

use std::path::PathBuf;

use vhost_device_core::{Device, DeviceId};

use crate::check::{self, Finding};
use crate::confine::Profile;
use crate::exit::StartError;
use crate::socket::Compat;

/// One daemon: its name, its options, its devices.
pub trait App {
    /// The binary's name, `vhost-device-<virtio name>`.
    const NAME: &'static str;
    /// One line for `--help`.
    const ABOUT: &'static str;
    /// The binary's version.
    const VERSION: &'static str;
    /// The virtio device ID.
    const ID: DeviceId;
    /// The device's type in QEMU's `vhost-user.json` schema, usually the virtio name.
    const TYPE: &'static str;
    /// Optional features for `--print-capabilities`.
    const CAPABILITIES: &'static [&'static str] = &[];
    /// What is done for the sake of existing scripts.
    const COMPAT: Compat = Compat {
        index_symlink: false,
    };
    /// The device's own options.
    type Args: clap::Args;
    /// The device.
    type Device: Device;

    /// The paths of the frontends' sockets, one for each device, where the device's own options name them: then the
    /// common options name none. Usually there are none here.
    fn sockets(args: &Self::Args) -> Vec<PathBuf> {
        let _ = args;
        Vec::new()
    }

    /// Opens one device per socket. Everything that the devices will ever need of the host is opened here, before the
    /// process confines itself.
    ///
    /// # Errors
    /// [`StartError`] says which option or resource is at fault, and what to do about it.
    fn open(args: Self::Args, sockets: usize) -> Result<Vec<Self::Device>, StartError>;

    /// What stands in the way of [`open`](Self::open), for `--check`. Unless there is more to say, the devices are opened and
    /// closed again.
    fn check(args: Self::Args, sockets: usize) -> Vec<Finding>
    where
        Self: Sized,
    {
        check::open::<Self>(args, sockets)
    }

    /// What the devices need of the host while they serve, besides what they have open; see [`Profile`]. Asked before they are
    /// opened. Usually the work of each device's `sandbox.rs`.
    fn profile(args: &Self::Args) -> Profile {
        let _ = args;
        Profile::new()
    }

    /// Starts what threads the devices have, besides those that serve queues: once the process is confined, and before its
    /// system calls are filtered.
    ///
    /// # Errors
    /// [`StartError`] if a thread cannot be made.
    fn begin(devices: &[Self::Device]) -> Result<(), StartError> {
        let _ = devices;
        Ok(())
    }
}
