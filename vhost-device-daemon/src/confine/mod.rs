//! Confinement: what a daemon can no longer do once it serves a guest.
//!
//! Two stages of the start. [`confine`] takes privileges, the file system, the network and limits away, while the process has
//! one thread; [`filter`] leaves it the system calls of a table. What a device needs beyond the common table is in its
//! [`Profile`]; what was opened before goes on working.

mod calls;
mod filter;
mod landlock;
mod limits;
mod namespaces;
mod privileges;
mod profile;
mod root;
mod supervisor;
mod trap;

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;

pub use profile::{Access, Call, Capability, Profile, Sysno};

use self::namespaces::Wanted;
use crate::cli::{CommonArgs, Sandbox, Seccomp};
use crate::exit::{Exit, StartError};

/// What the process has given up, for the log.
#[derive(Debug, Default)]
pub struct Obtained {
    namespaces: Vec<&'static str>,
    empty_root: bool,
    landlock: Option<u32>,
    /// What is left, once the rest is given up.
    capabilities: Option<Vec<Capability>>,
    calls: Option<usize>,
    refused: Vec<String>,
}

/// What matters of the start that the process has had.
#[derive(Clone, Copy, Debug, Default)]
pub struct Started<'a> {
    /// How many frontends there can be at a time.
    pub sockets: usize,
    /// The folders that hold our sockets: names in them can still be removed, and nothing else.
    pub folders: &'a [BorrowedFd<'a>],
    /// A service manager knows the daemon by the number of this process.
    pub managed: bool,
}

/// Stage 4. Without a level the strongest that works is taken.
///
/// The process that returns from this may be a child of the one that called it, which only watches over it from then on.
///
/// # Errors
/// The level that the options name cannot be had; exit code 5.
pub fn confine(
    args: &CommonArgs,
    profile: &Profile,
    started: Started<'_>,
) -> Result<Obtained, StartError> {
    let mut obtained = Obtained::default();
    if args.sandbox == Some(Sandbox::None) {
        return Ok(obtained);
    }
    check_threads()?;
    limits::set(started.sockets, profile.descriptors).map_err(failed("set limits"))?;
    privileges::never_gain().map_err(failed("renounce new privileges"))?;
    let kept = obtained.capabilities_to_keep(profile);
    if args.sandbox != Some(Sandbox::Landlock) {
        obtained.enter_namespaces(Wanted {
            user: kept.is_empty(),
            network: !profile.network,
            pid: !started.managed,
        });
        obtained.empty_root(profile);
    }
    obtained.restrict_paths(profile, started.folders);
    privileges::give_up_all_but(&kept).map_err(failed("give up capabilities"))?;
    obtained.capabilities = Some(kept);
    privileges::hide().map_err(failed("become undumpable"))?;
    obtained.check(args.sandbox)?;
    if obtained.namespaces.contains(&namespaces::PID) {
        supervisor::split(args.seccomp).map_err(failed("start a process of its own namespace"))?;
    }
    Ok(obtained)
}

/// Stage 6: filters the system calls of all threads, those to come included, and tells the log in one line what was obtained.
///
/// # Errors
/// The kernel has no filters, and the options do not say that there need not be one; exit code 5.
pub fn filter(
    args: &CommonArgs,
    profile: &Profile,
    mut obtained: Obtained,
) -> Result<(), StartError> {
    obtained.filter(args, profile)?;
    obtained.tell();
    Ok(())
}

/// Both stages at once, for a process that only wants to know what it would get, and tells it itself.
///
/// # Errors
/// As [`confine`] and [`filter`].
pub(crate) fn try_out(
    args: &CommonArgs,
    profile: &Profile,
    started: Started<'_>,
) -> Result<Obtained, StartError> {
    let mut obtained = confine(args, profile, started)?;
    obtained.filter(args, profile)?;
    Ok(obtained)
}

/// How many descriptors a daemon may have open that serves so many frontends.
pub(crate) fn descriptors(sockets: usize, profile: &Profile) -> u64 {
    limits::descriptors(sockets, profile.descriptors)
}

/// The C library's and the runtime's preparations for a first thread take calls that later threads do without.
fn warm_up() {
    if let Ok(thread) = std::thread::Builder::new().spawn(|| {}) {
        let _ = thread.join();
    }
}

/// Namespaces and Landlock get hold of the calling thread only.
fn check_threads() -> Result<(), StartError> {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(StartError::internal(format!(
            "{threads} threads exist before the process is confined"
        ))
        .with_hint("a device starts its threads in App::begin"));
    }
    Ok(())
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> StartError {
    move |error| refused(format!("cannot {action}: {error}"))
}

fn refused(message: String) -> StartError {
    StartError::new(Exit::Sandbox, message)
}

impl Obtained {
    /// Stage 6 itself.
    fn filter(&mut self, args: &CommonArgs, profile: &Profile) -> Result<(), StartError> {
        let tables = filter::Tables::new(profile);
        tables.log();
        warm_up();
        tables.enforce(args.seccomp).map_err(|reason| {
            refused(format!("cannot filter system calls: {reason}"))
                .with_hint("--seccomp none goes without")
        })?;
        if args.seccomp == Seccomp::Kill {
            self.calls = Some(tables.count());
        }
        Ok(())
    }

    /// Whether nothing was refused.
    pub(crate) fn is_complete(&self) -> bool {
        self.refused.is_empty()
    }

    /// Those that the profile names and the process has.
    fn capabilities_to_keep(&mut self, profile: &Profile) -> Vec<Capability> {
        let named = profile.capabilities.iter().copied();
        let (kept, missing): (Vec<_>, Vec<_>) =
            named.partition(|capability| privileges::has(*capability).unwrap_or(false));
        let missing = missing.iter();
        self.refused.extend(
            missing.map(|capability| format!("{capability}: the process does not have it")),
        );
        kept
    }

    fn enter_namespaces(&mut self, wanted: Wanted) {
        match namespaces::enter(wanted) {
            Err(error) => self.refused.push(format!("namespaces: {error}")),
            Ok(entered) => {
                self.namespaces = entered.names;
                self.refused.extend(entered.refused);
            }
        }
    }

    /// Where there is a mount namespace, without which it would be everybody's root.
    fn empty_root(&mut self, profile: &Profile) {
        if self.namespaces.is_empty() {
            return;
        }
        match root::change(&profile.places) {
            Ok(()) => self.empty_root = true,
            Err(error) => self.refused.push(format!("an empty root: {error}")),
        }
    }

    fn restrict_paths(&mut self, profile: &Profile, folders: &[BorrowedFd<'_>]) {
        match landlock::enforce(folders, &profile.places) {
            Ok(Some(version)) => self.landlock = Some(version),
            Ok(None) => self
                .refused
                .push("Landlock: the kernel does not have it".into()),
            Err(error) => self.refused.push(format!("Landlock: {error}")),
        }
    }

    /// Whether it is what was asked for.
    fn check(&self, wanted: Option<Sandbox>) -> Result<(), StartError> {
        let (level, complete) = match wanted {
            Some(Sandbox::Namespace) => ("namespace", self.empty_root && self.landlock.is_some()),
            Some(Sandbox::Landlock) => ("landlock", self.landlock.is_some()),
            _ => return Ok(()),
        };
        if complete {
            return Ok(());
        }
        let reasons = self.refused.join("; ");
        Err(
            refused(format!("--sandbox {level} cannot be had: {reasons}"))
                .with_hint("leave it out for the strongest that works"),
        )
    }

    fn tell(&self) {
        if self.empty_root || self.landlock.is_some() {
            log::info!("confined: {self}");
        } else {
            log::warn!("confined: {self}");
        }
    }
}

impl fmt::Display for Obtained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.namespaces.is_empty() {
            parts.push(format!("own namespaces ({})", self.namespaces.join(", ")));
        }
        if self.empty_root {
            parts.push("an empty root".into());
        }
        if let Some(version) = self.landlock {
            parts.push(format!("Landlock {version}"));
        }
        match self.capabilities.as_deref() {
            None => {}
            Some([]) => parts.push("no capabilities".into()),
            Some(kept) => {
                let names: Vec<_> = kept.iter().map(Capability::to_string).collect();
                let names = names.join(" and ");
                parts.push(format!(
                    "no capabilities but {names}, and so no user namespace"
                ));
            }
        }
        if let Some(calls) = self.calls {
            parts.push(format!("{calls} system calls"));
        }
        if parts.is_empty() {
            parts.push("not at all".into());
        }
        f.write_str(&parts.join(", "))?;
        if !self.refused.is_empty() {
            write!(f, "; refused: {}", self.refused.join("; "))?;
        }
        Ok(())
    }
}
