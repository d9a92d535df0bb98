//! What a person reads and types, made from the one definition of a daemon's options: manual page, shell completions, and the
//! option tables of the READMEs.
//!
//! Each device crate has an example `manual` that calls [`run`]; `cargo xtask man` runs them all.

mod markdown;
mod page;
mod text;

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap_complete::{Shell, generate_to};
use vhost_device_daemon::{App, cli};

/// Writes everything about `A` into the folder that the only argument names.
pub fn run<A: App>() -> ExitCode {
    let Some(folder) = env::args_os().nth(1) else {
        eprintln!("the argument is the folder to write to");
        return ExitCode::from(2);
    };
    match write::<A>(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write to {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

/// Writes into `folder`, which is made if it is not there:
///
/// | file | what |
/// |---|---|
/// | `NAME.1` | the manual page |
/// | `NAME.bash`, `_NAME`, `NAME.fish` | the completions for bash, zsh and fish |
/// | `NAME.options.md` | the table of the device's own options |
/// | `common.options.md` | the table of the options that all daemons have |
///
/// # Errors
/// A file cannot be written.
pub fn write<A: App>(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut command = cli::command::<A::Args>(A::NAME, A::VERSION, A::ABOUT);
    command.build();
    fs::write(
        folder.join(format!("{}.1", A::NAME)),
        page::render(&command)?,
    )?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, A::NAME, folder)?;
    }
    let own = markdown::table(&command, cli::DEVICE_OPTIONS);
    fs::write(folder.join(format!("{}.options.md", A::NAME)), own)?;
    let common = markdown::table(&command, cli::COMMON_OPTIONS);
    fs::write(folder.join("common.options.md"), common)
}
