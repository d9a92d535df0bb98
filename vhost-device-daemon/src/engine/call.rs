//! The descriptor that interrupts the driver.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;

use vhost_device_core::{Interest, Notifier};

use super::glance::Glance;

/// A call or error descriptor as the frontend gave it, usually an eventfd.
pub struct Call {
    file: File,
    /// The frontend left it in blocking mode: look for room before each write. Its mode is not ours to change, since a frontend
    /// may rely on blocking reads of its end.
    room: Option<Glance>,
}

impl Call {
    /// Takes over a descriptor.
    ///
    /// # Errors
    /// If it is something that a signal cannot be written to, like a regular file or a directory; or if descriptors run out.
    pub fn new(file: File) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        if kind.is_file() || kind.is_dir() || kind.is_block_device() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the call descriptor is no eventfd",
            ));
        }
        // SAFETY: fcntl on an open descriptor with integer arguments touches no memory of ours.
        let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
        if flags < 0 {
            return Err(io::Error::last_os_error());
        }
        let is_blocking = flags & libc::O_NONBLOCK == 0;
        let room = is_blocking
            .then(|| Glance::at(&file, Interest::WRITABLE))
            .transpose()?;
        Ok(Self { file, room })
    }

    fn has_room(&self) -> bool {
        self.room.as_ref().is_none_or(|room| room.look().writable)
    }
}

impl Notifier for Call {
    fn notify(&self) {
        // A full counter means that the frontend has not looked at the last 2^64 signals: one more changes nothing.
        if self.has_room() {
            let one = 1u64.to_ne_bytes();
            // SAFETY: the descriptor is open and the buffer has eight bytes.
            unsafe { libc::write(self.file.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }
}

/// No way to interrupt the driver: it polls.
pub struct Silent;

impl Notifier for Silent {
    fn notify(&self) {}
}

#[cfg(test)]
mod tests {
    use std::os::fd::{FromRawFd, IntoRawFd};

    use vmm_sys_util::eventfd::EventFd;

    use super::*;

    #[test]
    fn a_full_counter_in_blocking_mode_does_not_block_the_writer() {
        let event = EventFd::new(0).unwrap();
        event.write(u64::MAX - 1).unwrap();
        // SAFETY: the duplicate belongs to nobody else.
        let file = unsafe { File::from_raw_fd(event.try_clone().unwrap().into_raw_fd()) };
        let call = Call::new(file).unwrap();
        call.notify();
        assert_eq!(event.read().unwrap(), u64::MAX - 1);
        call.notify();
        assert_eq!(event.read().unwrap(), 1);
    }

    #[test]
    fn files_and_directories_are_refused() {
        assert!(Call::new(super::super::memory::tests::memfd(8)).is_err());
        assert!(Call::new(File::open("/").unwrap()).is_err());
    }
}
