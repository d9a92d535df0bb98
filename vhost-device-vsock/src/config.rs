//! What the devices are asked to be.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// The group of a guest for which none is named.
pub const DEFAULT_GROUP: &str = "default";

/// The smallest window, and the one of a device that is not told otherwise, in bytes.
pub const MIN_WINDOW: u32 = 256 * 1024;

/// The largest window in bytes.
pub const MAX_WINDOW: u32 = 64 * 1024 * 1024;

/// Most ports that are forwarded from the host to a guest.
pub const MAX_LISTENERS: usize = 64;

/// The longest [`HostSpec::Unix`] path in bytes: a unix socket's path holds 107, and `_4294967295` is appended.
pub const MAX_UDS_PATH: usize = 107 - 11;

/// A context ID that a guest can have: above 2 and below 2^32 - 1 (VIRTIO 1.3, section 5.10.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestCid(u32);

impl GuestCid {
    /// The guest of a command line that names none.
    pub const DEFAULT: Self = Self(3);

    /// The context ID as packets have it.
    pub fn value(self) -> u64 {
        self.0.into()
    }
}

impl TryFrom<u64> for GuestCid {
    type Error = ConfigError;

    fn try_from(cid: u64) -> Result<Self, ConfigError> {
        match u32::try_from(cid) {
            Ok(cid @ 3..=0xffff_fffe) => Ok(Self(cid)),
            _ => Err(ConfigError::GuestCid(cid)),
        }
    }
}

impl FromStr for GuestCid {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        number::<u64>("guest-cid", text)?.try_into()
    }
}

/// What the host side of a guest's connections is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostSpec {
    /// Unix sockets around this path.
    Unix(PathBuf),
    /// The host's AF_VSOCK.
    Vsock(Forward),
    /// Simulated programs, for tests and fuzzing: by the port's remainder by 4, nobody listens, somebody says something and
    /// stays, says something and leaves, or says nothing. None of them reads.
    Sim,
}

/// Connections go to and come from the host's AF_VSOCK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where the guest's connections to the host go: 1 is the host itself.
    pub cid: u32,
    /// Ports on which the host is listened for connections to the same ports of the guest.
    pub listen: Ports,
}

/// Port numbers, each once, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(pub Vec<u32>);

impl FromStr for Ports {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let ports = text
            .split('+')
            .map(|port| match number("forward-listen", port)? {
                u32::MAX => Err(ConfigError::Value {
                    key: "forward-listen",
                    value: port.into(),
                }),
                port => Ok(port),
            })
            .collect::<Result<BTreeSet<u32>, _>>()?;
        if ports.len() > MAX_LISTENERS {
            return Err(ConfigError::TooManyListeners(ports.len()));
        }
        Ok(Self(ports.into_iter().collect()))
    }
}

/// Names of groups: two guests reach each other if they have one in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups(BTreeSet<String>);

impl Groups {
    /// Whether a name is in both.
    pub fn intersect(&self, other: &Self) -> bool {
        !self.0.is_disjoint(&other.0)
    }
}

impl Default for Groups {
    fn default() -> Self {
        Self([DEFAULT_GROUP.to_owned()].into())
    }
}

impl FromStr for Groups {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let names: BTreeSet<String> = text.split('+').map(str::to_owned).collect();
        if names.contains("") {
            return Err(ConfigError::Value {
                key: "groups",
                value: text.to_owned(),
            });
        }
        Ok(Self(names))
    }
}

/// One guest's device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The guest's context ID.
    pub guest_cid: GuestCid,
    /// The host side of its connections.
    pub host: HostSpec,
    /// Bytes that one connection may have on the way from the guest to the host program, at least [`MIN_WINDOW`].
    pub window: u32,
    /// Largest size of a virtqueue.
    pub queue_size: u16,
    /// Which other guests it reaches.
    pub groups: Groups,
}

/// Options that make no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)] // the messages say it
pub enum ConfigError {
    #[error("'{value}' is no value of {key}")]
    Value { key: &'static str, value: String },
    #[error("a guest cannot have the context ID {0}: it is from 3 to 4294967294")]
    GuestCid(u64),
    #[error("{0} ports in forward-listen; there can be {MAX_LISTENERS}")]
    TooManyListeners(usize),
    #[error("'{0}' is no setting of a guest")]
    UnknownKey(String),
    #[error("'{0}' is given twice")]
    Twice(&'static str),
    #[error("'{0}' has no value")]
    NoValue(String),
    #[error("a guest needs either uds-path or forward-cid")]
    NoHost,
    #[error("uds-path and forward-cid exclude each other")]
    TwoHosts,
    #[error("forward-listen needs forward-cid")]
    ListenWithoutForward,
    #[error(
        "uds-path has {0} bytes; with a port behind it only {MAX_UDS_PATH} fit into a socket's path"
    )]
    LongPath(usize),
    #[error("uds-path names no file")]
    EmptyPath,
    #[error("queue-size {0} is not a power of two up to 1024")]
    QueueSize(u32),
    #[error("tx-buffer-size {0} is above {MAX_WINDOW}")]
    Window(u64),
}

/// A decimal number that is the value of `key`.
pub(crate) fn number<T: FromStr>(key: &'static str, text: &str) -> Result<T, ConfigError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| ConfigError::Value {
            key,
            value: text.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_context_ids_are_refused() {
        for cid in [0, 1, 2, 0xffff_ffff, 1 << 32, u64::MAX] {
            assert_eq!(GuestCid::try_from(cid), Err(ConfigError::GuestCid(cid)));
        }
        for cid in [3, 0xffff_fffe] {
            assert_eq!(GuestCid::try_from(cid).unwrap().value(), cid);
        }
        assert!("+3".parse::<GuestCid>().is_err());
    }

    #[test]
    fn ports_are_joined_by_plus_and_bounded() {
        let ports = |text: &str| text.parse::<Ports>().map(|ports| ports.0);
        assert_eq!(ports("9002+9001+9002"), Ok(vec![9001, 9002]));
        for text in ["", "+", "1+", "-1", "4294967295", "4294967296", "1,2"] {
            assert!(ports(text).is_err(), "{text}");
        }
        let many: Vec<_> = (0..=MAX_LISTENERS).map(|port| port.to_string()).collect();
        assert_eq!(
            ports(&many.join("+")),
            Err(ConfigError::TooManyListeners(MAX_LISTENERS + 1))
        );
    }

    #[test]
    fn groups_in_common_let_guests_meet() {
        let groups = |text: &str| text.parse::<Groups>().unwrap();
        assert!(groups("a+b").intersect(&groups("b+c")));
        assert!(!groups("a").intersect(&groups("ab")));
        assert!(Groups::default().intersect(&groups("default")));
        assert!("a++b".parse::<Groups>().is_err());
    }
}
