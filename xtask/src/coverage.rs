//! `cargo xtask coverage`: which lines the tests run, per crate, against the score that must not be lost.
//!
//! The tests start daemons as processes of their own; what those run counts too. The compiler's own instrumentation
//! counts, LLVM's tools add up. The code of the tests themselves is left out.

mod floor;
mod report;
mod tools;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use self::floor::Floor;
use self::report::Report;
use self::tools::Tools;
use crate::process::{capture, describe, run_logged, status_logged, tail_of};
use crate::progress::Progress;
use crate::test::tally::Tally;
use crate::workspace::{Workspace, cargo};

/// Longest time for building or running all tests.
const LIMIT: Duration = Duration::from_secs(3600);

/// Measure the line coverage of the tests
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write the measured score down as the one that must not be lost
    #[arg(long)]
    update: bool,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let tools = Tools::find()?;
    let mut floor = Floor::load(&workspace.root)?;
    let run = Run::new(&workspace, &floor.crate_features)?;
    let objects = run.build()?;
    run.test()?;
    let lines = run.lines(&tools, &objects)?;
    let report = Report::new(&workspace.root, &lines, &floor.excluded())?;
    print!("{report}");
    if args.update {
        floor.coverage_score = report.score();
        floor.store(&workspace.root)?;
    }
    let complaints = floor.complaints(&report);
    for complaint in &complaints {
        println!("{complaint}");
    }
    Ok(if complaints.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One run of the tests, in a target folder of its own.
struct Run<'a> {
    workspace: &'a Workspace,
    target: PathBuf,
    /// Where programs leave what they counted.
    counts: PathBuf,
    features: &'a str,
}

impl<'a> Run<'a> {
    fn new(workspace: &'a Workspace, features: &'a str) -> Result<Self> {
        let target = workspace.target.join("coverage");
        let counts = target.join("counts");
        if counts.exists() {
            fs::remove_dir_all(&counts)
                .with_context(|| format!("cannot remove {}", counts.display()))?;
        }
        fs::create_dir_all(&counts)
            .with_context(|| format!("cannot create {}", counts.display()))?;
        Ok(Self {
            workspace,
            target,
            counts,
            features,
        })
    }

    /// Builds all tests, binaries and examples; the programs that came of it.
    fn build(&self) -> Result<BTreeSet<PathBuf>> {
        let progress = Progress::start("building the tests with counters");
        let mut command = self.cargo_test("ignored");
        let messages = capture(command.args(["--no-run", "--message-format", "json"]))?;
        progress.done("ok");
        messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Message>(line).ok()?.executable)
            .map(|path| {
                ensure!(path.exists(), "{} was not built", path.display());
                Ok(path)
            })
            .collect()
    }

    /// Runs the tests. Whether they pass is another verb's question: counters slow them down.
    fn test(&self) -> Result<()> {
        let progress = Progress::start("running the tests");
        let log = self.workspace.log("coverage")?;
        let mut command = self.cargo_test("%4m%c");
        let status = status_logged(command.args(["--tests", "--no-fail-fast"]), &log)?;
        let output = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let tally = Tally::from_cargo_test(&String::from_utf8_lossy(&output));
        ensure!(
            status.success() || tally.failed > 0,
            "cargo test {}; see {}, which ends:\n{}",
            describe(status),
            log.display(),
            tail_of(&log)
        );
        progress.done(&tally.counts());
        for failure in &tally.failures {
            eprintln!("failed, and so perhaps not counted in full: {failure}");
        }
        Ok(())
    }

    /// How often each line was run, in the format of lcov.
    fn lines(&self, tools: &Tools, objects: &BTreeSet<PathBuf>) -> Result<String> {
        let progress = Progress::start_if_long("adding up");
        let counts = fs::read_dir(&self.counts)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        let counts = counts.iter().filter(|path| is_count(path));
        let merged = self.target.join("merged.profdata");
        let mut merge = tools.profdata();
        merge.args(["merge", "--sparse", "--failure-mode=all", "--output"]);
        let log = self.workspace.log("coverage-merge")?;
        run_logged(merge.arg(&merged).args(counts), &log)
            .context("the counts cannot be added up; `rustup component add llvm-tools` brings the tools that fit")?;
        let mut export = tools.cov();
        export.args(["export", "--format=lcov", "--skip-functions"]);
        export.args(["--ignore-filename-regex", "/(rustc|registry)/"]);
        export.arg(format!("--instr-profile={}", merged.display()));
        for object in objects {
            export.arg("--object").arg(object);
        }
        let lines = capture(&mut export)?;
        progress.done("ok");
        Ok(lines)
    }

    /// `cargo test` with counters; each program writes to a file of this name, several runs add up in one.
    fn cargo_test(&self, counts: &str) -> Command {
        let mut command = cargo(LIMIT);
        command
            .current_dir(&self.workspace.root)
            .args(["test", "--workspace", "--locked"])
            .args(["--exclude", "xtask", "--features", self.features])
            .env("CARGO_TARGET_DIR", &self.target)
            .env("RUSTFLAGS", FLAGS)
            .env(
                "LLVM_PROFILE_FILE",
                self.counts.join(counts).with_extension(COUNTS),
            );
        command
    }
}

/// Counters lie in the file itself, mapped when the program starts (`%c` in its name): a confined daemon could neither open
/// nor write a file when it ends, and one that is killed counts as well.
const FLAGS: &str = "-C instrument-coverage -C llvm-args=-runtime-counter-relocation";

/// How the files with counts end.
const COUNTS: &str = "profraw";

/// Build scripts and macros of the compiler count as well, in a file that is not wanted.
fn is_count(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == COUNTS)
        && path.file_stem().is_some_and(|stem| stem != "ignored")
}

/// What matters of a message of cargo's.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}
