//! The vhost-device-scmi binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    vhost_device_scmi::main()
}
