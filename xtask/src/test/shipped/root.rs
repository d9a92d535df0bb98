//! A root of its own that packages are installed into, with a package database of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{bounded, capture};

/// Longest time for a tool.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Where dpkg's database is.
const DATABASE: &str = "var/lib/dpkg";

/// The root, and what was in it before.
pub struct Root {
    path: PathBuf,
    before: BTreeSet<PathBuf>,
    packages: Vec<String>,
}

impl Root {
    /// Makes a root at `path` and installs the packages.
    pub fn install(path: &Path, packages: &[PathBuf]) -> Result<Self> {
        for folder in ["info", "updates", "triggers"] {
            fs::create_dir_all(path.join(DATABASE).join(folder))?;
        }
        for file in ["status", "available"] {
            fs::write(path.join(DATABASE).join(file), "")?;
        }
        let names = packages
            .iter()
            .map(|package| {
                let mut command = bounded("dpkg-deb", LIMIT);
                let name = capture(command.arg("--field").arg(package).arg("Package"))?;
                Ok(name.trim().to_owned())
            })
            .collect::<Result<Vec<_>>>()?;
        let root = Self {
            path: path.to_owned(),
            before: entries(path)?,
            packages: names,
        };
        capture(root.dpkg().arg("--install").args(packages))?;
        Ok(root)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text of a file in it.
    pub fn text(&self, place: &str) -> Result<String> {
        let path = self.path.join(place);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// What `text` says about the system's root said about this one.
    pub fn inside(&self, text: &str) -> String {
        let root = self.path.display();
        ["/usr/bin/", "/etc/vhost-device/", "/run/"]
            .iter()
            .fold(text.to_owned(), |text, place| {
                text.replace(place, &format!("{root}{place}"))
            })
    }

    /// Whether all files of the archive were installed, and no others.
    pub fn has_all_of(&self, archive: &Path) -> Result<()> {
        let mut command = bounded("tar", LIMIT);
        let list = capture(command.arg("--list").arg("--file").arg(archive))?;
        let archived: BTreeSet<PathBuf> = list
            .lines()
            .filter_map(|line| Some(PathBuf::from(line.split_once('/')?.1.trim_end_matches('/'))))
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        let installed: BTreeSet<_> = entries(&self.path)?
            .difference(&self.before)
            .cloned()
            .collect();
        let different: Vec<_> = archived.symmetric_difference(&installed).collect();
        ensure!(
            different.is_empty(),
            "only in one of archive and packages: {different:?}"
        );
        ensure!(
            archived.iter().any(|path| path.starts_with("usr/bin")),
            "no programs"
        );
        Ok(())
    }

    /// Removes the packages, after which all must be as it was.
    pub fn remove(&self) -> Result<()> {
        capture(self.dpkg().arg("--purge").args(&self.packages))?;
        let left: Vec<_> = entries(&self.path)?
            .difference(&self.before)
            .cloned()
            .collect();
        ensure!(left.is_empty(), "left behind: {left:?}");
        let status = self.text(&format!("{DATABASE}/status"))?;
        ensure!(status.trim().is_empty(), "dpkg still knows: {status}");
        Ok(())
    }

    /// dpkg for this root. The libraries that packages depend on are those of the system, which this database does not know.
    fn dpkg(&self) -> Command {
        let mut command = if rustix::process::geteuid().is_root() {
            bounded("dpkg", LIMIT)
        } else {
            // Root of a namespace is enough: all files are root's.
            let mut command = bounded("unshare", LIMIT);
            command.args(["--map-root-user", "dpkg"]);
            command
        };
        command
            .arg(format!("--root={}", self.path.display()))
            .arg(format!("--log={}", self.path.join("../dpkg.log").display()))
            .args([
                "--force-script-chrootless",
                "--force-depends",
                "--force-bad-path",
            ])
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// Everything below `root` but dpkg's database, as paths from there.
fn entries(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if path == Path::new(DATABASE) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(path.clone());
            }
            found.insert(path);
        }
    }
    Ok(found)
}
