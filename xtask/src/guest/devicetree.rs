//! The devicetree of a User Mode Linux guest, in the flattened form (Devicetree Specification 0.4, section 5).

const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const LAST_COMPATIBLE_VERSION: u32 = 16;
const HEADER_BYTES: u32 = 40;
/// The end of a list of reserved memory without entries.
const NO_RESERVATIONS: [u32; 4] = [0; 4];

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const END: u32 = 9;

const COMPATIBLE: &[u8] = b"compatible\0";
const MACHINE: &[u8] = b"vhost-device,guest\0\0";

/// A root node with a name and nothing else. Its presence tells the kernel that no power supply is left to be described,
/// without which drivers that ask for one (of sensors, of memories) wait for it for ever.
pub fn root() -> Vec<u8> {
    let mut structure = bytes(&[BEGIN_NODE, 0, PROPERTY, MACHINE.len() as u32 - 1, 0]);
    structure.extend(MACHINE);
    structure.extend(bytes(&[END_NODE, END]));

    let reservations = HEADER_BYTES;
    let structure_at = reservations + 16;
    let strings_at = structure_at + structure.len() as u32;
    let total = strings_at + COMPATIBLE.len() as u32;
    let header = [
        MAGIC,
        total,
        structure_at,
        strings_at,
        reservations,
        VERSION,
        LAST_COMPATIBLE_VERSION,
        0,
        COMPATIBLE.len() as u32,
        structure.len() as u32,
    ];
    [
        bytes(&header),
        bytes(&NO_RESERVATIONS),
        structure,
        COMPATIBLE.to_vec(),
    ]
    .concat()
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_as_long_as_it_says_and_its_words_are_aligned() {
        let tree = root();
        let word = |at: usize| u32::from_be_bytes(tree[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(word(0), MAGIC as usize);
        assert_eq!(word(4), tree.len());
        let (structure, strings) = (word(8), word(12));
        assert_eq!((structure % 4, strings % 4), (0, 0));
        assert_eq!(word(structure), BEGIN_NODE as usize);
        assert_eq!(word(strings - 4), END as usize);
        assert_eq!(&tree[strings..], COMPATIBLE);
    }
}
