//! The name of a device, and what is made of it.

use std::fmt;
use std::str::FromStr;

/// Longer names make socket paths and help texts hard to read.
const LONGEST: usize = 32;

/// A virtio name such as `rng` or `fs-lock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The crate and the binary: `vhost-device-fs-lock`.
    pub fn package(&self) -> String {
        format!("vhost-device-{}", self.0)
    }

    /// The crate as an identifier: `vhost_device_fs_lock`.
    pub fn crate_name(&self) -> String {
        self.package().replace('-', "_")
    }

    /// The device's type: `FsLock`.
    pub fn type_name(&self) -> String {
        self.0.split('-').map(capitalized).collect()
    }
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map(|first| first.to_ascii_uppercase())
        .into_iter()
        .chain(letters)
        .collect()
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_word = |word: &str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        if !text.starts_with(|first: char| first.is_ascii_lowercase())
            || !text.split('-').all(is_word)
        {
            return Err(
                "a name is made of lower-case letters, digits and single hyphens, a letter first"
                    .to_owned(),
            );
        }
        if text.len() > LONGEST {
            return Err(format!("a name has at most {LONGEST} characters"));
        }
        if text.starts_with("vhost-device") {
            return Err("the name is what follows vhost-device-".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crate_and_type_are_called_after_the_device() {
        let name: Name = "fs-lock2".parse().unwrap();
        assert_eq!(name.package(), "vhost-device-fs-lock2");
        assert_eq!(name.crate_name(), "vhost_device_fs_lock2");
        assert_eq!(name.type_name(), "FsLock2");
    }

    #[test]
    fn what_cannot_be_a_crate_or_a_type_is_refused_in_one_line() {
        for text in [
            "",
            "Rng",
            "9p",
            "-a",
            "a-",
            "a--b",
            "a_b",
            "a b",
            "../a",
            "ä",
            "vhost-device-rng",
            "a23456789012345678901234567890123",
        ] {
            let error = text.parse::<Name>().unwrap_err();
            assert!(!error.contains('\n'), "{text:?}: {error}");
        }
    }
}
