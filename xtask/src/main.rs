//! Automation of the workspace, run as `cargo xtask VERB`.
//!
//! One verb per module: its arguments (a clap struct) and `run`, which returns the exit status of the whole
//! command. What several verbs need lives in modules of its own: [`packages`] (host packages), [`process`]
//! (bounded commands), [`progress`] (what a person sees meanwhile), [`workspace`] (cargo), [`cache`] and
//! [`guest`] (a real Linux that uses our daemons).

mod apt;
mod apt_sources;
mod bench;
mod cache;
mod coverage;
mod demo;
mod dist;
mod fuzz;
mod guest;
mod man;
mod new_device;
mod packages;
mod process;
mod progress;
#[cfg(test)]
mod rooms;
mod syscalls;
mod temp;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The command line; also used to check the commands written in the documentation.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", about = "Automation of the workspace")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Bench(bench::Args),
    Coverage(coverage::Args),
    Demo(demo::Args),
    Dist(dist::Args),
    Fuzz(fuzz::Args),
    Guest(guest::Args),
    Man(man::Args),
    NewDevice(new_device::Args),
    Syscalls(syscalls::Args),
    Test(test::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Bench(args) => bench::run(&args),
        Verb::Coverage(args) => coverage::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Dist(args) => dist::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Guest(args) => guest::run(&args),
        Verb::Man(args) => man::run(&args),
        Verb::NewDevice(args) => new_device::run(&args),
        Verb::Syscalls(args) => syscalls::run(&args),
        Verb::Test(args) => test::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
