//! The small texts of a package that are made from templates: units, rules, maintainer scripts, descriptions.

use std::fmt::Write as _;

use super::devices::Device;

const SOCKET: &str = include_str!("../../dist/device.socket");
const SERVICE: &str = include_str!("../../dist/device.service");
const POSTINST: &str = include_str!("../../dist/postinst");
const PRERM: &str = include_str!("../../dist/prerm");
const POSTRM: &str = include_str!("../../dist/postrm");

impl Device {
    /// The template of its socket units.
    pub fn socket(&self) -> String {
        self.filled(SOCKET)
    }

    /// The template of its services.
    pub fn service(&self) -> String {
        let (groups, devices) = match &self.nodes {
            Some(nodes) => (
                format!("SupplementaryGroups={}\n", nodes.group),
                format!("DeviceAllow={} rw\n", nodes.class),
            ),
            None => (String::new(), "PrivateDevices=yes\n".to_owned()),
        };
        let places: String = self.places.iter().map(|line| format!("{line}\n")).collect();
        self.filled(SERVICE)
            .replace("@GROUPS@", &groups)
            .replace("@DEVICES@", &devices)
            .replace("@PLACES@\n", &format!("{places}\n"))
            .replace("@FAMILIES@", self.families)
    }

    /// Runs after the package is installed.
    pub fn postinst(&self) -> String {
        let groups = self.nodes.as_ref().map_or(String::new(), |_| {
            format!(
                "    systemd-sysusers {0}.conf\n    udevadm control --reload || true\n    \
                 udevadm trigger --action=change --subsystem-match={1} || true\n",
                self.binary(),
                self.subsystem()
            )
        });
        POSTINST.replace("@GROUPS@", &groups)
    }

    fn subsystem(&self) -> &str {
        let matches = self.nodes.as_ref().map_or("", |nodes| nodes.matches);
        matches.split('"').nth(1).unwrap_or_default()
    }

    /// Runs before the package is removed.
    pub fn prerm(&self) -> String {
        self.filled(PRERM)
    }

    /// Runs after the package is removed.
    pub fn postrm(&self) -> String {
        POSTRM.to_owned()
    }

    /// The rule for udev and the group for systemd-sysusers, if it uses nodes.
    pub fn node_rules(&self) -> Option<[String; 2]> {
        let nodes = self.nodes.as_ref()?;
        Some([
            format!(
                "{}, GROUP=\"{}\", MODE=\"0660\"\n",
                nodes.matches, nodes.group
            ),
            format!("g {} -\n", nodes.group),
        ])
    }

    /// The description for management software, in the form of QEMU's schema (VhostUserBackend in vhost-user.json).
    pub fn description(&self) -> String {
        let mut text = String::from("{\n");
        let fields = [
            ("description", format!("vhost-user {}", self.title)),
            ("type", self.name.to_owned()),
            ("binary", format!("/usr/bin/{}", self.binary())),
        ];
        for (number, (name, value)) in fields.iter().enumerate() {
            let comma = if number + 1 < fields.len() { "," } else { "" };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  \"{name}\": \"{value}\"{comma}");
        }
        text + "}\n"
    }

    fn filled(&self, template: &str) -> String {
        template
            .replace("@NAME@", self.name)
            .replace("@TITLE@", self.title)
    }
}

#[cfg(test)]
mod tests {
    use crate::dist::devices::DEVICES;

    #[test]
    fn nothing_of_a_template_is_left_unfilled() {
        for device in DEVICES {
            for text in [
                device.socket(),
                device.service(),
                device.postinst(),
                device.prerm(),
                device.postrm(),
            ] {
                let mark = text.split('@').find(|part| {
                    part.len() > 1 && part.chars().all(|letter| letter.is_ascii_uppercase())
                });
                assert_eq!(mark, None, "{}: {text}", device.name);
            }
        }
    }

    #[test]
    fn a_device_gets_its_nodes_and_no_other() {
        for device in DEVICES {
            let service = device.service();
            assert_eq!(
                service.contains("PrivateDevices=yes"),
                device.nodes.is_none(),
                "{}",
                device.name
            );
            assert_eq!(
                service.matches("DeviceAllow=").count(),
                usize::from(device.nodes.is_some()),
                "{}",
                device.name
            );
        }
    }
}
