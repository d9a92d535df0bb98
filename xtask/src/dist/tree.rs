//! The files of a package, as they lie below the root of a system.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{bounded, capture};

const LIMIT: Duration = Duration::from_secs(60);

/// A folder that stands for the root of a system.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// An empty one, in a folder that does not exist yet.
    pub fn new(root: PathBuf) -> Result<Self> {
        make_folder(&root)?;
        Ok(Self { root })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The place of `path`, its folder made.
    fn place(&self, path: &str) -> Result<PathBuf> {
        let place = self.root.join(path);
        if let Some(folder) = place.parent() {
            make_folder(folder)?;
        }
        Ok(place)
    }

    /// An empty folder.
    pub fn folder(&self, path: &str) -> Result<()> {
        make_folder(&self.root.join(path))
    }

    /// A file with this text.
    pub fn text(&self, path: &str, text: &str) -> Result<()> {
        let place = self.place(path)?;
        fs::write(&place, text).with_context(|| format!("cannot write {}", place.display()))?;
        set_mode(&place, 0o644)
    }

    /// A program with this text.
    pub fn script(&self, path: &str, text: &str) -> Result<()> {
        self.text(path, text)?;
        set_mode(&self.root.join(path), 0o755)
    }

    /// A copy of a file.
    pub fn copy(&self, from: &Path, path: &str) -> Result<()> {
        let place = self.place(path)?;
        fs::copy(from, &place).with_context(|| format!("cannot copy {}", from.display()))?;
        set_mode(&place, 0o644)
    }

    /// A copy of a program, without what only a debugger reads.
    pub fn program(&self, from: &Path, path: &str) -> Result<()> {
        self.copy(from, path)?;
        let place = self.root.join(path);
        let mut strip = bounded("strip", LIMIT);
        capture(strip.arg("--strip-unneeded").arg(&place))?;
        set_mode(&place, 0o755)
    }

    /// A compressed copy of a file, under `path` with the ending for it.
    pub fn compressed(&self, from: &Path, path: &str) -> Result<()> {
        self.copy(from, path)?;
        self.compress(path)
    }

    /// A compressed file with this text, under `path` with the ending for it.
    pub fn compressed_text(&self, path: &str, text: &str) -> Result<()> {
        self.text(path, text)?;
        self.compress(path)
    }

    /// Without name and time, so that the same file is made of the same text.
    fn compress(&self, path: &str) -> Result<()> {
        let mut gzip = bounded("gzip", LIMIT);
        capture(gzip.args(["-9", "-n"]).arg(self.root.join(path))).map(drop)
    }

    /// How much it takes when installed, in KiB.
    pub fn size(&self) -> Result<u64> {
        Ok(size(&self.root)?.div_ceil(1024))
    }
}

fn size(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        sum += if kind.is_dir() {
            size(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(sum)
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("cannot change {}", path.display()))
}
