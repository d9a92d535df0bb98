//! Counting of results.

/// What came of some tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many went well.
    pub passed: u64,
    /// How many did not.
    pub failed: u64,
    /// How many were left out.
    pub skipped: u64,
    /// One text per failure, the first line of which names it.
    pub failures: Vec<String>,
    /// What else is worth telling at the end.
    pub notes: Vec<String>,
}

impl Tally {
    /// One test that went well.
    pub fn success() -> Self {
        Self {
            passed: 1,
            ..Self::default()
        }
    }

    /// One test that did not.
    pub fn failure(text: &str) -> Self {
        let mut tally = Self::default();
        tally.fail(text);
        tally
    }

    /// One test, judged by its result; `name` begins the text of a failure.
    pub fn of<T>(name: &str, result: &anyhow::Result<T>) -> Self {
        match result {
            Ok(_) => Self::success(),
            Err(error) => Self::failure(&format!("{name}: {error:#}")),
        }
    }

    /// Counts a failure.
    pub fn fail(&mut self, text: &str) {
        self.failed += 1;
        self.failures.push(text.to_owned());
    }

    /// Adds the results of others.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
        self.notes.extend(other.notes);
    }

    /// Whether nothing was tested.
    pub fn is_empty(&self) -> bool {
        self.passed == 0 && self.failed == 0 && self.skipped == 0
    }

    /// Whether something was tested and nothing failed.
    pub fn is_success(&self) -> bool {
        self.passed > 0 && self.failed == 0
    }

    /// "N passed, N failed", and the skipped ones if there are any.
    pub fn counts(&self) -> String {
        let Self {
            passed,
            failed,
            skipped,
            ..
        } = self;
        match skipped {
            0 => format!("{passed} passed, {failed} failed"),
            _ => format!("{passed} passed, {failed} failed, {skipped} skipped"),
        }
    }

    /// Reads what `cargo test` prints: its result lines and what it tells about failed tests.
    pub fn from_cargo_test(output: &str) -> Self {
        let mut tally = Self::default();
        // one part per test binary: the same test may be in several
        for part in output.split("\nrunning ") {
            tally.add(Self::from_binary(part));
        }
        tally
    }

    fn from_binary(output: &str) -> Self {
        let mut tally = Self::default();
        let target = between(output, "to rerun pass `", "`").unwrap_or_default();
        for line in output.lines() {
            if let Some(result) = line.strip_prefix("test result: ") {
                tally.passed += count_before(result, " passed");
                tally.failed += count_before(result, " failed");
                tally.skipped += count_before(result, " ignored");
            } else if let Some(test) = line
                .strip_prefix("test ")
                .and_then(|rest| rest.strip_suffix(" ... FAILED"))
            {
                let words = last_words(output, test);
                tally.failures.push(format!("test {test} {target}{words}"));
            }
        }
        tally
    }
}

/// The part of `text` between the first `begin` and the next `end`.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(begin)?;
    Some(rest.split_once(end)?.0)
}

/// Lines of a failed test's output that are quoted.
const QUOTED_LINES: usize = 8;

/// What a failed test panicked with, or else the end of its output; one indented line each.
fn last_words(output: &str, test: &str) -> String {
    let heading = format!("---- {test} stdout ----");
    let own: Vec<&str> = output
        .lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with("---- ") && *line != "failures:")
        .take_while(|line| *line != "stack backtrace:" && !line.starts_with("note: run with"))
        .filter(|line| !line.is_empty())
        .collect();
    let from = match own.iter().rposition(|line| line.contains(" panicked at ")) {
        Some(panic) => panic,
        None => own.len().saturating_sub(QUOTED_LINES),
    };
    own[from..]
        .iter()
        .take(QUOTED_LINES)
        .map(|line| format!("\n    {line}"))
        .collect()
}

/// The number in front of `word`: 12 of "ok. 12 passed; 0 failed".
fn count_before(text: &str, word: &str) -> u64 {
    let Some((before, _)) = text.split_once(word) else {
        return 0;
    };
    before
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_lines_of_all_test_binaries_are_summed() {
        let output = "\
running 2 tests
test a ... ok
test b::c ... FAILED
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
error: test failed, to rerun pass `-p x --lib`

running 13 tests
test result: ok. 10 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.01s
";
        let tally = Tally::from_cargo_test(output);
        assert_eq!(tally.counts(), "11 passed, 1 failed, 3 skipped");
        assert_eq!(tally.failures, ["test b::c -p x --lib"]);
        assert!(!tally.is_success());
    }

    #[test]
    fn a_failed_test_is_quoted_without_its_log_and_backtrace() {
        let output = "\
running 2 tests
test one ... FAILED

failures:

---- one stdout ----
a log line

thread 'one' panicked at src/lib.rs:3:5:
left is not right
stack backtrace:
   0: frame

---- two stdout ----
other

failures:
    one

error: test failed, to rerun pass `-p y --test z`

running 1 test
---- one stdout ----
of another binary
";
        let tally = Tally::from_cargo_test(output);
        let expected = "test one -p y --test z\n    thread 'one' panicked at src/lib.rs:3:5:\n    left is not right";
        assert_eq!(tally.failures, [expected]);
    }

    #[test]
    fn the_closing_line_mentions_skipped_tests_only_if_there_are_some() {
        assert_eq!(Tally::success().counts(), "1 passed, 0 failed");
    }
}
