//! Bounds-checked access to a configuration structure.

use zerocopy::{Immutable, IntoBytes};

/// Fills `out` with the bytes of `config` from `offset`; bytes past the structure are left as they are.
pub fn read_struct<T: IntoBytes + Immutable>(config: &T, offset: u32, out: &mut [u8]) {
    let bytes = config.as_bytes();
    let rest = usize::try_from(offset)
        .ok()
        .and_then(|offset| bytes.get(offset..))
        .unwrap_or_default();
    for (to, from) in out.iter_mut().zip(rest) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offset_and_length_is_answered_within_the_structure() {
        let config = [1u8, 2, 3, 4];
        for offset in 0..8u32 {
            for length in 0..8usize {
                let mut out = vec![0xaa; length];
                read_struct(&config, offset, &mut out);
                for (i, byte) in out.iter().enumerate() {
                    let expected = config.get(offset as usize + i).copied().unwrap_or(0xaa);
                    assert_eq!(*byte, expected, "offset {offset} length {length}");
                }
            }
        }
    }
}
