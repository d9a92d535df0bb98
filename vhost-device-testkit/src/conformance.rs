//! Runs the catalogue of [`faults`](crate::faults) against a device, one test per row.

use std::fs::OpenOptions;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::failure::{Failure, Result};
use crate::json::quote;
use crate::subject::Subject;

/// How a case went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The device does what the row asks for.
    Pass,
    /// The device has no such thing, for this reason.
    NotApplicable(&'static str),
}

/// One row of the catalogue.
#[derive(Debug)]
pub struct Case {
    /// Its number, such as `C7`.
    pub id: &'static str,
    /// What happens to the device.
    pub title: &'static str,
    /// Plays the row.
    pub run: fn(&dyn Subject) -> Result<Outcome>,
}

/// Cases that the engine under every daemon cannot pass, with the reason. They run all the same and must still fail:
/// a limit that is gone has to leave this list.
pub const KNOWN_LIMITS: &[(&str, &str)] = &[];

/// Runs one case against a device and notes the outcome in `directory`. Called by [`conformance!`](crate::conformance!).
///
/// # Panics
/// When the case fails, or when a known limit no longer is one.
pub fn check(subject: &dyn Subject, case: &Case, directory: &str) {
    let limit = KNOWN_LIMITS.iter().find(|(id, _)| *id == case.id);
    match verdict(played(subject, case), limit.map(|(_, reason)| *reason)) {
        Ok((outcome, reason)) => {
            let line = record(case, outcome, reason);
            note(subject.name(), &line, Path::new(directory));
        }
        Err(failure) => panic!("{} ({}): {failure}", case.id, case.title),
    }
}

/// The word for a case's outcome, and the reason for it. A known limit turns a case around: it must fail.
fn verdict(
    result: Result<Outcome>,
    limit: Option<&'static str>,
) -> Result<(&'static str, &'static str)> {
    match (result, limit) {
        (Ok(Outcome::NotApplicable(reason)), _) => Ok(("not-applicable", reason)),
        (Ok(Outcome::Pass), None) => Ok(("pass", "")),
        (Ok(Outcome::Pass), Some(_)) => Err(Failure::new(
            "passes, so it is no longer a known limit: remove it from the list",
        )),
        (Err(failure), Some(reason)) => {
            eprintln!("known limit: {failure}");
            Ok(("known-limit", reason))
        }
        (Err(failure), None) => Err(failure),
    }
}

fn played(subject: &dyn Subject, case: &Case) -> Result<Outcome> {
    catch_unwind(AssertUnwindSafe(|| (case.run)(subject))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("panic without a text");
        Err(Failure::new(format!("the test itself panicked: {text}")))
    })
}

fn record(case: &Case, outcome: &str, reason: &str) -> String {
    format!(
        "{{\"case\":{},\"title\":{},\"outcome\":{},\"reason\":{}}}\n",
        quote(case.id),
        quote(case.title),
        quote(outcome),
        quote(reason)
    )
}

fn note(device: &str, line: &str, directory: &Path) {
    let path = directory.join(format!("conformance-{device}.jsonl"));
    // One write to a file opened for appending: lines of parallel tests do not mix.
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

/// Gives a device all of the catalogue: `conformance!(MySubject);` expands to one test for each row.
#[macro_export]
macro_rules! conformance {
    ($subject:expr) => {
        $crate::for_each_case!(__conformance_tests $subject);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($subject:expr; $($name:ident $id:literal $title:literal $run:ident::$function:ident;)+) => {
        mod cases {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[test]
                fn $name() {
                    let case = $crate::faults::case($id);
                    $crate::conformance::check(&$subject, case, env!("CARGO_TARGET_TMPDIR"));
                }
            )+
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_table {
    (; $($name:ident $id:literal $title:literal $module:ident::$function:ident;)+) => {
        /// The whole catalogue, in order.
        pub const CASES: &[$crate::conformance::Case] = &[
            $(
                $crate::conformance::Case {
                    id: $id,
                    title: $title,
                    run: $module::$function,
                },
            )+
        ];
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Value, parse};

    fn failure() -> Result<Outcome> {
        Err(Failure::new("broken"))
    }

    #[test]
    fn a_known_limit_must_still_fail() {
        assert_eq!(verdict(Ok(Outcome::Pass), None).unwrap(), ("pass", ""));
        assert!(verdict(failure(), None).is_err());
        assert_eq!(
            verdict(failure(), Some("why")).unwrap(),
            ("known-limit", "why")
        );
        assert!(verdict(Ok(Outcome::Pass), Some("why")).is_err());
        let not_there = verdict(Ok(Outcome::NotApplicable("no such thing")), None);
        assert_eq!(not_there.unwrap(), ("not-applicable", "no such thing"));
    }

    #[test]
    fn records_are_one_json_object_a_line_appended_to_the_devices_file() {
        let dir = crate::process::TempDir::new().unwrap();
        let case = Case {
            id: "C7",
            title: "a \"quoted\" title",
            run: |_| Ok(Outcome::Pass),
        };
        for reason in ["first", "second"] {
            note("rng", &record(&case, "pass", reason), dir.path());
        }
        let path = dir.path().join("conformance-rng.jsonl");
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| parse(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        let member = |line: usize, name| lines[line].member(name).cloned();
        assert_eq!(member(0, "case"), Some(Value::Text("C7".into())));
        assert_eq!(member(0, "title"), Some(Value::Text(case.title.into())));
        assert_eq!(member(1, "outcome"), Some(Value::Text("pass".into())));
        assert_eq!(member(1, "reason"), Some(Value::Text("second".into())));
    }
}
