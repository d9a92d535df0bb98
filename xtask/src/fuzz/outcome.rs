//! What a run of a target tells, read from libFuzzer's output.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One run of one target.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    target: String,
    /// Inputs run.
    executions: u64,
    /// Code edges reached, and features: edges with how often they were taken.
    edges: u64,
    features: u64,
    /// Inputs in the corpus.
    corpus: u64,
    /// Seconds that the slowest input took.
    slowest: u64,
    /// Most memory used, in MiB.
    memory: u64,
    /// Inputs that made the target fail, as kept.
    pub findings: Vec<PathBuf>,
}

impl Outcome {
    /// Reads the log of a run.
    pub fn read(target: &str, log: &Path, findings: Vec<PathBuf>) -> Result<Self> {
        let bytes = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
        Ok(Self::parse(
            target,
            &String::from_utf8_lossy(&bytes),
            findings,
        ))
    }

    fn parse(target: &str, text: &str, findings: Vec<PathBuf>) -> Self {
        // the last line of progress, which a failure does not cut off
        let progress = text
            .lines()
            .rev()
            .find(|line| line.contains(" cov: "))
            .unwrap_or_default();
        let statistic = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
            line.map_or(0, |rest| number(rest.trim_start_matches(':')))
        };
        Self {
            target: target.to_owned(),
            executions: statistic("number_of_executed_units"),
            edges: field(progress, "cov:"),
            features: field(progress, "ft:"),
            corpus: field(progress, "corp:"),
            slowest: statistic("slowest_unit_time_sec"),
            memory: statistic("peak_rss_mb"),
            findings,
        }
    }

    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// In words.
    pub fn verdict(&self) -> &'static str {
        if self.is_clean() {
            "nothing found"
        } else {
            "FAILED"
        }
    }
}

/// The number behind `name` in a line of progress, for example `cov: 960 ft: 5484 corp: 414/89Kb`.
fn field(line: &str, name: &str) -> u64 {
    line.split_once(name).map_or(0, |(_, rest)| number(rest))
}

/// The number at the beginning of `text`.
fn number(text: &str) -> u64 {
    let text = text.trim_start();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().unwrap_or(0)
}

/// Prints all runs as a table.
pub fn print(outcomes: &[Outcome]) {
    println!(
        "{:<16} {:>12} {:>7} {:>9} {:>7} {:>10} {:>11} {:>9}",
        "target",
        "executions",
        "edges",
        "features",
        "corpus",
        "slowest s",
        "memory MiB",
        "findings"
    );
    for outcome in outcomes {
        println!(
            "{:<16} {:>12} {:>7} {:>9} {:>7} {:>10} {:>11} {:>9}",
            outcome.target,
            outcome.executions,
            outcome.edges,
            outcome.features,
            outcome.corpus,
            outcome.slowest,
            outcome.memory,
            outcome.findings.len()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read_from_its_last_progress_and_its_statistics() {
        let text = "\
#381\tINITED cov: 916 ft: 4400 corp: 216/13098b exec/s: 190 rss: 254Mb
#18095\tDONE   cov: 960 ft: 5484 corp: 414/89Kb lim: 596 exec/s: 861 rss: 409Mb
###### Recommended dictionary. ######
Done 18095 runs in 21 second(s)
stat::number_of_executed_units: 18095
stat::average_exec_per_sec:     861
stat::slowest_unit_time_sec:    2
stat::peak_rss_mb:              409
";
        let outcome = Outcome::parse("ring_walk", text, Vec::new());
        let expected = Outcome {
            target: "ring_walk".to_owned(),
            executions: 18095,
            edges: 960,
            features: 5484,
            corpus: 414,
            slowest: 2,
            memory: 409,
            findings: Vec::new(),
        };
        assert_eq!(outcome, expected);
        assert!(outcome.is_clean());
    }

    #[test]
    fn a_run_that_was_cut_off_has_no_statistics() {
        let outcome = Outcome::parse(
            "x",
            "#2 INITED cov: 7 ft: 8 corp: 1/1b",
            vec!["crash-1".into()],
        );
        assert_eq!(
            (outcome.executions, outcome.edges, outcome.features),
            (0, 7, 8)
        );
        assert_eq!(outcome.verdict(), "FAILED");
    }
}
