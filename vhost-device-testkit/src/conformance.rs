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
    let result = played(subject, case);
    let limit = KNOWN_LIMITS.iter().find(|(id, _)| *id == case.id);
    let (outcome, reason) = match (&result, limit) {
        (Ok(Outcome::NotApplicable(reason)), _) => ("not-applicable", *reason),
        (Ok(Outcome::Pass), None) => ("pass", ""),
        (Ok(Outcome::Pass), Some(_)) => {
            panic!(
                "{} passes: it is no longer a known limit, remove it",
                case.id
            )
        }
        (Err(failure), Some((_, reason))) => {
            eprintln!("known limit {}: {failure}", case.id);
            ("known-limit", *reason)
        }
        (Err(failure), None) => {
            panic!("{} ({}): {failure}", case.id, case.title)
        }
    };
    note(subject.name(), case, outcome, reason, Path::new(directory));
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

fn note(device: &str, case: &Case, outcome: &str, reason: &str, directory: &Path) {
    let line = format!(
        "{{\"case\":{},\"title\":{},\"outcome\":{},\"reason\":{}}}\n",
        quote(case.id),
        quote(case.title),
        quote(outcome),
        quote(reason)
    );
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
