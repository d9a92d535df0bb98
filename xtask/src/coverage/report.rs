//! Lines run and not run, per crate.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Lines of code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// That the tests ran.
    pub run: u64,
    /// All.
    pub all: u64,
}

impl AddAssign for Lines {
    fn add_assign(&mut self, other: Self) {
        self.run += other.run;
        self.all += other.all;
    }
}

/// Lines run of all lines, in percent with one digit.
pub fn percent(lines: Lines) -> f64 {
    if lines.all == 0 {
        return 100.0;
    }
    (lines.run as f64 * 1000.0 / lines.all as f64).round() / 10.0
}

/// The coverage of each crate of the workspace at `root`.
#[derive(Debug)]
pub struct Report {
    crates: BTreeMap<String, Lines>,
}

impl Report {
    /// Reads lines in the format of lcov, without those in `excluded` folders and those of tests.
    pub fn new(root: &Path, lcov: &str, excluded: &[PathBuf]) -> Result<Self> {
        let mut crates: BTreeMap<String, Lines> = BTreeMap::new();
        for record in lcov.split("end_of_record") {
            let Some(file) = record.lines().find_map(|line| line.strip_prefix("SF:")) else {
                continue;
            };
            let Some(source) = Source::of(root, Path::new(file), excluded) else {
                continue;
            };
            let lines = source.count(record)?;
            *crates.entry(source.package).or_default() += lines;
        }
        ensure!(!crates.is_empty(), "no line of the workspace was counted");
        Ok(Self { crates })
    }

    /// All crates, by name.
    pub fn crates(&self) -> impl Iterator<Item = (&str, Lines)> {
        self.crates
            .iter()
            .map(|(name, lines)| (name.as_str(), *lines))
    }

    /// All of them together.
    pub fn total(&self) -> Lines {
        let mut total = Lines::default();
        self.crates.values().for_each(|lines| total += *lines);
        total
    }

    /// Lines run of all lines, in percent.
    pub fn score(&self) -> f64 {
        percent(self.total())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<28} {:>7} {:>7} {:>7}", "crate", "lines", "run", "%")?;
        for (name, lines) in self.crates().chain([("total", self.total())]) {
            let Lines { run, all } = lines;
            writeln!(f, "{name:<28} {all:>7} {run:>7} {:>7.1}", percent(lines))?;
        }
        Ok(())
    }
}

/// A file of a crate's own code.
struct Source {
    path: PathBuf,
    package: String,
}

impl Source {
    /// The file, unless it is another's, excluded, or a test's.
    fn of(root: &Path, path: &Path, excluded: &[PathBuf]) -> Option<Self> {
        let inside = path.strip_prefix(root).ok()?;
        let mut parts = inside.iter().map(|part| part.to_string_lossy());
        let package = parts.next()?.into_owned();
        let is_code =
            parts.next()? == "src" && parts.all(|part| !["tests", "tests.rs"].contains(&&*part));
        let is_wanted = excluded.iter().all(|folder| !inside.starts_with(folder));
        (is_code && is_wanted).then(|| Self {
            path: path.to_owned(),
            package,
        })
    }

    fn count(&self, record: &str) -> Result<Lines> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let tests = test_lines(&text);
        let mut lines = Lines::default();
        for entry in record.lines().filter_map(|line| line.strip_prefix("DA:")) {
            let (number, count) = numbers(entry).with_context(|| format!("no count: {entry}"))?;
            if !tests.iter().any(|range| range.contains(&number)) {
                lines += Lines {
                    run: u64::from(count > 0),
                    all: 1,
                };
            }
        }
        Ok(lines)
    }
}

fn numbers(entry: &str) -> Option<(usize, u64)> {
    let (number, count) = entry.split_once(',')?;
    Some((number.parse().ok()?, count.parse().ok()?))
}

/// The lines, from 1, of modules that are there for tests only. rustfmt puts the end of such a module at the margin.
fn test_lines(text: &str) -> Vec<std::ops::RangeInclusive<usize>> {
    let lines: Vec<&str> = text.lines().collect();
    let mut ranges = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let opens = lines.get(at + 1).is_some_and(|next| next.ends_with('{'));
        if *line == "#[cfg(test)]" && opens {
            let length = lines.iter().skip(at).position(|line| *line == "}");
            ranges.push(at + 1..=at + 1 + length.unwrap_or(lines.len()));
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::Folder;

    #[test]
    fn lines_are_counted_per_crate_without_tests_and_excluded_folders() {
        let folder = Folder::new("coverage").unwrap();
        let root = folder.path();
        let source = root.join("vhost-device-x/src");
        fs::create_dir_all(&source).unwrap();
        let text = "fn a() {\n}\n#[cfg(test)]\nmod tests {\n    fn t() {}\n}\nfn b() {\n}\n";
        fs::write(source.join("a.rs"), text).unwrap();
        let record = |file: &str, lines: &str| {
            format!("SF:{}/{file}\n{lines}end_of_record\n", root.display())
        };
        let lcov = [
            record(
                "vhost-device-x/src/a.rs",
                "DA:1,3\nDA:2,3\nDA:5,1\nDA:7,0\nDA:8,0\n",
            ),
            record("vhost-device-x/src/cli/tests.rs", "DA:1,1\n"),
            record("vhost-device-x/tests/cli.rs", "DA:1,1\n"),
            record("vhost-device-kit/src/a.rs", "DA:1,1\n"),
            record("vhost-device-y/src/a.rs", "DA:1,1\n"),
            "SF:/elsewhere/vhost-device-y/src/b.rs\nDA:1,1\nend_of_record\n".to_owned(),
        ];
        let report = Report::new(root, &lcov.concat(), &["vhost-device-kit".into()]).unwrap();
        let crates: Vec<(&str, Lines)> = report.crates().collect();
        let lines = |run, all| Lines { run, all };
        assert_eq!(
            crates,
            [
                ("vhost-device-x", lines(2, 4)),
                ("vhost-device-y", lines(1, 1))
            ]
        );
        assert_eq!(report.score(), 60.0);
    }

    #[test]
    fn nothing_counted_is_an_error_and_a_count_that_is_none_too() {
        let root = Path::new("/w");
        assert!(Report::new(root, "", &[]).is_err());
        let broken = "SF:/w/vhost-device-x/src/a.rs\nDA:1\nend_of_record\n";
        assert!(Report::new(root, broken, &[]).is_err());
    }
}
