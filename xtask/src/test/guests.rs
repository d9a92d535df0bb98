//! Every device in real guests: its smoke script, and its tour, on all machines.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::tally::Tally;
use crate::demo::Show;
use crate::guest::devices::{DEVICES, Device};
use crate::guest::qemu::Version;
use crate::guest::{Attach, Job, Machine, TIMEOUT, siblings};
use crate::workspace::{Profile, Workspace};

const MACHINES: [Machine; 3] = [
    Machine::Uml,
    Machine::Qemu(Version::Own),
    Machine::Qemu(Version::Newest),
];

/// Runs all guest scenarios.
pub fn run(workspace: &Workspace) -> Result<Tally> {
    let mut tally = Tally::default();
    for machine in MACHINES {
        for device in DEVICES.iter().filter(|device| device.is_tried_in(machine)) {
            let name = format!("{} smoke in {}", device.name, machine.name());
            tally.add(Tally::of(&name, &smoke(workspace, machine, device)));
        }
        tally.add(tours(workspace, machine));
        let name = format!("vsock siblings in {}", machine.name());
        tally.add(Tally::of(&name, &siblings::run(workspace, machine)));
    }
    Ok(tally)
}

/// What one device does in the guests that it is tried in.
pub fn of_device(workspace: &Workspace, device: &'static Device) -> Result<()> {
    let machines = MACHINES.into_iter();
    machines
        .filter(|machine| device.is_tried_in(*machine))
        .try_for_each(|machine| smoke(workspace, machine, device))
}

fn smoke(workspace: &Workspace, machine: Machine, device: &'static Device) -> Result<()> {
    let job = Job {
        machine,
        devices: &[Attach::with_defaults(device)],
        profile: Profile::Dev,
        script: device.smoke.as_bytes(),
        shell: false,
        timeout: Duration::from_secs(TIMEOUT),
    };
    let mut output = Vec::new();
    let status = job.run(workspace, &mut output)?;
    ensure!(
        status == 0,
        "the script ended with status {status} after\n{}",
        String::from_utf8_lossy(&output)
    );
    Ok(())
}

/// All devices in one guest, as the demo has them: one result per device.
fn tours(workspace: &Workspace, machine: Machine) -> Tally {
    let results =
        Show::prepare(machine).and_then(|show| show.give(workspace, machine, Profile::Dev));
    match results {
        Err(error) => Tally::failure(&format!("tours in {}: {error:#}", machine.name())),
        Ok(results) => {
            let mut tally = Tally::default();
            for (device, result) in &results {
                tally.add(Tally::of(
                    &format!("tour of {} in {}", device.name, machine.name()),
                    result,
                ));
            }
            tally
        }
    }
}
