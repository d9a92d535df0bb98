//! The QEMUs that guests run in: the host's own, and a newer one, whose packages are unpacked into the cache and run with
//! their own loader, libraries and data. Nothing of it is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::apt::Apt;
use crate::packages::{self, Package};
use crate::process::{bounded, capture, run_logged, tethered};
use crate::progress::Progress;
use crate::{cache, workspace};

/// The package with the emulator, in all suites.
const PACKAGE: &str = "qemu-system-x86";

/// The emulator's name.
const PROGRAM: &str = "qemu-system-x86_64";

/// A release of Debian with its backports, which have the newer one.
const SUITES: [&str; 2] = ["trixie", "trixie-backports"];

/// The newer one. Part of the cache key: raise it to fetch another.
const NEWEST: &str = "11.1";

/// Part of the cache key: raise it when the way of unpacking changes.
const RECIPE: &[u8] = b"1";

/// Longest time for a download.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(1200);

/// Longest time for unpacking one package.
const UNPACK_LIMIT: Duration = Duration::from_secs(300);

/// Folders below the unpacked packages.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const MODULES: &str = "usr/lib/x86_64-linux-gnu/qemu";
const PROGRAMS: &str = "usr/bin";
const DATA: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// Which QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Version {
    /// The one of the host's release, installed if it is missing
    Own,
    /// A newer one, fetched and run without being installed
    Newest,
}

/// A QEMU that is there.
#[derive(Clone, Debug)]
pub enum Qemu {
    /// Installed.
    Own,
    /// Unpacked into this folder.
    Unpacked(PathBuf),
}

impl Qemu {
    /// Makes sure that this QEMU is there.
    pub fn prepare(version: Version) -> Result<Self> {
        match version {
            Version::Own => {
                packages::require(&[Package::program(PACKAGE, PROGRAM)])?;
                Ok(Self::Own)
            }
            Version::Newest => {
                let inputs = [PACKAGE.as_bytes(), NEWEST.as_bytes(), RECIPE];
                cache::entry("qemu", &inputs, fetch).map(Self::Unpacked)
            }
        }
    }

    /// A command without arguments of its own, as [`tethered`] makes them.
    pub fn command(&self) -> Command {
        match self {
            Self::Own => tethered(PROGRAM),
            Self::Unpacked(folder) => unpacked(tethered(folder.join(LOADER)), folder),
        }
    }
}

/// Completes a call of the loader in `folder`.
fn unpacked(mut loader: Command, folder: &Path) -> Command {
    loader
        .arg("--library-path")
        .arg(folder.join(LIBRARIES))
        .arg(folder.join(PROGRAMS).join(PROGRAM))
        // it would find those of the host, which it cannot use
        .env("QEMU_MODULE_DIR", folder.join(MODULES));
    for data in DATA {
        loader.arg("-L").arg(folder.join(data));
    }
    loader
}

fn fetch(folder: &Path, scratch: &Path) -> Result<()> {
    let log = cache::root()?.join("logs/qemu.log");
    workspace::fresh_log(&log)?;
    let progress = Progress::start("fetching a newer QEMU");
    for package in download(scratch, &log)? {
        let mut command = bounded("dpkg-deb", UNPACK_LIMIT);
        run_logged(command.arg("-x").arg(package).arg(folder), &log)?;
    }
    // also the proof that nothing is missing
    let mut command = unpacked(Command::new(folder.join(LOADER)), folder);
    let version = capture(command.arg("--version")).context("the fetched QEMU does not run")?;
    let version = version.lines().next().unwrap_or_default();
    fs::write(folder.join("version"), format!("{version}\n"))?;
    progress.done(version);
    Ok(())
}

/// The package and all that it needs, whatever of it the host has.
fn download(scratch: &Path, log: &Path) -> Result<Vec<PathBuf>> {
    let apt = Apt::on_empty_system(scratch, &SUITES)?;
    let mut update = bounded("apt-get", DOWNLOAD_LIMIT);
    run_logged(update.args(apt.options()).args(["-q", "update"]), log)
        .context("cannot fetch the package lists")?;
    let [_, suite] = SUITES;
    let mut install = bounded("apt-get", DOWNLOAD_LIMIT);
    install
        .args(apt.options())
        .args(["-q", "-y", "--download-only", "--no-install-recommends"])
        .args(["install", "-t", suite, PACKAGE]);
    run_logged(&mut install, log).with_context(|| format!("cannot download {PACKAGE}"))?;
    apt.downloaded()
}
