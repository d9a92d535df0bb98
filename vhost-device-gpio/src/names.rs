//! The block of line names (VIRTIO 1.3, section 5.18.6.1).

use std::collections::HashSet;

/// Joins names, one per line and empty for a line without one, into zero-terminated strings. Empty if no line has a name.
///
/// Names must be unique and 7-bit: one that is not is left out, and of equal ones all but the first. The reasons are
/// given to `left_out`, for a message.
pub fn block(names: &[String], mut left_out: impl FnMut(usize, &str, &'static str)) -> Vec<u8> {
    let mut seen = HashSet::new();
    let mut block = Vec::new();
    for (line, name) in names.iter().enumerate() {
        if !is_sayable(name) {
            left_out(line, name, "is not plain ASCII");
        } else if !name.is_empty() && !seen.insert(name) {
            left_out(line, name, "is the name of another line too");
        } else {
            block.extend_from_slice(name.as_bytes());
        }
        block.push(0);
    }
    if seen.is_empty() { Vec::new() } else { block }
}

/// Whether a name can be told to a guest.
pub fn is_sayable(name: &str) -> bool {
    name.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(names: &[&str]) -> (Vec<u8>, usize) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut left_out = 0;
        let block = block(&names, |_, _, _| left_out += 1);
        (block, left_out)
    }

    #[test]
    fn the_specifications_example_comes_out_as_printed_there() {
        let names = [
            "MMC-CD",
            "",
            "",
            "",
            "",
            "Red LED Vdd",
            "",
            "ethernet reset",
            "",
            "",
        ];
        let expected = b"MMC-CD\0\0\0\0\0Red LED Vdd\0\0ethernet reset\0\0\0";
        assert_eq!(joined(&names), (expected.to_vec(), 0));
    }

    #[test]
    fn without_any_name_there_is_no_block() {
        assert_eq!(joined(&["", "", ""]).0, b"");
        assert_eq!(joined(&[]).0, b"");
        assert_eq!(joined(&["\u{fc}"]), (Vec::new(), 1));
    }

    #[test]
    fn names_that_may_not_be_told_leave_an_empty_string() {
        assert_eq!(
            joined(&["a", "b\u{e9}", "a", "b", "c\n"]),
            (b"a\0\0\0b\0\0".to_vec(), 3)
        );
    }
}
