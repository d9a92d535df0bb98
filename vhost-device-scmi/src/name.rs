//! Names of sensors and domains.

use std::fmt;
use std::str::FromStr;

use crate::wire::{LONG_NAME, SHORT_NAME};

/// A name that a guest can be told: 1 to 63 printable ASCII characters. What does not fit the 16 bytes of a description is told
/// as the extended name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(String);

impl Name {
    /// The beginning of the name, zero-terminated.
    pub fn short(&self) -> [u8; SHORT_NAME] {
        padded(&self.0)
    }

    /// The name, zero-terminated.
    pub fn long(&self) -> [u8; LONG_NAME] {
        padded(&self.0)
    }

    /// Whether the short name is not all of it.
    pub fn is_long(&self) -> bool {
        self.0.len() >= SHORT_NAME
    }

    /// The name as text.
    pub fn text(&self) -> &str {
        &self.0
    }
}

fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    // the last byte stays zero
    for (to, from) in bytes.iter_mut().zip(text.bytes().take(N - 1)) {
        *to = from;
    }
    bytes
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_sayable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if is_sayable && (1..LONG_NAME).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "the name {text:?} is not 1 to {} characters of plain ASCII",
                LONG_NAME - 1
            ))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_length_end_with_a_zero() {
        for length in 1..LONG_NAME {
            let name: Name = "n".repeat(length).parse().unwrap();
            assert_eq!(name.is_long(), length > 15, "{length}");
            assert_eq!(name.short()[15], 0);
            assert_eq!(name.long()[length..], vec![0; LONG_NAME - length]);
            assert_eq!(
                name.short()[..length.min(15)],
                name.long()[..length.min(15)]
            );
        }
    }

    #[test]
    fn what_a_guest_cannot_be_told_is_no_name() {
        for text in ["", "\n", "\u{e4}", &"n".repeat(LONG_NAME)] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
    }
}
