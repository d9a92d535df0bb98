//! What a daemon has given up once it serves: S1, S2.

use std::fs;

use crate::conformance::Outcome;
use crate::failure::{At, Result};
use crate::stand::{Stand, launch};
use crate::stats::Stats;
use crate::subject::Subject;
use crate::sys::Pid;
use crate::{ensure, fail};

/// What the kernel says of every thread of a confined process.
const CONFINED: &[(&str, &str)] = &[
    ("NoNewPrivs:", "1"),
    ("Seccomp:", "2"),
    ("CapInh:", "0000000000000000"),
    ("CapPrm:", "0000000000000000"),
    ("CapEff:", "0000000000000000"),
    ("CapBnd:", "0000000000000000"),
    ("CapAmb:", "0000000000000000"),
];

/// S1: no privileges, no system calls but those of the table, no core, no thread left out, nor the process that watches over
/// the daemon, which holds nothing of it.
pub fn confined(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    stand.probe(&mut session)?;
    ensure!(
        told(&stand) == 1,
        "{} lines of the log tell what was obtained",
        told(&stand)
    );
    let (serving, started) = (stand.daemon.pid(), stand.daemon.started());
    let log = stand.daemon.log();
    ensure!(
        log.contains(", pid)") == (serving != started),
        "process {serving}, started as {started}: {log}"
    );
    let has_empty_root = log.contains("an empty root");
    shut_off(serving, has_empty_root).at("the process that serves")?;
    if started != serving {
        shut_off(started, has_empty_root).at("its parent")?;
        let stats = Stats::of(started)?;
        ensure!(
            (stats.descriptors, stats.threads, stats.guest_mappings) == (0, 1, 0),
            "its parent: {stats:?}"
        );
    }
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

/// One process.
fn shut_off(process: Pid, has_empty_root: bool) -> Result<()> {
    let process = format!("/proc/{process}");
    for thread in fs::read_dir(format!("{process}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        has(&status, CONFINED)?;
    }
    let limits = fs::read_to_string(format!("{process}/limits"))?;
    let core = limits.lines().find(|line| line.starts_with("Max core"));
    let core: Vec<_> = core.unwrap_or_default().split_whitespace().collect();
    ensure!(core.get(4..6) == Some(&["0", "0"]), "core files: {core:?}");
    if has_empty_root {
        let seen = fs::read_dir(format!("{process}/root"))?.count();
        // What is named lies below one or two folders at most, such as /tmp and /dev.
        ensure!(seen <= 4, "{seen} entries are in the root folder");
    }
    Ok(())
}

fn told(stand: &Stand<'_>) -> usize {
    let log = stand.daemon.log();
    log.lines()
        .filter(|line| line.contains(" confined: "))
        .count()
}

fn has(status: &str, fields: &[(&str, &str)]) -> Result<()> {
    for (name, expected) in fields {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        let Some(value) = value else {
            fail!("the kernel does not tell {name}");
        };
        let value = value.trim();
        ensure!(
            value == *expected,
            "{name} is {value} instead of {expected}"
        );
    }
    Ok(())
}

/// S2: every level of confinement serves.
pub fn levels(subject: &dyn Subject) -> Result<Outcome> {
    for (options, expected) in [
        (&["--sandbox", "landlock"][..], CONFINED),
        (&["--sandbox", "landlock", "--seccomp", "log"], CONFINED),
        (
            &["--sandbox", "none", "--seccomp", "none"],
            &[("NoNewPrivs:", "0"), ("Seccomp:", "0")],
        ),
    ] {
        served(subject, options, expected).at(options.join(" "))?;
    }
    Ok(Outcome::Pass)
}

fn served(subject: &dyn Subject, options: &[&str], expected: &[(&str, &str)]) -> Result<()> {
    let launch = launch(subject)?.arguments(options.iter().copied());
    let stand = Stand::start_by(subject, launch)?;
    let mut session = stand.session()?;
    stand.probe(&mut session)?;
    let status = fs::read_to_string(format!("/proc/{}/status", stand.daemon.pid()))?;
    has(&status, expected)?;
    drop(session);
    stand.close()
}
