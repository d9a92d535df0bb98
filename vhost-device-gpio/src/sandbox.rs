//! What the daemon needs of the host while it serves. Chips and control sockets are open by then.

use std::path::Path;

use vhost_device_daemon::Profile;
#[cfg(feature = "libgpiod")]
use vhost_device_daemon::confine::Call;
use vhost_device_daemon::confine::{Access, Sysno};

use crate::config::{ChipSpec, SimSpec};
#[cfg(feature = "libgpiod")]
use crate::config::{HostSpec, MAX_LINES};

pub fn profile(chips: &[ChipSpec]) -> Profile {
    chips
        .iter()
        .fold(Profile::new(), |profile, chip| match chip {
            ChipSpec::Sim(spec) => simulated(profile, spec),
            #[cfg(feature = "libgpiod")]
            ChipSpec::Host(spec) => real(profile, spec),
            #[cfg(not(feature = "libgpiod"))]
            ChipSpec::Host(_) => profile,
        })
}

/// host/linux.rs, and libgpiod behind it.
#[cfg(feature = "libgpiod")]
fn real(profile: Profile, spec: &HostSpec) -> Profile {
    let lines = spec.lines.as_ref().map_or(MAX_LINES.into(), Vec::len);
    profile
        .call(Call::new(Sysno::ioctl).one_of(1, crate::host::linux::IOCTLS))
        // whether an edge waits
        .call(Sysno::ppoll)
        // a line that is held is a descriptor
        .descriptors(lines as u64)
}

fn simulated(profile: Profile, spec: &SimSpec) -> Profile {
    // host/control.rs
    match &spec.control {
        Some(path) => profile
            .call(Sysno::setsockopt)
            .place(folder(path), Access::Remove)
            .descriptors(crate::host::CONTROL_DESCRIPTORS),
        None => profile,
    }
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}
