//! The log of pages written, shared with the frontend for live migration (SET_LOG_BASE, VHOST_F_LOG_ALL).

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use vhost_device_core::DirtyLog;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

use super::memory::{PAGE, check_length};
use super::sigbus::Guard;

/// Bytes of guest memory per bit (VHOST_LOG_PAGE).
const LOG_PAGE: u64 = 4096;

/// One bit per page, set and never cleared by us.
pub struct PageLog {
    // Before the mapping: it is deregistered first.
    _guard: Guard,
    bits: MmapRegion,
}

impl PageLog {
    /// Maps `size` bytes of `file` from `offset`.
    ///
    /// # Errors
    /// If the file is shorter or cannot be mapped.
    pub fn new(file: File, offset: u64, size: u64, connection: &Arc<OwnedFd>) -> io::Result<Self> {
        check_length(&file, offset, size)?;
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let bits =
            MmapRegion::from_file(FileOffset::new(file, offset), size).map_err(io::Error::other)?;
        Ok(Self {
            _guard: Guard::new(bits.as_ptr() as usize, size, PAGE, connection)?,
            bits,
        })
    }
}

impl DirtyLog for PageLog {
    fn mark(&self, address: u64, len: u64) {
        if len == 0 {
            return;
        }
        let first = address / LOG_PAGE;
        let last = address.saturating_add(len - 1) / LOG_PAGE;
        for page in first..=last {
            let Ok(byte) = usize::try_from(page / 8) else {
                return;
            };
            // A page behind the end of the log has no bit; the frontend chose the size.
            let Ok(bits) = self.bits.get_atomic_ref::<AtomicU8>(byte) else {
                return;
            };
            bits.fetch_or(1 << (page % 8), Ordering::Relaxed);
        }
    }
}
