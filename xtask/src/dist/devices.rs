//! What is shipped of each device. A daemon without a row here is not shipped.

/// One daemon as the packages and units describe it.
#[derive(Debug)]
pub struct Device {
    /// The binary is `vhost-device-NAME`; its files are in `xtask/dist/NAME`.
    pub name: &'static str,
    /// What it is, in the middle of a sentence.
    pub title: &'static str,
    /// What it does, for those who choose packages.
    pub about: &'static str,
    /// Whether its type is in QEMU's schema of back-end programs.
    pub is_in_schema: bool,
    /// The host's device nodes that it may use.
    pub nodes: Option<Nodes>,
    /// The address families of the sockets that it makes.
    pub families: &'static str,
    /// Lines of the unit about places that it writes to.
    pub places: &'static [&'static str],
}

/// Device nodes of one kind.
#[derive(Debug)]
pub struct Nodes {
    /// The kernel's name of them, as in /proc/devices.
    pub class: &'static str,
    /// The group that may use them; it is made if it does not exist.
    pub group: &'static str,
    /// The udev rule's match.
    pub matches: &'static str,
}

/// All daemons that are shipped.
pub const DEVICES: &[Device] = &[
    Device {
        name: "gpio",
        title: "GPIO device",
        about: "gives lines of a GPIO chip of the host, or of a simulated one, to a guest",
        is_in_schema: false,
        nodes: Some(Nodes {
            class: "char-gpiochip",
            group: "gpio",
            matches: r#"SUBSYSTEM=="gpio", KERNEL=="gpiochip[0-9]*""#,
        }),
        families: "AF_UNIX",
        places: &[],
    },
    Device {
        name: "i2c",
        title: "I2C adapter",
        about: "gives chosen addresses on I2C buses of the host, or simulated chips, to a guest",
        is_in_schema: false,
        nodes: Some(Nodes {
            class: "char-i2c",
            group: "i2c",
            matches: r#"SUBSYSTEM=="i2c-dev", KERNEL=="i2c-[0-9]*""#,
        }),
        families: "AF_UNIX",
        places: &[],
    },
    Device {
        name: "rng",
        title: "entropy device",
        about: "gives random bytes of the host to a guest, at a limited rate if wanted",
        is_in_schema: true,
        nodes: None,
        families: "AF_UNIX",
        places: &[],
    },
    Device {
        name: "scmi",
        title: "SCMI device",
        about: "gives sensors of the host, and simulated sensors, clocks and power domains, to a guest",
        is_in_schema: false,
        nodes: None,
        families: "AF_UNIX",
        places: &[],
    },
    Device {
        name: "vsock",
        title: "socket device",
        about: "connects sockets of guests with unix sockets of the host and with each other",
        is_in_schema: true,
        nodes: None,
        families: "AF_UNIX AF_VSOCK",
        places: &[
            "RuntimeDirectory=vhost-device-vsock/%i",
            "RuntimeDirectoryMode=0750",
        ],
    },
];

impl Device {
    /// The crate, the binary and the package.
    pub fn binary(&self) -> String {
        format!("vhost-device-{}", self.name)
    }

    /// The folder, below /usr/share, where management software finds its description. QEMU's is for the types of QEMU's schema.
    pub fn discovery(&self) -> &'static str {
        if self.is_in_schema {
            "qemu/vhost-user"
        } else {
            "vhost-device/backends"
        }
    }

    /// The name of its description there. 60: after what administrators put before it, and after QEMU's own at 50.
    pub fn description_name(&self) -> String {
        format!("60-{}.json", self.binary())
    }
}
