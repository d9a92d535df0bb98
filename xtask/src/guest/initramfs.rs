//! The guest's root file system: busybox, the tools its devices need, and what it is to run.
//!
//! It is made anew for every boot, in a few milliseconds, so nothing of it can be out of date.

use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use crate::packages::{self, Package, find_program};
use crate::process::capture;

const INIT: &str = include_str!("../../guest/init.sh");

/// A program of the host that guests use too. Its shared libraries come along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The name of the program.
    pub program: &'static str,
    /// The Debian package that brings it.
    pub package: &'static str,
    /// Whether it comes from the release's backports.
    pub backported: bool,
}

impl Tool {
    fn package(&self) -> Package {
        let package = Package::program(self.package, self.program);
        if self.backported {
            package.backported()
        } else {
            package
        }
    }
}

/// The shell and all the small tools of every guest.
const BUSYBOX: Tool = Tool {
    program: "busybox",
    package: "busybox-static",
    backported: false,
};

/// Writes the archive with `tools` to `path`. `settings` and `script` are read by the guest's first process.
pub fn write(path: &Path, tools: &[Tool], settings: &str, script: &[u8]) -> Result<()> {
    let mut all = vec![BUSYBOX];
    all.extend(tools);
    let needed: Vec<_> = all.iter().map(Tool::package).collect();
    packages::require(&needed)?;

    let mut archive = Archive::new(BufWriter::new(File::create(path)?));
    for folder in [
        "/dev", "/proc", "/sys", "/tmp", "/run", "/root", "/etc", "/mnt",
    ] {
        archive.folder(folder)?;
    }
    // the kernel opens it for the first process before that can make it
    archive.character_device("/dev/console", 5, 1)?;
    archive.file("/etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    archive.file("/etc/group", 0o644, b"root:x:0:\n")?;
    archive.file("/init", 0o755, INIT.as_bytes())?;
    archive.file("/guest/settings", 0o644, settings.as_bytes())?;
    archive.file("/guest/script", 0o644, script)?;
    let mut files = Files {
        archive,
        done: Vec::new(),
    };
    for tool in all {
        files.program(tool.program)?;
    }
    files.busybox_links(tools)?;
    files.archive.finish()?;
    Ok(())
}

/// Files of the host on their way into an archive.
struct Files<W: std::io::Write> {
    archive: Archive<W>,
    done: Vec<String>,
}

impl<W: std::io::Write> Files<W> {
    /// Adds a program as /bin/NAME, and its libraries where the program will look for them.
    fn program(&mut self, name: &str) -> Result<()> {
        let path = find_program(name).with_context(|| format!("{name} is not installed"))?;
        self.file(&path, &format!("/bin/{name}"))?;
        for library in libraries(&path)? {
            self.file(Path::new(&library), &library)?;
        }
        Ok(())
    }

    fn file(&mut self, source: &Path, target: &str) -> Result<()> {
        if self.done.iter().any(|done| done == target) {
            return Ok(());
        }
        let content =
            fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        let permissions = fs::metadata(source)?.permissions().mode() & 0o777;
        self.archive.file(target, permissions, &content)?;
        self.done.push(target.to_owned());
        Ok(())
    }

    /// Gives every applet its name, except where a real tool has it.
    fn busybox_links(&mut self, tools: &[Tool]) -> Result<()> {
        let busybox = find_program(BUSYBOX.program).context("busybox is not installed")?;
        let list = capture(Command::new(busybox).arg("--list"))?;
        let applets = list.lines().filter(|applet| *applet != BUSYBOX.program);
        for applet in applets.filter(|applet| tools.iter().all(|tool| tool.program != *applet)) {
            self.archive
                .symlink(&format!("/bin/{applet}"), BUSYBOX.program)?;
        }
        Ok(())
    }
}

/// The shared libraries of a program, its loader included; empty for a static one.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // ldd fails for static programs, and says so on either output
    if !output.status.success() {
        let said = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        return if said.contains("not a dynamic executable") {
            Ok(Vec::new())
        } else {
            bail!("ldd: {said}")
        };
    }
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        bail!("{} lacks a library: {}", program.display(), line.trim());
    }
    Ok(library_paths(&text))
}

fn library_paths(ldd: &str) -> Vec<String> {
    ldd.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let text = "\tlinux-vdso.so.1 (0x0000fff)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            library_paths(text),
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
        assert!(library_paths("\tstatically linked\n").is_empty());
    }

    #[test]
    fn a_dynamic_program_brings_its_loader() {
        let shell = find_program("sh").unwrap();
        let libraries = libraries(&shell).unwrap();
        assert!(
            libraries.iter().any(|path| path.contains("ld-")),
            "{libraries:?}"
        );
    }
}
