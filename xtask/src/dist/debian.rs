//! Debian packages from staged trees.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::tree::Tree;
use crate::process::{bounded, capture};

const LIMIT: Duration = Duration::from_secs(300);

/// Who is named as the maintainer unless DEBFULLNAME and DEBEMAIL do.
const MAINTAINER: [&str; 2] = ["vhost-device contributors", "nobody@vhost-device.invalid"];

/// One package.
#[derive(Debug)]
pub struct Package<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// The first line of its description.
    pub title: &'a str,
    /// The rest of it.
    pub about: &'a str,
    /// The program in it, below its root; none makes a package for all architectures.
    pub program: Option<&'a str>,
    /// Dependencies beside the program's libraries.
    pub depends: &'a [String],
}

/// How packages are put together.
#[derive(Debug)]
pub struct Making {
    /// The time of all files in them, in seconds since 1970.
    pub time: String,
    /// How hard it is tried to make them small.
    pub effort: Effort,
}

/// How hard it is tried to make packages small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Hardly: they are unpacked again at once.
    Little,
    /// As for those who will download them.
    Usual,
}

impl Effort {
    /// The options of dpkg-deb.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Little => &["-Zgzip", "-z1"],
            Self::Usual => &["-Zxz"],
        }
    }

    /// The program that compresses an archive. Without name and time, so that the same archive is made of the same files.
    pub fn gzip(self) -> &'static str {
        match self {
            Self::Little => "gzip -1 -n",
            Self::Usual => "gzip -9 -n",
        }
    }
}

impl Package<'_> {
    /// Makes the package of `tree` in `output`, and returns its file.
    pub fn build(&self, tree: &Tree, output: &Path, making: &Making) -> Result<PathBuf> {
        let architecture = match self.program {
            Some(_) => capture(bounded("dpkg", LIMIT).arg("--print-architecture"))?,
            None => "all".to_owned(),
        };
        let architecture = architecture.trim();
        tree.text("DEBIAN/control", &self.control(tree, architecture)?)?;
        tree.text("DEBIAN/md5sums", &sums(tree)?)?;
        let file = output.join(format!("{}_{}_{architecture}.deb", self.name, self.version));
        let mut command = bounded("dpkg-deb", LIMIT);
        command
            .arg("--root-owner-group")
            .args(making.effort.options())
            .arg("--build")
            .args([tree.root(), &file])
            .env("SOURCE_DATE_EPOCH", &making.time);
        capture(&mut command)?;
        Ok(file)
    }

    fn control(&self, tree: &Tree, architecture: &str) -> Result<String> {
        let mut depends = match self.program {
            Some(program) => vec![libraries(&tree.root().join(program), self.name)?],
            None => Vec::new(),
        };
        depends.extend_from_slice(self.depends);
        let depends = match depends.join(", ") {
            none if none.is_empty() => none,
            some => format!("Depends: {some}\n"),
        };
        let size = tree.size()?;
        let Self {
            name,
            version,
            title,
            about,
            ..
        } = self;
        let maintainer = maintainer();
        Ok(format!(
            "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {maintainer}\n\
             Installed-Size: {size}\n{depends}Section: misc\nPriority: optional\n\
             Homepage: https://github.com/rust-vmm/vhost-device\nDescription: {title}\n {about}.\n"
        ))
    }

    /// The changelog in Debian's form: what is new is in the other one.
    pub fn changelog(&self, time: &str) -> Result<String> {
        let mut date = bounded("date", LIMIT);
        let date = capture(date.args(["-u", "-R", "-d", &format!("@{time}")]))?;
        Ok(format!(
            "{} ({}) unstable; urgency=medium\n\n  * See CHANGELOG.md for what is new.\n\n -- {}  {}\n",
            self.name,
            self.version,
            maintainer(),
            date.trim()
        ))
    }
}

fn maintainer() -> String {
    let [name, mail] = MAINTAINER;
    let or = |variable, own: &str| env::var(variable).unwrap_or_else(|_| own.to_owned());
    format!("{} <{}>", or("DEBFULLNAME", name), or("DEBEMAIL", mail))
}

/// The packages of the libraries that a program needs.
fn libraries(program: &Path, name: &str) -> Result<String> {
    // It wants to be run in a source package.
    let source = crate::temp::Folder::new("source")?;
    fs::create_dir(source.path().join("debian"))?;
    let control = format!("Source: {name}\n\nPackage: {name}\nArchitecture: any\n");
    fs::write(source.path().join("debian/control"), control)?;
    let mut command = bounded("dpkg-shlibdeps", LIMIT);
    command.current_dir(source.path()).arg("-O").arg(program);
    let text = capture(&mut command)?;
    let list = text
        .lines()
        .find_map(|line| line.strip_prefix("shlibs:Depends="))
        .with_context(|| format!("dpkg-shlibdeps says nothing about {}", program.display()))?;
    Ok(list.to_owned())
}

fn sums(tree: &Tree) -> Result<String> {
    let script = "find . -type f ! -path './DEBIAN/*' -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 -r md5sum";
    let mut command = bounded("sh", LIMIT);
    capture(command.args(["-c", script]).current_dir(tree.root()))
}
