//! What the daemon needs of the host while it serves. Attributes, files and pipes are open by then.

use vhost_device_daemon::Profile;
use vhost_device_daemon::confine::Sysno;

use crate::config::{Config, Entry, SourceSpec};

pub fn profile(config: &Config) -> Profile {
    config.entries.iter().fold(Profile::new(), of)
}

/// host/attribute.rs
fn of(profile: Profile, entry: &Entry) -> Profile {
    match entry {
        Entry::Sensor(spec) => match spec.source {
            // host/buffer.rs
            SourceSpec::Iio {
                buffer: Some(_), ..
            } => profile
                .call(Sysno::pread64)
                .call(Sysno::pwrite64)
                .descriptors(BUFFER_DESCRIPTORS),
            SourceSpec::Waves(_) | SourceSpec::Table(..) => profile,
            SourceSpec::File(_) | SourceSpec::Iio { .. } | SourceSpec::Hwmon { .. } => {
                profile.call(Sysno::pread64).descriptors(DESCRIPTORS)
            }
        },
        Entry::CpuFreq(spec) if spec.is_controlled => profile
            .call(Sysno::pread64)
            .call(Sysno::pwrite64)
            .descriptors(DESCRIPTORS),
        Entry::CpuFreq(_) => profile.call(Sysno::pread64).descriptors(DESCRIPTORS),
        _ => profile,
    }
}

/// An attribute for each axis, or for each limit of a policy; some to spare.
const DESCRIPTORS: u64 = 16;
/// A buffer has the switches of all channels of its device.
const BUFFER_DESCRIPTORS: u64 = 128;
