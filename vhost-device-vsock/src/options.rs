//! A guest's settings as text: `guest-cid=3,socket=/run/vm3.socket,uds-path=/run/vm3.vsock`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use vhost_device_core::MAX_QUEUE_SIZE;

use crate::config::{
    Config, ConfigError, Forward, Groups, GuestCid, HostSpec, MAX_UDS_PATH, MAX_WINDOW, MIN_WINDOW,
    Ports, number,
};

/// A guest's settings, each as it was given or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestSpec {
    /// The guest's context ID.
    pub guest_cid: Option<GuestCid>,
    /// Path of the frontend's socket.
    pub socket: Option<PathBuf>,
    /// The host side: unix sockets.
    pub uds_path: Option<PathBuf>,
    /// The host side: AF_VSOCK.
    pub forward_cid: Option<u32>,
    /// Ports on which AF_VSOCK is listened.
    pub forward_listen: Option<Ports>,
    /// Bytes of a connection's window.
    pub tx_buffer_size: Option<u64>,
    /// Largest virtqueue.
    pub queue_size: Option<u32>,
    /// Groups of guests.
    pub groups: Option<Groups>,
}

impl FromStr for GuestSpec {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut spec = Self::default();
        for setting in text.split(',') {
            let (key, value) = setting
                .split_once('=')
                .filter(|(_, value)| !value.is_empty())
                .ok_or_else(|| ConfigError::NoValue(setting.to_owned()))?;
            spec.set(key, value)?;
        }
        Ok(spec)
    }
}

impl GuestSpec {
    fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        match key.replace('_', "-").as_str() {
            "guest-cid" => once("guest-cid", &mut self.guest_cid, value.parse()?),
            "socket" | "socket-path" => once("socket", &mut self.socket, value.into()),
            "uds-path" => once("uds-path", &mut self.uds_path, value.into()),
            "forward-cid" => {
                let cid = number("forward-cid", value)?;
                once("forward-cid", &mut self.forward_cid, cid)
            }
            "forward-listen" => once("forward-listen", &mut self.forward_listen, value.parse()?),
            "tx-buffer-size" => {
                let size = number("tx-buffer-size", value)?;
                once("tx-buffer-size", &mut self.tx_buffer_size, size)
            }
            "queue-size" => {
                let size = number("queue-size", value)?;
                once("queue-size", &mut self.queue_size, size)
            }
            "groups" => once("groups", &mut self.groups, value.parse()?),
            _ => Err(ConfigError::UnknownKey(key.to_owned())),
        }
    }

    /// The device that is meant.
    ///
    /// # Errors
    /// [`ConfigError`] if settings are missing, exclude each other or are out of bounds.
    pub fn config(self) -> Result<Config, ConfigError> {
        let host = host(self.uds_path, self.forward_cid, self.forward_listen)?;
        Ok(Config {
            guest_cid: self.guest_cid.unwrap_or(GuestCid::DEFAULT),
            host,
            window: window(self.tx_buffer_size)?,
            queue_size: queue_size(self.queue_size)?,
            groups: self.groups.unwrap_or_default(),
        })
    }
}

fn once<T>(key: &'static str, slot: &mut Option<T>, value: T) -> Result<(), ConfigError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ConfigError::Twice(key)),
    }
}

fn host(
    uds_path: Option<PathBuf>,
    forward_cid: Option<u32>,
    listen: Option<Ports>,
) -> Result<HostSpec, ConfigError> {
    match (uds_path, forward_cid, listen) {
        (Some(_), Some(_), _) => Err(ConfigError::TwoHosts),
        (Some(_), None, Some(_)) | (None, None, Some(_)) => Err(ConfigError::ListenWithoutForward),
        (None, None, None) => Err(ConfigError::NoHost),
        (Some(path), None, None) => {
            check_path(&path)?;
            Ok(HostSpec::Unix(path))
        }
        (None, Some(cid), listen) => match cid {
            0 | u32::MAX => Err(ConfigError::Value {
                key: "forward-cid",
                value: cid.to_string(),
            }),
            cid => Ok(HostSpec::Vsock(Forward {
                cid,
                listen: listen.unwrap_or_default(),
            })),
        },
    }
}

/// A port is appended to the path.
fn check_path(path: &Path) -> Result<(), ConfigError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    match bytes.len() {
        length if length > MAX_UDS_PATH => Err(ConfigError::LongPath(length)),
        _ if bytes.is_empty() || bytes.ends_with(b"/") => Err(ConfigError::EmptyPath),
        _ => Ok(()),
    }
}

/// A window smaller than a guest's own is lock-step, so small sizes of existing command lines are raised.
fn window(size: Option<u64>) -> Result<u32, ConfigError> {
    let size = size.unwrap_or(u64::from(MIN_WINDOW));
    match u32::try_from(size) {
        Ok(size @ 1..=MAX_WINDOW) => Ok(size.max(MIN_WINDOW)),
        Ok(0) => Err(ConfigError::Value {
            key: "tx-buffer-size",
            value: "0".into(),
        }),
        _ => Err(ConfigError::Window(size)),
    }
}

fn queue_size(size: Option<u32>) -> Result<u16, ConfigError> {
    let size = size.unwrap_or(u32::from(MAX_QUEUE_SIZE));
    u16::try_from(size)
        .ok()
        .filter(|size| size.is_power_of_two() && *size <= MAX_QUEUE_SIZE)
        .ok_or(ConfigError::QueueSize(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config, ConfigError> {
        text.parse::<GuestSpec>()?.config()
    }

    #[test]
    fn settings_may_be_spelled_with_dashes_and_underscores() {
        let dashes = "guest-cid=4,socket=/tmp/v4,uds-path=/tmp/vm4.vsock,tx-buffer-size=524288,queue-size=256,groups=a+b";
        let underscores = "guest_cid=4,socket=/tmp/v4,uds_path=/tmp/vm4.vsock,tx_buffer_size=524288,queue_size=256,groups=a+b";
        let spec: GuestSpec = dashes.parse().unwrap();
        assert_eq!(spec, underscores.parse().unwrap());
        assert_eq!(spec.socket, Some("/tmp/v4".into()));
        let config = spec.config().unwrap();
        assert_eq!(config.guest_cid.value(), 4);
        assert_eq!(config.host, HostSpec::Unix("/tmp/vm4.vsock".into()));
        assert_eq!((config.window, config.queue_size), (524_288, 256));
    }

    #[test]
    fn the_host_may_be_its_own_vsock() {
        let config = config("guest-cid=5,forward-cid=1,forward-listen=9001+9002").unwrap();
        let expected = Forward {
            cid: 1,
            listen: Ports(vec![9001, 9002]),
        };
        assert_eq!(config.host, HostSpec::Vsock(expected));
        assert_eq!((config.window, config.queue_size), (MIN_WINDOW, 1024));
    }

    #[test]
    fn small_windows_are_raised_and_huge_ones_refused() {
        let window = |size: &str| config(&format!("uds-path=/v,tx-buffer-size={size}"));
        assert_eq!(window("32768").unwrap().window, MIN_WINDOW);
        assert_eq!(window("67108864").unwrap().window, MAX_WINDOW);
        assert_eq!(window("67108865"), Err(ConfigError::Window(67_108_865)));
        assert!(window("0").is_err());
    }

    #[test]
    fn settings_that_make_no_sense_are_told() {
        use ConfigError::*;
        let long = format!("uds-path=/{}", "x".repeat(MAX_UDS_PATH));
        let rows = [
            ("guest-cid=4", NoHost),
            ("uds-path=/v,forward-cid=1", TwoHosts),
            ("uds-path=/v,forward-listen=1", ListenWithoutForward),
            ("guest-cid=2,uds-path=/v", GuestCid(2)),
            ("uds-path=/v,guest-cid=4,guest_cid=4", Twice("guest-cid")),
            ("uds-path=/v,colour=red", UnknownKey("colour".into())),
            ("uds-path", NoValue("uds-path".into())),
            ("uds-path=", NoValue("uds-path=".into())),
            ("uds-path=/v,", NoValue(String::new())),
            ("uds-path=/v/", EmptyPath),
            (&long, LongPath(MAX_UDS_PATH + 1)),
            ("uds-path=/v,queue-size=100", QueueSize(100)),
            ("uds-path=/v,queue-size=2048", QueueSize(2048)),
            ("uds-path=/v,queue-size=0", QueueSize(0)),
        ];
        for (text, error) in rows {
            assert_eq!(config(text), Err(error), "{text}");
        }
        assert!(config("forward-cid=0").is_err());
    }
}
