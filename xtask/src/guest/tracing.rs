//! Daemons under a tracer, for `cargo xtask syscalls`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use vhost_device_testkit::process::{TELLS_TABLES, TRACER};

/// Where traces go, while anybody wants them.
static FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Has the daemons that `work` starts traced, into files in `folder`.
pub fn with<T>(folder: &Path, work: impl FnOnce() -> T) -> T {
    let set = |value| *FOLDER.lock().unwrap_or_else(PoisonError::into_inner) = value;
    set(Some(folder.to_owned()));
    let result = work();
    set(None);
    result
}

/// The command line that starts a daemon: the daemon's own, or the tracer's, in whose place the daemon is at once. `name` tells
/// one daemon from another.
pub fn command(binary: &Path, name: &str) -> Vec<OsString> {
    let folder = FOLDER.lock().unwrap_or_else(PoisonError::into_inner);
    let mut words: Vec<OsString> = Vec::new();
    if let Some(folder) = folder.as_ref() {
        let file = (0..).map(|number| folder.join(format!("guest-{name}.{number}")));
        let file = file.into_iter().find(|file| !file.exists());
        words.extend(TRACER.map(Into::into));
        words.extend(file.map(Into::into));
        words.push("--".into());
    }
    words.push(binary.into());
    words
}

/// What makes a daemon tell its tables, if it is traced.
pub fn environment() -> Option<(&'static str, &'static str)> {
    let folder = FOLDER.lock().unwrap_or_else(PoisonError::into_inner);
    folder.is_some().then_some(TELLS_TABLES)
}
