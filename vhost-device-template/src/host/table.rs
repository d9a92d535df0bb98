//! A file with a table of translations.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Translator;

const ENTRIES: usize = 256;

/// An open file whose byte at N is what N is translated to. It is read for each request, so a change of it counts at once.
#[derive(Debug)]
pub struct Table(File);

impl Table {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// From the operating system; a file of less than 256 bytes is refused.
    pub fn open(path: &Path) -> io::Result<Self> {
        let table = Self(File::open(path)?);
        table.entries()?;
        Ok(table)
    }

    fn entries(&self) -> io::Result<[u8; ENTRIES]> {
        let mut entries = [0; ENTRIES];
        self.0.read_exact_at(&mut entries, 0)?;
        Ok(entries)
    }
}

impl Translator for Table {
    fn translate(&self, bytes: &mut [u8]) -> io::Result<()> {
        let entries = self.entries()?;
        for byte in bytes {
            // A table of 256 entries has one for each byte.
            *byte = entries[usize::from(*byte)];
        }
        Ok(())
    }

    /// The file may lie on a network that is gone.
    fn may_block(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_sees_the_file_as_it_is_and_fails_when_it_has_shrunk() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut reversed: Vec<u8> = (0..=255).rev().collect();
        std::fs::write(&file, &reversed).unwrap();
        let table = Table::open(file.path()).unwrap();
        let mut bytes = [0, 1, 255];
        table.translate(&mut bytes).unwrap();
        assert_eq!(bytes, [255, 254, 0]);
        reversed[255] = 7;
        std::fs::write(&file, &reversed).unwrap();
        table.translate(&mut bytes).unwrap();
        assert_eq!(bytes, [7, 1, 255]);
        file.as_file().set_len(255).unwrap();
        let error = table.translate(&mut bytes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
