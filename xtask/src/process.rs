//! Commands that cannot outlive their purpose.
//!
//! Both kinds die with this process, however it ends: the kernel's parent-death signal is set by `setpriv`, and
//! that signal belongs to the thread that started the child. Start them from the main thread.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Lines of a log that an error message quotes.
const QUOTED_LINES: usize = 25;

/// How long a bounded command has to end after it was asked to, in seconds.
const KILL_AFTER: &str = "--kill-after=5";

/// A command that is ended, with everything it started, after `limit`. It has no standard input.
pub fn bounded(program: impl AsRef<OsStr>, limit: Duration) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "TERM", "timeout", KILL_AFTER])
        .arg(limit.as_secs().to_string())
        .arg(program)
        .stdin(Stdio::null());
    command
}

/// A command without a time limit of its own; its owner ends it.
pub fn tethered(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// Runs `command` with both outputs appended to `log`; an error names the log and quotes its end.
pub fn run_logged(command: &mut Command, log: &Path) -> Result<()> {
    let status = status_logged(command, log)?;
    if !status.success() {
        let what = describe(status);
        bail!(
            "{what}; its output is in {}, which ends:\n{}",
            log.display(),
            tail_of(log)
        );
    }
    Ok(())
}

/// As [`run_logged`], for those who judge the exit status themselves.
pub fn status_logged(command: &mut Command, log: &Path) -> Result<ExitStatus> {
    let mut output = open_log(log)?;
    writeln!(output, "$ {}", line_of(command))?;
    command
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .with_context(|| format!("cannot run {}", line_of(command)))
}

/// Runs `command` and returns its standard output; an error quotes its standard error.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", line_of(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{}: {}: {}",
            line_of(command),
            describe(output.status),
            stderr.trim()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} wrote something that is not text", line_of(command)))
}

/// The last lines of a log file, for an error message; nothing of a file that cannot be read.
pub fn tail_of(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    tail(&String::from_utf8_lossy(&bytes))
}

/// The last lines of `text`, indented.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let from = lines.len().saturating_sub(QUOTED_LINES);
    lines[from..]
        .iter()
        .map(|line| format!("    {}\n", line.trim_end()))
        .collect()
}

/// What an exit status means, in words.
pub fn describe(status: ExitStatus) -> String {
    match status.code() {
        // `timeout` reports with this status that it had to end the command
        Some(124) => "did not end in time".to_owned(),
        Some(code) => format!("ended with status {code}"),
        None => status.to_string(),
    }
}

fn open_log(log: &Path) -> Result<File> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot open the log {}", log.display()))
}

/// The command as a person would type it, without the wrappers of this module.
fn line_of(command: &Command) -> String {
    let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let own = match words
        .iter()
        .position(|word| word.starts_with("--kill-after"))
    {
        Some(at) => at + 2,
        None if command.get_program() == "setpriv" => 2,
        None => {
            return format!(
                "{} {}",
                command.get_program().to_string_lossy(),
                words.join(" ")
            );
        }
    };
    words[own.min(words.len())..].join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_over_its_limit_is_ended_with_its_children() {
        let log = crate::temp::Folder::new("process").unwrap();
        let log = log.path().join("log");
        let mut command = bounded("sh", Duration::from_secs(1));
        let error =
            run_logged(command.args(["-c", "echo before; sleep 60 | cat"]), &log).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("did not end in time"), "{text}");
        assert!(text.contains("before"), "{text}");
    }

    #[test]
    fn the_wrappers_do_not_show_in_messages() {
        let mut command = bounded("make", Duration::from_secs(9));
        assert_eq!(line_of(command.arg("-j2")), "make -j2");
        let mut command = tethered("daemon");
        assert_eq!(line_of(command.arg("-s")), "daemon -s");
        let mut command = Command::new("ls");
        assert_eq!(line_of(command.arg("-l")), "ls -l");
    }

    #[test]
    fn a_quoted_log_is_cut_to_its_last_lines() {
        let text: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let quoted = tail(&text);
        assert_eq!(quoted.lines().count(), QUOTED_LINES);
        assert!(quoted.ends_with("    line 99\n"));
    }
}
