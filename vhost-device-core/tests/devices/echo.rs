//! Level one, a [`Service`]: gives back what it was sent, each byte combined with a mask from the configuration.
//!
//! Request: `le32` length, then that many bytes. Answer: as many bytes, and a status byte at the very end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use vhost_device_core::{
    ConfigRefused, Device, GuestFault, HostError, QueueIndex, QueueSpec, Request, Serve, Service,
    Setup, read_struct,
};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub const STATUS_OK: u8 = 0;
/// The length is too large, or does not fit the buffers.
pub const STATUS_INVALID: u8 = 1;

/// Longest payload, so that no request keeps the thread busy.
pub const LARGEST: u32 = 0x1_0000;

/// Bytes moved at once, so that no request sizes an allocation.
const PIECE: usize = 256;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes)]
#[repr(C)]
pub struct Header {
    pub length: U32,
}

/// The configuration space. The driver may write the mask.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Config {
    pub largest: U32,
    pub mask: u8,
}

/// Offset of the mask in the configuration space.
const MASK: u32 = 4;

#[derive(Default)]
pub struct Echo {
    mask: AtomicU8,
}

impl Device for Echo {
    type Worker = Serve<Echoing>;

    fn queues(&self) -> Vec<QueueSpec> {
        vec![QueueSpec::new()]
    }

    fn completes_in_order(&self) -> bool {
        true
    }

    fn config_size(&self) -> u32 {
        size_of::<Config>() as u32
    }

    fn read_config(&self, offset: u32, out: &mut [u8]) {
        let config = Config {
            largest: LARGEST.into(),
            mask: self.mask.load(Ordering::Relaxed),
        };
        read_struct(&config, offset, out);
    }

    fn write_config(&self, offset: u32, data: &[u8]) -> Result<(), ConfigRefused> {
        match (offset, data) {
            (MASK, [mask]) => self.mask.store(*mask, Ordering::Relaxed),
            _ => return Err(ConfigRefused),
        }
        Ok(())
    }

    fn worker(self: &Arc<Self>, _: u16, _: &mut Setup<'_>) -> Result<Self::Worker, HostError> {
        Ok(Serve(Echoing(Arc::clone(self))))
    }

    fn reset(&self) {
        self.mask.store(0, Ordering::Relaxed);
    }
}

/// Serves the one queue.
pub struct Echoing(Arc<Echo>);

impl Service for Echoing {
    fn serve(&mut self, _: QueueIndex, request: &mut Request<'_>) -> Result<(), GuestFault> {
        request.reserve_tail(1)?;
        let status = match self.echo(request) {
            Ok(()) => STATUS_OK,
            Err(_) => STATUS_INVALID,
        };
        request.write_tail(&[status])
    }
}

impl Echoing {
    fn echo(&self, request: &mut Request<'_>) -> Result<(), GuestFault> {
        let header: Header = request.read()?;
        let length = header.length.get();
        if length > LARGEST {
            return Err(GuestFault::Invalid);
        }
        let mut left = u64::from(length);
        if left > request.readable() {
            return Err(GuestFault::ShortRequest);
        }
        if left > request.writable() {
            return Err(GuestFault::ShortAnswer);
        }
        let mask = self.0.mask.load(Ordering::Relaxed);
        let mut buffer = [0; PIECE];
        while left > 0 {
            let piece = &mut buffer[..left.min(PIECE as u64) as usize];
            request.read_slice(piece)?;
            piece.iter_mut().for_each(|byte| *byte ^= mask);
            request.write_slice(piece)?;
            left -= piece.len() as u64;
        }
        Ok(())
    }
}
