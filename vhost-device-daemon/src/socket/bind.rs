//! Making a listening socket at a path.
//!
//! The socket is made under a name of its own beside the path, gets its mode and group, starts to listen, and only then
//! gets the path as its name. Whoever sees the path can therefore connect at once, with final permissions, and a
//! socket at the path that refuses connections is dead and not merely unfinished. A path so long that no name fits
//! beside it is bound directly.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind as bind_address, listen, socket,
};
use nix::sys::stat::fchmod;

use super::access::Access;
use super::directory::{Directory, Entry};
use super::occupant::Occupant;
use crate::exit::StartError;

/// Frontends that may wait while one is being served.
const BACKLOG: i32 = 128;

/// A socket that listens, and its name.
#[derive(Debug)]
pub(super) struct BoundSocket {
    pub(super) entry: Entry,
    pub(super) listener: UnixListener,
}

/// Listens at `path`, which is in `directory`; the caller holds the directory's lock.
///
/// A dead socket at `path` is replaced.
///
/// # Errors
/// Somebody listens at `path`, something that is no socket is there, or the system refuses.
pub(super) fn bind(
    directory: &Arc<Directory>,
    path: &Path,
    access: &Access,
) -> Result<BoundSocket, StartError> {
    let failed = |error: Errno| StartError::io("listen on socket", path.display(), &error.into());
    let name = path.file_name().unwrap_or_default();
    clear(directory, name)?;

    let staging = staging_name(name);
    let Ok(address) = UnixAddr::new(&directory.join(&staging)) else {
        let address = UnixAddr::new(path).map_err(failed)?;
        return listen_at(directory, name, &address, access);
    };
    // A process of the same number may have been killed with this name in hand.
    clear(directory, &staging)?;
    let staged = listen_at(directory, &staging, &address, access)?;
    let entry = staged.entry.link(name).map_err(failed)?;
    Ok(BoundSocket {
        entry,
        listener: staged.listener,
    })
}

/// Makes room for a socket at `name`.
///
/// # Errors
/// Somebody listens there, or something that is no socket is there.
pub(super) fn clear(directory: &Directory, name: &OsStr) -> Result<(), StartError> {
    let path = directory.join(name);
    match Occupant::of(&path) {
        Ok(Occupant::Nobody) => Ok(()),
        Ok(Occupant::Dead) => {
            log::debug!("replacing {}, which nobody listens on", path.display());
            directory
                .remove(name)
                .map_err(|error| StartError::io("replace dead socket", path.display(), &error))
        }
        Ok(Occupant::Alive) => Err(in_use(&path)),
        Ok(Occupant::Foreign(what)) => Err(foreign(&path, what)),
        Err(error) => Err(StartError::io("use socket", path.display(), &error)),
    }
}

/// Somebody listens at `path`.
pub(crate) fn in_use(path: &Path) -> StartError {
    StartError::missing(format!(
        "socket {} is in use: another process listens on it",
        path.display()
    ))
    .with_hint("stop that process or choose another path")
}

/// There is `what` at `path`, which is not ours to remove.
pub(crate) fn foreign(path: &Path, what: &str) -> StartError {
    StartError::missing(format!(
        "cannot listen on {}: it is {what}, not a socket",
        path.display()
    ))
    .with_hint("remove it or choose another path")
}

fn staging_name(name: &OsStr) -> OsString {
    let mut staging = name.to_owned();
    staging.push(format!(".{}", std::process::id()));
    staging
}

/// Makes a socket with `access` that listens at `address`, which is `name` in `directory`.
fn listen_at(
    directory: &Arc<Directory>,
    name: &OsStr,
    address: &UnixAddr,
    access: &Access,
) -> Result<BoundSocket, StartError> {
    let path = directory.join(name);
    let failed = |error: Errno| StartError::io("listen on socket", path.display(), &error.into());
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(failed)?;
    if let Some(mode) = access.mode {
        // bind() creates the file with the socket's own mode less the umask: never with more than was asked for.
        fchmod(&socket, mode).map_err(failed)?;
    }
    bind_address(socket.as_raw_fd(), address).map_err(failed)?;
    let entry = Entry::own(directory, name).map_err(failed)?;
    grant(&entry, access).map_err(|error| {
        StartError::io(
            "set mode and group of socket",
            path.display(),
            &error.into(),
        )
    })?;
    // Nobody can connect before this line, so all permissions are final from the first connection on.
    Backlog::new(BACKLOG)
        .and_then(|backlog| listen(&socket, backlog))
        .map_err(failed)?;
    Ok(BoundSocket {
        entry,
        listener: UnixListener::from(socket),
    })
}

fn grant(entry: &Entry, access: &Access) -> nix::Result<()> {
    if let Some(group) = access.group {
        entry.set_group(group)?;
    }
    match access.mode {
        // The umask may have taken away what was asked for.
        Some(mode) if entry.mode()? != mode => entry.set_mode(mode),
        _ => Ok(()),
    }
}
