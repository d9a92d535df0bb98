//! Daemons against the kernel's own simulated hardware: each device's test called `hardware`, in a hardware machine.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::tally::Tally;
use crate::guest::devices::Device;
use crate::guest::{Attach, hardware};
use crate::packages::{self, Package};
use crate::process::capture;
use crate::workspace::{Workspace, cargo, prepare_build};

/// Longest time for building a test.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);

/// Longest time for the machine.
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// A device whose host side is tried on simulated hardware.
struct Suite {
    device: &'static str,
    /// Tools of the host that the results are compared with.
    tools: &'static [Package],
    /// Our devices that the machine itself is given, with their default arguments.
    attached: &'static [&'static str],
}

const SUITES: &[Suite] = &[
    Suite {
        device: "gpio",
        tools: &[Package::program("gpiod", "gpionotify").backported()],
        attached: &[],
    },
    Suite {
        device: "i2c",
        tools: &[
            Package::program("i2c-tools", "i2cget"),
            Package::program("busybox-static", "busybox"),
            Package::program("perl-base", "perl"),
        ],
        // the kernel's i2c-stub knows no whole transfers; the adapter of a guest does
        attached: &["i2c"],
    },
    Suite {
        device: "scmi",
        tools: &[Package::program("busybox-static", "busybox")],
        // the kernel's iio_dummy has no axes, and nothing there monitors hardware; a guest's SCMI platform does both
        attached: &["scmi"],
    },
    // the kernel's own loopback of AF_VSOCK is the host side
    Suite {
        device: "vsock",
        tools: &[Package::program("busybox-static", "busybox")],
        attached: &[],
    },
];

/// Runs all of them.
pub fn run(workspace: &Workspace) -> Result<Tally> {
    prepare_build()?;
    let mut tally = Tally::default();
    for suite in SUITES {
        let result = suite.run(workspace).unwrap_or_else(|error| {
            Tally::failure(&format!(
                "{} on simulated hardware: {error:#}",
                suite.device
            ))
        });
        tally.add(result);
    }
    Ok(tally)
}

impl Suite {
    fn run(&self, workspace: &Workspace) -> Result<Tally> {
        packages::require(self.tools)?;
        let program = self.build(workspace)?;
        let output = hardware::run(workspace, &program, &self.attachments(), RUN_LIMIT)?;
        let log = workspace.log(&format!("hardware-{}", self.device))?;
        fs::write(&log, &output)?;
        let mut tally = Tally::from_cargo_test(&output);
        if tally.failed > 0 {
            let note = format!("the failed tests' output is in {}", log.display());
            tally.notes.push(note);
        }
        Ok(tally)
    }

    fn attachments(&self) -> Vec<Attach> {
        let found = self.attached.iter().filter_map(|name| Device::find(name));
        found.map(Attach::with_defaults).collect()
    }

    /// Builds the test and returns its binary.
    fn build(&self, workspace: &Workspace) -> Result<PathBuf> {
        let package = format!("vhost-device-{}", self.device);
        let mut command = cargo(BUILD_LIMIT);
        command
            .current_dir(&workspace.root)
            .args(["test", "--locked", "--no-run", "--message-format", "json"])
            .args(["--package", &package, "--test", "hardware"]);
        let messages = capture(&mut command)?;
        messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Artifact>(line).ok())
            .filter(|artifact| artifact.target.name == "hardware")
            .find_map(|artifact| artifact.executable)
            .with_context(|| format!("cargo built no test of {package}"))
    }
}

/// What cargo tells of something that it built.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}
