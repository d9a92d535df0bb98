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

    /// Reads what `cargo test` prints: its result lines and the names of failed tests.
    pub fn from_cargo_test(output: &str) -> Self {
        let mut tally = Self::default();
        for line in output.lines() {
            if let Some(result) = line.strip_prefix("test result: ") {
                tally.passed += count_before(result, " passed");
                tally.failed += count_before(result, " failed");
                tally.skipped += count_before(result, " ignored");
            } else if let Some(test) = line
                .strip_prefix("test ")
                .and_then(|rest| rest.strip_suffix(" ... FAILED"))
            {
                tally.failures.push(format!("test {test}"));
            }
        }
        tally
    }
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
test result: ok. 10 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.01s
";
        let tally = Tally::from_cargo_test(output);
        assert_eq!(tally.counts(), "11 passed, 1 failed, 3 skipped");
        assert_eq!(tally.failures, ["test b::c"]);
        assert!(!tally.is_success());
    }

    #[test]
    fn the_closing_line_mentions_skipped_tests_only_if_there_are_some() {
        assert_eq!(Tally::success().counts(), "1 passed, 0 failed");
    }
}
