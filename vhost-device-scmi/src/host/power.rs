//! What becomes of a guest's wish to be shut down or reset.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use super::OpenError;
use crate::config::SystemPower;
use crate::protocol::system::Decide;
use crate::wire::Status;

/// Opens what the host's decision needs.
///
/// # Errors
/// If the file to tell cannot be opened.
pub fn open(policy: &SystemPower) -> Result<Decide, OpenError> {
    Ok(match policy {
        SystemPower::Refuse => Arc::new(|state| {
            log::warn!("the guest asks for a {}: refused", state.text());
            Err(Status::Denied)
        }),
        SystemPower::Accept => Arc::new(|state| {
            log::warn!("the guest asks for a {}: granted", state.text());
            Ok(())
        }),
        SystemPower::Tell(path) => {
            // A pipe is also opened for reading, so that opening does not wait for its reader. A full one is not waited for.
            let is_pipe = path
                .metadata()
                .is_ok_and(|data| std::os::unix::fs::FileTypeExt::is_fifo(&data.file_type()));
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
                let told = (&*file).write_all(format!("{}\n", state.text()).as_bytes());
                match told {
                    Ok(()) => log::warn!("the guest asks for a {}: granted and told", state.text()),
                    Err(error) => {
                        log::warn!(
                            "the guest asks for a {}: cannot tell: {error}",
                            state.text()
                        );
                        return Err(Status::HardwareError);
                    }
                }
                Ok(())
            })
        }
    })
}
