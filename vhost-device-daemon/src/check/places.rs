//! The places where sockets shall go: the folder, what is there already, the group.

use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, Gid, faccessat, getegid, geteuid, getgroups};

use super::Finding;
use crate::cli::{CommonArgs, SocketPlan};
use crate::exit::{Exit, StartError};
use crate::socket::{self, Occupant};

/// Looks at all places that the options name. No `plan`: whoever starts the daemon brings the sockets.
pub(super) fn look(common: &CommonArgs, plan: Option<&SocketPlan>) -> Vec<Finding> {
    let mut findings = match plan {
        Some(SocketPlan::Path(path)) => place(path),
        Some(SocketPlan::Indexed(paths) | SocketPlan::Named(paths)) => {
            paths.iter().flat_map(|path| place(path)).collect()
        }
        Some(SocketPlan::Descriptor(number)) => vec![Finding::Note(format!(
            "the socket is descriptor {number}, which was not looked at"
        ))],
        Some(SocketPlan::Activated(_)) | None => vec![Finding::Note(
            "no socket is named: whoever starts the daemon has to pass one on".to_owned(),
        )],
    };
    if let Some(path) = &common.control_path {
        findings.extend(place(path));
    }
    findings.extend(group(common));
    findings
}

/// The folder of a socket, and what is in the socket's place.
fn place(path: &Path) -> Vec<Finding> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    match writable(folder) {
        Err(error) => vec![Finding::Obstacle(error)],
        Ok(()) => vec![
            Finding::Fine(format!("sockets can be made in {}", folder.display())),
            occupant(path).into(),
        ],
    }
}

fn writable(folder: &Path) -> Result<(), StartError> {
    let needed = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
    if !folder.is_dir() {
        let error = StartError::missing(format!("there is no folder {}", folder.display()));
        return Err(error.with_hint(format!("mkdir -p {}", folder.display())));
    }
    faccessat(AT_FDCWD, folder, needed, AtFlags::AT_EACCESS).map_err(|error| {
        let hint = format!("user {} needs to read and write it", geteuid());
        StartError::io("make sockets in", folder.display(), &error.into()).with_hint(hint)
    })
}

/// What is in a socket's place. Whoever listens there is not disturbed.
fn occupant(path: &Path) -> Result<String, StartError> {
    let shown = path.display();
    match Occupant::noticed(path) {
        Ok(Occupant::Nobody) => Ok(format!("{shown} is free")),
        Ok(Occupant::Dead) => Ok(format!(
            "{shown} is a socket that nobody listens on, and would be replaced"
        )),
        Ok(Occupant::Alive) => Err(socket::in_use(path)),
        Ok(Occupant::Foreign(what)) => Err(socket::foreign(path, what)),
        Err(error) => Err(StartError::io("use socket", shown, &error)),
    }
}

/// The group that the sockets shall have.
fn group(common: &CommonArgs) -> Option<Finding> {
    let name = common.socket_group.as_deref()?;
    let result = socket::find_group(name).and_then(|group| {
        if may_give(group) {
            Ok(format!("the socket can have the group {name}"))
        } else {
            let error = StartError::new(
                Exit::Permission,
                format!("user {} may not give files to the group {name}", geteuid()),
            );
            Err(error.with_hint("make the user a member of the group"))
        }
    });
    Some(result.into())
}

fn may_give(group: Gid) -> bool {
    geteuid().is_root()
        || getegid() == group
        || getgroups().is_ok_and(|groups| groups.contains(&group))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_place_is_judged_without_touching_it() {
        let folder = tempfile::tempdir().unwrap();
        let exit = |name: &str| {
            let findings = place(&folder.path().join(name));
            findings.iter().map(|finding| finding.exit() as u8).max()
        };
        let dead = UnixListener::bind(folder.path().join("dead")).unwrap();
        drop(dead);
        fs::write(folder.path().join("file"), "").unwrap();
        let live = UnixListener::bind(folder.path().join("live")).unwrap();
        live.set_nonblocking(true).unwrap();
        let rows = [
            ("free", Exit::Done),
            ("dead", Exit::Done),
            ("live", Exit::Missing),
            ("file", Exit::Missing),
            ("no/such", Exit::Missing),
        ];
        for (name, expected) in rows {
            assert_eq!(exit(name), Some(expected as u8), "{name}");
        }
        assert!(live.accept().is_err(), "nobody has connected");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn the_own_group_can_be_given() {
        assert!(may_give(getegid()));
    }
}
