//! `cargo xtask guest`: a small real Linux with our devices attached runs a script.

mod boot;
mod console;
mod cpio;
pub mod daemon;
pub mod devices;
mod devicetree;
pub mod hardware;
mod initramfs;
mod kernel;
pub mod programs;
pub mod qemu;
pub mod siblings;
mod source;
mod terminal;
pub mod tours;
pub mod tracing;
mod trees;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitCode, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use self::boot::Boot;
use self::console::Console;
use self::daemon::Daemon;
use self::devices::{DEVICES, Device};
use self::initramfs::Tool;
use self::programs::Programs;
use self::qemu::{Qemu, Version};
use crate::packages::{self, Package};
use crate::process::{tail, tail_of};
use crate::temp::Folder;
use crate::workspace::{Profile, Workspace};

/// How long a machine may take to go away after the script has ended.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(15);

/// The time limit of a run unless another is given, in seconds. A run takes a few; a busy machine needs many times that.
pub const TIMEOUT: u64 = 120;

/// Boot a small Linux with our devices and run a script in it
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    /// Attach a device, with arguments for its daemon after a comma, for example rng,--rng-source FILE
    #[arg(long = "device", value_name = "NAME[,ARGS]")]
    devices: Vec<Attach>,
    /// Use the release build of the daemons
    #[arg(long)]
    release: bool,
    /// End the guest after this many seconds (an interactive one has all the time)
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT)]
    timeout: u64,
    /// Open a shell in the guest, after the script if there is one
    #[arg(long)]
    shell: bool,
    /// A script for the guest's shell, `-` for standard input
    #[arg(required_unless_present = "shell")]
    script: Option<PathBuf>,
}

/// The choice of a machine, for all verbs that start one.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct MachineArgs {
    /// Use QEMU (emulated x86-64) in place of User Mode Linux: the host's own, or a newer one
    #[arg(long, value_name = "VERSION", num_args = 0..=1, require_equals = true, default_missing_value = "own")]
    qemu: Option<Version>,
}

impl MachineArgs {
    /// The machine that is asked for.
    pub fn machine(self) -> Machine {
        self.qemu.map_or(Machine::Uml, Machine::Qemu)
    }
}

/// Where a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// User Mode Linux: the kernel is a process, and a vhost-user frontend by itself.
    Uml,
    /// QEMU with an emulated x86-64 processor.
    Qemu(Version),
}

impl Machine {
    /// The name used in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uml => "uml",
            Self::Qemu(Version::Own) => "qemu",
            Self::Qemu(Version::Newest) => "the newest qemu",
        }
    }

    /// Its QEMU, if it has one.
    fn qemu(self) -> Result<Option<Qemu>> {
        match self {
            Self::Uml => Ok(None),
            Self::Qemu(version) => Qemu::prepare(version).map(Some),
        }
    }
}

/// A device to attach and the arguments of its daemon.
#[derive(Clone, Debug)]
pub struct Attach {
    /// Which one.
    pub device: &'static Device,
    /// For the daemon, beside its socket; `{folder}` in them is the run's folder.
    pub arguments: Vec<OsString>,
}

impl Attach {
    /// A device with the arguments of the table.
    pub fn with_defaults(device: &'static Device) -> Self {
        Self {
            device,
            arguments: words(device.arguments),
        }
    }
}

impl FromStr for Attach {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, arguments) = match text.split_once(',') {
            Some((name, arguments)) => (name, Some(arguments)),
            None => (text, None),
        };
        let device = Device::find(name).ok_or_else(|| {
            let known: Vec<&str> = DEVICES.iter().map(|device| device.name).collect();
            format!("known devices: {}", known.join(", "))
        })?;
        Ok(Self {
            device,
            arguments: words(arguments.unwrap_or(device.arguments)),
        })
    }
}

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

/// Arguments with the run's folder in place of `{folder}`.
fn in_folder(arguments: &[OsString], folder: &Path) -> Vec<OsString> {
    let replaced = |argument: &OsString| match argument.to_str() {
        Some(text) => text.replace("{folder}", &folder.to_string_lossy()).into(),
        None => argument.clone(),
    };
    arguments.iter().map(replaced).collect()
}

/// What a guest is to do.
#[derive(Debug)]
pub struct Job<'a> {
    /// Where it runs.
    pub machine: Machine,
    /// Devices and arguments of their daemons.
    pub devices: &'a [Attach],
    /// Which build of the daemons.
    pub profile: Profile,
    /// For the guest's shell.
    pub script: &'a [u8],
    /// Whether a person uses the guest, after the script.
    pub shell: bool,
    /// The limit for boot and script; an interactive guest has none.
    pub timeout: Duration,
}

/// Runs the verb. The exit status is the script's.
pub fn run(args: &Args) -> Result<ExitCode> {
    let script = match &args.script {
        None => Vec::new(),
        Some(path) if path == Path::new("-") => {
            ensure!(
                !args.shell,
                "standard input cannot be both the script and the terminal"
            );
            let mut script = Vec::new();
            io::stdin()
                .read_to_end(&mut script)
                .context("cannot read the script")?;
            script
        }
        Some(path) => fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
    };
    let job = Job {
        machine: args.machine.machine(),
        devices: &args.devices,
        profile: if args.release {
            Profile::Release
        } else {
            Profile::Dev
        },
        script: &script,
        shell: args.shell,
        timeout: Duration::from_secs(args.timeout),
    };
    let status = job.run(&Workspace::load()?, &mut io::stdout())?;
    Ok(u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from))
}

impl Job<'_> {
    /// Builds what is missing, starts the daemons, boots, and writes the script's output to `output` as it comes. All
    /// daemons must end in order afterwards. Returns the script's exit status.
    pub fn run(&self, workspace: &Workspace, output: &mut dyn Write) -> Result<i32> {
        for attach in self.devices {
            let name = attach.device.name;
            ensure!(
                attach.device.fits(self.machine),
                "the release's QEMU has no device for {name}; --qemu=newest has"
            );
        }
        prepare(self.machine)?;
        let binaries = self.binaries(workspace)?;
        let folder = Folder::new("guest")?;
        let daemons = self.start_daemons(&binaries, folder.path())?;
        let _programs = self.start_programs(folder.path())?;
        let sockets: Vec<_> = daemons
            .iter()
            .map(|daemon| daemon.socket().to_owned())
            .collect();
        let result = self.run_with(&sockets, folder.path(), output);
        let logs: Vec<_> = daemons
            .iter()
            .map(|daemon| daemon.log().to_owned())
            .collect();
        let result = result.map_err(|error| quoting(error, "the daemons wrote", &logs));
        for daemon in daemons {
            let stopped = daemon.stop();
            // the guest's failure is the more telling one
            if result.is_ok() {
                stopped?;
            }
        }
        result
    }

    /// The same with daemons that are there already, at these sockets; `folder` is this guest's own.
    pub fn run_with(
        &self,
        sockets: &[PathBuf],
        folder: &Path,
        output: &mut dyn Write,
    ) -> Result<i32> {
        let kernel = prepare(self.machine)?;
        let mark = mark()?;
        let initramfs = folder.join("initramfs.cpio");
        initramfs::write(
            &initramfs,
            &self.tools(),
            &self.settings(&mark),
            self.script,
        )?;
        let attached = self.devices.iter().map(|attach| attach.device);
        let devices: Vec<_> = attached.zip(sockets.iter().cloned()).collect();
        let boot = Boot {
            qemu: self.machine.qemu()?,
            kernel: &kernel,
            initramfs: &initramfs,
            devices: &devices,
            folder,
        };
        self.drive(&boot, &mark, output)
    }

    fn binaries(&self, workspace: &Workspace) -> Result<PathBuf> {
        let mut names: Vec<_> = self
            .devices
            .iter()
            .map(|attach| attach.device.binary())
            .collect();
        names.sort();
        names.dedup();
        workspace.build(&names, self.profile)
    }

    fn tools(&self) -> Vec<Tool> {
        self.devices
            .iter()
            .flat_map(|attach| attach.device.tools)
            .copied()
            .collect()
    }

    /// What the guest's first process reads, as assignments of its shell.
    fn settings(&self, mark: &str) -> String {
        let (rows, columns) = terminal::window();
        format!(
            "OUTPUT={}\nMARK={mark}\nSHELL_WANTED={}\nROWS={rows}\nCOLUMNS_WIDE={columns}\n",
            boot::terminal(self.machine),
            if self.shell { "yes" } else { "no" },
        )
    }

    fn start_daemons(&self, binaries: &Path, folder: &Path) -> Result<Vec<Daemon>> {
        let start = |(number, attach): (usize, &Attach)| {
            let device = attach.device;
            let instance = format!("{}{number}", device.name);
            Daemon::start(
                &binaries.join(device.binary()),
                &in_folder(&attach.arguments, folder),
                folder,
                &instance,
            )
        };
        self.devices.iter().enumerate().map(start).collect()
    }

    fn start_programs(&self, folder: &Path) -> Result<Vec<Programs>> {
        let starts = self
            .devices
            .iter()
            .filter_map(|attach| attach.device.programs);
        starts.map(|start| start(folder)).collect()
    }

    fn drive(&self, boot: &Boot<'_>, mark: &str, output: &mut dyn Write) -> Result<i32> {
        let raw = if self.shell {
            Some(terminal::Raw::enter()?)
        } else {
            None
        };
        let mut command = boot.command()?;
        command
            .stdin(if self.shell {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped());
        // User Mode Linux signals its whole process group when it panics
        command.process_group(0);
        let child = command.spawn().context("cannot start the machine")?;
        let mut guest = Guest { child };
        let result = self.converse(&mut guest, mark, output);
        drop(raw);
        result.map_err(|error| quoting(error, "the machine's last messages", &boot.logs()))
    }

    fn converse(&self, guest: &mut Guest, mark: &str, output: &mut dyn Write) -> Result<i32> {
        let deadline = (!self.shell).then(|| Instant::now() + self.timeout);
        let bytes = guest.read()?;
        if let Some(stdin) = guest.child.stdin.take() {
            forward_keys(stdin);
        }
        let mut console = Console::new(mark);
        let mut heard = Vec::new();
        let status = loop {
            let Some(chunk) = next(&bytes, deadline) else {
                bail!(self.too_late(&console, &heard))
            };
            if chunk.is_empty() {
                bail!("the guest ended before its script did{}", quoted(&heard));
            }
            let booting = !console.has_begun();
            let ready = console.feed(&chunk);
            if booting && console.has_begun() {
                heard.clear();
            }
            heard.extend_from_slice(if console.has_begun() { &ready } else { &chunk });
            output.write_all(&ready)?;
            output.flush()?;
            if let Some(status) = console.status() {
                break status;
            }
        };
        match daemon::wait(&mut guest.child, SHUTDOWN_LIMIT)? {
            Some(_) => Ok(status),
            None => bail!("the guest does not switch off"),
        }
    }

    fn too_late(&self, console: &Console, heard: &[u8]) -> String {
        let stage = if console.has_begun() {
            "the script did not end"
        } else {
            "the guest did not boot"
        };
        format!(
            "{stage} within {} s{}",
            self.timeout.as_secs(),
            quoted(heard)
        )
    }
}

fn quoted(heard: &[u8]) -> String {
    match tail(&String::from_utf8_lossy(heard)) {
        text if text.is_empty() => String::new(),
        text => format!("; it wrote:\n{text}"),
    }
}

/// Adds the ends of log files to an error, behind its own words.
fn quoting(error: anyhow::Error, about: &str, logs: &[PathBuf]) -> anyhow::Error {
    let quoted: String = logs.iter().map(|log| tail_of(log)).collect();
    if quoted.is_empty() {
        error
    } else {
        anyhow!("{error:#}\n{about}:\n{quoted}")
    }
}

/// Makes sure that `machine` can be started and returns its kernel.
pub fn prepare(machine: Machine) -> Result<PathBuf> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "guests run on x86-64 hosts only"
    );
    packages::require(&[
        Package::program("util-linux", "setpriv"),
        Package::program("busybox-static", "busybox"),
    ])?;
    kernel::image(machine)
}

/// A word that nothing in the guest writes by chance.
fn mark() -> Result<String> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("guest-{:016x}", u64::from_ne_bytes(bytes)))
}

/// A running machine; its whole process group is killed on drop.
struct Guest {
    child: Child,
}

impl Guest {
    /// What it writes, chunk by chunk; an empty chunk is the end.
    fn read(&mut self) -> Result<Receiver<Vec<u8>>> {
        let mut stdout = self
            .child
            .stdout
            .take()
            .context("the guest has no output")?;
        let (sender, receiver) = channel();
        thread::spawn(move || {
            loop {
                let mut chunk = vec![0; 4096];
                // an output that cannot be read has ended
                let length = stdout.read(&mut chunk).unwrap_or(0);
                chunk.truncate(length);
                if sender.send(chunk).is_err() || length == 0 {
                    return;
                }
            }
        });
        Ok(receiver)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // not reaped yet, so the group's number is still ours; whoever is left in it goes
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The next chunk, or nothing after the deadline.
fn next(bytes: &Receiver<Vec<u8>>, deadline: Option<Instant>) -> Option<Vec<u8>> {
    let Some(deadline) = deadline else {
        return Some(bytes.recv().unwrap_or_default());
    };
    match bytes.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(chunk) => Some(chunk),
        Err(RecvTimeoutError::Disconnected) => Some(Vec::new()),
        Err(RecvTimeoutError::Timeout) => None,
    }
}

/// Copies what is typed to the guest. The thread ends with the process: a read from a terminal cannot be called off.
fn forward_keys(mut guest: ChildStdin) {
    thread::spawn(move || {
        let mut keys = [0; 256];
        while let Ok(length @ 1..) = io::stdin().lock().read(&mut keys) {
            if guest.write_all(&keys[..length]).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_option_carries_arguments_for_the_daemon() {
        let attach: Attach = "rng,--rng-source /tmp/a,b --period 10".parse().unwrap();
        assert_eq!(attach.device.name, "rng");
        assert_eq!(
            attach.arguments,
            ["--rng-source", "/tmp/a,b", "--period", "10"]
        );
        assert!("rng".parse::<Attach>().is_ok());
        assert!("toaster".parse::<Attach>().unwrap_err().contains("rng"));
    }
}
