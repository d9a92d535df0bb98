//! The records that conformance tests leave: one JSON object a line, one file per device.
//!
//! Cases that the library under our engine makes impossible to meet pass as "known limits": they are run, and told
//! apart here.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::workspace::Workspace;

const PREFIX: &str = "conformance-";

/// One case of the catalogue, as a test wrote it down.
#[derive(Debug, Deserialize)]
struct Record {
    case: String,
    title: String,
    outcome: Outcome,
    #[serde(default)]
    reason: String,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Pass,
    NotApplicable,
    KnownLimit,
}

/// Deletes the records of earlier runs.
pub fn forget(workspace: &Workspace) -> Result<()> {
    for path in files(&folder(workspace)) {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Deletes the records of one device.
pub fn forget_device(workspace: &Workspace, device: &str) -> Result<()> {
    let path = folder(workspace).join(format!("{PREFIX}{device}.jsonl"));
    if path.exists() {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// A line per device, and one per known limit with its reason.
pub fn notes(workspace: &Workspace) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for path in files(&folder(workspace)) {
        let text = fs::read_to_string(&path)?;
        notes.extend(describe(device(&path), &text).with_context(|| path.display().to_string())?);
    }
    Ok(notes)
}

/// Cargo's `CARGO_TARGET_TMPDIR`.
fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("tmp")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "jsonl")
        })
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
        })
        .collect();
    files.sort();
    files
}

fn device(path: &Path) -> &str {
    let stem = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    stem.trim_start_matches(PREFIX)
}

fn describe(device: &str, text: &str) -> Result<Vec<String>> {
    let mut records = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let record: Record =
            serde_json::from_str(line).with_context(|| format!("no record: {line}"))?;
        records.push(record);
    }
    let limits: Vec<&Record> = records
        .iter()
        .filter(|record| record.outcome == Outcome::KnownLimit)
        .collect();
    if let Some(silent) = limits.iter().find(|record| record.reason.is_empty()) {
        bail!("the known limit {} has no reason", silent.case);
    }
    let count = |outcome| records.iter().filter(|one| one.outcome == outcome).count();
    let passed = count(Outcome::Pass);
    let not_applicable = match count(Outcome::NotApplicable) {
        0 => String::new(),
        many => format!("{many} not applicable, "),
    };
    let count = match limits.len() {
        1 => "1 known limit".to_owned(),
        many => format!("{many} known limits"),
    };
    let mut notes = vec![format!(
        "conformance {device}: {passed} cases passed, {not_applicable}{count} of the engine"
    )];
    for Record {
        case,
        title,
        reason,
        ..
    } in limits
    {
        notes.push(format!("  known limit {case} ({title}): {reason}"));
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_limits_are_counted_apart_and_explained() {
        let text = r#"{"case":"C1","title":"connect and close","outcome":"pass"}
{"case":"C7","title":"surplus descriptors","outcome":"known-limit","reason":"the library drops them"}
{"case":"Q12","title":"wrong queue","outcome":"not-applicable","reason":"there is one queue"}
"#;
        assert_eq!(
            describe("rng", text).unwrap(),
            [
                "conformance rng: 1 cases passed, 1 not applicable, 1 known limit of the engine",
                "  known limit C7 (surplus descriptors): the library drops them",
            ]
        );
    }

    #[test]
    fn a_known_limit_without_a_reason_and_a_broken_record_are_refused() {
        let silent = r#"{"case":"C7","title":"t","outcome":"known-limit"}"#;
        assert!(describe("rng", silent).is_err());
        assert!(describe("rng", "half a rec").is_err());
    }

    #[test]
    fn the_device_is_named_by_the_file() {
        assert_eq!(device(Path::new("/t/tmp/conformance-rng.jsonl")), "rng");
    }
}
