//! Known bytes travel from a file of the host through the daemon into the guest's /dev/hwrng.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Comparison, Tour};

/// The tour of the rng device.
pub const TOUR: Tour = Tour {
    prepare,
    script: include_str!("../../../guest/tour/rng.sh"),
    compare,
};

/// Each line of the source has this many bytes and its own number: every 16 bytes of it are unique.
const LINE: usize = 16;

/// Lines in the source: far more than the guest's kernel takes for itself while it boots.
const LINES: usize = 65_536;

/// The guest's driver asks for one cache line at a time. Between two of them the kernel may take one for its own pool,
/// so what a program reads is in order but may have gaps of whole blocks.
const BLOCK: usize = 64;

/// Bytes shown side by side in one line.
const ROW: usize = 8;

/// What the guest must have read at least.
const LEAST: usize = 128;

const SOURCE: &str = "entropy.bin";

fn prepare(folder: &Path) -> Result<Vec<OsString>> {
    let path = folder.join(SOURCE);
    let mut text = String::with_capacity(LINE * LINES);
    for number in 0..LINES {
        writeln!(text, "host line {number:05}")?;
    }
    fs::write(&path, text)?;
    Ok(vec!["--rng-source".into(), path.into()])
}

fn compare(folder: &Path, output: &str) -> Result<Comparison> {
    let source = fs::read(folder.join(SOURCE))?;
    let guest = parse_hexdump(output)?;
    ensure!(
        guest.len() >= LEAST,
        "the guest read {} bytes of {LEAST}",
        guest.len()
    );
    let places = locate(&guest, &source)?;
    let about = output.lines().next().unwrap_or_default();
    let mut view = format!("guest: {about}\n");
    writeln!(
        view,
        "{:<45} the host's source file",
        "the guest's /dev/hwrng"
    )?;
    for (row, bytes) in guest.chunks(ROW).enumerate() {
        let at = row * ROW;
        let host = places[at / BLOCK] + at % BLOCK;
        writeln!(
            view,
            "{}     {}",
            dump(at, bytes),
            dump(host, &source[host..][..bytes.len()])
        )?;
    }
    let gaps = places
        .windows(2)
        .filter(|pair| pair[1] != pair[0] + BLOCK)
        .count();
    let verdict = format!(
        "all {} bytes are the host's, in order, with {gaps} gaps",
        guest.len()
    );
    Ok(Comparison { view, verdict })
}

/// Where each block of `guest` is in `source`; they must come in the same order.
fn locate(guest: &[u8], source: &[u8]) -> Result<Vec<usize>> {
    let mut from = 0;
    let mut places = Vec::new();
    for (number, block) in guest.chunks(BLOCK).enumerate() {
        let found = source[from..]
            .windows(block.len())
            .position(|window| window == block);
        let at = from
            + found.with_context(|| {
                format!("block {number} of the guest is not in the host's file behind byte {from}")
            })?;
        places.push(at);
        from = at + block.len();
    }
    Ok(places)
}

/// Reads the bytes back from the output of `hexdump -C`.
fn parse_hexdump(output: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for line in output.lines().filter(|line| line.contains('|')) {
        let hex = line.split('|').next().unwrap_or_default();
        for word in hex.split_whitespace().skip(1) {
            let byte = u8::from_str_radix(word, 16);
            bytes.push(byte.with_context(|| format!("no hexdump: {line}"))?);
        }
    }
    Ok(bytes)
}

fn dump(offset: usize, bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let text: String = bytes
        .iter()
        .map(|byte| {
            if byte.is_ascii_graphic() || *byte == b' ' {
                char::from(*byte)
            } else {
                '.'
            }
        })
        .collect();
    format!("{offset:06x}  {:<23}  |{text}|", hex.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::Folder;

    /// What the guest prints after reading `bytes`.
    fn hexdump(bytes: &[u8]) -> String {
        let mut text = "sources: virtio_rng.0, in use: virtio_rng.0\n".to_owned();
        for (row, bytes) in bytes.chunks(16).enumerate() {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(
                text,
                "{:08x}  {}  |................|",
                row * 16,
                hex.join(" ")
            )
            .unwrap();
        }
        text
    }

    fn source() -> (Folder, Vec<u8>) {
        let folder = Folder::new("tour").unwrap();
        prepare(folder.path()).unwrap();
        let bytes = fs::read(folder.path().join(SOURCE)).unwrap();
        assert_eq!(bytes.len(), LINE * LINES);
        (folder, bytes)
    }

    #[test]
    fn bytes_of_the_host_are_recognised_even_with_a_gap() {
        let (folder, bytes) = source();
        let guest = [&bytes[640..704], &bytes[768..832]].concat();
        let comparison = compare(folder.path(), &hexdump(&guest)).unwrap();
        assert!(
            comparison.verdict.contains("1 gaps"),
            "{}",
            comparison.verdict
        );
        assert!(
            comparison.view.contains("|host lin|"),
            "{}",
            comparison.view
        );
    }

    #[test]
    fn a_wrong_byte_a_wrong_order_and_too_few_bytes_are_refused() {
        let (folder, bytes) = source();
        let mut wrong = bytes[640..768].to_vec();
        wrong[100] ^= 1;
        compare(folder.path(), &hexdump(&wrong)).unwrap_err();
        let swapped = [&bytes[704..768], &bytes[640..704]].concat();
        compare(folder.path(), &hexdump(&swapped)).unwrap_err();
        compare(folder.path(), &hexdump(&bytes[640..704])).unwrap_err();
    }
}
