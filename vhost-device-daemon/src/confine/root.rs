//! An empty file system: a root folder in memory, read-only, with nothing in it but the named places.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};

use super::profile::Place;

/// Where the new root is put together. It is there, or the user namespace could not have been set up; and what is in it is of
/// no use any more.
const SITE: &str = "/proc";

const NO_TYPE: Option<&str> = None;
const NO_DATA: Option<&str> = None;

/// Changes the root folder of this mount namespace. The working directory keeps its path, so that relative paths mean what
/// they meant.
///
/// # Errors
/// From the operating system, or a place is not there; the file system is as before then.
pub fn change(places: &[Place]) -> io::Result<()> {
    // A working directory that is gone leads nowhere in the old file system either.
    let home = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    // What happens here stays here.
    mount(
        NO_TYPE,
        "/",
        NO_TYPE,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        NO_DATA,
    )?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), SITE, Some("tmpfs"), plain, Some("mode=0755"))?;
    let result = furnish(&home, places).and_then(|()| {
        let frozen = plain | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(NO_TYPE, SITE, NO_TYPE, frozen, NO_DATA)?;
        Ok(move_in(&home)?)
    });
    if result.is_err() {
        // It is this process's own, and nobody is in it.
        let _ = umount2(SITE, MntFlags::MNT_DETACH);
        let _ = chdir(&home);
    }
    result
}

fn furnish(home: &Path, places: &[Place]) -> io::Result<()> {
    let mut paths = places
        .iter()
        .map(|place| std::path::absolute(place.path()))
        .collect::<io::Result<Vec<_>>>()?;
    // A folder before what is beneath it, which comes with it.
    paths.sort();
    let mut placed: Vec<PathBuf> = Vec::new();
    for path in paths {
        if !placed.iter().any(|outer| path.starts_with(outer)) {
            bring(&path)?;
            placed.push(path);
        }
    }
    if !placed.iter().any(|outer| home.starts_with(outer)) {
        fs::create_dir_all(inside(home))?;
    }
    Ok(())
}

/// Makes a place of the old file system visible in the new one.
fn bring(path: &Path) -> io::Result<()> {
    let target = inside(path);
    if fs::metadata(path)?.is_dir() {
        fs::create_dir_all(&target)?;
    } else {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        File::create(&target)?;
    }
    let everything = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(mount(Some(path), &target, NO_TYPE, everything, NO_DATA)?)
}

fn inside(path: &Path) -> PathBuf {
    Path::new(SITE).join(path.strip_prefix("/").unwrap_or(path))
}

fn move_in(home: &Path) -> nix::Result<()> {
    chdir(SITE)?;
    // Stacks the old root upon the new one, under the same path (pivot_root(2)), from where it is taken away.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir(home)
}
