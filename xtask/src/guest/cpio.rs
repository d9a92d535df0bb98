//! Writer of the archive format the kernel unpacks as its first root file system: cpio, "newc" variant
//! (Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's source).

use std::collections::BTreeSet;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive under construction. Paths are absolute, as they will be in the guest; folders come into being with
/// what is put into them.
pub struct Archive<W> {
    output: W,
    written: usize,
    entries: u32,
    folders: BTreeSet<String>,
}

/// What the header says about an entry beside its name and size.
#[derive(Default)]
struct Meta {
    mode: u32,
    links: u32,
    device: (u32, u32),
}

impl<W: Write> Archive<W> {
    /// Starts an archive.
    pub fn new(output: W) -> Self {
        Self {
            output,
            written: 0,
            entries: 0,
            folders: BTreeSet::new(),
        }
    }

    /// Adds a regular file with the given permission bits.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.parents(path)?;
        self.entry(
            path,
            &Meta {
                mode: FILE | permissions,
                links: 1,
                device: (0, 0),
            },
            content,
        )
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.parents(path)?;
        let meta = Meta {
            mode: SYMLINK | 0o777,
            links: 1,
            device: (0, 0),
        };
        self.entry(path, &meta, target.as_bytes())
    }

    /// Adds a folder, and those above it.
    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        if path.is_empty() || path == "/" || self.folders.contains(path) {
            return Ok(());
        }
        self.parents(path)?;
        self.folders.insert(path.to_owned());
        self.entry(
            path,
            &Meta {
                mode: DIRECTORY | 0o755,
                links: 2,
                device: (0, 0),
            },
            &[],
        )
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.parents(path)?;
        let meta = Meta {
            mode: CHARACTER_DEVICE | 0o600,
            links: 1,
            device: (major, minor),
        };
        self.entry(path, &meta, &[])
    }

    /// Ends the archive and returns what it was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry(
            "/TRAILER!!!",
            &Meta {
                links: 1,
                ..Meta::default()
            },
            &[],
        )?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.folder(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, meta: &Meta, content: &[u8]) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, path.to_owned()))?;
        self.entries += 1;
        let header = format!(
            "070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
            self.entries, // inode number
            meta.mode,
            0, // owner
            0, // group
            meta.links,
            0, // modification time: the same content gives the same archive
            size,
            0, // device the file is on
            0,
            meta.device.0,
            meta.device.1,
            name.len() + 1,
            0, // checksum, unused in this variant
        );
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.align()?;
        self.put(content)?;
        self.align()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes)?;
        self.written += bytes.len();
        Ok(())
    }

    fn align(&mut self) -> io::Result<()> {
        let gap = self.written.next_multiple_of(4) - self.written;
        self.put(&[0; 3][..gap])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entries of an archive: (name, mode, content).
    fn list(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + n * 8..][..8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            assert_eq!(&bytes[at..at + 6], b"070701");
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name_at = at + 110;
            let content_at = (name_at + name_size).next_multiple_of(4);
            let name = String::from_utf8(bytes[name_at..name_at + name_size - 1].to_vec()).unwrap();
            entries.push((name, mode, bytes[content_at..content_at + size].to_vec()));
            at = (content_at + size).next_multiple_of(4);
        }
        entries
    }

    #[test]
    fn an_archive_lists_folders_before_what_is_in_them() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/usr/bin/tool", 0o755, b"abc").unwrap();
        archive.symlink("/usr/bin/alias", "tool").unwrap();
        archive.character_device("/dev/console", 5, 1).unwrap();
        let entries = list(&archive.finish().unwrap());
        let names: Vec<&str> = entries.iter().map(|entry| entry.0.as_str()).collect();
        assert_eq!(
            names,
            [
                "usr",
                "usr/bin",
                "usr/bin/tool",
                "usr/bin/alias",
                "dev",
                "dev/console",
                "TRAILER!!!"
            ]
        );
        assert_eq!(entries[2].1, 0o100_755);
        assert_eq!(entries[2].2, b"abc");
        assert_eq!(entries[3].2, b"tool");
    }

    #[test]
    fn every_size_keeps_the_alignment() {
        for size in 0..9 {
            let content = vec![b'x'; size];
            let mut archive = Archive::new(Vec::new());
            archive.file("/f", 0o644, &content).unwrap();
            archive.file("/g", 0o644, b"after").unwrap();
            let entries = list(&archive.finish().unwrap());
            assert_eq!(entries[0].2, content);
            assert_eq!(entries[1].2, b"after");
        }
    }
}
