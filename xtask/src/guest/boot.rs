//! The command lines of the two machines a guest can run on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use super::Machine;
use super::devices::Device;
use super::devicetree::{self, Node};
use super::qemu::Qemu;
use crate::process::tethered;

/// Memory of a guest, in MiB.
const MEMORY: u32 = 256;

/// Options of the kernel on both machines: a panic ends the machine at once.
const KERNEL_OPTIONS: &str = "panic=-1";

/// All that a machine needs to start.
#[derive(Debug)]
pub struct Boot<'a> {
    /// The emulator, or nothing for User Mode Linux.
    pub qemu: Option<Qemu>,
    /// The kernel built for the machine.
    pub kernel: &'a Path,
    /// The archive with the root file system.
    pub initramfs: &'a Path,
    /// Devices and the sockets of their daemons.
    pub devices: &'a [(&'static Device, PathBuf)],
    /// A folder for what the machine leaves behind.
    pub folder: &'a Path,
}

impl Boot<'_> {
    /// The machine's command. Its standard input and output are the terminal that [`terminal`] names; the kernel's
    /// and machine's own messages go to [`Boot::logs`].
    pub fn command(&self) -> Result<Command> {
        match &self.qemu {
            None => self.uml(),
            Some(qemu) => self.emulated(qemu),
        }
    }

    /// Where the kernel's and the machine's own messages are.
    pub fn logs(&self) -> Vec<PathBuf> {
        vec![self.kernel_log(), self.machine_log()]
    }

    fn kernel_log(&self) -> PathBuf {
        self.folder.join("kernel.log")
    }

    fn machine_log(&self) -> PathBuf {
        self.folder.join("machine.log")
    }

    /// User Mode Linux.
    fn uml(&self) -> Result<Command> {
        let mut command = tethered(self.kernel);
        command
            .arg(format!("mem={MEMORY}M"))
            .args(uml_devices(self.devices, self.folder)?)
            .arg(format!("initrd={}", self.initramfs.display()))
            // line 0 carries the kernel's messages, line 1 the script; all others are off
            .args(["con=null", "con0=null,fd:2", "con1=fd:0,fd:1", "ssl=null"])
            .args([KERNEL_OPTIONS, "noreboot"])
            .arg(format!("uml_dir={}", self.folder.display()))
            .arg("umid=guest");
        command.stderr(Stdio::from(File::create(self.kernel_log())?));
        Ok(command)
    }

    /// Puts a devicetree where the kernel finds it in an emulated machine. QEMU 11.1 loads it behind the kernel's protected-mode
    /// part, but tells the kernel an address as if the real-mode part were in front of that. What is expected at that address
    /// is put there, too: a piece of setup data (Linux, Documentation/arch/x86/boot.rst) with the tree once more.
    fn write_setup_data(&self, root: &Node) -> Result<PathBuf> {
        const SETUP_SECTORS: u64 = 0x1f1;
        const SETUP_DTB: u32 = 2;
        let mut sectors = [0];
        File::open(self.kernel)?.read_exact_at(&mut sectors, SETUP_SECTORS)?;
        let real_mode_part = (usize::from(sectors[0]) + 1) * 512;

        let tree = devicetree::flatten(root);
        let mut header = vec![0; 8]; // the end of the list
        header.extend(SETUP_DTB.to_le_bytes());
        header.extend((tree.len() as u32).to_le_bytes());
        let mut data = tree.clone();
        ensure!(
            data.len() + header.len() <= real_mode_part,
            "the devicetree is too long for the kernel of this machine"
        );
        data.resize(real_mode_part - header.len(), 0);
        data.extend(header);
        data.extend(tree);
        write_dtb(self.folder, &data)
    }

    /// The devicetree of an emulated machine, if its devices have something in it.
    fn emulated_tree(&self) -> Option<Node> {
        let mut bus = devicetree::pci_bus();
        let mut others = Vec::new();
        for (number, (device, _)) in self.devices.iter().enumerate() {
            let Some(nodes) = &device.nodes else { continue };
            if let Some(complete) = nodes.device {
                bus = bus.child(complete(devicetree::pci(device.name, slot(number))));
            }
            others.extend((nodes.others)());
        }
        (!others.is_empty()).then(|| devicetree::root().child(bus).children(others))
    }

    /// QEMU with an emulated processor: where /dev/kvm exists it does not always work.
    fn emulated(&self, qemu: &Qemu) -> Result<Command> {
        let mut command = qemu.command();
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args([
                "-machine",
                "q35,memory-backend=mem",
                "-accel",
                "tcg,thread=multi",
            ])
            .arg("-object")
            .arg(format!(
                "memory-backend-memfd,id=mem,size={MEMORY}M,share=on"
            ))
            .args(["-m", &format!("{MEMORY}M")])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", &format!("console=ttyS0 {KERNEL_OPTIONS}")])
            .arg("-serial")
            .arg(format!("file:{}", self.kernel_log().display()))
            .args([
                "-chardev",
                "stdio,id=script,signal=off",
                "-serial",
                "chardev:script",
            ]);
        if let Some(root) = self.emulated_tree() {
            command.arg("-dtb").arg(self.write_setup_data(&root)?);
        }
        for (number, (device, socket)) in self.devices.iter().enumerate() {
            command
                .arg("-chardev")
                .arg(format!("socket,id=c{number},path={}", socket.display()));
            command.arg("-device").arg(format!(
                "{},chardev=c{number},addr={}",
                device.qemu,
                slot(number)
            ));
        }
        command.stderr(Stdio::from(File::create(self.machine_log())?));
        Ok(command)
    }
}

/// Where an emulated machine has its device with this number. The places below are the machine's own.
const fn slot(number: usize) -> u32 {
    const FIRST: u32 = 4;
    FIRST + number as u32
}

/// Devices and the sockets of their daemons, as options of User Mode Linux: those with children below them come in the devicetree,
/// which is written to `folder`, and all others in `virtio_uml.device`.
pub fn uml_devices(devices: &[(&Device, PathBuf)], folder: &Path) -> Result<Vec<String>> {
    let mut root = devicetree::root();
    let mut options = Vec::new();
    for (device, socket) in devices {
        match device.nodes.as_ref().and_then(|nodes| nodes.device) {
            Some(complete) => {
                let node = devicetree::virtio_uml(device.name, socket, device.virtio_id);
                root = root.child(complete(node));
            }
            None => options.push(format!(
                "virtio_uml.device={}:{}",
                socket.display(),
                device.virtio_id
            )),
        }
        if let Some(nodes) = &device.nodes {
            root = root.children((nodes.others)());
        }
    }
    let tree = write_dtb(folder, &devicetree::flatten(&root))?;
    options.push(format!("dtb={}", tree.display()));
    Ok(options)
}

fn write_dtb(folder: &Path, bytes: &[u8]) -> Result<PathBuf> {
    let path = folder.join("guest.dtb");
    fs::write(&path, bytes)?;
    Ok(path)
}

/// The guest's name of the terminal that carries the script's output.
pub fn terminal(machine: Machine) -> &'static str {
    match machine {
        Machine::Uml => "/dev/tty1",
        Machine::Qemu(_) => "/dev/ttyS1",
    }
}
