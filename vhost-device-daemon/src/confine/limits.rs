//! Limits of the process: no core files, and not many more descriptors than its frontends can make it open.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors of the process itself: streams, logs, signals, events, directories.
const OWN: u64 = 64;

/// Descriptors of a frontend's connection: its memory, once more while it is exchanged or taken from a stuck thread, and
/// what a message brings.
const OF_FRONTEND: u64 = 1024;

/// What `sockets` frontends need, and `more`.
pub fn descriptors(sockets: usize, more: u64) -> u64 {
    OWN.saturating_add((sockets as u64).saturating_mul(OF_FRONTEND))
        .saturating_add(more)
}

/// Lets the process open what `sockets` frontends need, and `more`.
///
/// # Errors
/// From the operating system.
pub fn set(sockets: usize, more: u64) -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = descriptors(sockets, more).min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
    Ok(())
}
