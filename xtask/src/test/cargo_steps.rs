//! The steps that cargo carries out.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::conformance;
use super::tally::Tally;
use crate::process::{describe, run_logged, status_logged, tail_of};
use crate::workspace::{Workspace, cargo, prepare_build};

/// Longest time for one cargo command, building from nothing included.
const LIMIT: Duration = Duration::from_secs(2700);

/// A feature that every crate of the product has (vm-memory's, of the same meaning).
const XEN: &str = "xen";

/// The format is rustfmt's.
pub fn format(workspace: &Workspace) -> Result<Tally> {
    one(workspace, "format", |command| {
        command.args(["fmt", "--all", "--check"])
    })
}

/// No lint complains.
pub fn clippy(workspace: &Workspace) -> Result<Tally> {
    one(workspace, "clippy", |command| {
        let command = command.args(["clippy", "--workspace", "--all-targets", "--locked"]);
        command.args(["--", "-D", "warnings"])
    })
}

/// Every crate has the feature `xen`, compiles with it and has no lint against it.
pub fn xen(workspace: &Workspace) -> Result<Tally> {
    let product = || {
        workspace
            .packages
            .iter()
            .filter(|package| package.name.starts_with("vhost-device-"))
    };
    for package in product() {
        ensure!(
            package.features.contains_key(XEN),
            "{} does not forward the feature {XEN}",
            package.name
        );
    }
    one(workspace, "xen", |command| {
        command.args(["clippy", "--all-targets", "--locked", "--features", XEN]);
        for package in product() {
            command.args(["--package", &package.name]);
        }
        command.args(["--", "-D", "warnings"])
    })
}

/// The API documentation builds without a warning.
pub fn rustdoc(workspace: &Workspace) -> Result<Tally> {
    one(workspace, "rustdoc", |command| {
        command.env("RUSTDOCFLAGS", "-D warnings");
        command.args(["doc", "--workspace", "--no-deps", "--locked"])
    })
}

/// Unit, conformance and documentation tests; the records of the conformance tests become notes.
pub fn tests(workspace: &Workspace) -> Result<Tally> {
    prepare_build()?;
    conformance::forget(workspace)?;
    let log = workspace.log("tests")?;
    let mut command = cargo(LIMIT);
    command.current_dir(&workspace.root);
    command.args(["test", "--workspace", "--no-fail-fast", "--locked"]);
    let mut tally = run_tests(&mut command, &log)?;
    tally.notes.extend(conformance::notes(workspace)?);
    Ok(tally)
}

/// Runs a `cargo test` and counts its tests.
pub fn run_tests(command: &mut Command, log: &Path) -> Result<Tally> {
    let status = status_logged(command, log)?;
    let output = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    let mut tally = Tally::from_cargo_test(&String::from_utf8_lossy(&output));
    // without a failed test something else went wrong: a build, a crash, a time limit
    if !status.success() && tally.failed == 0 {
        tally.fail(&format!(
            "cargo test {}; see {}, which ends:\n{}",
            describe(status),
            log.display(),
            tail_of(log)
        ));
    } else if !status.success() {
        tally
            .notes
            .push(format!("the failed tests' output is in {}", log.display()));
    }
    Ok(tally)
}

/// A step that is one cargo command and counts as one test.
fn one(
    workspace: &Workspace,
    name: &str,
    arguments: impl FnOnce(&mut Command) -> &mut Command,
) -> Result<Tally> {
    prepare_build()?;
    let mut command = cargo(LIMIT);
    arguments(command.current_dir(&workspace.root));
    Ok(Tally::of(
        name,
        &run_logged(&mut command, &workspace.log(name)?),
    ))
}
