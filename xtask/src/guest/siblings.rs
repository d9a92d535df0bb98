//! Two guests of one socket device's daemon that talk to each other.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::daemon::Daemon;
use super::devices::Device;
use super::{Attach, Job, Machine, TIMEOUT, prepare};
use crate::temp::Folder;
use crate::workspace::{Profile, Workspace};

/// The context ids, and what each guest does. They wait for each other.
const GUESTS: [(u32, &str); 2] = [
    (3, include_str!("../../guest/siblings/asks.sh")),
    (4, include_str!("../../guest/siblings/answers.sh")),
];

/// Boots both and fails unless both scripts end with 0.
pub fn run(workspace: &Workspace, machine: Machine) -> Result<()> {
    let device = Device::find("vsock").context("there is no device called vsock")?;
    prepare(machine)?;
    let binaries = workspace.build(&[device.binary()], Profile::Dev)?;
    let folder = Folder::new("siblings")?;
    let binary = binaries.join(device.binary());
    let daemon = Daemon::start_bare(&binary, &arguments(folder.path()), folder.path(), "vsock")?;
    let results = thread::scope(|scope| {
        let guests = GUESTS.map(|(cid, script)| {
            let folder = folder.path();
            scope.spawn(move || boot(device, machine, folder, cid, script))
        });
        guests.map(|guest| {
            guest
                .join()
                .unwrap_or_else(|_| bail!("a guest's thread panicked"))
        })
    });
    results.into_iter().collect::<Result<Vec<()>>>()?;
    daemon.stop()
}

fn arguments(folder: &Path) -> Vec<OsString> {
    let folder = folder.display();
    let settings = GUESTS.map(|(cid, _)| {
        format!("guest-cid={cid},socket={folder}/{cid}.sock,uds-path={folder}/{cid}.vsock")
    });
    settings
        .into_iter()
        .flat_map(|settings| ["--vm".into(), settings.into()])
        .collect()
}

fn boot(
    device: &'static Device,
    machine: Machine,
    folder: &Path,
    cid: u32,
    script: &str,
) -> Result<()> {
    let own = folder.join(cid.to_string());
    fs::create_dir(&own)?;
    let attach = Attach {
        device,
        arguments: Vec::new(),
    };
    let job = Job {
        machine,
        devices: &[attach],
        profile: Profile::Dev,
        script: script.as_bytes(),
        shell: false,
        timeout: Duration::from_secs(TIMEOUT),
    };
    let mut output = Vec::new();
    let socket = folder.join(format!("{cid}.sock"));
    let status = job
        .run_with(&[socket], &own, &mut output)
        .with_context(|| format!("guest {cid}"))?;
    ensure!(
        status == 0,
        "the script of guest {cid} ended with status {status} after\n{}",
        String::from_utf8_lossy(&output)
    );
    Ok(())
}
