//! Which sockets a command line asks for, and the rules that the options have to obey together.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use super::CommonArgs;
use crate::activation;
use crate::exit::StartError;

/// The most sockets one process serves; each has a device and threads of its own.
pub const MAX_SOCKETS: usize = 256;

/// The longest path of a unix socket in bytes: `sun_path` holds 108 with the terminating zero.
const MAX_PATH: usize = 107;

/// Where the frontends' connections come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketPlan {
    /// One socket at this path.
    Path(PathBuf),
    /// A socket at each of these paths.
    Indexed(Vec<PathBuf>),
    /// A socket at each of these paths, which the device's own options name.
    Named(Vec<PathBuf>),
    /// One inherited socket.
    Descriptor(RawFd),
    /// This many sockets from the service manager.
    Activated(usize),
}

impl SocketPlan {
    /// The number of sockets, which is the number of frontends that can be served at the same time.
    pub fn count(&self) -> usize {
        match self {
            Self::Path(_) | Self::Descriptor(_) => 1,
            Self::Indexed(paths) | Self::Named(paths) => paths.len(),
            Self::Activated(count) => *count,
        }
    }
}

impl CommonArgs {
    /// Finds out which sockets are asked for: exactly one of a path, a descriptor and the service manager's sockets.
    ///
    /// # Errors
    /// The options contradict each other or name no socket; the exit code is 2.
    pub fn validate(&self) -> Result<SocketPlan, StartError> {
        self.plan(activation::offered()?)
    }

    /// The same rules for a command line that is only looked at: it may leave the sockets to who will start it.
    pub(crate) fn validate_given(&self) -> Result<Option<SocketPlan>, StartError> {
        let named = !self.device_sockets.is_empty();
        if self.socket_path.is_none() && self.fd.is_none() && !named {
            return Ok(None);
        }
        self.plan(None).map(Some)
    }

    /// The rules themselves; `offered` is the number of sockets from the service manager.
    pub(super) fn plan(&self, offered: Option<usize>) -> Result<SocketPlan, StartError> {
        if !self.device_sockets.is_empty() {
            return self.named(offered);
        }
        let plan = match (&self.socket_path, self.fd, offered) {
            (Some(path), None, None) => return self.at_path(path),
            (None, Some(fd), None) => SocketPlan::Descriptor(fd),
            (None, None, Some(count)) => SocketPlan::Activated(count),
            (None, None, None) => {
                return Err(StartError::usage("no socket to listen on").with_hint(
                    "give --socket-path PATH or --fd N, or start the program by socket activation",
                ));
            }
            (Some(_), Some(_), _) => return Err(exclusive("--socket-path and --fd")),
            (Some(_), None, Some(_)) => return Err(exclusive("--socket-path and LISTEN_FDS")),
            (None, Some(_), Some(_)) => return Err(exclusive("--fd and LISTEN_FDS")),
        };
        self.check_inherited(&plan)?;
        Ok(plan)
    }

    /// The device's own options name the sockets, and nothing else does.
    fn named(&self, offered: Option<usize>) -> Result<SocketPlan, StartError> {
        for (other, given) in [
            ("--socket-path", self.socket_path.is_some()),
            ("--fd", self.fd.is_some()),
            ("--socket-count", self.socket_count.is_some()),
            ("LISTEN_FDS", offered.is_some()),
        ] {
            if given {
                let both = format!("{other} and sockets in the device's options");
                return Err(exclusive(&both));
            }
        }
        let paths = self.device_sockets.clone();
        for (number, path) in paths.iter().enumerate() {
            check_path(path)?;
            if paths.iter().skip(number + 1).any(|other| other == path) {
                return Err(StartError::usage(format!(
                    "socket path {} is given twice",
                    path.display()
                )));
            }
        }
        if paths.len() > MAX_SOCKETS {
            return Err(StartError::usage(format!(
                "there are {} sockets; one process serves {MAX_SOCKETS}",
                paths.len()
            )));
        }
        Ok(SocketPlan::Named(paths))
    }

    fn at_path(&self, path: &Path) -> Result<SocketPlan, StartError> {
        check_path(path)?;
        let Some(count) = self.socket_count else {
            return Ok(SocketPlan::Path(path.to_owned()));
        };
        let paths: Vec<_> = (0..count).map(|index| indexed(path, index)).collect();
        for path in &paths {
            check_path(path)?;
        }
        Ok(SocketPlan::Indexed(paths))
    }

    /// An inherited socket has its mode and group from whoever made it, and its number is given.
    fn check_inherited(&self, plan: &SocketPlan) -> Result<(), StartError> {
        for (option, given) in [
            ("--socket-mode", self.socket_mode.is_some()),
            ("--socket-group", self.socket_group.is_some()),
        ] {
            if given {
                return Err(StartError::usage(format!("{option} needs --socket-path"))
                    .with_hint("an inherited socket keeps the mode and group that it has"));
            }
        }
        match self.socket_count.map(usize::from) {
            Some(asked) if asked != plan.count() => Err(StartError::usage(format!(
                "--socket-count {asked} does not fit the number of inherited sockets, which is {}",
                plan.count()
            ))
            .with_hint("leave --socket-count out")),
            _ => Ok(()),
        }
    }
}

/// `path` with `index` appended to its last component, as existing scripts expect it.
pub(crate) fn indexed(path: &Path, index: u16) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(index.to_string());
    PathBuf::from(name)
}

fn check_path(path: &Path) -> Result<(), StartError> {
    let length = path.as_os_str().len();
    let text = path.to_string_lossy();
    if path.file_name().is_none() || text.ends_with('/') {
        return Err(StartError::usage(format!(
            "--socket-path '{text}' does not name a file"
        )));
    }
    if length > MAX_PATH {
        return Err(StartError::usage(format!(
            "socket path {text} has {length} bytes, a unix socket's path holds {MAX_PATH}"
        ))
        .with_hint("use a shorter directory, or --fd"));
    }
    Ok(())
}

fn exclusive(both: &str) -> StartError {
    StartError::usage(format!("{both} exclude each other")).with_hint("leave one of them out")
}
