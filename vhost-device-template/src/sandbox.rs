//! What the daemon needs of the host while it serves. The table is open by then.

use vhost_device_daemon::Profile;
use vhost_device_daemon::confine::Sysno;

use crate::config::{Config, Source};

pub fn profile(config: &Config) -> Profile {
    match config.source {
        Source::Sim(_) => Profile::new(),
        // host/table.rs
        Source::Table(_) => Profile::new().call(Sysno::pread64),
    }
}
