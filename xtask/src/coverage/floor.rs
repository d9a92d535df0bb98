//! The score that must not be lost, in a file at the top of the workspace.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::report::{Report, percent};

/// How much lower a score may be. A few lines are run by chance only: retries, time limits, events that come together.
const TOLERANCE: f64 = 0.5;

/// The least that each crate needs, whatever the others have.
const EACH: f64 = 60.0;

/// The file's content.
#[derive(Debug, Deserialize, Serialize)]
pub struct Floor {
    /// Lines run of all lines, in percent.
    pub coverage_score: f64,
    /// Folders that do not count, relative to the workspace, separated by commas.
    exclude_path: String,
    /// Cargo features that the tests are built with.
    pub crate_features: String,
}

impl Floor {
    /// Reads the file of this machine's architecture.
    pub fn load(root: &Path) -> Result<Self> {
        let path = path(root);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Writes it.
    pub fn store(&self, root: &Path) -> Result<()> {
        let path = path(root);
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The folders that do not count.
    pub fn excluded(&self) -> Vec<PathBuf> {
        let folders = self.exclude_path.split(',');
        folders
            .filter(|folder| !folder.is_empty())
            .map(PathBuf::from)
            .collect()
    }

    /// What is wrong with the coverage, one line each.
    pub fn complaints(&self, report: &Report) -> Vec<String> {
        let score = report.score();
        let mut complaints = Vec::new();
        if score < self.coverage_score - TOLERANCE {
            complaints.push(format!(
                "coverage fell from {} % to {score} %, by more than {TOLERANCE} points: add tests for what is new",
                self.coverage_score
            ));
        }
        for (name, lines) in report.crates() {
            let score = percent(lines);
            if score < EACH {
                complaints.push(format!("{name} has {score} %, every crate needs {EACH} %"));
            }
        }
        complaints
    }
}

fn path(root: &Path) -> PathBuf {
    root.join(format!("coverage_config_{ARCH}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate with 100 lines, of which `run` were run.
    fn report(run: u64) -> Report {
        let lines: String = (1..=100)
            .map(|line| format!("DA:{line},{}\n", u64::from(line <= run)))
            .collect();
        let lcov = format!("SF:/w/vhost-device-x/src/a.rs\n{lines}end_of_record\n");
        Report::new(Path::new("/w"), &lcov, &[]).unwrap()
    }

    fn complaints(floor: f64, run: u64) -> usize {
        let floor = Floor {
            coverage_score: floor,
            exclude_path: String::new(),
            crate_features: String::new(),
        };
        floor.complaints(&report(run)).len()
    }

    #[test]
    fn a_score_may_be_a_little_lower_than_the_floor_and_a_crate_needs_its_own() {
        assert_eq!(complaints(80.0, 80), 0);
        assert_eq!(complaints(80.4, 80), 0);
        assert_eq!(complaints(80.6, 80), 1);
        assert_eq!(complaints(0.0, 60), 0);
        assert_eq!(complaints(0.0, 59), 1);
        assert_eq!(complaints(80.0, 59), 2);
    }

    #[test]
    fn the_file_is_there_and_names_folders_that_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for folder in Floor::load(&root).unwrap().excluded() {
            assert!(root.join(&folder).is_dir(), "{}", folder.display());
        }
    }
}
