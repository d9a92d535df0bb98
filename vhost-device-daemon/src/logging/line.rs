//! A log line: text or a JSON object, always one line, and never longer than what a pipe takes as a whole.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use log::Level;

use super::clock::Timestamp;
use super::json;
use crate::cli::LogFormat;

/// The kernel writes up to this many bytes into a pipe all at once or not at all (`PIPE_BUF`).
const CAPACITY: usize = 4096;

/// Room kept for the end of the line, whatever the message is.
const TAIL: usize = 32;

/// `\u{9f}` and `\u009f` are the longest escapes of a control character.
const LONGEST_ESCAPE: usize = 6;

/// What is known of a line besides its message.
pub(super) struct Header<'a> {
    pub(super) time: SystemTime,
    pub(super) level: Level,
    pub(super) program: &'a str,
    pub(super) target: &'a str,
}

/// A line in a buffer of fixed size, so that logging allocates nothing.
pub(super) struct Line {
    bytes: [u8; CAPACITY],
    /// The first byte is a line break, which only [`Line::start_anew`] makes part of the line.
    start: usize,
    end: usize,
    limit: usize,
}

impl Line {
    pub(super) fn compose(
        format: LogFormat,
        header: &Header<'_>,
        message: fmt::Arguments<'_>,
    ) -> Self {
        let mut line = Self {
            bytes: [b'\n'; CAPACITY],
            start: 1,
            end: 1,
            limit: CAPACITY - TAIL,
        };
        // The only error is a full line, which the end of the line then shows.
        let (cut, end) = match format {
            LogFormat::Text => (line.text(header, message).is_err(), "\n"),
            LogFormat::Json => (line.json(header, message).is_err(), "\"}\n"),
        };
        line.limit = CAPACITY;
        if cut {
            let _ = line.write_str(" [cut]");
        }
        let _ = line.write_str(end);
        line
    }

    /// Puts a line break in front, because the last line was left unfinished.
    pub(super) fn start_anew(&mut self) {
        self.start = 0;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Fails if there is no room for one more character in its longest escaped form, which must not be cut in two.
    fn room_for_one(&mut self) -> fmt::Result {
        if self.end + LONGEST_ESCAPE > self.limit {
            return Err(fmt::Error);
        }
        Ok(())
    }

    fn text(&mut self, header: &Header<'_>, message: fmt::Arguments<'_>) -> fmt::Result {
        let Header {
            time,
            level,
            target,
            ..
        } = header;
        write!(self, "{} {level:<5} {target}: ", Timestamp(*time))?;
        Text(self).write_fmt(message)
    }

    fn json(&mut self, header: &Header<'_>, message: fmt::Arguments<'_>) -> fmt::Result {
        let Header {
            time,
            level,
            program,
            target,
        } = header;
        write!(
            self,
            "{{\"time\":\"{}\",\"level\":\"{}\",\"program\":\"{}\",\"target\":\"{}\",\"message\":\"",
            Timestamp(*time),
            lower_case(*level),
            json::Escaped(program),
            json::Escaped(target),
        )?;
        Json(self).write_fmt(message)
    }
}

fn lower_case(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

impl fmt::Write for Line {
    /// Takes `text` as a whole, or fails.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.end + text.len();
        if end > self.limit {
            return Err(fmt::Error);
        }
        self.bytes[self.end..end].copy_from_slice(text.as_bytes());
        self.end = end;
        Ok(())
    }
}

/// Messages carry what guests and files say: control characters become visible and cannot start another line.
struct Text<'a>(&'a mut Line);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| {
            self.0.room_for_one()?;
            match c {
                c if c.is_control() => write!(self.0, "{}", c.escape_default()),
                c => self.0.write_char(c),
            }
        })
    }
}

struct Json<'a>(&'a mut Line);

impl fmt::Write for Json<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| {
            self.0.room_for_one()?;
            json::escape(self.0, c)
        })
    }
}
