//! Units: what systemd's own tools say about them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};

use super::root::{LIMIT, Root};
use crate::dist::devices::Device;
use crate::process::{bounded, capture};

/// Where units are.
const FOLDER: &str = "usr/lib/systemd/system";

/// The highest exposure, in tenths, that `systemd-analyze security` may find.
const MAX_EXPOSURE: &str = "10";

/// The unit of this kind.
pub fn text(root: &Root, device: &Device, kind: &str) -> Result<String> {
    root.text(&format!("{FOLDER}/{}@.{kind}", device.binary()))
}

/// The value of a setting of a unit, for an instance.
pub fn setting(unit: &str, name: &str, instance: &str) -> Result<String> {
    unit.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .map(|value| value.replace("%i", instance))
        .with_context(|| format!("the unit has no {name}="))
}

/// Both units are clean, and the service is exposed no more than allowed.
pub fn check(root: &Root, device: &Device) -> Result<()> {
    // systemd would look for the programs in the system's root
    let folder = root.path().with_file_name(format!("{}-units", device.name));
    fs::create_dir_all(&folder)?;
    let mut files = Vec::new();
    for kind in ["socket", "service"] {
        let file = folder.join(format!("{}@.{kind}", device.binary()));
        fs::write(&file, root.inside(&text(root, device, kind)?))?;
        files.push(file);
    }
    let mut verify = bounded("systemd-analyze", LIMIT);
    let output = verify
        // the page is elsewhere, too, and is checked by itself
        .args(["verify", "--man=no"])
        .args(&files)
        .output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(
        output.status.success() && said.trim().is_empty(),
        "systemd-analyze verify: {said}"
    );
    let mut security = bounded("systemd-analyze", LIMIT);
    security
        .args(["security", "--offline=yes", "--threshold", MAX_EXPOSURE])
        .args(files.last());
    capture(&mut security).map(drop)
}

/// The system calls that a service may make.
pub fn allowed_calls(service: &str) -> Result<BTreeSet<String>> {
    let listing = capture(bounded("systemd-analyze", LIMIT).arg("syscall-filter"))?;
    Ok(allowed(service, &groups(&listing)))
}

/// The groups of system calls that systemd knows, as it lists them.
fn groups(listing: &str) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in listing.lines().filter(|line| !line.trim().is_empty()) {
        if !line.starts_with(' ') {
            current = line.trim().to_owned();
        } else if !line.trim_start().starts_with('#') {
            let members = groups.entry(current.clone()).or_default();
            members.push(line.trim().to_owned());
        }
    }
    groups
}

/// What a service's filters leave; the first one makes a list of what is allowed.
fn allowed(service: &str, groups: &BTreeMap<String, Vec<String>>) -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    expand("@default", groups, &mut calls);
    let filters = service
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter="));
    for filter in filters {
        let mut named = BTreeSet::new();
        for name in filter.trim_start_matches('~').split_whitespace() {
            expand(name, groups, &mut named);
        }
        if filter.starts_with('~') {
            calls.retain(|call| !named.contains(call));
        } else {
            calls.append(&mut named);
        }
    }
    calls
}

fn expand(name: &str, groups: &BTreeMap<String, Vec<String>>, calls: &mut BTreeSet<String>) {
    match groups.get(name) {
        Some(members) => members
            .iter()
            .for_each(|member| expand(member, groups, calls)),
        None => {
            calls.insert(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "@default\n    # always\n    exit\n\n@io\n    # basic\n    read\n    @more\n\n@more\n    write\n    chown\n";

    #[test]
    fn filters_add_and_take_away_in_order() {
        let unit = "SystemCallFilter=@io\nSystemCallFilter=~chown\nSystemCallFilter=capset\n";
        let calls = allowed(unit, &groups(LISTING));
        let expected = ["capset", "exit", "read", "write"].map(str::to_owned);
        assert_eq!(calls, BTreeSet::from(expected));
    }

    #[test]
    fn a_setting_is_told_for_an_instance() {
        let unit = "[Service]\nExecStart=/bin/x --config /etc/%i.toml\n";
        let value = setting(unit, "ExecStart", "a").unwrap();
        assert_eq!(value, "/bin/x --config /etc/a.toml");
        assert!(setting(unit, "ExecStop", "a").is_err());
    }
}
