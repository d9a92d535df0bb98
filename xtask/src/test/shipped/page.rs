//! The README's page for users: its commands are run, in their order, against what is shipped.
//!
//! They run as they stand, but for the places: those of the system become those of the root that packages were installed into,
//! and a few programs are told about it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::root::{LIMIT, Root};
use crate::packages::find_program;
use crate::process::{bounded, run_logged};
use crate::temp::Folder;
use crate::workspace::Workspace;

/// The heading of the page, and what begins the next one.
const PAGE: &str = "\n## Run it\n";
const NEXT: &str = "\n## ";

/// Programs that are not run as they are. `ROOT` is the root, `REAL` the program's own path.
const STAND_INS: [(&str, &str); 6] = [
    ("sudo", "exec \"$@\""),
    // what it makes has been made, and installed, by the steps before
    (
        "cargo",
        "case \"$1 $2\" in 'build --release' | 'xtask dist') ;; *) exit 1 ;; esac",
    ),
    (
        "apt-get",
        "[ \"$1 $2\" = 'install ./target/dist/*.deb' ] && [ $# = 2 ]",
    ),
    // no service manager runs in the root
    (
        "systemctl",
        "[ \"$1 $2\" = 'enable --now' ] && exec REAL --root=ROOT enable \"$3\"",
    ),
    ("virsh", "exec REAL --connect test:///default \"$@\""),
    // a person starts it when the daemon is there, and leaves it by the monitor's keys
    (
        "qemu-system-x86_64",
        "for word; do\n    case \"$word\" in socket,*path=*) socket=${word##*path=} ;; esac\ndone\n\
         tries=100\nuntil [ -S \"$socket\" ] || [ $tries = 0 ]; do sleep 0.1; tries=$((tries - 1)); done\n\
         printf '\\001cquit\\n' | REAL \"$@\"",
    ),
];

/// Runs the page's commands.
pub fn check(workspace: &Workspace, root: &Root) -> Result<()> {
    let readme = fs::read_to_string(workspace.root.join("README.md"))?;
    let blocks = blocks(&readme).context("the README has no page for users")?;
    let folder = Folder::new("page")?;
    stand_ins(root, &folder.path().join("bin"))?;
    fs::create_dir_all(folder.path().join("target"))?;
    std::os::unix::fs::symlink(
        root.path().join("usr/bin"),
        folder.path().join("target/release"),
    )?;
    // a disk without a system: QEMU is not told to boot
    fs::write(folder.path().join("guest.qcow2"), [0; 1 << 16])?;
    let script = folder.path().join("script");
    fs::write(&script, script_of(&blocks, root, folder.path()))?;
    let log = workspace.log("page")?;
    let mut command = bounded("sh", LIMIT);
    command
        .arg(&script)
        .current_dir(folder.path())
        .env("PATH", search_path(root, folder.path()));
    run_logged(&mut command, &log)?;
    let said = fs::read_to_string(&log)?;
    for words in ["a frontend connected", "validates", "defined from"] {
        ensure!(
            said.contains(words),
            "the commands did not say {words:?}: {said}"
        );
    }
    let wanted = "etc/systemd/system/sockets.target.wants/vhost-device-rng@example.socket";
    ensure!(
        root.path().join(wanted).is_symlink(),
        "the socket is not enabled"
    );
    fs::remove_dir_all(root.path().join("etc/systemd"))?;
    fs::remove_file(root.path().join("etc/vhost-device/rng/example.toml"))?;
    Ok(())
}

/// The commands of the page, in its order.
fn blocks(readme: &str) -> Option<Vec<String>> {
    let (_, page) = readme.split_once(PAGE)?;
    let (page, _) = page.split_once(NEXT)?;
    let blocks: Vec<String> = page
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once("```")?.0.to_owned()))
        .collect();
    (!blocks.is_empty()).then_some(blocks)
}

/// The commands as a script; what runs in the background is ended at the end, and has to end well.
fn script_of(blocks: &[String], root: &Root, folder: &Path) -> String {
    let places = |text: &str| {
        let here = root.path().display();
        // the root may be below /tmp itself
        text.replace("/tmp/", &format!("{}/", folder.display()))
            .replace("/usr/share/doc/", &format!("{here}/usr/share/doc/"))
            .replace("/etc/vhost-device/", &format!("{here}/etc/vhost-device/"))
    };
    format!(
        "set -ex\n{}\nkill $!\nwait $!\n",
        places(&blocks.join("\n"))
    )
}

fn stand_ins(root: &Root, folder: &Path) -> Result<()> {
    fs::create_dir(folder)?;
    for (name, text) in STAND_INS {
        let mut text = text.replace("ROOT", &root.path().display().to_string());
        if text.contains("REAL") {
            let real = find_program(name).with_context(|| format!("there is no {name}"))?;
            text = text.replace("REAL", &real.display().to_string());
        }
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Where programs are looked for: stand-ins first, then those of the packages.
fn search_path(root: &Root, folder: &Path) -> String {
    let system = std::env::var("PATH").unwrap_or_default();
    let own = root.path().join("usr/bin");
    format!(
        "{}:{}:{system}",
        folder.join("bin").display(),
        own.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_the_page_are_found_and_no_others() {
        let readme = "# x\n```sh\nzero\n```\n## Run it\n### A\n```sh\none\ntwo\n```\ntext\n```ini\nno\n```\n\
                      ```sh\nthree\n```\n## More\n```sh\nfour\n```\n";
        assert_eq!(blocks(readme).unwrap(), ["one\ntwo\n", "three\n"]);
        assert!(blocks("## Run it\n## More\n").is_none());
    }
}
