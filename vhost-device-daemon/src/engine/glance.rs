//! Looking at a descriptor without waiting.
//!
//! poll(2) would do the same in one call less, and would be a system call more that all daemons may make.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use vhost_device_core::{Interest, Ready};

use super::reactor::{EventLoop, Tag};

/// A descriptor that is looked at. It must stay open as long as this exists. One thread at a time gets a true answer; what others
/// see at the same moment may be too little.
pub struct Glance {
    /// `None` for what never makes anybody wait, such as a regular file: the kernel does not watch that.
    events: Option<EventLoop>,
    interest: Interest,
}

impl Glance {
    /// Looks for `interest` in a descriptor.
    ///
    /// # Errors
    /// If descriptors or memory run out.
    pub fn at(descriptor: &impl AsRawFd, interest: Interest) -> io::Result<Self> {
        let events = EventLoop::new()?;
        let events = match events.add(descriptor.as_raw_fd(), interest, Tag::Own(0)) {
            Ok(()) => Some(events),
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { events, interest })
    }

    /// What is ready now. An error of the kernel's shows as nothing.
    pub fn look(&self) -> Ready {
        let mut seen = Ready::default();
        match &self.events {
            Some(events) => {
                let _ = events.wait(Some(Duration::ZERO), |_, ready| seen = ready);
            }
            None => {
                seen.readable = self.interest.readable;
                seen.writable = self.interest.writable;
            }
        }
        seen
    }
}

impl fmt::Debug for Glance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Glance")
            .field("interest", &self.interest)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_ready_shows_as_often_as_one_looks_and_no_longer() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let glance = Glance::at(&reader, Interest::READABLE).unwrap();
        assert!(!glance.look().readable);
        writer.write_all(&[1]).unwrap();
        assert!(glance.look().readable && glance.look().readable);
        reader.read_exact(&mut [0]).unwrap();
        assert!(!glance.look().readable);
        drop(writer);
        assert!(glance.look().hangup);
    }

    #[test]
    fn an_end_shows_behind_what_was_sent_before_it() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let glance = Glance::at(&ours, Interest::READABLE).unwrap();
        theirs.write_all(&[1]).unwrap();
        assert!(!glance.look().hangup);
        drop(theirs);
        assert!(glance.look().hangup);
    }

    #[test]
    fn a_regular_file_is_always_ready() {
        let file: File = crate::engine::memory::tests::memfd(8);
        let glance = Glance::at(&file, Interest::WRITABLE).unwrap();
        assert!(glance.look().writable && !glance.look().readable);
    }
}
