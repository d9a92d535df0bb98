//! Writes the manual page, the completions and the option table of vhost-device-i2c into a folder.

use std::process::ExitCode;

fn main() -> ExitCode {
    vhost_device_manual::run::<vhost_device_i2c::App>()
}
