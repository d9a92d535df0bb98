//! The licences of the crates that a program is made of: whoever passes the program on has to pass them on, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::process::capture;
use crate::workspace::{Workspace, cargo};

const LIMIT: Duration = Duration::from_secs(120);

/// How files with a licence are called, in whatever case, with whatever ending.
const NAMES: [&str; 4] = ["license", "licence", "copying", "notice"];

/// All crates that cargo knows for the workspace.
pub struct Crates(Vec<Crate>);

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    license: Option<String>,
    manifest_path: PathBuf,
    /// Where it is from; none for those of the workspace.
    source: Option<String>,
}

impl Crates {
    /// Asks cargo.
    pub fn of(workspace: &Workspace) -> Result<Self> {
        let mut command = cargo(LIMIT);
        command
            .current_dir(&workspace.root)
            .args(["metadata", "--format-version", "1"]);
        let text = capture(&mut command)?;
        let metadata: Metadata =
            serde_json::from_str(&text).context("cannot read the answer of cargo metadata")?;
        Ok(Self(metadata.packages))
    }

    /// The crates of others that are part of the program of a package, each with its licence, and below them the texts.
    pub fn notice(&self, workspace: &Workspace, package: &str) -> Result<String> {
        let mut command = cargo(LIMIT);
        command
            .current_dir(&workspace.root)
            .args(["tree", "--package", package])
            .args(["--edges", "normal,no-proc-macro", "--prefix", "none"])
            .args(["--format", "{p}"]);
        let linked = linked(&capture(&mut command)?);
        let others = self
            .0
            .iter()
            .filter(|one| one.source.is_some() && linked.contains(&one.title()));
        let mut list = String::new();
        let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for one in others {
            let licence = one.license.as_deref().unwrap_or("see below");
            // Writing to a string cannot fail.
            let _ = writeln!(list, "{}: {licence}", one.title());
            for text in one.texts()? {
                texts.entry(text).or_default().push(one.title());
            }
        }
        ensure!(!texts.is_empty(), "{package} is made of no crates");
        let mut notice = format!("Part of this program are these crates:\n\n{list}");
        for (text, crates) in &texts {
            let _ = write!(notice, "\n---- {} ----\n\n{text}", crates.join(", "));
        }
        Ok(notice)
    }
}

/// The names and versions in what `cargo tree` prints.
fn linked(tree: &str) -> BTreeSet<String> {
    tree.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(format!("{} {}", words.next()?, words.next()?))
        })
        .collect()
}

impl Crate {
    /// As `cargo tree` prints it.
    fn title(&self) -> String {
        format!("{} v{}", self.name, self.version)
    }

    /// The texts of its licences.
    fn texts(&self) -> Result<Vec<String>> {
        let folder = self.manifest_path.parent().unwrap_or(Path::new("."));
        let mut files: Vec<PathBuf> = fs::read_dir(folder)
            .with_context(|| format!("cannot list {}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_file() && is_licence(path))
            .collect();
        files.sort();
        let read = |path: PathBuf| {
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let text = String::from_utf8_lossy(&bytes);
            Ok(format!("{}\n", text.trim_matches('\n')))
        };
        files.into_iter().map(read).collect()
    }
}

fn is_licence(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_lowercase();
    NAMES.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_told_by_name_and_version() {
        let tree = "a v1.0.0 (/x)\nb v2.1.0\nb v2.1.0 (*)\n\n";
        let expected = ["a v1.0.0", "b v2.1.0"].map(str::to_owned);
        assert_eq!(linked(tree), BTreeSet::from(expected));
    }

    #[test]
    fn licences_are_told_by_the_names_of_their_files() {
        for name in ["LICENSE-MIT", "license.txt", "COPYING", "NOTICE", "LICENCE"] {
            assert!(is_licence(Path::new(name)), "{name}");
        }
        for name in ["README.md", "Cargo.toml", "src"] {
            assert!(!is_licence(Path::new(name)), "{name}");
        }
    }
}
