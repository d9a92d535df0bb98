//! A folder for sockets and scratch files that goes away with its owner.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::{env, process};

use anyhow::{Context, Result};

/// A fresh folder, readable by its owner only, deleted on drop.
pub struct Folder(PathBuf);

impl Folder {
    /// Creates a folder below the system's folder for temporary files; `purpose` becomes part of its name. The name
    /// is short because the path of a socket in it must stay below 108 bytes.
    pub fn new(purpose: &str) -> Result<Self> {
        let base = env::temp_dir();
        for attempt in 0..1000 {
            let path = base.join(format!("vd-{purpose}-{}-{attempt}", process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot create {}", path.display()));
                }
            }
        }
        anyhow::bail!("cannot find a free name for a folder in {}", base.display())
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // what cannot be deleted now is left to the system's own cleaning
        let _ = fs::remove_dir_all(&self.0);
    }
}
