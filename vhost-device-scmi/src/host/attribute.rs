//! Files with numbers in them: attributes of sysfs, ordinary files, and pipes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};

use super::OpenError;
use crate::decimal::Decimal;

/// Most bytes that are read at a time: a page is all that sysfs gives.
const MAX_TEXT: usize = 4096;

/// An open file with numbers.
#[derive(Debug)]
pub struct Attribute {
    file: File,
    /// Its bytes are gone once they are read.
    is_pipe: bool,
}

impl Attribute {
    /// Opens a file for reading. Opening a pipe does not wait for a writer, reading it does.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_with(path, false).map_err(|error| OpenError::io("open", path.display(), error))
    }

    /// Opens a file for reading and writing.
    pub fn open_writable(path: &Path) -> Result<Self, OpenError> {
        Self::open_with(path, true)
            .map_err(|error| OpenError::io("write to", path.display(), error))
    }

    fn open_with(path: &Path, is_writable: bool) -> io::Result<Self> {
        let kind = path.metadata()?.file_type();
        let is_pipe = kind.is_fifo();
        if !is_pipe && !kind.is_file() {
            return Err(io::Error::other("it is neither a file nor a pipe"));
        }
        // A pipe with a writer, ourselves, never ends.
        let file = OpenOptions::new()
            .read(true)
            .write(is_pipe || is_writable)
            .open(path)?;
        Ok(Self { file, is_pipe })
    }

    /// The first line of a file, or the last one that came through a pipe.
    pub fn line(&mut self) -> io::Result<String> {
        let mut bytes = [0; MAX_TEXT];
        let length = if self.is_pipe {
            self.file.read(&mut bytes)?
        } else {
            self.file.read_at(&mut bytes, 0)?
        };
        let text = bytes.get(..length).unwrap_or_default();
        let text = str::from_utf8(text).map_err(|_| nonsense())?;
        let mut lines = text.lines();
        let line = if self.is_pipe {
            lines.next_back()
        } else {
            lines.next()
        };
        Ok(line.unwrap_or_default().trim().to_owned())
    }

    /// The number in it.
    pub fn decimal(&mut self) -> io::Result<Decimal> {
        self.line()?.parse().map_err(|()| nonsense())
    }

    /// The whole number in it.
    pub fn integer(&mut self) -> io::Result<i64> {
        self.line()?.parse().map_err(|_| nonsense())
    }

    /// Writes a number to an attribute.
    pub fn write(&mut self, number: i64) -> io::Result<()> {
        let text = format!("{number}\n");
        if self.is_pipe {
            return self.file.write_all(text.as_bytes());
        }
        self.file.write_all_at(text.as_bytes(), 0)
    }
}

/// What is in a file is no number.
pub fn nonsense() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

/// What a file says, if there is one.
pub fn optional_text(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

/// The number in the first of these files that exists.
pub fn first_decimal(paths: &[PathBuf]) -> Result<Option<Decimal>, OpenError> {
    for path in paths {
        if let Some(text) = optional_text(path) {
            let bad = |()| {
                OpenError::Bad(format!(
                    "{} says {text:?}, which is no number",
                    path.display()
                ))
            };
            return text.parse().map(Some).map_err(bad);
        }
    }
    Ok(None)
}
