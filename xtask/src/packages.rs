//! Packages of the host that a verb needs: installed where that is possible, named exactly where it is not.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::apt::{self, Apt};
use crate::process::{bounded, run_logged};
use crate::progress::Progress;
use crate::temp::Folder;
use crate::{cache, workspace};

/// Longest time for the installation of packages.
const INSTALL_LIMIT: Duration = Duration::from_secs(900);

/// A Debian package and how to see that what it brings is there, whoever installed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    name: &'static str,
    probe: Probe,
    /// Whether the release's own version is too old.
    backported: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Program(&'static str),
    File(&'static str),
    /// A library of at least this version, as pkg-config knows it.
    Library(&'static str, &'static str),
}

impl Package {
    /// A package that brings a program.
    pub const fn program(name: &'static str, program: &'static str) -> Self {
        Self {
            name,
            probe: Probe::Program(program),
            backported: false,
        }
    }

    /// A package that brings a file, for example a header.
    pub const fn file(name: &'static str, path: &'static str) -> Self {
        Self {
            name,
            probe: Probe::File(path),
            backported: false,
        }
    }

    /// A package that brings what is needed to build against a library, in at least this version.
    pub const fn library(name: &'static str, library: &'static str, least: &'static str) -> Self {
        Self {
            name,
            probe: Probe::Library(library, least),
            backported: false,
        }
    }

    /// The same package of the release's backports.
    pub const fn backported(self) -> Self {
        Self {
            backported: true,
            ..self
        }
    }

    fn is_present(self) -> bool {
        match self.probe {
            Probe::Program(program) => find_program(program).is_some(),
            Probe::File(path) => Path::new(path).exists(),
            Probe::Library(library, least) => Command::new("pkg-config")
                .args([&format!("--atleast-version={least}"), library])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success()),
        }
    }
}

/// Makes sure that `packages` are there. As root on Debian the missing ones are installed; elsewhere the error names
/// them and the command to run.
pub fn require(packages: &[Package]) -> Result<()> {
    let missing = |backported| {
        let mut names: Vec<&str> = packages
            .iter()
            .filter(|package| package.backported == backported && !package.is_present())
            .map(|package| package.name)
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let (own, backports) = (missing(false), missing(true));
    if own.is_empty() && backports.is_empty() {
        return Ok(());
    }
    if find_program("apt-get").is_none() {
        let names = [own, backports].concat().join(" ");
        bail!(
            "missing packages (Debian's names): {names}; install them with this system's package manager"
        );
    }
    if !rustix::process::geteuid().is_root() {
        bail!("{}", advice(&own, &backports));
    }
    if !own.is_empty() {
        install(&own)?;
    }
    if !backports.is_empty() {
        install_backports(&backports)?;
    }
    match packages.iter().find(|package| !package.is_present()) {
        Some(package) => bail!(
            "package {} is installed, but {:?} is not there",
            package.name,
            package.probe
        ),
        None => Ok(()),
    }
}

/// What an ordinary user has to ask the administrator for.
fn advice(own: &[&str], backports: &[&str]) -> String {
    let mut lines = format!("missing packages: {}", [own, backports].concat().join(" "));
    const INSTALL: &str = "sudo apt-get install -y --no-install-recommends";
    if !own.is_empty() {
        lines += &format!("; run: {INSTALL} {}", own.join(" "));
    }
    if !backports.is_empty() {
        let names = backports.join(" ");
        lines += &format!(
            "; with the release's backports enabled, run: {INSTALL} -t RELEASE-backports {names}"
        );
    }
    lines
}

fn install(names: &[&str]) -> Result<()> {
    let progress = Progress::start(format!("installing {}", names.join(" ")));
    let log = fresh_log()?;
    // a machine that was never updated knows no packages, or versions that are gone
    apt_get(&["update"], &log)?;
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(names);
    apt_get(&words, &log)?;
    progress.done("ok");
    Ok(())
}

/// Installs packages of the release's backports, which the system need not have among its sources.
fn install_backports(names: &[&str]) -> Result<()> {
    let progress = Progress::start(format!("installing {} (backports)", names.join(" ")));
    let log = fresh_log()?;
    let folder = Folder::new("backports")?;
    let [release, backports] = apt::own_suites()?;
    let apt = Apt::new(folder.path(), &[&release, &backports])?;
    let run = |words: &[&str]| {
        let own = apt.options().iter().map(AsRef::as_ref);
        apt_get_with(own, words, &log)
    };
    run(&["update"])?;
    let mut words = vec!["install", "-y", "--no-install-recommends", "-t", &backports];
    words.extend(names);
    run(&words)?;
    progress.done("ok");
    Ok(())
}

fn fresh_log() -> Result<PathBuf> {
    let log = cache::root()?.join("logs/packages.log");
    workspace::fresh_log(&log)?;
    Ok(log)
}

fn apt_get(words: &[&str], log: &Path) -> Result<()> {
    apt_get_with([], words, log)
}

fn apt_get_with<'a>(
    options: impl IntoIterator<Item = &'a OsStr>,
    words: &[&str],
    log: &Path,
) -> Result<()> {
    let mut command = bounded("apt-get", INSTALL_LIMIT);
    // another package manager may be at work: wait for it, but not for ever
    command
        .args(["-q", "-o", "DPkg::Lock::Timeout=300"])
        .args(options)
        .args(words);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    run_logged(&mut command, log).with_context(|| format!("apt-get {}", words.join(" ")))
}

/// Where a program is, as the shell would find it. The folders for administrators' programs count too: an ordinary
/// user's search path often lacks them.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_search_path() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-here").is_none());
    }

    #[test]
    fn nothing_is_installed_when_nothing_is_missing() {
        require(&[
            Package::program("dash", "sh"),
            Package::file("base-files", "/etc"),
        ])
        .unwrap();
    }

    #[test]
    fn an_ordinary_user_is_told_which_packages_come_from_where() {
        let text = advice(&["flex"], &["libgpiod-dev"]);
        assert!(text.starts_with("missing packages: flex libgpiod-dev; run: sudo"));
        assert!(
            text.ends_with("-t RELEASE-backports libgpiod-dev"),
            "{text}"
        );
        assert!(!advice(&["flex"], &[]).contains("backports"));
    }
}
