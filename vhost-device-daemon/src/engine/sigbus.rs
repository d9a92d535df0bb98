//! Survives guest memory that its owner truncates.
//!
//! Touching a page past the end of a shared file raises SIGBUS. The handler maps a zero page over the hole, so that the
//! interrupted access goes on, and shuts the connection's socket down, so that the session ends. Nothing else in the
//! process notices. A SIGBUS anywhere else ends the process as usual.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// Mappings watched at a time, over all connections.
const SLOTS: usize = 1024;
/// `start` of a slot that is being filled.
const RESERVED: usize = 1;

struct Slot {
    start: AtomicUsize,
    length: AtomicUsize,
    page: AtomicUsize,
    connection: AtomicI32,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        start: AtomicUsize::new(0),
        length: AtomicUsize::new(0),
        page: AtomicUsize::new(0),
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
    /// Watches `length` bytes from `start`, in pages of `page` bytes.
    ///
    /// # Errors
    /// If too many mappings are watched already.
    pub fn new(
        start: usize,
        length: usize,
        page: usize,
        connection: &Arc<OwnedFd>,
    ) -> io::Result<Self> {
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
        entry.page.store(page, Ordering::Relaxed);
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

/// Maps zero pages over `length` bytes at `address`.
///
/// # Safety
/// The range must be a mapping whose content nobody relies on any more, and both numbers multiples of its page size.
pub unsafe fn map_zeroes(address: usize, length: usize) -> bool {
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the caller vouches for the range.
    let result = unsafe { libc::mmap(address as *mut _, length, protection, flags, -1, 0) };
    result != libc::MAP_FAILED
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo for SIGBUS to a handler with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    for slot in &TABLE {
        let start = slot.start.load(Ordering::Acquire);
        if start <= RESERVED || address < start {
            continue;
        }
        if address - start < slot.length.load(Ordering::Relaxed) {
            let page = slot.page.load(Ordering::Relaxed);
            let hole = address & !(page - 1);
            // SAFETY: the page lies in a registered mapping and has lost its content already.
            if unsafe { map_zeroes(hole, page) } {
                // SAFETY: shutdown takes integers only and is async-signal-safe.
                unsafe { libc::shutdown(slot.connection.load(Ordering::Relaxed), libc::SHUT_RDWR) };
                return;
            }
        }
    }
    // Not ours: return with the default action in place, and the same access ends the process.
    // SAFETY: resetting a signal's action is async-signal-safe.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
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
        let _guard = Guard::new(map.as_ptr() as usize, 8192, 4096, &ours).unwrap();
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
