//! The vhost-device-vsock binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    vhost_device_daemon::run::<vhost_device_vsock::App>()
}
