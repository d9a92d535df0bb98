//! A deterministic sequence, for tests: what the guest must read is known beforehand.

use std::io;

use vm_memory::VolatileSlice;

use super::Entropy;

/// SplitMix64 from a seed; each number gives eight bytes, little-endian, none of which is skipped.
#[derive(Clone, Debug)]
pub struct Sim {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Sim {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            word: [0; 8],
            used: 8,
        }
    }

    fn next(&mut self) -> u8 {
        if self.used == self.word.len() {
            self.word = self.step().to_le_bytes();
            self.used = 0;
        }
        let byte = self.word.get(self.used).copied().unwrap_or_default();
        self.used += 1;
        byte
    }

    fn step(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.state;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Entropy for Sim {
    fn fill(&mut self, out: &VolatileSlice<'_>) -> io::Result<usize> {
        let mut chunk = [0u8; 512];
        let mut filled = 0;
        while filled < out.len() {
            let length = chunk.len().min(out.len() - filled);
            let part = chunk.get_mut(..length).unwrap_or_default();
            part.fill_with(|| self.next());
            out.offset(filled)
                .map_err(io::Error::other)?
                .copy_from(part);
            filled += length;
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(sim: &mut Sim, count: usize) -> Vec<u8> {
        let mut out = vec![0; count];
        sim.fill(&VolatileSlice::from(&mut out[..])).unwrap();
        out
    }

    #[test]
    fn the_sequence_is_splitmix64_and_does_not_depend_on_how_it_is_cut() {
        let whole = bytes(&mut Sim::new(0), 2000);
        // The first two outputs of the reference implementation for seed 0.
        assert_eq!(whole[..8], 0xe220_a839_7b1d_cdaf_u64.to_le_bytes());
        assert_eq!(whole[8..16], 0x6e78_9e6a_a1b9_65f4_u64.to_le_bytes());
        let mut sim = Sim::new(0);
        let pieces: Vec<u8> = [1, 7, 8, 9, 511, 512, 952]
            .iter()
            .flat_map(|count| bytes(&mut sim, *count))
            .collect();
        assert_eq!(pieces, whole);
    }
}
