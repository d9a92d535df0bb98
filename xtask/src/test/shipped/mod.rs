//! What is shipped: packages are made and installed into a root of their own; from there each daemon is described, started
//! from its unit's command line and asked for its manual; then the packages are removed, and nothing may be left.

mod descriptions;
mod libvirt;
mod page;
mod root;
mod start;
mod units;

use std::fs;

use anyhow::{Result, ensure};

use self::root::Root;
use super::tally::Tally;
use crate::dist::{self, devices::Device};
use crate::packages::{self, Package};
use crate::process::{bounded, capture};
use crate::temp::Folder;
use crate::workspace::{Profile, Workspace};

/// Whose tools judge what is shipped.
const JUDGES: &[Package] = &[
    Package::program("systemd", "systemd-analyze"),
    Package::program("strace", "strace"),
    Package::program("libvirt-clients", "virt-xml-validate"),
    // virt-xml-validate is a script around it
    Package::program("libxml2-utils", "xmllint"),
    Package::program("qemu-system-x86", "qemu-system-x86_64"),
];

/// The instance that the examples are for.
const INSTANCE: &str = "example";

/// Runs all of it.
pub fn run(workspace: &Workspace) -> Result<Tally> {
    packages::require(JUDGES)?;
    let folder = Folder::new("shipped")?;
    let output = folder.path().join("packages");
    fs::create_dir(&output)?;
    let made = dist::make(workspace, Profile::Dev, &output)?;
    let mut tally = Tally::default();
    tally.add(Tally::of("every daemon is shipped", &complete(workspace)));
    let root = Root::install(&folder.path().join("root"), &made.packages)?;
    tally.add(Tally::of("the archive", &root.has_all_of(&made.archive)));
    for device in dist::shipped(workspace) {
        for (what, result) in checks(&root, device) {
            tally.add(Tally::of(&format!("{what} of {}", device.name), &result));
        }
    }
    tally.add(Tally::of(
        "the README's page",
        &page::check(workspace, &root),
    ));
    tally.add(Tally::of("removal", &root.remove()));
    Ok(tally)
}

fn checks(root: &Root, device: &Device) -> [(&'static str, Result<()>); 6] {
    [
        ("description", descriptions::check(root, device)),
        ("capabilities", descriptions::capabilities(root, device)),
        ("units", units::check(root, device)),
        ("files", files(root, device)),
        ("start from the unit", start::check(root, device)),
        ("libvirt domain", libvirt::check(root, device)),
    ]
}

/// Every daemon of the workspace is shipped, but for the one that others are copied from.
fn complete(workspace: &Workspace) -> Result<()> {
    let shipped = dist::shipped(workspace);
    let missing: Vec<&str> = workspace
        .packages
        .iter()
        .map(|package| package.name.as_str())
        .filter(|name| *name != "vhost-device-template")
        .filter(|name| workspace.root.join(name).join("src/main.rs").exists())
        .filter(|name| name.starts_with("vhost-device-"))
        .filter(|name| shipped.iter().all(|device| device.binary() != **name))
        .collect();
    ensure!(
        missing.is_empty(),
        "without a row in xtask/src/dist/devices.rs: {}",
        missing.join(" ")
    );
    Ok(())
}

/// The manual page, the completions and the documents are where they are looked for.
fn files(root: &Root, device: &Device) -> Result<()> {
    let name = device.binary();
    for place in [
        format!("usr/share/bash-completion/completions/{name}"),
        format!("usr/share/zsh/vendor-completions/_{name}"),
        format!("usr/share/fish/vendor_completions.d/{name}.fish"),
        format!("usr/share/doc/{name}/copyright"),
        format!("usr/share/doc/{name}/changelog.gz"),
        format!("usr/share/doc/{name}/CHANGELOG.md.gz"),
        format!("usr/share/doc/{name}/README.md.gz"),
        format!("usr/share/doc/{name}/third-party.gz"),
    ] {
        ensure!(root.path().join(&place).is_file(), "there is no {place}");
    }
    let page = root.path().join(format!("usr/share/man/man1/{name}.1.gz"));
    let text = capture(bounded("gzip", root::LIMIT).arg("-dc").arg(&page))?;
    ensure!(
        text.contains(&name.replace('-', "\\-")) || text.contains(&name),
        "{} is about something else",
        page.display()
    );
    Ok(())
}
