//! Commands written in the documents: each must be one that the program in question understands.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use super::tally::Tally;
use crate::Cli;
use crate::process::{bounded, capture};
use crate::workspace::{Profile, Workspace};

/// What ends a command inside a line of a shell.
const ENDS: [&str; 9] = ["|", "||", "&", "&&", ";", "#", ">", "<<", "<"];

/// The names of our programs begin with this.
const PROGRAM: &str = "vhost-device-";

/// Checks the commands of all documents, one result per document that has some.
pub fn run(workspace: &Workspace) -> Result<Tally> {
    let mut tally = Tally::default();
    for path in documents(workspace) {
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let commands = commands(&text);
        if commands.is_empty() {
            continue;
        }
        let result = commands
            .iter()
            .try_for_each(|words| check(workspace, words));
        let name = path
            .strip_prefix(&workspace.root)
            .unwrap_or(&path)
            .display()
            .to_string();
        tally.add(Tally::of(&name, &result));
    }
    Ok(tally)
}

fn documents(workspace: &Workspace) -> Vec<PathBuf> {
    let top = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"].map(PathBuf::from);
    let crates = workspace
        .packages
        .iter()
        .map(|package| Path::new(&package.name).join("README.md"));
    top.into_iter()
        .chain(crates)
        .map(|path| workspace.root.join(path))
        .filter(|path| path.exists())
        .collect()
}

/// The commands for our programs in the code blocks of a document, as words.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut inside = false;
    let mut lines = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside {
            match line.strip_suffix('\\') {
                Some(continued) => lines.push_str(continued),
                None => {
                    lines.push_str(line);
                    lines.push('\n');
                }
            }
        }
    }
    lines.lines().filter_map(command).collect()
}

fn command(line: &str) -> Option<Vec<String>> {
    let line = line
        .trim_start()
        .trim_start_matches("$ ")
        .trim_start_matches("ExecStart=");
    let words = line
        .split_whitespace()
        .skip_while(|word| word.contains('=') || *word == "sudo");
    let words: Vec<String> = words
        .take_while(|word| !ENDS.contains(word) && !word.starts_with("<<"))
        .map(|word| word.trim_matches(['\'', '"']).to_owned())
        .collect();
    let ours = words
        .first()
        .is_some_and(|program| program_name(program).is_some())
        || words.starts_with(&["cargo".to_owned(), "xtask".to_owned()]);
    ours.then_some(words)
}

/// The name of one of our programs, whatever folder it is given with.
fn program_name(word: &str) -> Option<&str> {
    let name = word.rsplit('/').next()?;
    name.starts_with(PROGRAM).then_some(name)
}

fn check(workspace: &Workspace, words: &[String]) -> Result<()> {
    let line = words.join(" ");
    match program_name(&words[0]) {
        Some(name) => check_options(workspace, name, words).context(line),
        None => match Cli::try_parse_from(&words[1..]) {
            Err(error) if error.use_stderr() => bail!("{line}: {error}"),
            _ => Ok(()),
        },
    }
}

/// Every long option must be one that the program's help names.
fn check_options(workspace: &Workspace, name: &str, words: &[String]) -> Result<()> {
    let binary = workspace
        .build(&[name.to_owned()], Profile::Dev)?
        .join(name);
    let help = capture(bounded(binary, Duration::from_secs(10)).arg("--help"))?;
    for word in words
        .iter()
        .filter(|word| word.starts_with("--") && word.len() > 2)
    {
        let option = word.split('=').next().unwrap_or(word);
        ensure!(mentions(&help, option), "{name} has no option {option}");
    }
    Ok(())
}

fn mentions(help: &str, option: &str) -> bool {
    help.split(|letter: char| !(letter.is_alphanumeric() || letter == '-'))
        .any(|word| word == option)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_commands_are_found_in_code_blocks_only() {
        let text = "run `cargo xtask nothing`\n```sh\ncargo xtask demo --qemu  # slow\n\
                    RUST_LOG=debug ./target/release/vhost-device-rng \\\n  --socket-path /run/s &\nls\n```\n\
                    cargo xtask prose\n";
        let found: Vec<String> = commands(text).iter().map(|words| words.join(" ")).collect();
        assert_eq!(
            found,
            [
                "cargo xtask demo --qemu",
                "./target/release/vhost-device-rng --socket-path /run/s"
            ]
        );
    }

    #[test]
    fn an_option_is_not_found_in_a_longer_one() {
        let help = "  -s, --socket-path <PATH>\n      --once  one client";
        assert!(mentions(help, "--once"));
        assert!(mentions(help, "--socket-path"));
        assert!(!mentions(help, "--socket"));
    }

    #[test]
    fn commands_of_ours_are_parsed_by_our_own_parser() {
        let workspace = Workspace {
            root: "/".into(),
            target: "/".into(),
            packages: Vec::new(),
        };
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        check(&workspace, &words("cargo xtask test --list")).unwrap();
        check(&workspace, &words("cargo xtask test --help")).unwrap();
        check(&workspace, &words("cargo xtask tset")).unwrap_err();
    }
}
