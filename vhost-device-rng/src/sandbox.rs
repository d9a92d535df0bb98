//! What the daemon needs of the host while it serves. The source is open by then.

use vhost_device_daemon::Profile;
use vhost_device_daemon::confine::Sysno;

/// The kernel's generator also takes over from a source that ends, so it is always asked for.
pub fn profile() -> Profile {
    // host/kernel.rs
    Profile::new().call(Sysno::getrandom)
}
