//! What the device is asked to be.

use std::convert::Infallible;
use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// A validated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the bytes come from.
    pub source: Source,
    /// How many there are.
    pub limit: Option<Limit>,
}

/// A bound on the bytes given to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Most bytes in one period.
    pub bytes: NonZeroU64,
    /// Length of the period, at least a millisecond.
    pub period: Duration,
}

/// Where random bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kernel's generator.
    Kernel,
    /// A file, pipe or character device, read from its beginning.
    File(PathBuf),
    /// A deterministic sequence (SplitMix64, eight bytes at a time, little-endian) from this seed.
    Sim(u64),
}

/// A source that cannot be read from the text given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// `sim:` is followed by something that is no number.
    #[error("the seed {0:?} is not a number from 0 to 2^64-1")]
    Seed(String),
    /// No source at all.
    #[error("a source is `getrandom`, a path, or `sim[:SEED]`")]
    Empty,
}

impl From<Infallible> for ConfigError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl FromStr for Source {
    type Err = ConfigError;

    /// `getrandom`, `sim`, `sim:SEED`, else a path (`./sim` for a file of that name).
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text {
            "" => Err(ConfigError::Empty),
            "getrandom" => Ok(Self::Kernel),
            "sim" => Ok(Self::Sim(0)),
            _ => match text.strip_prefix("sim:") {
                Some(seed) => seed
                    .parse()
                    .map(Self::Sim)
                    .map_err(|_| ConfigError::Seed(seed.into())),
                None => Ok(Self::File(text.parse()?)),
            },
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => f.write_str("getrandom"),
            Self::File(path) => path.display().fmt(f),
            Self::Sim(seed) => write!(f, "sim:{seed}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_as_documented() {
        let table = [
            ("getrandom", Ok(Source::Kernel)),
            ("sim", Ok(Source::Sim(0))),
            ("sim:7", Ok(Source::Sim(7))),
            ("sim:x", Err(ConfigError::Seed("x".into()))),
            ("sim:-1", Err(ConfigError::Seed("-1".into()))),
            ("", Err(ConfigError::Empty)),
            ("./sim", Ok(Source::File("./sim".into()))),
            ("/dev/urandom", Ok(Source::File("/dev/urandom".into()))),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Source>(), expected, "{text:?}");
        }
    }
}
