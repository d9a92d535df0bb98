//! Manual pages and completions: made, understood by the programs that read them, and the same as in the READMEs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::tally::Tally;
use crate::man;
use crate::packages::{self, Package};
use crate::process::bounded;
use crate::temp::Folder;
use crate::workspace::{Profile, Workspace};

const LIMIT: Duration = Duration::from_secs(30);

/// The programs that read what was made.
const READERS: &[Package] = &[
    Package::program("mandoc", "mandoc"),
    Package::program("zsh", "zsh"),
    Package::program("fish", "fish"),
];

/// Checks them, one result for each file and one for each README.
pub fn run(workspace: &Workspace) -> Result<Tally> {
    packages::require(READERS)?;
    let folder = Folder::new("manual")?;
    let names = man::write(workspace, folder.path(), Profile::Dev)?;
    let mut tally = Tally::default();
    for name in &names {
        for (file, reader) in readers(name) {
            let result = accepted(reader, &folder.path().join(&file));
            tally.add(Tally::of(&file, &result));
        }
    }
    let outdated = man::outdated(workspace, folder.path())?;
    let result = outdated.first().map_or(Ok(()), |readme| {
        anyhow::bail!(
            "the options in {} are not those of the program; run `cargo xtask man`",
            readme.path.display()
        )
    });
    tally.add(Tally::of("options in the READMEs", &result));
    Ok(tally)
}

/// Each file of a daemon, and the command that checks it.
fn readers(name: &str) -> [(String, Command); 4] {
    let command = |program: &str, arguments: &[&str]| {
        let mut command = bounded(program, LIMIT);
        command.args(arguments);
        command
    };
    [
        (
            format!("{name}.1"),
            command("mandoc", &["-T", "lint", "-W", "warning"]),
        ),
        (format!("{name}.bash"), command("bash", &["-n"])),
        (format!("_{name}"), command("zsh", &["--no-exec"])),
        (format!("{name}.fish"), command("fish", &["--no-execute"])),
    ]
}

/// Whether the reader takes the file without a word.
fn accepted(mut reader: Command, file: &Path) -> Result<()> {
    let output = reader.arg(file).output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(output.status.success() && said.is_empty(), "{said}");
    Ok(())
}
