//! A device as `cargo xtask new-device` writes it: it must build without a warning and conform as it is.

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cargo_steps::run_tests;
use super::conformance;
use super::tally::Tally;
use crate::packages::{self, Package};
use crate::process::{bounded, capture, run_logged};
use crate::temp::Folder;
use crate::workspace::{Workspace, cargo};

/// The name of the device that is made.
const NAME: &str = "example";

const LIMIT: Duration = Duration::from_secs(1800);

/// Makes a device in a copy of the workspace and tests it there.
pub fn run(workspace: &Workspace) -> Result<Tally> {
    packages::require(&[Package::program("git", "git")])?;
    let copy = Folder::new("generated")?;
    copy_sources(&workspace.root, copy.path())?;
    let log = workspace.log("generated")?;
    let mut command = bounded(env::current_exe()?, Duration::from_secs(300));
    run_logged(
        command.args(["new-device", NAME]).current_dir(copy.path()),
        &log,
    )
    .context("new-device failed")?;

    let package = format!("vhost-device-{NAME}");
    let inside = |arguments: &[&str]| {
        let mut command = cargo(LIMIT);
        command
            .current_dir(copy.path())
            .args(arguments)
            .args(["--package", &package]);
        // the libraries are those of the workspace: they need not be built again
        command.env("CARGO_TARGET_DIR", &workspace.target);
        command
    };
    run_logged(&mut inside(&["fmt", "--check"]), &log)?;
    let mut clippy = inside(&["clippy", "--all-targets"]);
    run_logged(clippy.args(["--", "-D", "warnings"]), &log)?;
    let tally = run_tests(
        &mut inside(&["test", "--no-fail-fast"]),
        &workspace.log("generated-tests")?,
    )?;
    conformance::forget_device(workspace, NAME)?;
    Ok(tally)
}

/// Copies what is, or would be, under version control.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    let mut git = bounded("git", Duration::from_secs(60));
    git.current_dir(from).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let names = capture(&mut git)?;
    ensure!(!names.is_empty(), "git knows no files here");
    for name in names
        .split_terminator('\0')
        .filter(|name| from.join(name).is_file())
    {
        let target = to.join(name);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(from.join(name), &target).with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(())
}
