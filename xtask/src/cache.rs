//! Results that take minutes to build, kept in the user's cache folder under a key made from what went into them.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The project's folder in the user's cache: `$XDG_CACHE_HOME/vhost-device` or `~/.cache/vhost-device`.
pub fn root() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|path| Path::new(path).is_absolute()) {
        Some(path) => PathBuf::from(path),
        None => env::home_dir()
            .context("no home folder to keep the cache in")?
            .join(".cache"),
    };
    let root = base.join("vhost-device");
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    Ok(root)
}

/// The folder of the entry `name` made from `inputs`; `build` fills it if it does not exist yet. Its second argument is a
/// folder for what is needed only meanwhile, which is removed when the result is in place: that can take minutes.
///
/// A build happens in a folder beside, which is renamed when it is complete: a half-finished one never counts. Two
/// processes never build the same entry at once; the second waits and finds the result.
pub fn entry(
    name: &str,
    inputs: &[&[u8]],
    build: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<PathBuf> {
    entry_in(&root()?, name, inputs, build)
}

fn entry_in(
    root: &Path,
    name: &str,
    inputs: &[&[u8]],
    build: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let folder = root.join(format!("{name}-{:016x}", hash(inputs)));
    if folder.exists() {
        return Ok(folder);
    }
    let _lock = lock(&root.join(format!("{name}.lock")))?;
    if folder.exists() {
        return Ok(folder);
    }
    let partial = root.join(format!("{name}.partial"));
    remove(&partial)?;
    let scratch = root.join(format!("{name}.scratch"));
    remove(&scratch)?;
    for folder in [&partial, &scratch] {
        fs::create_dir(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    if let Err(error) = build(&partial, &scratch) {
        remove(&partial)?;
        remove(&scratch)?;
        return Err(error);
    }
    fs::rename(&partial, &folder).with_context(|| {
        format!(
            "cannot rename {} to {}",
            partial.display(),
            folder.display()
        )
    })?;
    remove(&scratch)?;
    Ok(folder)
}

/// Takes the lock file at `path`, which the kernel releases when the returned file is closed, in whatever way.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            eprintln!("waiting for another process that holds {}", path.display());
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// FNV-1a: stable over releases of the standard library, and nobody attacks a build cache of one's own.
fn hash(inputs: &[&[u8]]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for input in inputs {
        let length = input.len() as u64;
        for byte in length.to_le_bytes().iter().chain(*input) {
            state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::Folder;

    #[test]
    fn an_entry_is_built_once_per_content() {
        let root = Folder::new("cache").unwrap();
        let mut builds = 0;
        let mut get = |input: &str| {
            entry_in(root.path(), "thing", &[input.as_bytes()], |folder, _| {
                builds += 1;
                fs::write(folder.join("result"), input)?;
                Ok(())
            })
            .unwrap()
        };
        let first = get("a");
        assert_eq!(get("a"), first);
        assert_ne!(get("b"), first);
        assert_eq!(fs::read_to_string(first.join("result")).unwrap(), "a");
        assert_eq!(builds, 2);
    }

    #[test]
    fn a_failed_build_leaves_nothing_that_counts() {
        let root = Folder::new("cache").unwrap();
        let failed = entry_in(root.path(), "thing", &[b"a"], |folder, scratch| {
            fs::write(folder.join("half"), "")?;
            fs::write(scratch.join("source"), "")?;
            anyhow::bail!("no disk")
        });
        assert!(failed.is_err());
        let built = entry_in(root.path(), "thing", &[b"a"], |_, _| Ok(())).unwrap();
        assert!(!built.join("half").exists());
        assert!(!root.path().join("thing.scratch").exists());
    }

    #[test]
    fn inputs_are_told_apart_by_their_borders() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
    }
}
