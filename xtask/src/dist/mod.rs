//! `cargo xtask dist`: Debian packages, one for each daemon and one with what they share, and an archive with all of it.

pub mod debian;
pub mod devices;
mod licences;
mod tree;
mod units;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use self::debian::{Effort, Making, Package};
use self::devices::{DEVICES, Device};
use self::licences::Crates;
use self::tree::Tree;
use crate::man;
use crate::packages;
use crate::process::{bounded, capture};
use crate::progress::Progress;
use crate::temp::Folder;
use crate::workspace::{Profile, Workspace};

const LIMIT: Duration = Duration::from_secs(300);

/// The package with what all daemons share.
const COMMON: &str = "vhost-device-common";

const COPYRIGHT: &str = include_str!("../../dist/copyright");
const COMMON_README: &str = include_str!("../../dist/common.md");
const LICENSE_BSD: &str = include_str!("../../../LICENSE-BSD-3-CLAUSE");

/// What making packages takes.
const TOOLS: &[packages::Package] = &[
    packages::Package::program("binutils", "strip"),
    packages::Package::program("dpkg-dev", "dpkg-shlibdeps"),
    packages::Package::program("git", "git"),
];

/// Makes Debian packages and an archive of all daemons
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where they go [default: target/dist]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let output = workspace.output(args.output.as_deref(), "dist")?;
    let made = make(&workspace, Profile::Release, &output)?;
    for file in made.packages.iter().chain([&made.archive]) {
        println!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// The packages; the common one first.
    pub packages: Vec<PathBuf>,
    /// The archive with the files of all packages.
    pub archive: PathBuf,
}

/// The devices of the workspace that are shipped.
pub fn shipped(workspace: &Workspace) -> Vec<&'static Device> {
    DEVICES
        .iter()
        .filter(|device| workspace.version(&device.binary()).is_some())
        .collect()
}

/// Makes all packages and the archive in `output`.
pub fn make(workspace: &Workspace, profile: Profile, output: &Path) -> Result<Made> {
    packages::require(TOOLS)?;
    let devices = shipped(workspace);
    let names: Vec<String> = devices.iter().map(|device| device.binary()).collect();
    let sources = Sources::prepare(workspace, &names, profile)?;
    let progress = Progress::start_if_long("making packages");
    let stage = Folder::new("dist")?;
    let version = workspace.version("vhost-device-daemon").unwrap_or("0");
    let mut packages = vec![sources.common(&stage, version, output)?];
    for device in &devices {
        packages.push(sources.device(device, &stage, output)?);
    }
    let archive = archive(&stage, &packages, version, output, &sources.making)?;
    progress.done("ok");
    Ok(Made { packages, archive })
}

/// What packages are made of.
struct Sources<'a> {
    workspace: &'a Workspace,
    programs: PathBuf,
    manuals: Folder,
    crates: Crates,
    making: Making,
}

impl<'a> Sources<'a> {
    fn prepare(workspace: &'a Workspace, names: &[String], profile: Profile) -> Result<Self> {
        let manuals = Folder::new("manuals")?;
        // the same pages are written faster where the tests have built the writers
        man::write(workspace, manuals.path(), Profile::Dev)?;
        Ok(Self {
            workspace,
            programs: workspace.build(names, profile)?,
            manuals,
            crates: Crates::of(workspace)?,
            making: Making {
                time: time(workspace)?,
                effort: match profile {
                    Profile::Dev => Effort::Little,
                    Profile::Release => Effort::Usual,
                },
            },
        })
    }

    fn common(&self, stage: &Folder, version: &str, output: &Path) -> Result<PathBuf> {
        let tree = Tree::new(stage.path().join(COMMON))?;
        let package = Package {
            name: COMMON,
            version,
            title: "virtual devices as programs of their own: common files",
            about: "Folders, descriptions and licences of all vhost-device daemons",
            program: None,
            depends: &[],
        };
        let docs = format!("usr/share/doc/{COMMON}");
        tree.folder("etc/vhost-device")?;
        tree.folder("usr/share/vhost-device/backends")?;
        tree.text(&format!("{docs}/README.md"), COMMON_README)?;
        tree.compressed(
            &self.workspace.root.join("LICENSE-APACHE"),
            &format!("{docs}/LICENSE-APACHE"),
        )?;
        self.documents(&tree, &package)?;
        package.build(&tree, output, &self.making)
    }

    fn device(&self, device: &Device, stage: &Folder, output: &Path) -> Result<PathBuf> {
        let name = device.binary();
        let tree = Tree::new(stage.path().join(&name))?;
        let version = self.workspace.version(&name).unwrap_or("0");
        let program = format!("usr/bin/{name}");
        let package = Package {
            name: &name,
            version,
            title: &format!(
                "{} of virtual machines as a program of its own",
                device.title
            ),
            about: &format!("A vhost-user daemon that {}", device.about),
            program: Some(&program),
            depends: &[format!("{COMMON} (>= {version})")],
        };
        tree.program(&self.programs.join(&name), &program)?;
        self.manuals(&tree, &name)?;
        self.documents(&tree, &package)?;
        self.examples(&tree, device)?;
        let notice = self.crates.notice(self.workspace, &name)?;
        tree.compressed_text(&format!("usr/share/doc/{name}/third-party"), &notice)?;
        services(&tree, device)?;
        package.build(&tree, output, &self.making)
    }

    /// The manual page and the completions.
    fn manuals(&self, tree: &Tree, name: &str) -> Result<()> {
        let made = |file: &str| self.manuals.path().join(file);
        let page = format!("{name}.1");
        tree.compressed(&made(&page), &format!("usr/share/man/man1/{page}"))?;
        for (file, place) in [
            (
                format!("{name}.bash"),
                format!("bash-completion/completions/{name}"),
            ),
            (
                format!("_{name}"),
                format!("zsh/vendor-completions/_{name}"),
            ),
            (
                format!("{name}.fish"),
                format!("fish/vendor_completions.d/{name}.fish"),
            ),
        ] {
            tree.copy(&made(&file), &format!("usr/share/{place}"))?;
        }
        Ok(())
    }

    /// What every package has in its folder of documents.
    fn documents(&self, tree: &Tree, package: &Package<'_>) -> Result<()> {
        let docs = format!("usr/share/doc/{}", package.name);
        let bsd: String = LICENSE_BSD.lines().map(indented).collect();
        tree.text(
            &format!("{docs}/copyright"),
            &COPYRIGHT.replace("@BSD@\n", &bsd),
        )?;
        tree.compressed_text(
            &format!("{docs}/changelog"),
            &package.changelog(&self.making.time)?,
        )?;
        for file in ["CHANGELOG.md", "README.md"] {
            let own = self.workspace.root.join(package.name).join(file);
            if own.exists() {
                tree.compressed(&own, &format!("{docs}/{file}"))?;
            }
        }
        Ok(())
    }

    fn examples(&self, tree: &Tree, device: &Device) -> Result<()> {
        for file in ["example.toml", "domain.xml"] {
            let place = format!("usr/share/doc/{}/examples/{file}", device.binary());
            tree.copy(&own_file(self.workspace, device, file), &place)?;
        }
        Ok(())
    }
}

/// A file of `xtask/dist` that is written for one device.
pub fn own_file(workspace: &Workspace, device: &Device, file: &str) -> PathBuf {
    workspace
        .root
        .join("xtask/dist")
        .join(device.name)
        .join(file)
}

/// What the service manager, udev, management software and dpkg read.
fn services(tree: &Tree, device: &Device) -> Result<()> {
    let name = device.binary();
    let units = "usr/lib/systemd/system";
    tree.text(&format!("{units}/{name}@.socket"), &device.socket())?;
    tree.text(&format!("{units}/{name}@.service"), &device.service())?;
    tree.folder(&format!("etc/vhost-device/{}", device.name))?;
    if let Some([rule, group]) = device.node_rules() {
        tree.text(&format!("usr/lib/udev/rules.d/60-{name}.rules"), &rule)?;
        tree.text(&format!("usr/lib/sysusers.d/{name}.conf"), &group)?;
    }
    let description = format!(
        "usr/share/{}/{}",
        device.discovery(),
        device.description_name()
    );
    tree.text(&description, &device.description())?;
    tree.script("DEBIAN/postinst", &device.postinst())?;
    tree.script("DEBIAN/prerm", &device.prerm())?;
    tree.script("DEBIAN/postrm", &device.postrm())
}

/// A line of a paragraph in a Debian control file.
fn indented(line: &str) -> String {
    match line.trim_end() {
        "" => " .\n".to_owned(),
        text => format!(" {text}\n"),
    }
}

/// The time of the last commit, or what SOURCE_DATE_EPOCH says: the same sources make the same files.
fn time(workspace: &Workspace) -> Result<String> {
    if let Ok(time) = env::var("SOURCE_DATE_EPOCH") {
        return Ok(time);
    }
    let mut git = bounded("git", LIMIT);
    git.current_dir(&workspace.root)
        .args(["log", "-1", "--format=%ct"]);
    Ok(capture(&mut git)?.trim().to_owned())
}

/// An archive with the files of all packages below one folder.
fn archive(
    stage: &Folder,
    packages: &[PathBuf],
    version: &str,
    output: &Path,
    making: &Making,
) -> Result<PathBuf> {
    let name = format!("vhost-device-{version}");
    let all = stage.path().join(&name);
    fs::create_dir(&all)?;
    for package in packages {
        let mut command = bounded("dpkg-deb", LIMIT);
        capture(command.arg("--extract").arg(package).arg(&all))?;
    }
    let file = output.join(format!("{name}-{}.tar.gz", env::consts::ARCH));
    let mut command = bounded("tar", LIMIT);
    command
        .current_dir(stage.path())
        .args(["--create", "--sort=name", "--owner=0", "--group=0"])
        .args(["--numeric-owner", "--mtime", &format!("@{}", making.time)])
        .args(["--use-compress-program", making.effort.gzip(), "--file"])
        .arg(&file)
        .arg(&name);
    capture(&mut command)?;
    Ok(file)
}
