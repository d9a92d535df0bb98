//! Devices that behave as badly as a host resource or a device model can.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use vhost_device_core::{
    Device, GuestFault, HostError, QueueIndex, QueueSpec, Request, Serve, Service, Setup,
};

/// A request with this first byte waits at the gate, or sets the bomb off; any other is answered at once.
const TRIGGER: u8 = 1;
/// The answer.
const DONE: u8 = 0xd0;

/// Waits until somebody writes to a pipe. Two queues, each with a worker of its own.
pub struct Gate {
    pipe: Arc<File>,
}

impl Gate {
    /// Opens the pipe, in both directions so that it never ends.
    pub fn open(path: &Path) -> io::Result<Self> {
        let pipe = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self {
            pipe: Arc::new(pipe),
        })
    }
}

impl Device for Gate {
    type Worker = Serve<Waiting>;

    fn queues(&self) -> Vec<QueueSpec> {
        let queue = |worker| QueueSpec {
            worker,
            ..QueueSpec::new()
        };
        vec![queue(0), queue(1)]
    }

    fn may_block(&self) -> bool {
        true
    }

    fn worker(self: &Arc<Self>, _: u16, _: &mut Setup<'_>) -> Result<Self::Worker, HostError> {
        Ok(Serve(Waiting(Arc::clone(&self.pipe))))
    }
}

pub struct Waiting(Arc<File>);

impl Service for Waiting {
    const SLOW: bool = true;

    fn serve(&mut self, _: QueueIndex, request: &mut Request<'_>) -> Result<(), GuestFault> {
        if request.read::<u8>()? == TRIGGER {
            // However it ends, the request is answered.
            let _ = self.0.as_ref().read(&mut [0]);
        }
        request.write(&DONE)
    }
}

/// A device model with a defect.
pub struct Bomb;

impl Device for Bomb {
    type Worker = Serve<Ticking>;

    fn queues(&self) -> Vec<QueueSpec> {
        vec![QueueSpec::new()]
    }

    fn worker(self: &Arc<Self>, _: u16, _: &mut Setup<'_>) -> Result<Self::Worker, HostError> {
        Ok(Serve(Ticking))
    }
}

pub struct Ticking;

impl Service for Ticking {
    fn serve(&mut self, _: QueueIndex, request: &mut Request<'_>) -> Result<(), GuestFault> {
        assert_ne!(request.read::<u8>()?, TRIGGER, "the test's bomb");
        request.write(&DONE)
    }
}
