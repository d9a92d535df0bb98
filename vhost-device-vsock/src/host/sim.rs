//! Programs that are not there: for tests and fuzzing, without names in any file system.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use super::Kind;
use super::socket::{Connecting, Socket, check};

/// Programs whose ends are kept open; older ones leave.
const MAX_PROGRAMS: usize = 64;

/// What the talkative programs say.
const WORDS: usize = 3000;

/// Simulated programs. None of them ever reads. What they do depends on the port:
///
/// | port modulo 4 | |
/// |---|---|
/// | 0 | nobody listens |
/// | 1 | says something and stays |
/// | 2 | says something and leaves |
/// | 3 | says nothing |
#[derive(Debug, Default)]
pub struct Programs {
    others: Mutex<VecDeque<OwnedFd>>,
}

impl Programs {
    /// Connects to the program of `port`.
    pub fn connect(&self, port: u32, kind: Kind) -> io::Result<(Socket, Connecting)> {
        if port.is_multiple_of(4) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = pair(kind)?;
        if port % 4 != 3 {
            theirs.send_bytes(&[port as u8; WORDS], false)?;
        }
        if port % 4 != 2 {
            let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            others.push_back(theirs.into());
            if others.len() > MAX_PROGRAMS {
                others.pop_front();
            }
        }
        Ok((ours, Connecting::Done))
    }
}

fn pair(kind: Kind) -> io::Result<(Socket, Socket)> {
    let mut ends = [0; 2];
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: there is room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind.number() | flags, 0, ends.as_mut_ptr()) })?;
    // SAFETY: the descriptors were just made and are nobody else's.
    let [ours, theirs] = ends.map(|fd| Socket::from_owned(unsafe { OwnedFd::from_raw_fd(fd) }));
    Ok((ours, theirs))
}
