//! `cargo xtask syscalls`: the tables of system calls, held against what daemons do.
//!
//! Every test of a device that starts its daemon, and every guest that uses it, runs with the daemon under a tracer. What a
//! daemon calls after the filter is in force must be in its table, and what is in a table must be called by somebody.

mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use vhost_device_testkit::process::TRACE;

use self::trace::Trace;
use crate::guest::devices::{DEVICES, Device};
use crate::guest::tracing;
use crate::packages::{self, Package};
use crate::process::{describe, status_logged};
use crate::progress::Progress;
use crate::temp::Folder;
use crate::test::guests;
use crate::workspace::{Workspace, cargo, prepare_build};

/// Entries for calls that are made on some machines only.
const ELSEWHERE: &[&str] = &[
    // where the kernel's shared page has no clock
    "clock_gettime",
];

/// Longest time for the tests of one device.
const LIMIT: Duration = Duration::from_secs(1800);

/// How long tracers may take to write their last lines.
const PATIENCE: Duration = Duration::from_secs(10);

/// Hold the tables of system calls against what daemons do in all tests and guests
#[derive(Debug, clap::Args)]
pub struct Args {
    /// This device only; may be given several times. What all daemons have in common is then not looked at
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<ExitCode> {
    packages::require(&[Package::program("strace", "strace")])?;
    prepare_build()?;
    let workspace = Workspace::load()?;
    let devices = chosen(&args.device)?;
    let mut common = Finding::default();
    let mut faults = Vec::new();
    for device in &devices {
        let progress = Progress::start(format!("system calls of {}", device.name));
        let finding = observe(&workspace, device)?;
        progress.done(&finding.summary());
        faults.extend(finding.faults(device.name));
        common.add(finding);
    }
    if devices.len() == DEVICES.len() {
        faults.extend(common.unused_by_all());
    }
    for fault in &faults {
        eprintln!("FAILED {fault}");
    }
    Ok(match faults.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn chosen(names: &[String]) -> Result<Vec<&'static Device>> {
    if names.is_empty() {
        return Ok(DEVICES.iter().collect());
    }
    let find = |name: &String| {
        Device::find(name).with_context(|| format!("there is no device called {name}"))
    };
    names.iter().map(find).collect()
}

/// Runs all that uses a device, with its daemons under the tracer.
fn observe(workspace: &Workspace, device: &'static Device) -> Result<Finding> {
    let folder = Folder::new("syscalls")?;
    let log = workspace.log(&format!("syscalls-{}", device.name))?;
    let mut command = cargo(LIMIT);
    command
        .current_dir(&workspace.root)
        .args(["test", "--locked", "--no-fail-fast", "--tests"])
        .args(["--package", &device.binary()])
        .env(TRACE, folder.path());
    let status = status_logged(&mut command, &log)?;
    if !status.success() {
        // A forbidden call is told below; anything else, here and in guests, may be the tracer's slowness, and is not this
        // verb's business.
        eprintln!("the tests of {} {}", device.name, describe(status));
    }
    if let Err(error) = tracing::with(folder.path(), || guests::of_device(workspace, device)) {
        eprintln!("the guests with {}: {error:#}", device.name);
    }
    Finding::of(&settled(folder.path())?)
}

/// The traces, once the tracers are done with them.
fn settled(folder: &Path) -> Result<Vec<String>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut texts = Vec::new();
        for entry in fs::read_dir(folder)? {
            texts.push(String::from_utf8_lossy(&fs::read(entry?.path())?).into_owned());
        }
        if texts.is_empty() {
            bail!("no daemon was traced");
        }
        if texts.iter().all(|text| trace::is_complete(text)) || Instant::now() > deadline {
            return Ok(texts);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

type Names = BTreeSet<String>;

/// What was seen of one daemon, over all its processes.
#[derive(Debug, Default)]
struct Finding {
    processes: usize,
    /// What is in the tables, by the group that it is in.
    tables: BTreeMap<String, Names>,
    called: Names,
    /// Calls that were not in their own process's table.
    missing: Names,
}

/// The group that all daemons have in common, and must use among them.
const SERVING: &str = "serving";
/// The group that a device adds.
const DEVICE: &str = "of the device";

impl Finding {
    fn of(texts: &[String]) -> Result<Self> {
        let mut finding = Self::default();
        for text in texts {
            if let Some(trace) = Trace::read(text) {
                finding.add_process(trace);
            }
        }
        if finding.processes == 0 {
            bail!("no daemon told its tables");
        }
        Ok(finding)
    }

    fn add_process(&mut self, trace: Trace) {
        self.processes += 1;
        let is_known = |name: &&String| trace.tables.values().any(|names| names.contains(*name));
        self.missing
            .extend(trace.called.iter().filter(|name| !is_known(name)).cloned());
        self.called.extend(trace.called);
        for (group, names) in trace.tables {
            self.tables.entry(group).or_default().extend(names);
        }
    }

    fn add(&mut self, other: Self) {
        self.called.extend(other.called);
        for (group, names) in other.tables {
            self.tables.entry(group).or_default().extend(names);
        }
    }

    fn unused(&self, group: &str) -> Vec<&str> {
        let names = self.tables.get(group).into_iter().flatten();
        names
            .filter(|name| !self.called.contains(*name))
            .map(String::as_str)
            .collect()
    }

    fn faults(&self, device: &str) -> Vec<String> {
        let missing = self
            .missing
            .iter()
            .map(|name| format!("{device}: {name} is called and not in the table"));
        let unused = self.unused(DEVICE).into_iter();
        let unused = unused
            .map(|name| format!("{device}: {name} is in the device's table and never called"));
        missing.chain(unused).collect()
    }

    fn unused_by_all(&self) -> Vec<String> {
        let unused = self.unused(SERVING).into_iter();
        unused
            .filter(|name| !ELSEWHERE.contains(name))
            .map(|name| format!("{name} is in the serving set and never called"))
            .collect()
    }

    fn summary(&self) -> String {
        let count = |group| self.tables.get(group).map_or(0, BTreeSet::len);
        format!(
            "{} processes, {} calls serving, {} of the device",
            self.processes,
            count(SERVING),
            count(DEVICE)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(serving: &str, device: &str, called: &str) -> Trace {
        let names = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        Trace {
            tables: [
                (SERVING.to_owned(), names(serving)),
                (DEVICE.to_owned(), names(device)),
            ]
            .into(),
            called: names(called),
        }
    }

    #[test]
    fn a_call_that_its_own_table_lacks_is_missing_and_an_entry_that_nobody_calls_unused() {
        let mut finding = Finding::default();
        finding.add_process(process("read write clock_gettime", "ioctl", "read ioctl"));
        finding.add_process(process("read write", "poll", "read ioctl"));
        assert_eq!(
            finding.faults("x"),
            [
                "x: ioctl is called and not in the table",
                "x: poll is in the device's table and never called"
            ]
        );
        assert_eq!(
            finding.unused_by_all(),
            ["write is in the serving set and never called"]
        );
    }
}
