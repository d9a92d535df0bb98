//! The vhost-device-i2c binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    vhost_device_daemon::run::<vhost_device_i2c::App>()
}
