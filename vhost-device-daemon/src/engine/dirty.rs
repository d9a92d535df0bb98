//! The log of pages written, shared with the frontend for live migration (SET_LOG_BASE, VHOST_F_LOG_ALL).

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use vhost_device_core::DirtyLog;
use vm_memory::{FileOffset, GuestAddress, GuestRegionMmap, VolatileMemory};

use super::memory::check_length;
use super::sigbus::Guard;

/// Bytes of guest memory per bit (VHOST_LOG_PAGE).
const LOG_PAGE: u64 = 4096;

/// The log in force, if any. All memory of a connection shares it, so that a request taken before the log was set is
/// recorded when it writes: an event buffer may be held for long.
#[derive(Default)]
pub struct LogSwitch {
    on: AtomicBool,
    log: RwLock<Option<Arc<dyn DirtyLog>>>,
}

impl LogSwitch {
    /// Records in `log` from now on.
    pub fn set(&self, log: Option<Arc<dyn DirtyLog>>) {
        let on = log.is_some();
        *self.log.write().unwrap_or_else(PoisonError::into_inner) = log;
        self.on.store(on, Ordering::SeqCst);
    }
}

impl DirtyLog for LogSwitch {
    fn mark(&self, address: u64, len: u64) {
        // All that an ordinary run pays.
        if !self.on.load(Ordering::Relaxed) {
            return;
        }
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = log.as_ref() {
            log.mark(address, len);
        }
    }
}

/// One bit per page, set and never cleared by us.
pub struct PageLog {
    // Before the mapping: it is deregistered first.
    _guard: Guard,
    bits: GuestRegionMmap,
}

impl PageLog {
    /// Maps `size` bytes of `file` from `offset`.
    ///
    /// # Errors
    /// If the file is shorter or cannot be mapped.
    pub fn new(file: File, offset: u64, size: u64, connection: &Arc<OwnedFd>) -> io::Result<Self> {
        check_length(&file, offset, size)?;
        let size = usize::try_from(size).map_err(io::Error::other)?;
        // The address means nothing here: the log is an ordinary file, under Xen too.
        let file = FileOffset::new(file, offset);
        let bits = GuestRegionMmap::from_range(GuestAddress(0), size, Some(file))
            .map_err(io::Error::other)?;
        Ok(Self {
            _guard: Guard::new(bits.as_ptr() as usize, size, connection)?,
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
