//! LLVM's tools that read the compiler's counters.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::packages::{self, Package, find_program};
use crate::process::{bounded, capture};

/// The oldest LLVM whose tools read what the compiler writes now, and Debian's name for it.
const OLDEST: u32 = 19;
const PACKAGE: Package = Package::program("llvm-19", "llvm-cov-19");

/// Longest time for one tool.
const LIMIT: Duration = Duration::from_secs(900);

/// A pair of tools of the same version.
#[derive(Debug)]
pub struct Tools {
    profdata: PathBuf,
    cov: PathBuf,
}

impl Tools {
    /// The tools of the Rust toolchain if they are installed, else the system's; on Debian they are installed.
    pub fn find() -> Result<Self> {
        let compiler = Compiler::ask()?;
        if let Some(own) = Self::in_folder(&compiler.tools) {
            return Ok(own);
        }
        let of_system = || (OLDEST..=compiler.llvm).rev().find_map(Self::of_version);
        if let Some(tools) = of_system() {
            return Ok(tools);
        }
        packages::require(&[PACKAGE])?;
        of_system().context("llvm-profdata is not where llvm-cov is")
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        let tools = Self {
            profdata: folder.join("llvm-profdata"),
            cov: folder.join("llvm-cov"),
        };
        (tools.profdata.is_file() && tools.cov.is_file()).then_some(tools)
    }

    fn of_version(version: u32) -> Option<Self> {
        Some(Self {
            profdata: find_program(&format!("llvm-profdata-{version}"))?,
            cov: find_program(&format!("llvm-cov-{version}"))?,
        })
    }

    /// `llvm-profdata`, with a time limit.
    pub fn profdata(&self) -> Command {
        bounded(&self.profdata, LIMIT)
    }

    /// `llvm-cov`, with a time limit.
    pub fn cov(&self) -> Command {
        bounded(&self.cov, LIMIT)
    }
}

/// What the compiler says about itself.
#[derive(Debug, PartialEq, Eq)]
struct Compiler {
    /// The version of its LLVM.
    llvm: u32,
    /// Where the toolchain's component llvm-tools puts its programs.
    tools: PathBuf,
}

impl Compiler {
    fn ask() -> Result<Self> {
        let about = capture(Command::new("rustc").arg("-vV"))?;
        let sysroot = capture(Command::new("rustc").args(["--print", "sysroot"]))?;
        Self::read(&about, sysroot.trim()).context("cannot read what rustc -vV says")
    }

    fn read(about: &str, sysroot: &str) -> Option<Self> {
        let field = |name: &str| about.lines().find_map(|line| line.strip_prefix(name));
        Some(Self {
            llvm: field("LLVM version: ")?.split('.').next()?.parse().ok()?,
            tools: [sysroot, "lib", "rustlib", field("host: ")?, "bin"]
                .iter()
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_tells_its_llvm_and_where_its_tools_are() {
        let about = "rustc 1.95.0\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.2\n";
        assert_eq!(
            Compiler::read(about, "/rust"),
            Some(Compiler {
                llvm: 22,
                tools: "/rust/lib/rustlib/x86_64-unknown-linux-gnu/bin".into()
            })
        );
        assert_eq!(Compiler::read("rustc 1.95.0\n", "/rust"), None);
    }
}
