//! Packages of the host that a verb needs: installed where that is possible, named exactly where it is not.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{bounded, run_logged};
use crate::progress::Progress;
use crate::{cache, workspace};

/// Longest time for the installation of packages.
const INSTALL_LIMIT: Duration = Duration::from_secs(900);

/// A Debian package and how to see that what it brings is there, whoever installed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    name: &'static str,
    probe: Probe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Program(&'static str),
    File(&'static str),
}

impl Package {
    /// A package that brings a program.
    pub const fn program(name: &'static str, program: &'static str) -> Self {
        Self {
            name,
            probe: Probe::Program(program),
        }
    }

    /// A package that brings a file, for example a header.
    pub const fn file(name: &'static str, path: &'static str) -> Self {
        Self {
            name,
            probe: Probe::File(path),
        }
    }

    fn is_present(self) -> bool {
        match self.probe {
            Probe::Program(program) => find_program(program).is_some(),
            Probe::File(path) => Path::new(path).exists(),
        }
    }
}

/// Makes sure that `packages` are there. As root on Debian the missing ones are installed; elsewhere the error names
/// them and the command to run.
pub fn require(packages: &[Package]) -> Result<()> {
    let mut missing: Vec<&str> = packages
        .iter()
        .filter(|package| !package.is_present())
        .map(|package| package.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    missing.sort_unstable();
    missing.dedup();
    let names = missing.join(" ");
    if find_program("apt-get").is_none() {
        bail!(
            "missing packages (Debian's names): {names}; install them with this system's package manager"
        );
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "missing packages: {names}; run: sudo apt-get install -y --no-install-recommends {names}"
        );
    }
    install(&missing)?;
    match packages.iter().find(|package| !package.is_present()) {
        Some(package) => bail!(
            "package {} is installed, but {:?} is not there",
            package.name,
            package.probe
        ),
        None => Ok(()),
    }
}

fn install(names: &[&str]) -> Result<()> {
    let progress = Progress::start(format!("installing {}", names.join(" ")));
    let log = cache::root()?.join("logs/packages.log");
    workspace::fresh_log(&log)?;
    // a machine that was never updated knows no packages, or versions that are gone
    apt_get(&["update"], &log)?;
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(names);
    apt_get(&words, &log)?;
    progress.done("ok");
    Ok(())
}

fn apt_get(words: &[&str], log: &Path) -> Result<()> {
    let mut command = bounded("apt-get", INSTALL_LIMIT);
    // another package manager may be at work: wait for it, but not for ever
    command
        .args(["-q", "-o", "DPkg::Lock::Timeout=300"])
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
}
