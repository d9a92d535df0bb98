//! `cargo xtask new-device`: a crate that works, to be changed into the device that is wanted.

mod members;
mod name;
mod rename;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::value_parser;

use self::name::Name;
use self::rename::Rename;
use crate::process::run_logged;
use crate::workspace::{Workspace, cargo};

/// The crate that new ones are made from.
const TEMPLATE: &str = "vhost-device-template";

/// Longest time for formatting a crate or for noting it in Cargo.lock.
const CARGO_LIMIT: Duration = Duration::from_secs(120);

/// Write the skeleton of a new device crate, from vhost-device-template
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The device's virtio name, for example rng; the crate and its binary are called vhost-device-NAME
    name: Name,
    /// Its virtio device ID [default: the template's, which is nobody's]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=63))]
    id: Option<u32>,
}

/// Runs the verb in the workspace of the current folder.
pub fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let package = args.name.package();
    let log = workspace.log("new-device")?;
    write(&workspace.root, &args.name, args.id)?;
    // where lines break, and in which order imports stand, depends on the name
    let mut fmt = cargo(CARGO_LIMIT);
    fmt.current_dir(&workspace.root)
        .args(["fmt", "--package", &package]);
    run_logged(&mut fmt, &log)?;
    // all it depends on is in the lock file already: the registry is not needed
    let mut update = cargo(CARGO_LIMIT);
    update
        .current_dir(&workspace.root)
        .args(["update", "--workspace", "--offline"]);
    run_logged(&mut update, &log)?;
    println!("{package} is a member of the workspace. It works as it is: cargo test -p {package}");
    if args.id.is_none() {
        println!("Its device ID is the template's; the real one belongs into its src/args.rs.");
    }
    println!("CONTRIBUTING.md tells how to go on.");
    Ok(ExitCode::SUCCESS)
}

/// Writes the crate and makes it a member of the workspace at `root`, or leaves everything as it was.
fn write(root: &Path, name: &Name, id: Option<u32>) -> Result<()> {
    let template = root.join(TEMPLATE);
    let target = root.join(name.package());
    ensure!(!target.exists(), "{} exists already", name.package());
    let files = files(&template)?;
    check_clash(&template, &files, name)?;
    let manifest = root.join("Cargo.toml");
    let old = read(&manifest)?;
    let new = members::with(&old, &name.package())
        .with_context(|| format!("cannot change {}", manifest.display()))?;
    let rename = Rename::new(name, id);
    let written = copy(&template, &files, &target, &rename).and_then(|()| store(&manifest, &new));
    if written.is_err() {
        // what is there is ours: it did not exist before
        let _ = fs::remove_dir_all(&target);
    }
    written
}

/// Refuses a name whose type would be another thing's: the template's sources use them side by side.
fn check_clash(template: &Path, files: &[PathBuf], name: &Name) -> Result<()> {
    for file in files.iter().filter(|file| is_source(file)) {
        let text = read(&template.join(file))?;
        let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        ensure!(
            !words.any(|word| word == name.type_name()),
            "a device cannot be called {name}: its type {} would clash with another in {}",
            name.type_name(),
            file.display()
        );
    }
    Ok(())
}

fn is_source(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "rs")
}

fn copy(template: &Path, files: &[PathBuf], target: &Path, rename: &Rename) -> Result<()> {
    for file in files {
        let text = rename.apply(&read(&template.join(file))?);
        let file = target.join(file);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        store(&file, &text)?;
    }
    Ok(())
}

/// The files below `folder`, relative to it; hidden ones are an editor's.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(relative) = folders.pop() {
        let folder = folder.join(&relative);
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = relative.join(entry.file_name());
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            match (hidden, entry.file_type()?.is_dir()) {
                (true, _) => {}
                (false, true) => folders.push(path),
                (false, false) => found.push(path),
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn store(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::Folder;

    /// A folder with the template as it is, and a workspace manifest.
    fn workspace() -> Folder {
        let folder = Folder::new("new-device").unwrap();
        let template = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(TEMPLATE);
        let target = folder.path().join(TEMPLATE);
        for file in files(&template).unwrap() {
            fs::create_dir_all(target.join(&file).parent().unwrap()).unwrap();
            fs::copy(template.join(&file), target.join(&file)).unwrap();
        }
        let manifest = "[workspace]\nmembers = [\n    \"vhost-device-template\",\n]\n";
        fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
        folder
    }

    #[test]
    fn nothing_of_the_template_is_left_in_a_new_device() {
        let folder = workspace();
        write(folder.path(), &"fire-alarm".parse().unwrap(), Some(41)).unwrap();
        let device = folder.path().join("vhost-device-fire-alarm");
        let mut whole = String::new();
        for file in files(&device).unwrap() {
            whole += &read(&device.join(file)).unwrap();
        }
        for trace in ["template", "Template", "63", "publish"] {
            assert!(!whole.contains(trace), "{trace}");
        }
        for name in [
            "name = \"vhost-device-fire-alarm\"",
            "pub struct FireAlarmService",
            "vhost_device_fire_alarm::App",
            "DeviceId(41)",
            "(device ID 41)",
        ] {
            assert!(whole.contains(name), "{name}");
        }
        let manifest = read(&folder.path().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("    \"vhost-device-fire-alarm\",\n"));
    }

    #[test]
    fn a_name_that_is_taken_is_refused_and_changes_nothing() {
        let folder = workspace();
        let before = read(&folder.path().join("Cargo.toml")).unwrap();
        for (name, why) in [
            ("template", "exists already"),
            ("worker", "clash"),
            ("string", "clash"),
        ] {
            let name: Name = name.parse().unwrap();
            let error = write(folder.path(), &name, None).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        assert_eq!(read(&folder.path().join("Cargo.toml")).unwrap(), before);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
