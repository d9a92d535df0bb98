//! Writes the manual page, the completions and the option table of vhost-device-vsock into a folder.

use std::process::ExitCode;

fn main() -> ExitCode {
    vhost_device_manual::run::<vhost_device_vsock::App>()
}
