//! A chip of 256 registers.

use std::io;

use super::Chip;

/// 256 registers of one byte. The first byte written is a register's number; the ones behind it are stored from there on,
/// and reading goes on from there. Behind register 255 comes register 0.
pub struct Registers {
    values: [u8; 256],
    pointer: u8,
}

impl Registers {
    /// All registers 0.
    pub fn new() -> Self {
        Self {
            values: [0; 256],
            pointer: 0,
        }
    }

    fn next(&mut self) -> &mut u8 {
        let pointer = usize::from(self.pointer);
        self.pointer = self.pointer.wrapping_add(1);
        &mut self.values[pointer]
    }
}

impl Chip for Registers {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some((pointer, values)) = bytes.split_first() {
            self.pointer = *pointer;
            for value in values {
                *self.next() = *value;
            }
        }
        Ok(())
    }

    fn read(&mut self, out: &mut [u8]) -> io::Result<()> {
        for byte in out {
            *byte = *self.next();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(chip: &mut Registers) -> [u8; N] {
        let mut out = [0; N];
        chip.read(&mut out).unwrap();
        out
    }

    #[test]
    fn registers_keep_what_was_written_and_numbers_wrap_around() {
        let mut chip = Registers::new();
        chip.write(&[0xfe, 1, 2, 3]).unwrap();
        assert_eq!(
            read(&mut chip),
            [0],
            "the pointer stands behind what was written"
        );
        chip.write(&[0xfe]).unwrap();
        assert_eq!(read(&mut chip), [1, 2, 3, 0]);
        chip.write(&[0]).unwrap();
        assert_eq!(read(&mut chip), [3]);
        assert_eq!(
            read(&mut chip),
            [0],
            "a second read goes on where the first ended"
        );
    }
}
