//! Thin safe wrappers over the few system calls the kit needs.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A process id.
pub type Pid = libc::pid_t;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn adopt(fd: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: the descriptor was just returned by the kernel and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An anonymous file of `len` bytes, the kind of descriptor that guest memory comes from.
///
/// # Errors
/// As memfd_create(2) and ftruncate(2).
pub fn memfd(name: &str, len: u64) -> io::Result<File> {
    let name = CString::new(name).map_err(io::Error::other)?;
    // SAFETY: the name is a terminated string that outlives the call.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    let file = File::from(adopt(fd)?);
    file.set_len(len)?;
    Ok(file)
}

/// Both ends of a pipe, (reader, writer), closed on exec.
///
/// # Errors
/// As pipe2(2).
pub fn pipe() -> io::Result<(File, File)> {
    let mut fds = [0; 2];
    // SAFETY: the array has room for the two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((File::from(adopt(fds[0])?), File::from(adopt(fds[1])?)))
}

/// Makes a fifo at `path`, opened for both directions: whoever reads it waits, and never sees its end.
///
/// # Errors
/// As mkfifo(3) and open(2).
pub fn fifo(path: &Path) -> io::Result<File> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: the name is a terminated string that outlives the call.
    check(unsafe { libc::mkfifo(name.as_ptr(), 0o600) })?;
    File::options().read(true).write(true).open(path)
}

/// Makes reads and writes on this open file description return at once, or block again.
///
/// # Errors
/// As fcntl(2).
pub fn set_nonblocking(fd: &impl AsRawFd, on: bool) -> io::Result<()> {
    // SAFETY: fcntl with F_GETFL and F_SETFL touches no memory of ours.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    let flags = if on {
        flags | libc::O_NONBLOCK
    } else {
        flags & !libc::O_NONBLOCK
    };
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) })?;
    Ok(())
}

/// Waits until one of `events` (POLLIN, POLLOUT, ...) or a hang-up holds; the bits that do, or 0 after `timeout`.
///
/// # Errors
/// As poll(2); an interruption by a signal is waited through.
pub fn poll(fd: &impl AsRawFd, events: i16, timeout: Duration) -> io::Result<i16> {
    let deadline = Instant::now() + timeout;
    loop {
        let mut entry = libc::pollfd {
            fd: fd.as_raw_fd(),
            events,
            revents: 0,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        // Round up: a poll of 0 ms in the last millisecond would spin.
        let millis = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        // SAFETY: one valid pollfd for the duration of the call.
        match check(unsafe { libc::poll(&raw mut entry, 1, millis) }) {
            Ok(_) => return Ok(entry.revents),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether the descriptor is readable or hung up within `timeout`.
///
/// # Errors
/// As [`poll`].
pub fn readable(fd: &impl AsRawFd, timeout: Duration) -> io::Result<bool> {
    Ok(poll(fd, libc::POLLIN, timeout)? != 0)
}

/// Sends a signal to one process.
///
/// # Errors
/// As kill(2).
pub fn kill(pid: Pid, signal: libc::c_int) -> io::Result<()> {
    assert!(pid > 1, "never signal a group or init");
    // SAFETY: kill touches no memory of ours.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Sets the soft limit of a resource (RLIMIT_NOFILE, RLIMIT_AS, ...) of a running process; the old soft limit.
///
/// # Errors
/// As prlimit(2).
pub fn limit(pid: Pid, resource: u32, soft: u64) -> io::Result<u64> {
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: no new limit is passed and `old` is valid for writing.
    check(unsafe { libc::prlimit64(pid, resource, std::ptr::null(), &raw mut old) })?;
    let new = libc::rlimit64 {
        rlim_cur: soft.min(old.rlim_max),
        rlim_max: old.rlim_max,
    };
    // SAFETY: `new` is valid for reading and the old value is not asked for.
    check(unsafe { libc::prlimit64(pid, resource, &raw const new, std::ptr::null_mut()) })?;
    Ok(old.rlim_cur)
}

/// Connects to a unix socket, giving up after `timeout` when the listener's backlog stays full.
///
/// # Errors
/// As connect(2); `WouldBlock` after the timeout.
pub fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    // SAFETY: socket touches no memory of ours.
    let socket =
        adopt(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    let stream = UnixStream::from(socket);
    // The send timeout also bounds connect(2) on a unix socket.
    stream.set_write_timeout(Some(timeout))?;
    let (address, len) = address(path)?;
    // SAFETY: `address` is a valid sockaddr_un of which `len` bytes are used.
    check(unsafe { libc::connect(stream.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(stream)
}

fn address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    let bytes = path.as_os_str().as_bytes();
    let mut address = libc::sockaddr_un {
        sun_family: libc::AF_UNIX as libc::sa_family_t,
        sun_path: [0; 108],
    };
    if bytes.len() >= address.sun_path.len() {
        return Err(io::Error::other("socket path too long"));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok((address, size_of::<libc::sockaddr_un>() as libc::socklen_t))
}

/// Runs `probe` until it gives a value or `timeout` is over, sleeping a little longer each time.
pub fn wait_for<T>(timeout: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(10));
    }
}

/// A copy of the descriptor with a number of at least 100, closed on exec.
pub(crate) fn duplicate_high(fd: &impl AsRawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_DUPFD_CLOEXEC touches no memory of ours.
    adopt(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100) })
}

/// Makes `target` the descriptor number `number` in the process that calls it, surviving exec. For use between fork
/// and exec: it only makes system calls.
pub(crate) fn place_descriptor(target: libc::c_int, number: libc::c_int) -> io::Result<()> {
    if target == number {
        // dup2 onto itself would leave the close-on-exec flag set.
        // SAFETY: fcntl with F_SETFD touches no memory of ours.
        return check(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: dup2 touches no memory of ours; the caller decides which descriptor is replaced.
    check(unsafe { libc::dup2(target, number) }).map(drop)
}

/// Closes a descriptor number of the calling process. For use between fork and exec only.
pub(crate) fn close_descriptor(number: libc::c_int) {
    // SAFETY: called in a freshly forked child, which is about to replace itself and uses no owner of this number.
    unsafe { libc::close(number) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn connecting_to_a_full_backlog_ends_by_itself() {
        let dir = crate::process::TempDir::new().unwrap();
        let path = dir.path().join("full");
        let _listener = UnixListener::bind(&path).unwrap();
        let begin = Instant::now();
        let mut held = Vec::new();
        // Nobody accepts: at some point the backlog is full and connect must time out rather than hang.
        let refused = (0..10_000).find_map(|_| match connect(&path, Duration::from_millis(50)) {
            Ok(stream) => {
                held.push(stream);
                None
            }
            Err(error) => Some(error.kind()),
        });
        assert!(refused.is_some());
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_closed_pipe_is_readable_and_an_empty_one_is_not() {
        let (reader, writer) = pipe().unwrap();
        assert!(!readable(&reader, Duration::from_millis(5)).unwrap());
        drop(writer);
        assert!(readable(&reader, Duration::from_millis(5)).unwrap());
    }
}
