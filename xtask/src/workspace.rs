//! The workspace as cargo sees it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{collections::BTreeMap, env};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::packages;
use crate::process::{bounded, capture, run_logged};
use crate::progress::Progress;

/// Longest time for building a few binaries from nothing.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);

/// What building the workspace takes beside a Rust toolchain.
const BUILD_PACKAGES: &[packages::Package] = &[
    packages::Package::program("gcc", "cc"),
    packages::Package::program("pkg-config", "pkg-config"),
    // the bindings of libgpiod are made from its header while it is built
    packages::Package::file("libclang-dev", "/usr/share/doc/libclang-dev"),
    packages::Package::library("libgpiod-dev", "libgpiod", "2.0").backported(),
];

/// What `cargo metadata` tells about the workspace.
#[derive(Debug, Deserialize)]
pub struct Workspace {
    /// The folder of the root Cargo.toml.
    #[serde(rename = "workspace_root")]
    pub root: PathBuf,
    /// Where cargo puts what it builds.
    #[serde(rename = "target_directory")]
    pub target: PathBuf,
    /// The members of the workspace.
    pub packages: Vec<Package>,
}

/// One crate of the workspace.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// The name in its Cargo.toml.
    pub name: String,
    /// The version there.
    pub version: String,
    /// Its features; only the names matter here.
    pub features: BTreeMap<String, Vec<String>>,
}

/// The optimisation a daemon is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Fast to build, with debug assertions.
    Dev,
    /// As it is shipped.
    Release,
}

impl Profile {
    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

impl Workspace {
    /// Asks cargo about the workspace of the current folder.
    pub fn load() -> Result<Self> {
        let mut command = cargo(Duration::from_secs(120));
        let text = capture(command.args(["metadata", "--no-deps", "--format-version", "1"]))?;
        serde_json::from_str(&text).context("cannot read the answer of cargo metadata")
    }

    /// The version of the crate called `name`, if there is one.
    pub fn version(&self, name: &str) -> Option<&str> {
        let package = self.packages.iter().find(|package| package.name == name)?;
        Some(&package.version)
    }

    /// The folder for what a verb makes: the one that is asked for, or else `name` beside what is built. It exists.
    pub fn output(&self, asked: Option<&Path>, name: &str) -> Result<PathBuf> {
        let folder = asked.map_or_else(|| self.target.join(name), Path::to_owned);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }

    /// The log file of a step, emptied.
    pub fn log(&self, step: &str) -> Result<PathBuf> {
        let log = self.target.join("xtask").join(format!("{step}.log"));
        fresh_log(&log)?;
        Ok(log)
    }

    /// Builds an example of a crate as it would be shipped and returns its path.
    pub fn build_example(&self, package: &str, name: &str) -> Result<PathBuf> {
        let progress = Progress::start_if_long(format!("building {name}"));
        let mut command = cargo(BUILD_LIMIT);
        command
            .current_dir(&self.root)
            .args(["build", "--release", "--package", package])
            .args(["--example", name]);
        run_logged(&mut command, &self.log("build")?)
            .with_context(|| format!("cannot build {name}"))?;
        progress.done("ok");
        let folder = self.target.join(Profile::Release.folder());
        Ok(folder.join("examples").join(name))
    }

    /// Builds the examples that write the manuals of the daemons called `names`, and returns the folder they are in.
    pub fn build_manuals(&self, names: &[String], profile: Profile) -> Result<PathBuf> {
        prepare_build()?;
        let mut command = cargo(BUILD_LIMIT);
        command.current_dir(&self.root).arg("build");
        for name in names {
            command.args(["--package", name, "--example"]);
            command.arg(format!("{name}-manual"));
        }
        if profile == Profile::Release {
            command.arg("--release");
        }
        run_logged(&mut command, &self.log("build")?).context("cannot build the manuals")?;
        Ok(self.target.join(profile.folder()).join("examples"))
    }

    /// Builds the binaries of the crates called `names` and returns the folder they are in.
    pub fn build(&self, names: &[String], profile: Profile) -> Result<PathBuf> {
        let folder = self.target.join(profile.folder());
        if names.is_empty() {
            return Ok(folder);
        }
        prepare_build()?;
        let progress = Progress::start_if_long(format!("building {}", names.join(" ")));
        let mut command = cargo(BUILD_LIMIT);
        command.current_dir(&self.root).args(["build", "--bins"]);
        for name in names {
            command.args(["--package", name]);
        }
        if profile == Profile::Release {
            command.arg("--release");
        }
        run_logged(&mut command, &self.log("build")?)
            .with_context(|| format!("cannot build {}", names.join(" ")))?;
        progress.done("ok");
        Ok(folder)
    }
}

/// Makes sure that the workspace can be built.
pub fn prepare_build() -> Result<()> {
    packages::require(BUILD_PACKAGES)
}

/// The cargo that runs us, with a time limit.
pub fn cargo(limit: Duration) -> Command {
    bounded(
        env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        limit,
    )
}

/// Empties a log of an earlier run.
pub fn fresh_log(log: &Path) -> Result<()> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(log, "").with_context(|| format!("cannot write {}", log.display()))
}
