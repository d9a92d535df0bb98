//! The guest's kernel: one small Linux in two builds, made once and kept in the cache.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Machine, source};
use crate::packages::{self, Package};
use crate::process::{bounded, run_logged};
use crate::progress::Progress;
use crate::{cache, workspace};

const COMMON: &str = include_str!("../../guest/common.config");
const UM: &str = include_str!("../../guest/um.config");
const X86_64: &str = include_str!("../../guest/x86_64.config");

/// Modules of our own, for simulated hardware that the kernel lacks: a name, and the source.
type Module = (&'static str, &'static str);

/// An adapter with 10-bit addresses.
const TEN_BIT: Module = (
    "i2c-ten-bit",
    include_str!("../../guest/modules/i2c-ten-bit.c"),
);

/// Part of the cache key: raise it when the way of building changes without a change of the option lists.
const RECIPE: &[u8] = b"1";

/// Longest time for a build; a slow machine with one core needs a third of it.
const BUILD_LIMIT: Duration = Duration::from_secs(3600);

const PACKAGES: &[Package] = &[
    Package::program("build-essential", "make"),
    Package::program("build-essential", "gcc"),
    Package::file("libc6-dev", "/usr/include/stdio.h"),
    Package::program("flex", "flex"),
    Package::program("bison", "bison"),
    Package::program("bc", "bc"),
    Package::program("xz-utils", "xz"),
    Package::program("lz4", "lz4"),
    Package::program("perl", "perl"),
    // objtool of the x86-64 build
    Package::file("libelf-dev", "/usr/include/gelf.h"),
];

/// One build of the kernel.
struct Build {
    /// The kernel's name of the architecture.
    arch: &'static str,
    /// Options beside the common ones.
    options: &'static str,
    /// Modules beside the kernel's own.
    modules: &'static [Module],
    /// The result, below the build folder.
    image: &'static str,
    /// What it takes on two cores.
    about: &'static str,
}

impl Build {
    const fn of(machine: Machine) -> Self {
        match machine {
            Machine::Uml => Self {
                arch: "um",
                options: UM,
                // the hardware machine
                modules: &[TEN_BIT],
                image: "linux",
                about: "5 min",
            },
            Machine::Qemu(_) => Self {
                arch: "x86_64",
                options: X86_64,
                modules: &[],
                image: "arch/x86/boot/bzImage",
                about: "8 min",
            },
        }
    }
}

/// The kernel for `machine`, built if the cache does not have it. The folder of the result also keeps the
/// configuration ("config"), the source's version ("version") and the modules ("modules/").
pub fn image(machine: Machine) -> Result<PathBuf> {
    let build = Build::of(machine);
    let options = format!("{COMMON}{}", build.options);
    let name = format!("kernel-{}", build.arch);
    let mut inputs = vec![
        source::PACKAGE.as_bytes(),
        build.arch.as_bytes(),
        options.as_bytes(),
        RECIPE,
    ];
    inputs.extend(build.modules.iter().map(|(_, text)| text.as_bytes()));
    let folder = cache::entry(&name, &inputs, |folder, scratch| {
        make(&build, &options, folder, scratch)
    })?;
    Ok(folder.join("kernel"))
}

fn make(build: &Build, options: &str, folder: &Path, scratch: &Path) -> Result<()> {
    packages::require(PACKAGES)?;
    let log = cache::root()?.join(format!("logs/kernel-{}.log", build.arch));
    workspace::fresh_log(&log)?;
    let progress = Progress::start("fetching the guest kernel's source");
    let source = source::fetch(scratch, &log)?;
    progress.done(&source.version);

    let label = format!(
        "building the guest kernel ({}), about {}",
        build.arch, build.about
    );
    let progress = Progress::start(label);
    let output = scratch.join("build");
    configure(build, options, &source.tree, &output, &log)?;
    compile(build, &source.tree, &output, &log)?;
    keep(build, &output, folder)?;
    for module in build.modules {
        add_module(build, module, &source.tree, &output, folder, &log)?;
    }
    fs::write(folder.join("version"), source.version + "\n")?;
    progress.done("ok");
    Ok(())
}

fn configure(build: &Build, options: &str, tree: &Path, output: &Path, log: &Path) -> Result<()> {
    fs::create_dir(output)?;
    let wanted = output.join("wanted.config");
    fs::write(&wanted, options)?;
    let mut command = make_command(build, tree, output);
    run_logged(
        command.arg("allnoconfig").env("KCONFIG_ALLCONFIG", &wanted),
        log,
    )
    .context("cannot configure the guest kernel")?;
    let unset = unset_options(options, &fs::read_to_string(output.join(".config"))?);
    if !unset.is_empty() {
        eprintln!(
            "the guest kernel does not take these options: {}",
            unset.join(" ")
        );
    }
    Ok(())
}

fn compile(build: &Build, tree: &Path, output: &Path, log: &Path) -> Result<()> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut command = make_command(build, tree, output);
    run_logged(command.arg(format!("-j{jobs}")), log).context("cannot build the guest kernel")
}

/// make at low priority: the machine stays usable meanwhile.
fn make_command(build: &Build, tree: &Path, output: &Path) -> Command {
    let mut command = bounded("nice", BUILD_LIMIT);
    command
        .args(["-n", "10", "make", "-C"])
        .arg(tree)
        .arg(format!("ARCH={}", build.arch));
    command.arg(format!("O={}", output.display()));
    // flags meant for other programs would end up in the kernel
    for name in ["CFLAGS", "LDFLAGS", "MAKEFLAGS", "CROSS_COMPILE"] {
        command.env_remove(name);
    }
    command
}

fn keep(build: &Build, output: &Path, folder: &Path) -> Result<()> {
    fs::rename(output.join(build.image), folder.join("kernel"))?;
    fs::rename(output.join(".config"), folder.join("config"))?;
    let modules = folder.join("modules");
    fs::create_dir(&modules)?;
    // written by the kernel's build: one object a line
    for line in fs::read_to_string(output.join("modules.order"))?.lines() {
        let module = output.join(line).with_extension("ko");
        let name = module.file_name().context("a module without a name")?;
        fs::rename(&module, modules.join(name))
            .with_context(|| format!("cannot keep {}", module.display()))?;
    }
    Ok(())
}

/// Builds one of our own modules with the kernel in `output`, and keeps it with the others.
fn add_module(
    build: &Build,
    (name, text): &Module,
    tree: &Path,
    output: &Path,
    folder: &Path,
    log: &Path,
) -> Result<()> {
    let sources = output.join(format!("ours/{name}"));
    fs::create_dir_all(&sources)?;
    fs::write(sources.join(format!("{name}.c")), text)?;
    fs::write(sources.join("Kbuild"), format!("obj-m := {name}.o\n"))?;
    let mut command = make_command(build, tree, output);
    command.arg(format!("M={}", sources.display()));
    run_logged(command.arg("modules"), log)
        .with_context(|| format!("cannot build the module {name}"))?;
    let module = format!("{name}.ko");
    fs::rename(sources.join(&module), folder.join("modules").join(module))?;
    Ok(())
}

/// The options of `wanted` that `config` does not have.
fn unset_options(wanted: &str, config: &str) -> Vec<String> {
    let config = options_of(config);
    // a later line replaces an earlier one, as it does in the kernel's own reader
    options_of(wanted)
        .into_iter()
        .filter(|(name, value)| config.get(name).copied().unwrap_or("n") != *value)
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

fn options_of(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter(|line| line.starts_with("CONFIG_"))
        .filter_map(|line| line.split_once('='))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_did_not_take_are_reported() {
        let wanted = "CONFIG_A=y\nCONFIG_B=n\nCONFIG_C=m\n# CONFIG_D=y\nCONFIG_E=n\nCONFIG_F=y\n";
        let config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\nCONFIG_E=y\n";
        assert_eq!(
            unset_options(wanted, config),
            ["CONFIG_C=m", "CONFIG_E=n", "CONFIG_F=y"]
        );
    }

    #[test]
    fn the_last_word_about_an_option_counts() {
        assert!(unset_options("CONFIG_A=y\nCONFIG_A=n\n", "").is_empty());
    }
}
