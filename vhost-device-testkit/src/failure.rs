//! What went wrong, in words: the step of a case, what was seen, and what was expected.

use std::fmt::{self, Display};

/// A failed step. It reads from the outside in: `step: what was seen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(String);

/// The result of everything a case does.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The same failure inside a larger step.
    #[must_use]
    pub fn within(self, step: impl Display) -> Self {
        Self(format!("{step}: {}", self.0))
    }
}

impl Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Names the step in which a result failed.
pub trait At<T> {
    /// The value, or the failure with `step` in front of it.
    ///
    /// # Errors
    /// The failure that was already there.
    fn at(self, step: impl Display) -> Result<T>;
}

impl<T, E: Into<Failure>> At<T> for std::result::Result<T, E> {
    fn at(self, step: impl Display) -> Result<T> {
        self.map_err(|error| error.into().within(step))
    }
}

/// Fails with a formatted text unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::failure::Failure::new(format!($($text)+)));
        }
    };
}

/// Fails with a formatted text.
#[macro_export]
macro_rules! fail {
    ($($text:tt)+) => {
        return Err($crate::failure::Failure::new(format!($($text)+)))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_from_the_outside_in() {
        let inner: std::result::Result<(), _> = Err(std::io::Error::other("no reply"));
        let outer = inner.at("GET_FEATURES").at("handshake");
        assert_eq!(
            outer.unwrap_err().to_string(),
            "handshake: GET_FEATURES: no reply"
        );
    }
}
