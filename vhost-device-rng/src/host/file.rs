//! A file, pipe or character device.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

use super::Entropy;

/// An open file; connections share its position.
#[derive(Clone, Debug)]
pub struct FileSource(Arc<File>);

impl FileSource {
    /// Opens `path` for reading, without ever waiting for it.
    ///
    /// # Errors
    /// From the operating system; a directory is refused.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Self(Arc::new(file)))
    }
}

impl Entropy for FileSource {
    fn fill(&mut self, out: &VolatileSlice<'_>) -> io::Result<usize> {
        let mut file: &File = &self.0;
        let mut out = *out;
        file.read_volatile(&mut out).map_err(|error| match error {
            VolatileMemoryError::IOError(error) => error,
            error => io::Error::other(error),
        })
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}
