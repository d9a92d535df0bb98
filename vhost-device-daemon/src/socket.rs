//! Where frontends come from: sockets that the daemon makes, inherits, or gets from the service manager.
//!
//! One listener lives as long as the process; see [`Endpoint`].

mod access;
mod bind;
mod directory;
mod index_link;
mod inherited;
mod occupant;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use crate::activation;
use crate::cli::{CommonArgs, SocketPlan};
use crate::exit::StartError;

use access::Access;
pub(crate) use access::find_group;
pub(crate) use bind::{foreign, in_use};
use directory::{Directory, Entry};
pub(crate) use occupant::Occupant;

/// The mode of a control socket: for the daemon's user and group.
const CONTROL_MODE: u32 = 0o660;

/// What a daemon does for the sake of existing scripts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compat {
    /// The public daemon of this name always appends an index to the path. A run without `--socket-count` therefore
    /// also leaves PATH0 as a symbolic link to PATH, so that both spellings connect.
    pub index_symlink: bool,
}

/// A socket that frontends come from.
#[derive(Debug)]
pub enum Source {
    /// Accepts frontends, one after the other. Non-blocking.
    Listening(UnixListener),
    /// Is the one frontend's connection. `None` once it has been taken.
    Connected(Option<UnixStream>),
}

/// A source of frontends, and the names in the file system that go away with it.
///
/// Dropping it removes the socket's name, and the symbolic link beside it, if they are still the ones that were made
/// here.
#[derive(Debug)]
pub struct Endpoint {
    // Fields are dropped in this order, and the names must go while the socket still listens: a peer that finds the
    // name of a dead socket is free to replace it, and we would then remove the peer's. A socket that listens also
    // keeps its inode from being used again for another file.
    names: Vec<Entry>,
    source: Source,
    label: String,
}

impl Endpoint {
    /// Takes the next frontend's connection, in blocking mode; `None` if there is none now.
    ///
    /// # Errors
    /// The system has no descriptor or memory for the connection, which then stays in the backlog: the endpoint
    /// remains readable, so pause before the next attempt.
    pub fn accept(&mut self) -> io::Result<Option<UnixStream>> {
        let listener = match &mut self.source {
            Source::Connected(stream) => return Ok(stream.take()),
            Source::Listening(listener) => listener,
        };
        match listener.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::Interrupted
                | io::ErrorKind::ConnectionAborted => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// The listening socket, to be polled for frontends. `None` for an endpoint that is one connection.
    pub fn listener(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            Source::Listening(listener) => Some(listener.as_fd()),
            Source::Connected(_) => None,
        }
    }

    /// The folders of the names that go away with this.
    pub fn folders(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.names.iter().map(Entry::folder)
    }

    /// Whether no frontend can come any more: the one connection has been taken.
    pub fn is_exhausted(&self) -> bool {
        matches!(self.source, Source::Connected(None))
    }

    fn bound(socket: bind::BoundSocket, path: &Path) -> Self {
        Self {
            names: vec![socket.entry],
            source: Source::Listening(socket.listener),
            label: path.display().to_string(),
        }
    }

    fn inherited(number: RawFd, label: String) -> Result<Self, StartError> {
        Ok(Self {
            names: Vec::new(),
            source: inherited::adopt(number, &label)?,
            label,
        })
    }
}

/// The socket as it is called in logs: its path or its descriptor.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

/// Opens all sockets that the command line asks for, in the order of their index.
///
/// # Errors
/// The first socket that cannot be opened; those opened before it are closed and removed again.
pub fn open_all(args: &CommonArgs, compat: Compat) -> Result<Vec<Endpoint>, StartError> {
    match args.validate()? {
        SocketPlan::Path(path) => {
            let access = Access::new(args)?;
            Ok(vec![open_path(&path, &access, compat)?])
        }
        SocketPlan::Indexed(paths) => open_indexed(&paths, &Access::new(args)?),
        SocketPlan::Named(paths) => {
            let access = Access::new(args)?;
            paths
                .iter()
                .map(|path| open_path(path, &access, compat))
                .collect()
        }
        SocketPlan::Descriptor(number) => {
            let label = format!("descriptor {number}");
            Ok(vec![Endpoint::inherited(number, label)?])
        }
        SocketPlan::Activated(count) => {
            activation::forget();
            activation::descriptors(count)
                .map(|number| Endpoint::inherited(number, format!("activated descriptor {number}")))
                .collect()
        }
    }
}

/// Opens a socket beside the frontends' ones, for others than frontends.
///
/// # Errors
/// Somebody listens at `path`, something that is no socket is there, or the system refuses.
pub fn open_control(path: &Path) -> Result<Endpoint, StartError> {
    open_path(path, &Access::of_mode(CONTROL_MODE), Compat::default())
}

fn open_path(path: &Path, access: &Access, compat: Compat) -> Result<Endpoint, StartError> {
    let directory = Arc::new(Directory::of(path)?);
    let _lock = directory.lock()?;
    // Before the socket: whoever sees the socket sees the link too.
    let link = if compat.index_symlink {
        // If somebody listens at the path the link is theirs.
        bind::clear(&directory, path.file_name().unwrap_or_default())?;
        Some(index_link::create(&directory, path))
    } else {
        None
    };
    let mut endpoint = Endpoint::bound(bind::bind(&directory, path, access)?, path);
    match link {
        None => {}
        Some(Ok(entry)) => endpoint.names.insert(0, entry),
        Some(Err(reason)) => {
            log::warn!("frontends must connect to {endpoint}, without the 0 at its end: {reason}");
        }
    }
    Ok(endpoint)
}

fn open_indexed(paths: &[impl AsRef<Path>], access: &Access) -> Result<Vec<Endpoint>, StartError> {
    let Some(first) = paths.first() else {
        return Ok(Vec::new());
    };
    // They differ in the index at the end only, so all of them are in one directory.
    let directory = Arc::new(Directory::of(first.as_ref())?);
    let _lock = directory.lock()?;
    paths
        .iter()
        .map(AsRef::as_ref)
        .map(|path| Ok(Endpoint::bound(bind::bind(&directory, path, access)?, path)))
        .collect()
}
