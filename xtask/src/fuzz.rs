//! `cargo xtask fuzz`: arbitrary bytes into the ring walk, the request reader and whole devices.
//!
//! The targets lie in `fuzz/`, a workspace of its own: they need a nightly compiler and cargo-fuzz. What a target has learnt
//! stays in `fuzz/corpus/`, which git ignores; the committed `fuzz/seeds/` are a small part of it, and every finding.

mod outcome;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use self::outcome::Outcome;
use crate::process::{bounded, capture, describe, run_logged, status_logged, tail_of};
use crate::progress::Progress;
use crate::workspace::{Workspace, fresh_log};

/// Longest time for building all targets.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);
/// Longest time for questions to cargo-fuzz.
const ASK_LIMIT: Duration = Duration::from_secs(60);
/// What a run may take beyond the time that it was given: a source file may have changed since all was built.
const MARGIN: Duration = Duration::from_secs(900);

/// Longest input in bytes; guest memory of the targets is hardly larger.
const MAX_LENGTH: usize = 4096;
/// Longest time for one input in seconds. They take a millisecond, but it is the clock on the wall that is looked at, and a
/// fuzzer at the lowest priority may have to wait for a minute.
const INPUT_LIMIT: u64 = 120;
/// Most memory in MiB.
const MEMORY_LIMIT: u64 = 2048;

/// A seed larger than this is not kept, and no more than so many bytes for each target.
const SEED_BYTES: u64 = 1024;
const SEEDS_BYTES: u64 = 16 * 1024;

/// Run the fuzz targets one after the other and print what they found
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Targets to run [default: all of them]
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 600)]
    seconds: u64,
    /// Build with this sanitizer; without one if it does not work here
    #[arg(long, value_name = "NAME", default_value = "address")]
    sanitizer: String,
    /// Afterwards, choose the committed seeds anew from all that was learnt
    #[arg(long)]
    reseed: bool,
}

/// Runs the verb in the workspace of the current folder.
pub fn run(args: &Args) -> Result<ExitCode> {
    let fuzz = Fuzz::new(args)?;
    let targets = fuzz.choose(&args.targets)?;
    let mut outcomes = Vec::new();
    for target in &targets {
        outcomes.push(fuzz.run(target, args.seconds)?);
        if args.reseed {
            fuzz.reseed(target)?;
        }
    }
    outcome::print(&outcomes);
    for finding in outcomes.iter().flat_map(|outcome| &outcome.findings) {
        println!("finding kept as {}", finding.display());
    }
    Ok(if outcomes.iter().all(Outcome::is_clean) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The fuzz workspace, with its targets built.
struct Fuzz {
    workspace: Workspace,
    sanitizer: String,
}

impl Fuzz {
    fn new(args: &Args) -> Result<Self> {
        let workspace = Workspace::load()?;
        require_tools()?;
        let mut fuzz = Self {
            workspace,
            sanitizer: args.sanitizer.clone(),
        };
        fuzz.build()?;
        Ok(fuzz)
    }

    fn folder(&self) -> PathBuf {
        self.workspace.root.join("fuzz")
    }

    fn build(&mut self) -> Result<()> {
        let progress = Progress::start("building the fuzz targets");
        let log = self.workspace.log("fuzz-build")?;
        let first = run_logged(&mut self.command(BUILD_LIMIT, "build"), &log);
        if let Err(error) = first {
            if self.sanitizer == "none" {
                return Err(error);
            }
            eprintln!("the {} sanitizer does not work here", self.sanitizer);
            self.sanitizer = "none".to_owned();
            run_logged(&mut self.command(BUILD_LIMIT, "build"), &log)?;
        }
        progress.done(&format!("ok, sanitizer: {}", self.sanitizer));
        Ok(())
    }

    /// `cargo fuzz VERB` on our folder.
    fn command(&self, limit: Duration, verb: &str) -> Command {
        let mut command = cargo_fuzz(limit);
        command
            .current_dir(&self.workspace.root)
            .args([verb, "--fuzz-dir", "fuzz"]);
        if verb != "list" {
            command.args(["--sanitizer", &self.sanitizer]);
        }
        command
    }

    /// The targets asked for, or all.
    fn choose(&self, wanted: &[String]) -> Result<Vec<String>> {
        let all = capture(&mut self.command(ASK_LIMIT, "list"))?;
        let all: Vec<String> = all.lines().map(str::to_owned).collect();
        for name in wanted {
            ensure!(
                all.contains(name),
                "there is no fuzz target {name}, only {}",
                all.join(", ")
            );
        }
        Ok(if wanted.is_empty() {
            all
        } else {
            wanted.to_vec()
        })
    }

    fn run(&self, target: &str, seconds: u64) -> Result<Outcome> {
        let [corpus, seeds, artifacts] =
            ["corpus", "seeds", "artifacts"].map(|kind| self.folder().join(kind).join(target));
        for folder in [&corpus, &seeds, &artifacts] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let known = files(&artifacts)?;
        let progress = Progress::start(format!("fuzzing {target} for {seconds} s"));
        let log = self.workspace.log(&format!("fuzz-{target}"))?;
        let mut command = self.command(Duration::from_secs(seconds) + MARGIN, "run");
        command.arg(target).args([&corpus, &seeds]).arg("--").args([
            format!("-max_total_time={seconds}"),
            format!("-timeout={INPUT_LIMIT}"),
            format!("-rss_limit_mb={MEMORY_LIMIT}"),
            format!("-max_len={MAX_LENGTH}"),
            "-print_final_stats=1".to_owned(),
        ]);
        let status = status_logged(&mut command, &log)?;
        let found = files(&artifacts)?
            .into_iter()
            .filter(|file| !known.contains(file));
        let findings = keep(found, &seeds)?;
        if !status.success() && findings.is_empty() {
            bail!(
                "{target} {}; its output ends:\n{}",
                describe(status),
                tail_of(&log)
            );
        }
        let outcome = Outcome::read(target, &log, findings)?;
        progress.done(outcome.verdict());
        Ok(outcome)
    }

    /// Merges what was learnt into the smallest set that reaches as much, and keeps its smallest members as seeds.
    fn reseed(&self, target: &str) -> Result<()> {
        let log = self.workspace.target.join("xtask/fuzz-cmin.log");
        fresh_log(&log)?;
        let mut command = self.command(BUILD_LIMIT, "cmin");
        run_logged(command.arg(target), &log)?;
        let seeds = self.folder().join("seeds").join(target);
        let corpus = files(&self.folder().join("corpus").join(target))?;
        for old in files(&seeds)?.iter().filter(|file| !is_finding(file)) {
            fs::remove_file(old)?;
        }
        for file in smallest(corpus)? {
            copy_into(&file, &seeds)?;
        }
        Ok(())
    }
}

/// cargo-fuzz under the nightly compiler, whichever one runs us.
fn cargo_fuzz(limit: Duration) -> Command {
    let mut command = bounded("rustup", limit);
    command
        .args(["run", "nightly", "cargo", "fuzz"])
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN");
    command
}

fn require_tools() -> Result<()> {
    let mut version = cargo_fuzz(ASK_LIMIT);
    capture(version.arg("--version")).map(drop).context(
        "fuzzing needs a nightly compiler and cargo-fuzz: \
         rustup toolchain install nightly --profile minimal && cargo install --locked cargo-fuzz",
    )
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

/// Findings are called by libFuzzer after what happened; seeds chosen by us by their hash alone.
fn is_finding(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.contains('-')
}

/// Copies findings into the seeds, so that every later run begins with them.
fn keep(found: impl Iterator<Item = PathBuf>, seeds: &Path) -> Result<Vec<PathBuf>> {
    found.map(|file| copy_into(&file, seeds)).collect()
}

fn copy_into(file: &Path, folder: &Path) -> Result<PathBuf> {
    let to = folder.join(file.file_name().unwrap_or_default());
    fs::copy(file, &to).with_context(|| format!("cannot copy to {}", to.display()))?;
    Ok(to)
}

/// As many of the files as may be kept as seeds, the smallest first: they are the ones that tell most per byte.
fn smallest(files: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let mut sized = Vec::new();
    for file in files {
        sized.push((fs::metadata(&file)?.len(), file));
    }
    sized.sort();
    let mut left = SEEDS_BYTES;
    let fitting = sized.into_iter().take_while(|(size, _)| {
        let fits = *size <= left.min(SEED_BYTES);
        left = left.saturating_sub(*size);
        fits
    });
    Ok(fitting.map(|(_, file)| file).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::Folder;

    #[test]
    fn the_smallest_files_become_seeds_until_there_are_enough() {
        let folder = Folder::new("fuzz").unwrap();
        for (name, size) in [("c", SEED_BYTES), ("a", 3), ("d", SEED_BYTES + 1), ("b", 5)] {
            fs::write(folder.path().join(name), vec![0; size as usize]).unwrap();
        }
        let names = |files: Vec<PathBuf>| -> Vec<String> {
            files
                .iter()
                .map(|file| file.file_name().unwrap().to_string_lossy().into_owned())
                .collect()
        };
        let kept = smallest(files(folder.path()).unwrap()).unwrap();
        assert_eq!(names(kept), ["a", "b", "c"]);
        for i in 0..40 {
            fs::write(folder.path().join(format!("more{i}")), vec![0; 1000]).unwrap();
        }
        let kept = smallest(files(folder.path()).unwrap()).unwrap();
        assert_eq!(kept.len(), 2 + 16);
    }

    #[test]
    fn a_finding_is_told_from_a_seed_by_its_name() {
        assert!(is_finding(Path::new("seeds/x/crash-0123abcd")));
        assert!(is_finding(Path::new("timeout-0123abcd")));
        assert!(!is_finding(Path::new("seeds/ring-walk/0123abcd")));
    }
}
