//! The directory that a socket is in: a lock against other daemons that start at the same time, and names that are
//! removed only while they still mean the file that was made here.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmodat, fstatat};
use nix::unistd::{Gid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use crate::exit::StartError;

/// How long to wait for other daemons that are starting in the same directory; each needs a millisecond.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// A directory held open, so that it stays the same one whatever happens to its path.
#[derive(Debug)]
pub(super) struct Directory {
    handle: File,
    path: PathBuf,
}

/// The directory's lock; released when dropped.
#[derive(Debug)]
pub(super) struct Locked<'a>(&'a Directory);

impl Directory {
    /// Opens the directory that `path` is in.
    pub(super) fn of(path: &Path) -> Result<Self, StartError> {
        let path = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        match File::open(path) {
            Ok(handle) => Ok(Self {
                handle,
                path: path.to_owned(),
            }),
            Err(error) => {
                Err(
                    StartError::io("open the socket's directory", path.display(), &error)
                        .with_hint("it has to exist and be readable"),
                )
            }
        }
    }

    /// Waits until no other daemon is looking for a place in this directory.
    ///
    /// Looking at what is in a place, removing a dead socket and putting a new one there are separate system calls.
    /// Of two daemons that start at once on one path, both could find it dead, and the second would remove the
    /// first one's new socket. With this lock they take turns, and the second one finds the first one alive. The
    /// kernel drops the lock with the process, so nobody can leave it behind, and no lock file stays around.
    pub(super) fn lock(&self) -> Result<Locked<'_>, StartError> {
        self.lock_within(LOCK_PATIENCE)
    }

    pub(super) fn lock_within(&self, patience: Duration) -> Result<Locked<'_>, StartError> {
        let deadline = Instant::now() + patience;
        loop {
            match self.handle.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(LOCK_PAUSE)
                }
                Err(TryLockError::WouldBlock) => return Err(self.stays_locked(patience)),
                Err(TryLockError::Error(error)) => {
                    // Some network file systems lock no directories. Starting without the lock is what everybody
                    // else does; the place is still checked.
                    log::debug!("cannot lock {}: {error}", self.path.display());
                    break;
                }
            }
        }
        Ok(Locked(self))
    }

    fn stays_locked(&self, patience: Duration) -> StartError {
        StartError::missing(format!(
            "directory {} has been locked by another process for {patience:?}",
            self.path.display()
        ))
        .with_hint("lslocks tells which one")
    }

    /// The path of an entry.
    pub(super) fn join(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }

    /// Removes an entry, whatever it is.
    pub(super) fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.handle, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Makes `name` a symbolic link that says `text`.
    pub(super) fn symlink(&self, text: &OsStr, name: &OsStr) -> nix::Result<()> {
        symlinkat(text, &self.handle, name)
    }

    /// What the symbolic link `name` says; `None` if it is no link.
    pub(super) fn link_text(&self, name: &OsStr) -> Option<OsString> {
        readlinkat(&self.handle, name).ok()
    }

    fn status(&self, name: &OsStr) -> nix::Result<FileStat> {
        fstatat(&self.handle, name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// By statx, as the standard library looks at files: what is asked again when the process is confined has to be in its
    /// table of system calls, and C libraries differ in what they make of the older forms.
    fn identity(&self, name: &OsStr) -> nix::Result<Identity> {
        let name = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
        // SAFETY: an all-zero statx is valid, and the kernel overwrites it.
        let mut status: libc::statx = unsafe { std::mem::zeroed() };
        let directory = self.handle.as_raw_fd();
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        // SAFETY: the descriptor is open, the name ends with a zero, and the buffer is a statx.
        let result = unsafe {
            libc::statx(
                directory,
                name.as_ptr(),
                flags,
                libc::STATX_INO,
                &mut status,
            )
        };
        Errno::result(result)?;
        Ok(Identity {
            device: (status.stx_dev_major, status.stx_dev_minor),
            inode: status.stx_ino,
        })
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let _ = self.0.handle.unlock();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: (u32, u32),
    inode: u64,
}

/// A name that is ours. Dropping it removes it, if it still means the same file.
#[derive(Debug)]
pub(super) struct Entry {
    directory: Arc<Directory>,
    name: OsString,
    identity: Identity,
}

impl Entry {
    /// Takes charge of the file that `name` means now.
    pub(super) fn own(directory: &Arc<Directory>, name: &OsStr) -> nix::Result<Self> {
        Ok(Self {
            directory: Arc::clone(directory),
            name: name.to_owned(),
            identity: directory.identity(name)?,
        })
    }

    /// Gives the file a second name, which must be free.
    pub(super) fn link(&self, name: &OsStr) -> nix::Result<Self> {
        let handle = &self.directory.handle;
        linkat(
            handle,
            self.name.as_os_str(),
            handle,
            name,
            AtFlags::empty(),
        )?;
        Ok(Self {
            directory: Arc::clone(&self.directory),
            name: name.to_owned(),
            identity: self.identity,
        })
    }

    /// The directory that the name is in.
    pub(super) fn folder(&self) -> BorrowedFd<'_> {
        self.directory.handle.as_fd()
    }

    /// The file's permission bits.
    pub(super) fn mode(&self) -> nix::Result<Mode> {
        let status = self.directory.status(&self.name)?;
        Ok(Mode::from_bits_truncate(status.st_mode & 0o7777))
    }

    /// Changes the file's permission bits.
    pub(super) fn set_mode(&self, mode: Mode) -> nix::Result<()> {
        let handle = &self.directory.handle;
        fchmodat(
            handle,
            self.name.as_os_str(),
            mode,
            FchmodatFlags::FollowSymlink,
        )
    }

    /// Changes the file's group.
    pub(super) fn set_group(&self, group: Gid) -> nix::Result<()> {
        let handle = &self.directory.handle;
        fchownat(
            handle,
            self.name.as_os_str(),
            None,
            Some(group),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.directory.identity(&self.name).ok() != Some(self.identity) {
            return;
        }
        if let Err(error) = self.directory.remove(&self.name) {
            log::warn!(
                "cannot remove {}: {error}",
                self.directory.join(&self.name).display()
            );
        }
    }
}
