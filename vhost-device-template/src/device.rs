//! The device and its service.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use vhost_device_core::{
    ConfigRefused, Device, GuestFault, HostError, QueueIndex, QueueSpec, Request, Serve, Service,
    Setup, read_struct,
};

use crate::command::{Command, Operation};
use crate::config::{Config, Source};
use crate::host::{Sim, Table, Translator};
use crate::wire::{Configuration, MAX_PAYLOAD, RequestHeader, Status};

/// The template device.
pub struct Template {
    host: Box<dyn Translator>,
    /// The driver's number; see [`Configuration::shift`].
    shift: AtomicU8,
}

impl Template {
    /// Opens the host's part.
    ///
    /// # Errors
    /// If the table cannot be opened or is too short.
    pub fn open(config: &Config) -> io::Result<Self> {
        let host: Box<dyn Translator> = match &config.source {
            Source::Sim(delay) => Box::new(Sim::new(*delay)),
            Source::Table(path) => Box::new(Table::open(path)?),
        };
        Ok(Self {
            host,
            shift: AtomicU8::new(0),
        })
    }

    fn shift(&self) -> u8 {
        self.shift.load(Ordering::Relaxed)
    }
}

impl Device for Template {
    type Worker = Serve<TemplateService>;

    fn queues(&self) -> Vec<QueueSpec> {
        vec![QueueSpec::new()]
    }

    fn completes_in_order(&self) -> bool {
        true
    }

    fn may_block(&self) -> bool {
        self.host.may_block()
    }

    fn config_size(&self) -> u32 {
        size_of::<Configuration>() as u32
    }

    fn read_config(&self, offset: u32, out: &mut [u8]) {
        let configuration = Configuration {
            max_payload: (MAX_PAYLOAD as u32).into(),
            shift: self.shift(),
            reserved: [0; 3],
        };
        read_struct(&configuration, offset, out);
    }

    fn write_config(&self, offset: u32, data: &[u8]) -> Result<(), ConfigRefused> {
        let (Configuration::SHIFT_OFFSET, &[shift]) = (offset, data) else {
            return Err(ConfigRefused);
        };
        self.shift.store(shift, Ordering::Relaxed);
        Ok(())
    }

    fn worker(self: &Arc<Self>, _: u16, _: &mut Setup<'_>) -> Result<Self::Worker, HostError> {
        Ok(Serve(TemplateService {
            device: Arc::clone(self),
            payload: Box::new([0; MAX_PAYLOAD]),
        }))
    }

    fn reset(&self) {
        self.shift.store(0, Ordering::Relaxed);
    }
}

/// Serves the request queue of one connection.
pub struct TemplateService {
    device: Arc<Template>,
    /// The payload at work; here, so that no request allocates.
    payload: Box<[u8; MAX_PAYLOAD]>,
}

impl Service for TemplateService {
    fn serve(&mut self, _: QueueIndex, request: &mut Request<'_>) -> Result<(), GuestFault> {
        // Before the host does anything: without room for a status the driver would not learn of it.
        if request.writable() < size_of::<Status>() as u64 {
            return Err(GuestFault::ShortAnswer);
        }
        match self.answer(request) {
            Ok(payload) => {
                request.write(&Status::OK)?;
                request.write_slice(payload)
            }
            Err(status) => request.write(&status),
        }
    }
}

impl TemplateService {
    /// The payload of the answer.
    fn answer(&mut self, request: &mut Request<'_>) -> Result<&[u8], Status> {
        let header: RequestHeader = request.read().map_err(|_| Status::INVALID)?;
        let room = request.writable() - size_of::<Status>() as u64;
        let command = Command::decode(header, request.readable(), room)?;
        let payload = self
            .payload
            .get_mut(..command.length)
            .ok_or(Status::INVALID)?;
        request.read_slice(payload).map_err(|_| Status::INVALID)?;
        if command.operation == Operation::Translate {
            shift(payload, self.device.shift());
            self.device.host.translate(payload).map_err(status)?;
        }
        Ok(payload)
    }
}

fn shift(payload: &mut [u8], by: u8) {
    for byte in payload {
        *byte = byte.wrapping_add(by);
    }
}

/// What the driver is told of a host's failure.
fn status(error: io::Error) -> Status {
    log::debug!("the host failed: {error}");
    Status::HOST_FAILED
}
