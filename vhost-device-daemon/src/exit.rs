//! How a daemon ends: exit codes, and the one line that explains a failed start.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write as _};
use std::process::ExitCode;

/// The exit codes of every daemon, part of the command line contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The daemon did what it was asked to do.
    Done = 0,
    /// The command line, or what the service manager handed over, makes no sense.
    Usage = 2,
    /// A host resource is missing, taken by somebody else, or fails.
    Missing = 3,
    /// A host resource exists, but this process may not use it.
    Permission = 4,
    /// The process could not confine itself as it was told to.
    Sandbox = 5,
    /// A defect of the daemon itself.
    Internal = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Ends the process at once, with the exit code by which a shell tells that SIGINT ended it. What else would end by that signal, a
/// process that blocks it could only by a system call that it does not have any more.
pub fn interrupted() -> ! {
    std::process::exit(128 + libc::SIGINT)
}

/// Why a daemon did not start: what failed, on what, and what the reader can do about it.
///
/// Displayed as one line, `message (hint)`; [`StartError::report`] puts the program's name in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl StartError {
    /// An error that ends the process with `exit`. `message` is a clause without a full stop.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
        }
    }

    /// Bad options, or options that do not go together.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A host resource that is missing, taken or broken.
    pub fn missing(message: impl Into<String>) -> Self {
        Self::new(Exit::Missing, message)
    }

    /// A defect of the daemon.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Exit::Internal, message)
    }

    /// A failed system call: `cannot {action} {object}: {reason}`.
    ///
    /// The exit code follows the error: a refusal of access is [`Exit::Permission`], everything else [`Exit::Missing`],
    /// because a start fails over what the host offers and not over the daemon's own logic.
    pub fn io(action: &str, object: impl Display, error: &io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Exit::Permission,
            _ => Exit::Missing,
        };
        Self::new(exit, format!("cannot {action} {object}: {}", reason(error)))
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code that belongs to this error.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Writes `program: message (hint)` to stderr and returns the exit code.
    ///
    /// A stderr that takes nothing changes nothing: the exit code still tells.
    pub fn report(&self, program: &str) -> Exit {
        let line = format!("{program}: {self}\n");
        let _ = io::stderr().write_all(line.as_bytes());
        self.exit
    }
}

impl Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        one_line(f, &self.message)?;
        if let Some(hint) = &self.hint {
            f.write_str(" (")?;
            one_line(f, hint)?;
            f.write_char(')')?;
        }
        Ok(())
    }
}

impl std::error::Error for StartError {}

/// A path or a value may hold anything: control characters are escaped so that an error stays one line.
fn one_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() {
            write!(f, "{}", c.escape_default())?;
        } else {
            f.write_char(c)?;
        }
    }
    Ok(())
}

/// The system's words for an error, without the error number that std appends.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_error_gets_the_exit_code_of_its_kind() {
        let cases = [
            (libc::ENOENT, Exit::Missing),
            (libc::ENODEV, Exit::Missing),
            (libc::ENXIO, Exit::Missing),
            (libc::EBUSY, Exit::Missing),
            (libc::EIO, Exit::Missing),
            (libc::EACCES, Exit::Permission),
            (libc::EPERM, Exit::Permission),
            (libc::EROFS, Exit::Permission),
        ];
        for (number, exit) in cases {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(
                StartError::io("open", "/dev/foo", &error).exit(),
                exit,
                "{error}"
            );
        }
    }

    #[test]
    fn an_error_is_one_line_with_operation_object_reason_and_hint() {
        let error = io::Error::from_raw_os_error(libc::ENOENT);
        let error = StartError::io("open", "/dev/foo", &error).with_hint("load the driver");
        assert_eq!(
            error.to_string(),
            "cannot open /dev/foo: No such file or directory (load the driver)"
        );
    }

    #[test]
    fn control_characters_in_a_path_cannot_break_the_line() {
        let error = StartError::usage("bad path a\nb\u{1b}[2J").with_hint("line\r\nend");
        assert_eq!(
            error.to_string(),
            "bad path a\\nb\\u{1b}[2J (line\\r\\nend)"
        );
    }
}
