//! libvirt domains: valid for libvirt's own tools, and a QEMU that is told the same finds the daemon.

use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, io::Write as _};

use anyhow::{Context, Result, ensure};

use super::root::{LIMIT, Root};
use super::start::Example;
use crate::dist::devices::Device;
use crate::guest::devices::{Device as Guest, Since};
use crate::guest::qemu::{Qemu, Version};
use crate::process::{bounded, capture};

/// A machine with shared memory and nothing else, stopped before its first instruction.
const MACHINE: [&str; 12] = [
    "-nodefaults",
    "-display",
    "none",
    "-machine",
    "q35,memory-backend=memory",
    "-m",
    "64M",
    "-object",
    "memory-backend-memfd,id=memory,size=64M,share=on",
    "-monitor",
    "stdio",
    "-S",
];

/// Checks the domain of a device.
pub fn check(root: &Root, device: &Device) -> Result<()> {
    let place = format!("usr/share/doc/{}/examples/domain.xml", device.binary());
    let file = root.path().join(&place);
    capture(bounded("virt-xml-validate", LIMIT).arg(&file).arg("domain"))?;
    let mut virsh = bounded("virsh", LIMIT);
    capture(
        virsh
            .args(["--connect", "test:///default", "define"])
            .arg(&file),
    )?;

    let arguments = arguments(&root.inside(&root.text(&place)?));
    ensure!(arguments.len() == 4, "no device for QEMU: {arguments:?}");
    let example = Example::new(root, device)?;
    let connected = attach(root, device, &example, &arguments);
    example.clean(root)?;
    connected
}

/// What the domain tells QEMU beyond what libvirt knows.
fn arguments(domain: &str) -> Vec<String> {
    domain
        .split("<qemu:arg value='")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once('\'')?.0.to_owned()))
        .collect()
}

/// Starts the daemon as its unit does, and a QEMU with the domain's arguments, which connects and leaves.
fn attach(root: &Root, device: &Device, example: &Example, arguments: &[String]) -> Result<()> {
    let trace = root
        .path()
        .with_file_name(format!("{}-qemu.trace", device.name));
    let mut daemon = example.start(&trace)?;
    let log = trace.with_extension("log");
    let status = quit_at_once(qemu(device)?.args(MACHINE).args(arguments), &log)?;
    let said = fs::read_to_string(&log)?;
    ensure!(status, "QEMU does not take {arguments:?}: {said}");
    let ended = daemon.terminate();
    daemon.trust();
    ended.map_err(|failure| anyhow::anyhow!("{failure}"))?;
    ensure!(
        daemon.log().contains("a frontend connected"),
        "QEMU did not connect: {}",
        daemon.log()
    );
    Ok(())
}

/// The QEMU that has the device, as for guests.
fn qemu(device: &Device) -> Result<Command> {
    let version = match Guest::find(device.name).map(|guest| guest.since) {
        Some(Since::Own | Since::OwnInPart) => Version::Own,
        Some(Since::Newest) | None => Version::Newest,
    };
    Ok(Qemu::prepare(version)?.command())
}

/// Runs a QEMU whose monitor is told to quit; whether it ended well.
fn quit_at_once(command: &mut Command, log: &Path) -> Result<bool> {
    let output = fs::File::create(log)?;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("cannot start QEMU")?;
    if let Some(mut monitor) = child.stdin.take() {
        // One that has ended already is told by its status.
        let _ = monitor.write_all(b"quit\n");
    }
    let status = crate::guest::daemon::wait(&mut child, LIMIT)?;
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    Ok(status.is_some_and(|status| status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_a_domain_are_found_in_order() {
        let domain = "<a><qemu:arg value='-device'/>\n<qemu:arg value='x,chardev=c'/></a>";
        assert_eq!(arguments(domain), ["-device", "x,chardev=c"]);
    }
}
