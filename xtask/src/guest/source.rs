//! The kernel's source: a Debian package of a newer release than the host's, fetched with package lists of its own so
//! that the system's stay untouched. Where to fetch it from is read off the system's own package sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::apt::Apt;
use crate::process::{bounded, capture, run_logged};

/// The package with the kernel that has all guest drivers and simulators this project needs.
pub const PACKAGE: &str = "linux-source-7.3";

/// The suite that carries it.
const SUITE: &str = "trixie-backports";

/// Longest time for a download.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(1200);

/// Longest time for unpacking.
const UNPACK_LIMIT: Duration = Duration::from_secs(600);

/// An unpacked kernel source.
pub struct Source {
    /// The top folder of the source.
    pub tree: PathBuf,
    /// Package and version, for the record.
    pub version: String,
}

/// Fetches the source and unpacks it below `folder`.
pub fn fetch(folder: &Path, log: &Path) -> Result<Source> {
    let apt = Apt::new(&folder.join("apt"), &[SUITE])?;
    run_logged(
        bounded("apt-get", DOWNLOAD_LIMIT)
            .args(apt.options())
            .args(["-q", "update"]),
        log,
    )
    .context("cannot fetch the package lists")?;
    let package = chosen(&apt)?;
    let download = folder.join("download");
    fs::create_dir(&download)?;
    let mut command = bounded("apt-get", DOWNLOAD_LIMIT);
    command
        .args(apt.options())
        .args(["-q", "download", &package])
        .current_dir(&download);
    run_logged(&mut command, log).with_context(|| format!("cannot download {package}"))?;
    let deb = only_file(&download)?;
    let version = capture(Command::new("dpkg-deb").arg("--show").arg(&deb))?
        .trim()
        .replace('\t', " ");
    let tree = unpack(&deb, folder, &package, log)?;
    Ok(Source { tree, version })
}

/// The wanted package, or the newest of its kind once the suite has moved on.
fn chosen(apt: &Apt) -> Result<String> {
    let names = capture(
        Command::new("apt-cache")
            .args(apt.options())
            .args(["pkgnames", "linux-source-"]),
    )?;
    let Some(chosen) = choose(&names) else {
        bail!("{SUITE} has no package linux-source-*");
    };
    if chosen != PACKAGE {
        eprintln!("{SUITE} no longer has {PACKAGE}: taking {chosen}");
    }
    Ok(chosen.to_owned())
}

fn choose(names: &str) -> Option<&str> {
    if names.lines().any(|name| name == PACKAGE) {
        return Some(PACKAGE);
    }
    names.lines().max_by_key(|name| {
        let version = name.trim_start_matches("linux-source-").split('.');
        version
            .map(|part| part.parse::<u32>().ok())
            .collect::<Option<Vec<_>>>()
    })
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let entry = fs::read_dir(folder)?
        .next()
        .context("apt-get downloaded nothing")?;
    Ok(entry?.path())
}

fn unpack(deb: &Path, folder: &Path, package: &str, log: &Path) -> Result<PathBuf> {
    let outer = folder.join("package");
    run_logged(
        bounded("dpkg-deb", UNPACK_LIMIT)
            .arg("-x")
            .arg(deb)
            .arg(&outer),
        log,
    )?;
    let archive = outer.join(format!("usr/src/{package}.tar.xz"));
    let source = folder.join("source");
    fs::create_dir(&source)?;
    let mut command = bounded("tar", UNPACK_LIMIT);
    command
        .arg("-C")
        .arg(&source)
        .args(["--strip-components=1", "-xf"])
        .arg(archive);
    run_logged(&mut command, log).context("cannot unpack the kernel's source")?;
    Ok(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wanted_kernel_is_taken_and_else_the_newest() {
        assert_eq!(
            choose("linux-source-7.10\nlinux-source-7.3\n"),
            Some("linux-source-7.3")
        );
        assert_eq!(
            choose("linux-source-7.9\nlinux-source-7.10\n"),
            Some("linux-source-7.10")
        );
        assert_eq!(choose(""), None);
    }
}
