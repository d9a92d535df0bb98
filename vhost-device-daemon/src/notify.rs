//! Readiness for the service manager, in the protocol of `sd_notify(3)`: datagrams to the socket that
//! `$NOTIFY_SOCKET` names. Without that variable every call is a no-op, and no failure matters to the daemon.

mod watchdog;

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;

use nix::unistd::write;

pub use watchdog::Watchdog;

/// The connected socket. Made once, because a confined process may no longer reach the path later.
static MANAGER: OnceLock<Option<UnixDatagram>> = OnceLock::new();

/// Tells the service manager that the sockets accept connections.
///
/// Call it before the process confines itself, or call [`prepare`] there: it connects on first use.
pub fn ready() {
    tell("READY=1");
}

/// Tells the service manager that the daemon is about to end.
pub fn stopping() {
    tell("STOPPING=1");
}

/// Connects to the service manager now, while its socket can still be reached. Tells whether there is one.
pub fn prepare() -> bool {
    manager().is_some()
}

fn tell(message: &str) {
    if let Some(manager) = manager()
        // By write, not send: the filter of system calls has no sendto.
        && let Err(error) = write(manager, message.as_bytes())
    {
        log::debug!("the service manager did not take {message}: {error}");
    }
}

fn manager() -> Option<&'static UnixDatagram> {
    MANAGER
        .get_or_init(|| {
            let address = env::var_os("NOTIFY_SOCKET")?;
            connect(&address)
                .inspect_err(|error| log::debug!("no service manager at {address:?}: {error}"))
                .ok()
        })
        .as_ref()
}

/// Connects to `address`: an absolute path, or `@name` in the abstract namespace.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "neither an absolute path nor an abstract name",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A manager that reads nothing must not hold the daemon up.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn received(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_at_a_path_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        connect(path.as_os_str()).unwrap().send(b"READY=1").unwrap();
        assert_eq!(received(&manager), "READY=1");
    }

    #[test]
    fn a_manager_at_an_abstract_name_is_told() {
        let name = format!("vhost-device-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let socket = connect(&OsString::from(format!("@{name}"))).unwrap();
        socket.send(b"STOPPING=1").unwrap();
        assert_eq!(received(&manager), "STOPPING=1");
    }

    #[test]
    fn a_manager_that_reads_nothing_never_blocks_the_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let _manager = UnixDatagram::bind(&path).unwrap();
        let socket = connect(path.as_os_str()).unwrap();
        let refused = (0..100_000).find_map(|_| socket.send(b"STATUS=x").err());
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn other_addresses_are_refused() {
        for address in ["", "vsock:2:1234", "relative/path", "/does/not/exist"] {
            assert!(connect(OsStr::new(address)).is_err(), "{address}");
        }
    }
}
