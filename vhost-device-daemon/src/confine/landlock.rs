//! Landlock: of the file system, of TCP and UDP, of signals and of abstract sockets only what is named is left.

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::profile::{Access, Place};

/// The newest version of the interface that this was written for. Of an older kernel it asks less.
const VERSION: ABI = ABI::V10;

/// Restricts the process. `folders` are those that hold our sockets, whose names go away at the end. Tells the version of the
/// interface that is in force, or `None` if the kernel has no Landlock.
///
/// # Errors
/// Why there is no Landlock though the kernel has it, as a clause.
pub fn enforce(folders: &[BorrowedFd<'_>], places: &[Place]) -> Result<Option<u32>, String> {
    let status = ruleset(folders, places)?
        .restrict_self()
        .map_err(|error| error.to_string())?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => Ok(None),
        (_, LandlockStatus::Available { effective_abi, .. }) => Ok(Some(effective_abi as u32)),
        _ => Ok(None),
    }
}

fn ruleset(folders: &[BorrowedFd<'_>], places: &[Place]) -> Result<RulesetCreated, String> {
    let mut rules = everything().map_err(|error| error.to_string())?;
    for folder in folders {
        let rule = PathBeneath::new(*folder, AccessFs::RemoveFile);
        rules = rules.add_rule(rule).map_err(|error| error.to_string())?;
    }
    for place in places {
        let path = PathFd::new(place.path()).map_err(|error| error.to_string())?;
        let rule = PathBeneath::new(path, rights(place.access));
        rules = rules.add_rule(rule).map_err(|error| error.to_string())?;
    }
    Ok(rules)
}

fn everything() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::from_all(VERSION))?
        .scope(Scope::from_all(VERSION))?
        .create()
}

fn rights(access: Access) -> BitFlags<AccessFs> {
    match access {
        Access::Read => AccessFs::ReadFile | AccessFs::ReadDir,
        Access::Use => {
            AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::IoctlDev
        }
        Access::Connect => AccessFs::ResolveUnix.into(),
        Access::Sockets => AccessFs::ResolveUnix | AccessFs::MakeSock | AccessFs::RemoveFile,
        Access::Remove => AccessFs::RemoveFile.into(),
    }
}
