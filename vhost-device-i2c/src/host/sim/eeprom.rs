//! Memories of the 24c family, from 128 bytes to 32 KiB.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Chip;
use crate::host::OpenError;

/// What an erased cell reads as.
const ERASED: u8 = 0xff;

/// Size and addressing of a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    name: &'static str,
    /// Bytes in all.
    size: usize,
    /// Bytes that one write can reach: it wraps around within its page.
    page: usize,
    /// Bytes of a memory address.
    address_bytes: usize,
}

const MODELS: [Model; 5] = [
    Model::new("24c01", 128, 8, 1),
    Model::new("24c02", 256, 8, 1),
    Model::new("24c32", 4096, 32, 2),
    Model::new("24c64", 8192, 32, 2),
    Model::new("24c256", 32768, 64, 2),
];

impl Model {
    const fn new(name: &'static str, size: usize, page: usize, address_bytes: usize) -> Self {
        Self {
            name,
            size,
            page,
            address_bytes,
        }
    }

    /// The model called `name`.
    pub fn find(name: &str) -> Option<Self> {
        MODELS.iter().find(|model| model.name == name).copied()
    }
}

/// One memory. Writing takes no time: it is never busy.
pub struct Eeprom {
    model: Model,
    cells: Cells,
    pointer: usize,
}

impl Eeprom {
    /// A memory with the content of a file, or an erased one. The file is made if it does not exist; where it is shorter
    /// than the memory, the rest is erased.
    ///
    /// # Errors
    /// If the file cannot be read and written, or is longer than the memory.
    pub fn open(model: Model, file: Option<&Path>) -> Result<Self, OpenError> {
        let cells = match file {
            None => Cells::Memory(vec![ERASED; model.size].into_boxed_slice()),
            Some(path) => Cells::File(open(path, model.size)?),
        };
        Ok(Self {
            model,
            cells,
            pointer: 0,
        })
    }
}

fn open(path: &Path, size: usize) -> Result<File, OpenError> {
    let fail = |action| {
        move |error| OpenError::Io {
            action,
            object: path.display().to_string(),
            error,
        }
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(fail("open"))?;
    let length = file.metadata().map_err(fail("examine"))?.len();
    let present = match usize::try_from(length) {
        Ok(present) if present <= size => present,
        _ => {
            return Err(OpenError::TooLong {
                path: path.to_owned(),
                length,
                size,
            });
        }
    };
    file.write_all_at(&vec![ERASED; size - present], length)
        .map_err(fail("extend"))?;
    Ok(file)
}

impl Chip for Eeprom {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some((address, data)) = bytes.split_at_checked(self.model.address_bytes) else {
            // too short to set the address: as when the controller stops half-way
            return Ok(());
        };
        let address = address
            .iter()
            .fold(0, |address, byte| address << 8 | usize::from(*byte));
        self.pointer = address % self.model.size;
        if data.is_empty() {
            return Ok(());
        }
        let page = self.pointer - self.pointer % self.model.page;
        // bytes beyond a page overwrite the ones before: the last of them stay
        let surplus = data.len().saturating_sub(self.model.page);
        for (number, byte) in data.iter().enumerate().skip(surplus) {
            let offset = (self.pointer - page + number) % self.model.page;
            self.cells.write(page + offset, *byte)?;
        }
        self.pointer = page + (self.pointer - page + data.len()) % self.model.page;
        Ok(())
    }

    fn read(&mut self, out: &mut [u8]) -> io::Result<()> {
        let mut rest = out;
        while !rest.is_empty() {
            let length = rest.len().min(self.model.size - self.pointer);
            let (now, later) = rest.split_at_mut(length);
            self.cells.read(self.pointer, now)?;
            self.pointer = (self.pointer + length) % self.model.size;
            rest = later;
        }
        Ok(())
    }
}

/// Where the bytes are. A file is looked at each time, so the host sees what the guest writes and the other way round.
enum Cells {
    Memory(Box<[u8]>),
    File(File),
}

impl Cells {
    fn write(&mut self, at: usize, byte: u8) -> io::Result<()> {
        match self {
            Self::Memory(cells) => match cells.get_mut(at) {
                Some(cell) => {
                    *cell = byte;
                    Ok(())
                }
                None => Err(io::ErrorKind::InvalidInput.into()),
            },
            Self::File(file) => file.write_all_at(&[byte], at as u64),
        }
    }

    fn read(&self, at: usize, out: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Memory(cells) => match cells.get(at..at + out.len()) {
                Some(cells) => {
                    out.copy_from_slice(cells);
                    Ok(())
                }
                None => Err(io::ErrorKind::InvalidInput.into()),
            },
            Self::File(file) => read_or_erased(file, at as u64, out),
        }
    }
}

/// Where somebody cut the file off, the memory is erased.
fn read_or_erased(file: &File, at: u64, out: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + done as u64) {
            Ok(0) => {
                rest.fill(ERASED);
                return Ok(());
            }
            Ok(length) => done += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use vhost_device_testkit::process::TempDir;

    use super::*;

    fn chip(name: &str) -> Eeprom {
        Eeprom::open(Model::find(name).unwrap(), None).unwrap()
    }

    fn read(chip: &mut Eeprom, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        chip.read(&mut out).unwrap();
        out
    }

    #[test]
    fn bytes_stay_and_reading_goes_round() {
        let mut chip = chip("24c02");
        chip.write(&[0, 1, 2, 3]).unwrap();
        chip.write(&[0xff]).unwrap();
        assert_eq!(read(&mut chip, 4), [0xff, 1, 2, 3]);
        assert_eq!(
            read(&mut chip, 1),
            [0xff],
            "the pointer stands behind what was read"
        );
        chip.write(&[]).unwrap();
        assert_eq!(
            read(&mut chip, 8192).len(),
            8192,
            "more than the memory has"
        );
    }

    #[test]
    fn a_write_wraps_around_within_its_page() {
        let mut chip = chip("24c02");
        chip.write(&[0x0e, 1, 2, 3]).unwrap();
        assert_eq!(read(&mut chip, 1), [0xff], "the pointer wraps too, to 0x09");
        chip.write(&[0x08]).unwrap();
        assert_eq!(read(&mut chip, 9), [3, 255, 255, 255, 255, 255, 1, 2, 255]);
        let mut long = vec![0x10];
        long.extend(0..12);
        chip.write(&long).unwrap();
        chip.write(&[0x10]).unwrap();
        assert_eq!(read(&mut chip, 8), [8, 9, 10, 11, 4, 5, 6, 7]);
    }

    #[test]
    fn large_ones_take_two_address_bytes() {
        let mut chip = chip("24c32");
        chip.write(&[0x0f, 0xfe, 7, 8]).unwrap();
        chip.write(&[0x0f, 0xfe]).unwrap();
        assert_eq!(read(&mut chip, 2), [7, 8]);
        // address bits beyond the memory do not matter
        chip.write(&[0xff, 0xff]).unwrap();
        assert_eq!(read(&mut chip, 1), [8]);
        chip.write(&[0x12]).unwrap();
        assert_eq!(
            read(&mut chip, 1),
            [0xff],
            "half an address changes nothing"
        );
    }

    #[test]
    fn a_file_is_the_memory_for_host_and_guest_alike() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("e.bin");
        fs::write(&path, b"host").unwrap();
        let model = Model::find("24c02").unwrap();
        let mut chip = Eeprom::open(model, Some(&path)).unwrap();
        assert_eq!(read(&mut chip, 6), *b"host\xff\xff");
        chip.write(b"\x08guest").unwrap();
        let content = fs::read(&path).unwrap();
        assert_eq!(content.len(), 256);
        assert_eq!(content[..14], *b"host\xff\xff\xff\xffguest\xff");
        fs::write(&path, b"new").unwrap();
        chip.write(&[0]).unwrap();
        assert_eq!(read(&mut chip, 4), *b"new\xff");
    }

    #[test]
    fn a_file_that_is_not_this_memorys_is_refused() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("e.bin");
        fs::write(&path, [0; 257]).unwrap();
        let model = Model::find("24c02").unwrap();
        let error = Eeprom::open(model, Some(&path)).err().unwrap();
        assert!(
            error
                .to_string()
                .ends_with("has 257 bytes, more than the 256 of the chip"),
            "{error}"
        );
        assert!(
            Eeprom::open(model, Some(dir.path())).is_err(),
            "a directory"
        );
    }

    proptest! {
        /// The chip against the plainest description of it.
        #[test]
        fn any_sequence_of_writes_reads_back_as_the_data_sheet_says(
            writes in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..20)), 0..30),
        ) {
            let mut chip = chip("24c02");
            let mut model = [0xffu8; 256];
            for (address, data) in writes {
                let mut at = address;
                for byte in &data {
                    model[usize::from(at)] = *byte;
                    at = (at & 0xf8) | (at.wrapping_add(1) & 7);
                }
                chip.write(&[&[address], &data[..]].concat()).unwrap();
                prop_assert_eq!(chip.pointer, usize::from(at));
            }
            chip.write(&[0]).unwrap();
            prop_assert_eq!(read(&mut chip, 256), model);
        }
    }
}
