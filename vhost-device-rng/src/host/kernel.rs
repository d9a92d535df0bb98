//! The kernel's generator.

use std::io;

use vm_memory::VolatileSlice;

use super::Entropy;

/// getrandom(2), which never blocks once the system has booted and never ends.
#[derive(Debug)]
pub struct Kernel;

impl Entropy for Kernel {
    fn fill(&mut self, out: &VolatileSlice<'_>) -> io::Result<usize> {
        let guard = out.ptr_guard_mut();
        // SAFETY: the guard keeps `len` writable bytes mapped; the kernel writes them like any other guest access.
        let filled = unsafe { libc::getrandom(guard.as_ptr().cast(), guard.len(), 0) };
        usize::try_from(filled).map_err(|_| io::Error::last_os_error())
    }
}
