//! `cargo xtask demo`: every device in one guest, and what it saw beside what the host had.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::guest::devices::{DEVICES, Device};
use crate::guest::tours::Comparison;
use crate::guest::{Attach, Job, Machine, MachineArgs, TIMEOUT};
use crate::temp::Folder;
use crate::workspace::{Profile, Workspace};

/// Show every device at work in a real guest
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    /// After the tour, a shell in a guest with the same devices
    #[arg(long)]
    shell: bool,
}

/// Begins a device's part of the guest's output.
const BEGIN: &str = "=== tour of ";

/// Runs the verb. It fails if a guest saw something else than the host had.
pub fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let machine = args.machine.machine();
    let show = Show::prepare(machine)?;
    let results = show.give(&workspace, machine, Profile::Release)?;
    for (device, result) in &results {
        println!(
            "\n== {} (virtio device type {})",
            device.name, device.virtio_id
        );
        match result {
            Ok(comparison) => println!("{}match: {}", comparison.view, comparison.verdict),
            Err(error) => println!("MISMATCH: {error:#}"),
        }
    }
    if args.shell {
        println!("\nThe same devices, and a shell for you (`exit` switches the guest off):");
        show.open(&workspace, machine)?;
    }
    let wrong = results.iter().filter(|(_, result)| result.is_err()).count();
    Ok(if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Devices ready to be shown.
pub struct Show {
    folder: Folder,
    devices: Vec<Attach>,
}

/// What came of each device's tour.
pub type Results = Vec<(&'static Device, Result<Comparison>)>;

impl Show {
    /// Puts what the daemons of all devices that `machine` can have need into a fresh folder.
    pub fn prepare(machine: Machine) -> Result<Self> {
        let folder = Folder::new("demo")?;
        let mut attached = Vec::new();
        for device in DEVICES.iter().filter(|device| device.fits(machine)) {
            let own = own_folder(&folder, device);
            fs::create_dir(&own)?;
            let arguments = (device.tour.prepare)(&own)
                .with_context(|| format!("cannot prepare the tour of {}", device.name))?;
            attached.push(Attach { device, arguments });
        }
        Ok(Self {
            folder,
            devices: attached,
        })
    }

    /// Boots one guest with all devices and takes all tours in it.
    pub fn give(
        &self,
        workspace: &Workspace,
        machine: Machine,
        profile: Profile,
    ) -> Result<Results> {
        let script = script(&self.devices);
        let job = Job {
            profile,
            ..self.job(machine, script.as_bytes(), false)
        };
        let mut output = Vec::new();
        let status = job.run(workspace, &mut output)?;
        let output = String::from_utf8_lossy(&output);
        ensure!(
            status == 0,
            "the guest's script ended with status {status} after\n{output}"
        );
        Ok(self
            .devices
            .iter()
            .map(|attach| self.judge(attach.device, &output))
            .collect())
    }

    fn open(&self, workspace: &Workspace, machine: Machine) -> Result<()> {
        self.job(machine, b"", true)
            .run(workspace, &mut std::io::stdout())?;
        Ok(())
    }

    fn job<'a>(&'a self, machine: Machine, script: &'a [u8], shell: bool) -> Job<'a> {
        let timeout = Duration::from_secs(TIMEOUT);
        Job {
            machine,
            devices: &self.devices,
            profile: Profile::Release,
            script,
            shell,
            timeout,
        }
    }

    fn judge(
        &self,
        device: &'static Device,
        output: &str,
    ) -> (&'static Device, Result<Comparison>) {
        let result = part(output, device.name)
            .with_context(|| format!("the tour did not run; the guest wrote:\n{output}"))
            .and_then(|part| (device.tour.compare)(&own_folder(&self.folder, device), part));
        (device, result)
    }
}

fn own_folder(folder: &Folder, device: &Device) -> PathBuf {
    folder.path().join(device.name)
}

/// All tours, each in a shell of its own; a failed one is told from the others by what it wrote.
fn script(devices: &[Attach]) -> String {
    devices
        .iter()
        .map(|attach| {
            let Device { name, tour, .. } = attach.device;
            format!(
                "echo '{BEGIN}{name}'\n(\n{}\n) || echo \"the tour ended with status $?\"\n",
                tour.script
            )
        })
        .collect()
}

/// One device's part of the output.
fn part<'a>(output: &'a str, name: &str) -> Option<&'a str> {
    let (_, part) = output.split_once(&format!("{BEGIN}{name}\n"))?;
    Some(part.split_once(BEGIN).map_or(part, |(part, _)| part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tour_gets_its_own_part_of_the_output() {
        let output = "noise\n=== tour of rng\na\nb\n=== tour of gpio\nc\n";
        assert_eq!(part(output, "rng"), Some("a\nb\n"));
        assert_eq!(part(output, "gpio"), Some("c\n"));
        assert_eq!(part(output, "i2c"), None);
    }
}
