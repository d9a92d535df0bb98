//! What the daemon needs of the host while it serves. The sockets on which it listens are open by then.

use std::path::Path;

use vhost_device_daemon::Profile;
use vhost_device_daemon::confine::{Access, Call, Sysno};

use crate::config::MAX_LISTENERS;
use crate::options::GuestSpec;
use crate::table::MAX_CONNECTIONS;

pub fn profile<'a>(guests: impl IntoIterator<Item = &'a GuestSpec>) -> Profile {
    guests.into_iter().fold(Profile::new(), |profile, guest| {
        let profile = sockets(profile);
        let profile = match &guest.uds_path {
            // The guest's connections go to PATH_PORT; PATH itself is removed at the end.
            Some(path) => profile
                .call(Call::new(Sysno::socket).one_of(0, &[libc::AF_UNIX as u64]))
                .place(folder(path), Access::Sockets),
            None => profile,
        };
        match guest.forward_cid {
            Some(_) => profile
                .call(Call::new(Sysno::socket).one_of(0, &[libc::AF_VSOCK as u64]))
                .network(),
            None => profile,
        }
    })
}

/// host/socket.rs, beyond what the engine does with sockets as well.
fn sockets(profile: Profile) -> Profile {
    profile
        .call(Sysno::connect)
        .call(Sysno::getsockopt)
        .call(Sysno::ppoll)
        .call(Sysno::setsockopt)
        .descriptors((MAX_CONNECTIONS + MAX_LISTENERS) as u64)
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}
