//! The kernel's source: a Debian package of a newer release than the host's, fetched with package lists of its own so
//! that the system's stay untouched. Where to fetch it from is read off the system's own package sources.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::apt_sources::{self, Stanza};
use crate::process::{bounded, capture, run_logged};

/// The package with the kernel that has all guest drivers and simulators this project needs.
pub const PACKAGE: &str = "linux-source-7.3";

/// The suite that carries it.
const SUITE: &str = "trixie-backports";

/// Longest time for a download.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(1200);

/// Longest time for unpacking.
const UNPACK_LIMIT: Duration = Duration::from_secs(600);

/// An unpacked kernel source.
pub struct Source {
    /// The top folder of the source.
    pub tree: PathBuf,
    /// Package and version, for the record.
    pub version: String,
}

/// Fetches the source and unpacks it below `folder`.
pub fn fetch(folder: &Path, log: &Path) -> Result<Source> {
    let apt = Apt::new(&folder.join("apt"))?;
    run_logged(
        bounded("apt-get", DOWNLOAD_LIMIT)
            .args(&apt.options)
            .args(["-q", "update"]),
        log,
    )
    .context("cannot fetch the package lists")?;
    let package = apt.choose()?;
    let download = folder.join("download");
    fs::create_dir(&download)?;
    let mut command = bounded("apt-get", DOWNLOAD_LIMIT);
    command
        .args(&apt.options)
        .args(["-q", "download", &package])
        .current_dir(&download);
    run_logged(&mut command, log).with_context(|| format!("cannot download {package}"))?;
    let deb = only_file(&download)?;
    let version = capture(Command::new("dpkg-deb").arg("--show").arg(&deb))?
        .trim()
        .replace('\t', " ");
    let tree = unpack(&deb, folder, &package, log)?;
    Ok(Source { tree, version })
}

/// apt with lists, sources and cache of its own.
struct Apt {
    options: Vec<OsString>,
}

impl Apt {
    fn new(folder: &Path) -> Result<Self> {
        let parts = folder.join("sources");
        let lists = folder.join("lists");
        let cache = folder.join("cache");
        for path in [
            &parts,
            &lists.join("partial"),
            &cache.join("archives/partial"),
        ] {
            fs::create_dir_all(path)?;
        }
        fs::write(parts.join("kernel.sources"), stanza(Path::new("/etc"))?)?;
        let settings = [
            ("Dir::Etc::SourceList", Path::new("/dev/null")),
            ("Dir::Etc::SourceParts", &parts),
            // preferences of the host are about packages to install, not about this one
            ("Dir::Etc::Preferences", Path::new("/dev/null")),
            ("Dir::Etc::PreferencesParts", Path::new("/dev/null")),
            ("Dir::State::Lists", &lists),
            ("Dir::Cache", &cache),
            // apt's own user cannot enter a cache folder in somebody's home
            ("APT::Sandbox::User", Path::new("root")),
        ];
        let mut options = Vec::new();
        for (name, value) in settings {
            let mut option = OsString::from(format!("{name}="));
            option.push(value);
            options.extend(["-o".into(), option]);
        }
        Ok(Self { options })
    }

    /// The wanted package, or the newest of its kind once the suite has moved on.
    fn choose(&self) -> Result<String> {
        let names = capture(
            Command::new("apt-cache")
                .args(&self.options)
                .args(["pkgnames", "linux-source-"]),
        )?;
        let Some(chosen) = choose(&names) else {
            bail!("{SUITE} has no package linux-source-*");
        };
        if chosen != PACKAGE {
            eprintln!("{SUITE} no longer has {PACKAGE}: taking {chosen}");
        }
        Ok(chosen.to_owned())
    }
}

fn choose(names: &str) -> Option<&str> {
    if names.lines().any(|name| name == PACKAGE) {
        return Some(PACKAGE);
    }
    names.lines().max_by_key(|name| {
        let version = name.trim_start_matches("linux-source-").split('.');
        version
            .map(|part| part.parse::<u32>().ok())
            .collect::<Option<Vec<_>>>()
    })
}

/// The system's own package source with the suite replaced.
fn stanza(etc: &Path) -> Result<String> {
    let release = fs::read_to_string(etc.join("os-release"))
        .ok()
        .and_then(|text| debian_release(&text))
        .context(
            "the source of the guest's kernel is a package of Debian, and this system is another",
        )?;
    let stanzas = apt_sources::read(&etc.join("apt"))?;
    let own = apt_sources::main_archive(&stanzas, &release)
        .with_context(|| format!("no package source here carries Debian {release} main"))?;
    Ok(Stanza {
        suites: vec![SUITE.to_owned()],
        components: vec!["main".to_owned()],
        ..own.clone()
    }
    .to_string())
}

/// The code name of the host's release, if the host is a Debian.
fn debian_release(os_release: &str) -> Option<String> {
    let field = |name: &str| {
        let line = os_release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    if field("ID")? == "debian" {
        field("VERSION_CODENAME")
    } else {
        None
    }
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let entry = fs::read_dir(folder)?
        .next()
        .context("apt-get downloaded nothing")?;
    Ok(entry?.path())
}

fn unpack(deb: &Path, folder: &Path, package: &str, log: &Path) -> Result<PathBuf> {
    let outer = folder.join("package");
    run_logged(
        bounded("dpkg-deb", UNPACK_LIMIT)
            .arg("-x")
            .arg(deb)
            .arg(&outer),
        log,
    )?;
    let archive = outer.join(format!("usr/src/{package}.tar.xz"));
    let source = folder.join("source");
    fs::create_dir(&source)?;
    let mut command = bounded("tar", UNPACK_LIMIT);
    command
        .arg("-C")
        .arg(&source)
        .args(["--strip-components=1", "-xf"])
        .arg(archive);
    run_logged(&mut command, log).context("cannot unpack the kernel's source")?;
    Ok(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::Folder;

    #[test]
    fn the_wanted_kernel_is_taken_and_else_the_newest() {
        assert_eq!(
            choose("linux-source-7.10\nlinux-source-7.3\n"),
            Some("linux-source-7.3")
        );
        assert_eq!(
            choose("linux-source-7.9\nlinux-source-7.10\n"),
            Some("linux-source-7.10")
        );
        assert_eq!(choose(""), None);
    }

    #[test]
    fn only_a_debian_has_debians_packages() {
        let release = debian_release("ID=debian\nVERSION_CODENAME=\"trixie\"\n");
        assert_eq!(release.as_deref(), Some("trixie"));
        assert_eq!(
            debian_release("ID=other\nVERSION_CODENAME=best\nID_LIKE=debian\n"),
            None
        );
    }

    #[test]
    fn the_source_is_derived_from_the_systems_own() {
        let etc = Folder::new("etc").unwrap();
        fs::create_dir_all(etc.path().join("apt/sources.list.d")).unwrap();
        fs::write(
            etc.path().join("os-release"),
            "ID=debian\nVERSION_CODENAME=bookworm\n",
        )
        .unwrap();
        fs::write(
            etc.path().join("apt/sources.list"),
            "deb [signed-by=/k.gpg] http://mirror.invalid/debian bookworm main contrib\n",
        )
        .unwrap();
        assert_eq!(
            stanza(etc.path()).unwrap(),
            "Types: deb\nURIs: http://mirror.invalid/debian\nSuites: trixie-backports\n\
             Components: main\nSigned-By: /k.gpg\n"
        );
    }
}
