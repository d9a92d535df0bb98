//! Builds that count nothing per request, to compare with; no other build does without its counters.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::run_logged;
use crate::progress::Progress;
use crate::workspace::{Workspace, cargo, prepare_build};

/// What the core is told. Cargo adds it to flags of its configuration files, but ignores it where RUSTFLAGS is set: so who
/// compares with such a build has to look at what it counts.
const FLAGS: &str = r#"build.rustflags=["--cfg", "uncounted"]"#;

/// Longest time for a build from nothing.
const LIMIT: Duration = Duration::from_secs(1800);

/// Has cargo build the daemon called `name` by a command with these arguments, beside what it builds otherwise. Returns the
/// daemon's path.
pub fn build(workspace: &Workspace, name: &str, arguments: &[&str]) -> Result<PathBuf> {
    prepare_build()?;
    let progress = Progress::start_if_long(format!("building {name} without counters"));
    let target = workspace.target.join("uncounted");
    let mut command = cargo(LIMIT);
    command
        .current_dir(&workspace.root)
        .args(arguments)
        .args(["--package", name, "--config", FLAGS, "--target-dir"])
        .arg(&target);
    run_logged(&mut command, &workspace.log("build")?)
        .with_context(|| format!("cannot build {name} without counters"))?;
    progress.done("ok");
    Ok(target.join("release").join(name))
}
