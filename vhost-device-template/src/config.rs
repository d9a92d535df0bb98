//! What the device is asked to be.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// A validated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What translates bytes.
    pub source: Source,
}

/// What translates bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A simulated host, which takes this long for each request.
    Sim(Duration),
    /// A file of 256 bytes: the byte at N is what N is translated to.
    Table(PathBuf),
}

/// A source that cannot be read from the text given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// `sim:` is followed by something that is no number.
    #[error("{0:?} is not a number of milliseconds from 0 to 2^32-1")]
    Delay(String),
    /// No source at all.
    #[error("a source is a path, or `sim[:MS]`")]
    Empty,
}

impl From<Infallible> for ConfigError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl FromStr for Source {
    type Err = ConfigError;

    /// `sim`, `sim:MS`, else a path (`./sim` for a file of that name).
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text {
            "" => Err(ConfigError::Empty),
            "sim" => Ok(Self::Sim(Duration::ZERO)),
            _ => match text.strip_prefix("sim:") {
                Some(delay) => delay
                    .parse::<u32>()
                    .map(|delay| Self::Sim(Duration::from_millis(delay.into())))
                    .map_err(|_| ConfigError::Delay(delay.into())),
                None => Ok(Self::Table(text.parse()?)),
            },
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sim(delay) => write!(f, "sim:{}", delay.as_millis()),
            Self::Table(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_as_documented() {
        let sim = |delay| Ok(Source::Sim(Duration::from_millis(delay)));
        let bad = |delay: &str| Err(ConfigError::Delay(delay.into()));
        let table = [
            ("sim", sim(0)),
            ("sim:20", sim(20)),
            ("sim:4294967295", sim(4_294_967_295)),
            ("sim:4294967296", bad("4294967296")),
            ("sim:", bad("")),
            ("sim:-1", bad("-1")),
            ("", Err(ConfigError::Empty)),
            ("./sim", Ok(Source::Table("./sim".into()))),
            ("/etc/table", Ok(Source::Table("/etc/table".into()))),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Source>(), expected, "{text:?}");
        }
    }
}
