//! The device: what the guest sees of it, and what it opened on the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vhost_device_core::{Device, HostError, QueueSpec, Setup, read_struct};

use crate::config::{Config, Groups, GuestCid};
use crate::host::Host;
pub use crate::host::OpenError;
use crate::hub::Hub;
use crate::wire;
use crate::worker::VsockWorker;

/// The socket device of one guest.
#[derive(Debug)]
pub struct Vsock {
    pub(crate) guest_cid: GuestCid,
    pub(crate) window: u32,
    pub(crate) groups: Groups,
    pub(crate) host: Host,
    pub(crate) hub: Arc<Hub>,
    queue_size: u16,
    /// A driver was served before the present one.
    used: AtomicBool,
}

impl Vsock {
    /// Opens the host's side. Guests that are to reach each other share a `hub`.
    ///
    /// # Errors
    /// [`OpenError`] if the host's side cannot be opened.
    pub fn open(config: &Config, hub: &Arc<Hub>) -> Result<Self, OpenError> {
        Ok(Self {
            guest_cid: config.guest_cid,
            window: config.window,
            groups: config.groups.clone(),
            host: Host::open(&config.host)?,
            hub: Arc::clone(hub),
            queue_size: config.queue_size,
            used: AtomicBool::new(false),
        })
    }
}

impl Device for Vsock {
    type Worker = VsockWorker;

    fn queues(&self) -> Vec<QueueSpec> {
        let spec = QueueSpec {
            max_size: self.queue_size,
            ..QueueSpec::new()
        };
        vec![spec; 3]
    }

    fn features(&self) -> u64 {
        wire::F_STREAM | wire::F_SEQPACKET | wire::F_NO_IMPLIED_STREAM
    }

    fn config_size(&self) -> u32 {
        size_of::<wire::Configuration>() as u32
    }

    fn read_config(&self, offset: u32, out: &mut [u8]) {
        let configuration = wire::Configuration {
            guest_cid: self.guest_cid.value().into(),
        };
        read_struct(&configuration, offset, out);
    }

    fn worker(self: &Arc<Self>, _: u16, setup: &mut Setup<'_>) -> Result<VsockWorker, HostError> {
        // A driver that was served before, also by a process that is gone, may still have connections: it is told that they
        // are no more.
        let again = self.used.swap(true, Ordering::Relaxed);
        VsockWorker::new(self, again, setup)
    }
}
