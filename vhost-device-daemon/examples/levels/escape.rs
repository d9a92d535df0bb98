//! A device that a guest has got hold of: it tries to do what it has no business doing.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::UdpSocket;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vhost_device_core::{
    Device, GuestFault, HostError, QueueIndex, QueueSpec, Request, Serve, Service, Setup, pause,
};
use vhost_device_daemon::confine::{Access, Call, Profile, Sysno};

/// The longest path that a request may carry.
const MAX_PATH: usize = 200;

/// What it may do: files below a folder are its business, and so are unix sockets.
pub fn profile(folder: &Path) -> Profile {
    Profile::new()
        .call(Sysno::openat)
        .call(Sysno::connect)
        .call(Call::new(Sysno::socket).one_of(0, &[libc::AF_UNIX as u64]))
        .place(folder, Access::Use)
        .place(folder, Access::Connect)
}

/// Tries what requests ask for.
pub struct Escape {
    folder: PathBuf,
}

impl Escape {
    /// May use `folder`.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }
}

impl Device for Escape {
    type Worker = Serve<Prisoner>;

    fn queues(&self) -> Vec<QueueSpec> {
        vec![QueueSpec::new()]
    }

    fn worker(self: &Arc<Self>, _: u16, _: &mut Setup<'_>) -> Result<Self::Worker, HostError> {
        Ok(Serve(Prisoner(Arc::clone(self))))
    }
}

pub struct Prisoner(Arc<Escape>);

impl Service for Prisoner {
    /// Request: a byte that says what to try, and a path. Answer: `le32`, the error number or 0.
    fn serve(&mut self, _: QueueIndex, request: &mut Request<'_>) -> Result<(), GuestFault> {
        let attempt = request.read::<u8>()?;
        let mut path = Vec::new();
        while path.len() < MAX_PATH
            && let Ok(byte) = request.read::<u8>()
        {
            path.push(byte);
        }
        let path = self.0.folder.join(OsStr::from_bytes(&path));
        let result = attempt_it(attempt, &path);
        let number = result.map_or_else(|error| error.raw_os_error().unwrap_or(-1), |()| 0);
        request.write(&number.to_le_bytes())
    }
}

/// Long enough to be stopped in it.
const PAUSE: Duration = Duration::from_secs(1);

/// Many pieces, each too small for a mapping of its own, and none of them a part of another.
fn fill_the_heap() -> io::Result<()> {
    let pieces: Vec<_> = (0..64 * 1024u32).map(|number| vec![number; 256]).collect();
    let is_its_own = |(number, piece): (u32, &Vec<u32>)| piece.iter().all(|value| *value == number);
    match (0..).zip(&pieces).all(is_its_own) {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn attempt_it(attempt: u8, path: &Path) -> io::Result<()> {
    match attempt {
        b'r' => File::open(path).map(drop),
        b'w' => OpenOptions::new().write(true).open(path).map(drop),
        b'c' => OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map(drop),
        b's' => UnixStream::connect(path).map(drop),
        // what takes no call that is not in everybody's table
        b'h' => fill_the_heap(),
        b'p' => {
            pause(PAUSE);
            Ok(())
        }
        // not in the table of arguments
        b'n' => UdpSocket::bind("127.0.0.1:0").map(drop),
        // not in the table of calls
        b'l' => fs::hard_link(path, path),
        b'd' => UnixDatagram::pair().map(drop),
        // the worst that can happen to a process
        b'a' => std::process::abort(),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}
