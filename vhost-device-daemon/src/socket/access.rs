//! Who may connect to a socket that the daemon makes.

use nix::sys::stat::Mode;
use nix::unistd::{Gid, Group};

use crate::cli::CommonArgs;
use crate::exit::StartError;

/// The mode that a group is given when the command line names a group and no mode.
const GROUP_MODE: u32 = 0o660;

/// Mode and group of a new socket; `None` leaves them to the system: 0777 less the umask, and the process's group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) mode: Option<Mode>,
    pub(super) group: Option<Gid>,
}

impl Access {
    /// This mode, and the process's group.
    pub(super) fn of_mode(mode: u32) -> Self {
        Self {
            mode: Some(Mode::from_bits_truncate(mode)),
            group: None,
        }
    }

    /// Reads `--socket-mode` and `--socket-group`.
    pub(super) fn new(args: &CommonArgs) -> Result<Self, StartError> {
        let group = args.socket_group.as_deref().map(find_group).transpose()?;
        let mode = args.socket_mode.or(group.map(|_| GROUP_MODE));
        Ok(Self {
            mode: mode.map(Mode::from_bits_truncate),
            group,
        })
    }
}

/// The group with this name or number.
pub(crate) fn find_group(name: &str) -> Result<Gid, StartError> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(StartError::missing(format!("there is no group '{name}'"))
            .with_hint("--socket-group takes a name or a number")),
        Err(error) => Err(StartError::io("look up group", name, &error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn groups_are_found_by_name_and_number() {
        assert_eq!(find_group("root").unwrap(), Gid::from_raw(0));
        assert_eq!(find_group("4711").unwrap(), Gid::from_raw(4711));
        for name in ["no-such-group", "", "-1", "4294967296"] {
            assert_eq!(
                find_group(name).unwrap_err().exit(),
                Exit::Missing,
                "{name}"
            );
        }
    }
}
