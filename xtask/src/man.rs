//! `cargo xtask man`: manual pages, shell completions, and the option tables of the READMEs, from the options' definitions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{bounded, capture};
use crate::progress::Progress;
use crate::workspace::{Profile, Workspace};

/// What begins and ends a generated table; the name of the file with the table stands between.
const BEGIN: [&str; 2] = ["<!-- made by `cargo xtask man` from ", " -->"];
const END: &str = "<!-- end of what was made -->";

/// Longest time for writing the files of one daemon.
const WRITE_LIMIT: Duration = Duration::from_secs(30);

/// Writes manual pages and completions, and brings the READMEs' option tables up to date
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where manual pages and completions go [default: target/manual]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let folder = workspace.output(args.output.as_deref(), "manual")?;
    write(&workspace, &folder, Profile::Dev)?;
    for readme in outdated(&workspace, &folder)? {
        fs::write(&readme.path, &readme.text)
            .with_context(|| format!("cannot write {}", readme.path.display()))?;
        println!("{}: options brought up to date", readme.path.display());
    }
    println!("manual pages and completions are in {}", folder.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes the files of all daemons into `folder`, and returns the daemons' names.
pub fn write(workspace: &Workspace, folder: &Path, profile: Profile) -> Result<Vec<String>> {
    let names: Vec<String> = workspace
        .packages
        .iter()
        .map(|package| package.name.clone())
        .filter(|name| {
            workspace
                .root
                .join(name)
                .join("examples/manual.rs")
                .exists()
        })
        .collect();
    let progress = Progress::start_if_long("writing manual pages");
    let examples = workspace.build_manuals(&names, profile)?;
    for name in &names {
        let program = examples.join(format!("{name}-manual"));
        capture(bounded(program, WRITE_LIMIT).arg(folder))?;
    }
    progress.done("ok");
    Ok(names)
}

/// A README as it should be.
#[derive(Debug)]
pub struct Readme {
    /// Where it is.
    pub path: PathBuf,
    /// What should be in it.
    pub text: String,
}

/// The READMEs whose tables are not those in `folder`.
pub fn outdated(workspace: &Workspace, folder: &Path) -> Result<Vec<Readme>> {
    let crates = workspace.packages.iter().map(|package| &package.name);
    let mut readmes = Vec::new();
    for path in crates
        .map(|name| workspace.root.join(name).join("README.md"))
        .chain([workspace.root.join("README.md")])
        .filter(|path| path.exists())
    {
        let text = fs::read_to_string(&path)?;
        let fresh = refreshed(&text, |file| Ok(fs::read_to_string(folder.join(file))?))
            .with_context(|| path.display().to_string())?;
        if fresh != text {
            readmes.push(Readme { path, text: fresh });
        }
    }
    Ok(readmes)
}

/// `text` with each generated table replaced by the one that `table` has under its name.
fn refreshed(text: &str, table: impl Fn(&str) -> Result<String>) -> Result<String> {
    let mut fresh = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(BEGIN[0]) {
        let (file, after) = after
            .split_once(BEGIN[1])
            .context("a mark without an end")?;
        let (_, after) = after
            .split_once(END)
            .with_context(|| format!("the table of {file} has no end"))?;
        let table = table(file).with_context(|| format!("there is no table {file}"))?;
        fresh += &format!("{before}{}{file}{}\n{table}{END}", BEGIN[0], BEGIN[1]);
        rest = after;
    }
    Ok(fresh + rest)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn table(file: &str) -> Result<String> {
        match file {
            "a.md" => Ok("| a |\n".to_owned()),
            "b.md" => Ok("| b |\n".to_owned()),
            _ => bail!("unknown"),
        }
    }

    #[test]
    fn each_table_is_replaced_and_nothing_else_is_touched() {
        let marked =
            |file: &str, table: &str| format!("{}{file}{}\n{table}{END}\n", BEGIN[0], BEGIN[1]);
        let text = |a: &str, b: &str| {
            format!(
                "# x\n\n{}\nbetween\n{}the end\n",
                marked("a.md", a),
                marked("b.md", b)
            )
        };
        let fresh = text("| a |\n", "| b |\n");
        assert_eq!(
            refreshed(&text("", "| old |\n| c |\n"), table).unwrap(),
            fresh
        );
        assert_eq!(refreshed(&fresh, table).unwrap(), fresh);
        assert_eq!(refreshed("no mark\n", table).unwrap(), "no mark\n");
    }

    #[test]
    fn a_mark_that_makes_no_sense_is_an_error() {
        for file in ["c.md", "a.md"] {
            let text = format!("{}{file}{}\n", BEGIN[0], BEGIN[1]);
            assert!(refreshed(&text, table).is_err(), "{text}");
        }
    }
}
