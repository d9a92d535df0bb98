//! What the daemon needs of the host while it serves. Files and devices are open by then.

use vhost_device_daemon::Profile;
use vhost_device_daemon::confine::Sysno;

use crate::config::Source;

pub fn profile(source: &Source) -> Profile {
    match source {
        // host/kernel.rs, which also takes the place of a file that ends or fails
        Source::Kernel | Source::File(_) => Profile::new().call(Sysno::getrandom),
        Source::Sim(_) => Profile::new(),
    }
}
