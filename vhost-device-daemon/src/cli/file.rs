//! `--config FILE`: options from a file, under the names that they have on the command line.
//!
//! The file becomes a piece of command line that stands before the real one and is parsed with it. So every option can be in
//! it, is checked by the same code, and means the same. An option that the command line gives is taken from there only.
//!
//! | in the file | on the command line |
//! |---|---|
//! | `poll-us = 50` (or `poll_us`) | `--poll-us=50` |
//! | `once = true` | `--once` |
//! | `chip = ["s4", "s8"]` | `--chip=s4 --chip=s8` |
//! | `[[vm]]` with `guest-cid = 3` and `groups = ["a", "b"]` | `--vm=guest-cid=3,groups=a+b` |

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::{Table, Value};

use super::refusal;
use crate::exit::StartError;

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Options that only make sense on a command line.
const NOT_IN_A_FILE: [&str; 6] = [
    "config",
    "check-config",
    "check",
    "print-capabilities",
    "help",
    "version",
];

/// The options of a file as a piece of command line.
#[derive(Debug)]
pub(super) struct FileOptions {
    pub path: PathBuf,
    pub arguments: Vec<OsString>,
}

impl FileOptions {
    /// Reads the file that `argv` names, if it names one.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, or has a name or a kind of value in it that no option has.
    pub fn of(command: &Command, argv: &[OsString]) -> Result<Option<Self>, StartError> {
        // Required options may be in the file.
        let lenient = without_requirements(command.clone());
        let Ok(matches) = lenient.try_get_matches_from(argv) else {
            // The real parser tells what is wrong, in the right words.
            return Ok(None);
        };
        let Some(path) = matches.get_one::<PathBuf>("config") else {
            return Ok(None);
        };
        let table = parse(path, &read(path)?)?;
        let mut arguments = Vec::new();
        for (key, value) in &table {
            let option = find(command, key).ok_or_else(|| {
                bad(path, format_args!("there is no option '{key}'"))
                    .with_hint("--help lists the options")
            })?;
            if !is_given(&matches, option) {
                expand(path, key, option, value, &mut arguments)?;
            }
        }
        let path = path.clone();
        Ok(Some(Self { path, arguments }))
    }

    /// `argv` with the options of the file before those that it has.
    pub fn before(&self, argv: &[OsString]) -> Vec<OsString> {
        let (name, rest) = argv.split_at(argv.len().min(1));
        [name, &self.arguments, rest].concat()
    }

    /// The same mistake, with the file named.
    pub fn blame(&self, error: &clap::Error) -> StartError {
        StartError::usage(format!(
            "{}: {}",
            self.path.display(),
            refusal::message(error)
        ))
        .with_hint(refusal::hint(error))
    }
}

fn without_requirements(command: Command) -> Command {
    let groups: Vec<_> = command
        .get_groups()
        .map(|group| group.get_id().clone())
        .collect();
    let command = command.mut_args(|option| option.required(false));
    groups.into_iter().fold(command, |command, group| {
        command.mut_group(group, |group| group.required(false))
    })
}

fn read(path: &Path) -> Result<String, StartError> {
    let failed = |error| StartError::io("read", path.display(), &error);
    let mut text = String::new();
    let read = File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(failed)?;
    if read as u64 > MAX_BYTES {
        return Err(bad(
            path,
            format_args!("the file is longer than {MAX_BYTES} bytes"),
        ));
    }
    Ok(text)
}

fn parse(path: &Path, text: &str) -> Result<Table, StartError> {
    #[cfg(feature = "yaml")]
    if path
        .extension()
        .is_some_and(|end| end == "yaml" || end == "yml")
    {
        return serde_saphyr::from_str(text)
            .map_err(|error| bad(path, format_args!("{}", first_line(&error.to_string()))));
    }
    text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| {
            1 + text
                .bytes()
                .take(span.start)
                .filter(|&b| b == b'\n')
                .count()
        });
        bad(
            path,
            format_args!("line {line}: {}", first_line(error.message())),
        )
    })
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn bad(path: &Path, what: std::fmt::Arguments<'_>) -> StartError {
    StartError::usage(format!("{}: {what}", path.display()))
}

/// The option with this long name or alias. Underscores count as dashes.
fn find<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    let key = key.replace('_', "-");
    command.get_arguments().find(|option| {
        let mut names = option
            .get_long()
            .into_iter()
            .chain(option.get_all_aliases().unwrap_or_default());
        names.any(|name| name == key)
            && !option
                .get_long()
                .is_some_and(|name| NOT_IN_A_FILE.contains(&name))
    })
}

fn is_given(matches: &ArgMatches, option: &Arg) -> bool {
    matches.value_source(option.get_id().as_str()) == Some(ValueSource::CommandLine)
}

/// Appends what stands for `value` on a command line.
fn expand(
    path: &Path,
    key: &str,
    option: &Arg,
    value: &Value,
    arguments: &mut Vec<OsString>,
) -> Result<(), StartError> {
    let long = option.get_long().unwrap_or(key);
    if matches!(option.get_action(), ArgAction::SetTrue) {
        return match value {
            Value::Boolean(true) => {
                arguments.push(format!("--{long}").into());
                Ok(())
            }
            Value::Boolean(false) => Ok(()),
            _ => Err(bad(path, format_args!("'{key}' is true or false"))),
        };
    }
    let values = match value {
        Value::Array(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    let repeats = matches!(option.get_action(), ArgAction::Append);
    if values.len() > 1 && !repeats {
        return Err(bad(path, format_args!("'{key}' has one value only")));
    }
    for value in values {
        let text = match value {
            Value::Table(table) => settings(path, key, table)?,
            plain => scalar(plain)
                .ok_or_else(|| bad(path, format_args!("'{key}' cannot have such a value")))?,
        };
        arguments.push(format!("--{long}={text}").into());
    }
    Ok(())
}

/// A table as `name=value,name=value`.
fn settings(path: &Path, key: &str, table: &Table) -> Result<String, StartError> {
    let mut all = Vec::with_capacity(table.len());
    for (name, value) in table {
        let text = match value {
            Value::Array(list) => list.iter().map(scalar).collect::<Option<Vec<_>>>(),
            one => scalar(one).map(|text| vec![text]),
        }
        .ok_or_else(|| {
            bad(
                path,
                format_args!("'{name}' of '{key}' cannot have such a value"),
            )
        })?
        .join("+");
        if text.contains(',') {
            return Err(bad(
                path,
                format_args!("'{name}' of '{key}' cannot have a comma in it"),
            ));
        }
        all.push(format!("{name}={text}"));
    }
    Ok(all.join(","))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(yes) => Some(yes.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command::new("device")
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_parser(clap::value_parser!(PathBuf)),
            )
            .arg(
                Arg::new("socket")
                    .long("socket-path")
                    .visible_alias("socket")
                    .short('s'),
            )
            .arg(Arg::new("once").long("once").action(ArgAction::SetTrue))
            .arg(
                Arg::new("machine")
                    .long("vm")
                    .alias("vms")
                    .action(ArgAction::Append)
                    .required(true),
            )
    }

    /// The arguments for a file with this text and name, and this command line.
    fn expanded(name: &str, text: &str, line: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let argv = ["device", "--config", path.to_str().unwrap()]
            .into_iter()
            .chain(line.split_whitespace())
            .map(OsString::from)
            .collect::<Vec<_>>();
        match FileOptions::of(&command(), &argv) {
            Ok(options) => Ok(options
                .unwrap()
                .arguments
                .iter()
                .map(|argument| argument.to_str().unwrap().to_owned())
                .collect()),
            Err(error) => {
                let folder = format!("{}/", folder.path().display());
                Err(error.to_string().replace(&folder, ""))
            }
        }
    }

    #[test]
    fn every_kind_of_value_becomes_what_the_command_line_would_say() {
        let table = [
            ("socket-path = 'a b'", "", vec!["--socket-path=a b"]),
            ("socket_path = 'a'", "", vec!["--socket-path=a"]),
            ("socket = 'a'", "", vec!["--socket-path=a"]),
            ("once = true", "", vec!["--once"]),
            ("once = false", "", vec![]),
            (
                "vm = ['x', 7, 1.5, true]",
                "",
                vec!["--vm=x", "--vm=7", "--vm=1.5", "--vm=true"],
            ),
            (
                "[[vms]]\nguest_cid = 3\ngroups = ['a', 'b']\n[[vms]]\nguest_cid = 4",
                "",
                vec!["--vm=guest_cid=3,groups=a+b", "--vm=guest_cid=4"],
            ),
            ("", "", vec![]),
            // the command line wins, under every name
            ("socket = 'a'\nonce = true", "-s b", vec!["--once"]),
            ("vm = 'a'", "--vm b", vec![]),
        ];
        for (text, line, arguments) in table {
            assert_eq!(
                expanded("c.toml", text, line).as_deref(),
                Ok(&arguments.iter().map(|&a| a.to_owned()).collect::<Vec<_>>()[..]),
                "{text}"
            );
        }
    }

    #[test]
    fn a_mistake_is_told_with_the_file_and_the_name() {
        let table = [
            ("sockte = 'a'", "c.toml: there is no option 'sockte'"),
            ("config = 'a'", "c.toml: there is no option 'config'"),
            ("once = 'yes'", "c.toml: 'once' is true or false"),
            ("socket = ['a', 'b']", "c.toml: 'socket' has one value only"),
            ("vm = [['a']]", "c.toml: 'vm' cannot have such a value"),
            (
                "[vm]\na = 'x,y'",
                "c.toml: 'a' of 'vm' cannot have a comma in it",
            ),
            (
                "[vm]\na.b = 1",
                "c.toml: 'a' of 'vm' cannot have such a value",
            ),
            ("once = true\n=", "c.toml: line 2: "),
        ];
        for (text, expected) in table {
            let error = expanded("c.toml", text, "").unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[cfg(feature = "yaml")]
    #[test]
    fn yaml_is_read_where_the_name_says_so() {
        let text = "vms:\n    - guest_cid: 3\n      socket: /tmp/v.sock\n      groups: a+b\n    - guest_cid: 4\n";
        assert_eq!(
            expanded("c.yaml", text, ""),
            Ok(vec![
                "--vm=guest_cid=3,socket=/tmp/v.sock,groups=a+b".to_owned(),
                "--vm=guest_cid=4".to_owned()
            ])
        );
        let error = expanded("c.yml", "vms: [", "").unwrap_err();
        assert!(error.starts_with("c.yml: "), "{error}");
    }

    #[test]
    fn a_file_that_is_missing_or_too_long_is_an_error() {
        let argv = ["device", "--config", "/nonexistent/x"].map(OsString::from);
        let error = FileOptions::of(&command(), &argv).unwrap_err().to_string();
        assert!(error.starts_with("cannot read /nonexistent/x: "), "{error}");
        let long = "#".repeat(MAX_BYTES as usize + 1);
        let error = expanded("c.toml", &long, "").unwrap_err();
        assert!(error.contains("longer than"), "{error}");
    }
}
