//! Survives guest memory that its owner truncates.
//!
//! Touching a page past the end of a shared file raises SIGBUS. The handler maps a zero page over the hole, so that the
//! interrupted access goes on, and shuts the connection's socket down, so that the session ends. Nothing else in the
//! process notices. A SIGBUS anywhere else ends the process, with exit code 70.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use nix::errno::Errno;

use crate::exit::Exit;

/// Mappings watched at a time, over all connections.
const SLOTS: usize = 1024;
/// `start` of a slot that is being filled.
const RESERVED: usize = 1;

struct Slot {
    start: AtomicUsize,
    length: AtomicUsize,
    connection: AtomicI32,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        start: AtomicUsize::new(0),
        length: AtomicUsize::new(0),
        connection: AtomicI32::new(-1),
    }
}; SLOTS];

/// Installs the handler. Once, before any guest memory is mapped.
pub fn install() -> io::Result<()> {
    // SAFETY: an all-zero sigaction is valid; the fields that matter are set below.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
    // SAFETY: the action is initialised, and the handler uses only async-signal-safe operations.
    let result = unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A mapping that may lose its pages. Deregistered when dropped, which must be before it is unmapped.
pub struct Guard {
    slot: usize,
    /// Keeps the number of the socket that the handler shuts down from being reused.
    _connection: Arc<OwnedFd>,
}

impl Guard {
    /// Watches `length` bytes from `start`.
    ///
    /// # Errors
    /// If too many mappings are watched already.
    pub fn new(start: usize, length: usize, connection: &Arc<OwnedFd>) -> io::Result<Self> {
        let slot = TABLE
            .iter()
            .position(|slot| {
                slot.start
                    .compare_exchange(0, RESERVED, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            })
            .ok_or_else(|| io::Error::other("too many memory regions in this process"))?;
        let entry = &TABLE[slot];
        entry.length.store(length, Ordering::Relaxed);
        entry
            .connection
            .store(connection.as_raw_fd(), Ordering::Relaxed);
        entry.start.store(start, Ordering::Release);
        Ok(Self {
            slot,
            _connection: Arc::clone(connection),
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        TABLE[self.slot].start.store(0, Ordering::Release);
    }
}

/// The sizes that a page of a mapping can have: from the smallest of all architectures to the largest huge page.
const PAGE_BITS: std::ops::RangeInclusive<u32> = 12..=34;

/// Maps zero pages over `length` bytes at `address`, and over the rest of the pages that these are in.
///
/// A page can be a huge one. Whether it is need not be known: the kernel refuses to replace a part of a page, and says so by
/// EINVAL, so the first size that it accepts is the mapping's own.
///
/// # Safety
/// The range must lie in a mapping, and nobody may rely any more on the content of the pages that it touches.
pub unsafe fn map_zeroes(address: usize, length: usize) -> bool {
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    for page in PAGE_BITS.map(|bits| 1usize << bits) {
        let start = address & !(page - 1);
        let end = address.saturating_add(length);
        let Some(end) = end.checked_next_multiple_of(page) else {
            return false;
        };
        // SAFETY: the caller vouches for all pages that the range touches, and these are not more.
        let result = unsafe { libc::mmap(start as *mut _, end - start, protection, flags, -1, 0) };
        if result != libc::MAP_FAILED {
            return true;
        }
        if Errno::last() != Errno::EINVAL {
            return false;
        }
    }
    false
}

extern "C" fn handle(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // The interrupted code may be about to look at its own.
    let errno = Errno::last_raw();
    // SAFETY: the kernel passes a valid siginfo for SIGBUS to a handler with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    for slot in &TABLE {
        let start = slot.start.load(Ordering::Acquire);
        if start <= RESERVED || address < start {
            continue;
        }
        if address - start < slot.length.load(Ordering::Relaxed) {
            // SAFETY: the page lies in a registered mapping and has lost its content already.
            if unsafe { map_zeroes(address, 1) } {
                // SAFETY: shutdown takes integers only and is async-signal-safe.
                unsafe { libc::shutdown(slot.connection.load(Ordering::Relaxed), libc::SHUT_RDWR) };
                Errno::set_raw(errno);
                return;
            }
        }
    }
    // Logging takes no lock and no memory. Restoring the default action would be a system call that is not in the table.
    log::error!("SIGBUS at {address:#x}, which is not guest memory: ending");
    // SAFETY: ends the process without running anything of it.
    unsafe { libc::_exit(Exit::Internal as libc::c_int) };
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use vm_memory::{FileOffset, GuestAddress, GuestRegionMmap, VolatileMemory};

    use super::*;

    #[test]
    fn a_truncated_mapping_reads_as_zeroes_and_ends_its_connection() {
        install().unwrap();
        let file = crate::engine::memory::tests::memfd(2 * 4096);
        let offset = FileOffset::new(file.try_clone().unwrap(), 0);
        let map = GuestRegionMmap::<()>::from_range(GuestAddress(0), 8192, Some(offset)).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let ours = Arc::new(OwnedFd::from(ours));
        let _guard = Guard::new(map.as_ptr() as usize, 8192, &ours).unwrap();
        file.set_len(4096).unwrap();
        let slice = VolatileMemory::get_slice(&*map, 0, 8192).unwrap();
        let mut bytes = vec![1u8; 8192];
        slice.copy_to(&mut bytes[..]);
        assert!(bytes[4096..].iter().all(|byte| *byte == 0));
        assert_eq!(
            theirs.read(&mut [0]).unwrap(),
            0,
            "the connection is shut down"
        );
    }
}
