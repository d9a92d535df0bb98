//! A hardware machine: User Mode Linux with the host's own files, read-only, and the kernel's simulated hardware.
//!
//! What was just built runs in it as it is, with the host's libraries and tools.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::daemon::Daemon;
use super::{Attach, Machine, boot, prepare};
use crate::process::{bounded, tail};
use crate::temp::Folder;
use crate::workspace::{Profile, Workspace};

const INIT: &str = include_str!("../../guest/hardware.sh");

/// Memory of the machine, in MiB.
const MEMORY: u32 = 512;

/// Says that the program ended well, and did not only fall silent.
const ENDED: &str = "the program ended with status 0";

/// Runs a test binary in the machine, which has our `devices` beside the simulated hardware. Returns what the binary wrote;
/// whether its tests passed is in there.
pub fn run(
    workspace: &Workspace,
    program: &Path,
    devices: &[Attach],
    limit: Duration,
) -> Result<String> {
    let kernel = prepare(Machine::Uml)?;
    let modules = kernel.with_file_name("modules");
    let folder = Folder::new("hardware")?;
    let daemons = start(workspace, devices, folder.path())?;
    let init = folder.path().join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let kernel_log = folder.path().join("kernel.log");
    let sockets = devices.iter().zip(&daemons);
    let sockets: Vec<_> = sockets
        .map(|(attach, daemon)| (attach.device, daemon.socket().to_owned()))
        .collect();
    let output = bounded(kernel, limit)
        .arg(format!("mem={MEMORY}M"))
        .args(["root=none", "rootfstype=hostfs", "rootflags=/", "ro"])
        .arg(format!("init={}", init.display()))
        .arg(format!("PROGRAM={}", program.display()))
        .arg(format!("MODULES={}", modules.display()))
        .args(boot::uml_devices(&sockets, folder.path())?)
        .args(["con=null", "con0=null,fd:2", "con1=fd:0,fd:1", "ssl=null"])
        .args(["panic=-1", "noreboot"])
        .arg(format!("uml_dir={}", folder.path().display()))
        .arg("umid=hardware")
        .stderr(Stdio::from(File::create(&kernel_log)?))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let kernel = fs::read(&kernel_log)?;
    ensure!(
        text.contains(ENDED) || text.contains("test result: FAILED"),
        "the machine did not run the tests to their end; it wrote:\n{}{}",
        tail(&text),
        tail(&String::from_utf8_lossy(&kernel))
    );
    for daemon in daemons {
        daemon.stop()?;
    }
    Ok(text)
}

fn start(workspace: &Workspace, devices: &[Attach], folder: &Path) -> Result<Vec<Daemon>> {
    let names: Vec<_> = devices
        .iter()
        .map(|attach| attach.device.binary())
        .collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let binaries = workspace.build(&names, Profile::Dev)?;
    let start = |(name, attach): (&String, &Attach)| {
        Daemon::start(&binaries.join(name), &attach.arguments, folder, name)
    };
    names.iter().zip(devices).map(start).collect()
}
