//! PATH0 as a symbolic link to PATH, for scripts written for daemons that always append an index.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use super::directory::{Directory, Entry};
use super::occupant::Occupant;
use crate::cli::indexed;

/// Links PATH0 to `path` in `directory`, where our own socket is or will be; the caller holds the directory's lock.
///
/// A link that is right already is taken over, a dead socket or a link to nothing is replaced, everything else is left
/// alone.
///
/// # Errors
/// Why there is no such link, as a clause.
pub(super) fn create(directory: &Arc<Directory>, path: &Path) -> Result<Entry, String> {
    let link = indexed(path, 0);
    let failed = |what: &str| format!("{} {what}", link.display());
    let target = path.file_name().unwrap_or_default();
    let name = link.file_name().unwrap_or_default();
    if !make(directory, target, name).map_err(|reason| failed(&reason))? {
        log::debug!("{} is there already", link.display());
    }
    Entry::own(directory, name).map_err(|error| failed(error.desc()))
}

/// Says whether the link was missing.
fn make(directory: &Directory, target: &OsStr, name: &OsStr) -> Result<bool, String> {
    if directory.link_text(name).as_deref() == Some(target) {
        return Ok(false);
    }
    match Occupant::of(&directory.join(name)) {
        Ok(Occupant::Nobody) => {}
        Ok(Occupant::Dead) => directory.remove(name).map_err(|error| error.to_string())?,
        Ok(Occupant::Alive) => return Err("is a socket in use".to_owned()),
        Ok(Occupant::Foreign(what)) => return Err(format!("is {what}")),
        Err(error) => return Err(error.to_string()),
    }
    directory
        .symlink(target, name)
        .map_err(|error| error.desc().to_owned())?;
    Ok(true)
}
