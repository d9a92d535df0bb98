//! Packages of suites that the system does not use: apt with package lists of its own, so that the system's stay
//! untouched. Where to fetch from is read off the system's own package sources.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt_sources::{self, Stanza};

/// apt with lists, sources and cache of its own.
pub struct Apt {
    options: Vec<OsString>,
    archives: PathBuf,
}

impl Apt {
    /// apt for these suites of Debian, with all that it keeps below `folder`.
    pub fn new(folder: &Path, suites: &[&str]) -> Result<Self> {
        let parts = folder.join("sources");
        let lists = folder.join("lists");
        let cache = folder.join("cache");
        let archives = cache.join("archives");
        for path in [&parts, &lists.join("partial"), &archives.join("partial")] {
            fs::create_dir_all(path)?;
        }
        let stanza = stanza(Path::new("/etc"), suites)?;
        fs::write(parts.join("own.sources"), stanza)?;
        let settings = [
            ("Dir::Etc::SourceList", Path::new("/dev/null")),
            ("Dir::Etc::SourceParts", &parts),
            // preferences of the host are about its own suites
            ("Dir::Etc::Preferences", Path::new("/dev/null")),
            ("Dir::Etc::PreferencesParts", Path::new("/dev/null")),
            ("Dir::State::Lists", &lists),
            ("Dir::Cache", &cache),
            // apt's own user cannot enter a cache folder in somebody's home
            ("APT::Sandbox::User", Path::new("root")),
        ];
        let options = settings.map(|(name, value)| option(name, value));
        Ok(Self {
            options: options.into_iter().flatten().collect(),
            archives,
        })
    }

    /// The same for a system on which nothing is installed: it can only download, and what a package needs counts in full.
    pub fn on_empty_system(folder: &Path, suites: &[&str]) -> Result<Self> {
        let mut apt = Self::new(folder, suites)?;
        let status = folder.join("status");
        fs::write(&status, "")?;
        apt.options.extend(option("Dir::State::status", &status));
        Ok(apt)
    }

    /// The packages that were downloaded.
    pub fn downloaded(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.archives)?;
        let paths = entries.map(|entry| Ok(entry?.path()));
        let is_package = |path: &PathBuf| path.extension().is_some_and(|end| end == "deb");
        paths
            .filter(|path| path.as_ref().map_or(true, is_package))
            .collect()
    }

    /// What every command of apt needs, before its own words.
    pub fn options(&self) -> &[OsString] {
        &self.options
    }
}

fn option(name: &str, value: &Path) -> [OsString; 2] {
    let mut option = OsString::from(format!("{name}="));
    option.push(value);
    ["-o".into(), option]
}

/// The host's release and its backports.
pub fn own_suites() -> Result<[String; 2]> {
    let release = release(Path::new("/etc"))?;
    let backports = format!("{release}-backports");
    Ok([release, backports])
}

fn release(etc: &Path) -> Result<String> {
    fs::read_to_string(etc.join("os-release"))
        .ok()
        .and_then(|text| debian_release(&text))
        .context("packages of other suites are Debian's, and this system is another")
}

/// The system's own package source with other suites.
fn stanza(etc: &Path, suites: &[&str]) -> Result<String> {
    let release = release(etc)?;
    let stanzas = apt_sources::read(&etc.join("apt"))?;
    let own = apt_sources::main_archive(&stanzas, &release)
        .with_context(|| format!("no package source here carries Debian {release} main"))?;
    Ok(Stanza {
        suites: suites.iter().map(|&suite| suite.to_owned()).collect(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::Folder;

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
            stanza(etc.path(), &["bookworm", "bookworm-backports"]).unwrap(),
            "Types: deb\nURIs: http://mirror.invalid/debian\nSuites: bookworm bookworm-backports\n\
             Components: main\nSigned-By: /k.gpg\n"
        );
    }
}
