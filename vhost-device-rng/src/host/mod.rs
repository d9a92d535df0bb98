//! The real thing: something that yields random bytes.

mod file;
#[allow(
    unsafe_code,
    reason = "getrandom has no safe wrapper that fills guest memory"
)]
mod kernel;
mod sim;

use std::io;
use std::os::fd::BorrowedFd;

use vm_memory::VolatileSlice;

pub use file::FileSource;
pub use kernel::Kernel;
pub use sim::Sim;

/// A source of random bytes.
pub trait Entropy: Send {
    /// Fills as much of `out` as there is now; 0 at the end of the source.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is nothing now but will be later; others mean that the source failed.
    fn fill(&mut self, out: &VolatileSlice<'_>) -> io::Result<usize>;

    /// What becomes readable when there is something again.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
