//! What becomes of a guest's wish to be shut down or reset.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::sync::Arc;

use vhost_device_core::limit::{self, Limiter};

use super::OpenError;
use crate::config::SystemPower;
use crate::protocol::system::{Decide, SystemState};
use crate::wire::Status;

/// Opens what the host's decision needs.
///
/// # Errors
/// If the file to tell cannot be opened.
pub fn open(policy: &SystemPower) -> Result<Decide, OpenError> {
    Ok(match policy {
        SystemPower::Refuse => Arc::new(|state| {
            report(state, "refused");
            Err(Status::Denied)
        }),
        SystemPower::Accept => Arc::new(|state| {
            report(state, "granted");
            Ok(())
        }),
        SystemPower::Tell(path) => {
            // A pipe is also opened for reading, so that opening does not wait for its reader. A full one is not waited for.
            let is_pipe = path.metadata().is_ok_and(|data| data.file_type().is_fifo());
            let file = OpenOptions::new()
                .read(is_pipe)
                .write(is_pipe)
                .append(true)
                .create(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(path)
                .map_err(|error| OpenError::io("open", path.display(), error))?;
            let file = Arc::new(file);
            Arc::new(move |state| {
                let line = format!("{}\n", state.text());
                (&*file).write_all(line.as_bytes()).map_err(|error| {
                    report(state, &format!("cannot be told: {error}"));
                    Status::HardwareError
                })?;
                report(state, "granted and told");
                Ok(())
            })
        }
    })
}

/// Logs what a guest asked for, and what came of it.
fn report(state: SystemState, outcome: &str) {
    static LIMITER: Limiter = Limiter::new();
    limit::warn(
        &LIMITER,
        format_args!("the guest asks for a {}: {outcome}", state.text()),
    );
}
