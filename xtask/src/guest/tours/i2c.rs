//! The guest reads a memory and a sensor that are files of the host, and writes to the memory.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Comparison, Tour};

/// The tour of the I2C adapter.
pub const TOUR: Tour = Tour {
    prepare,
    script: include_str!("../../../guest/tour/i2c.sh"),
    compare,
};

const MEMORY: &str = "eeprom.bin";
const SENSOR: &str = "temp1_input";

/// What the host has in the memory, as much as the guest shows.
const CONTENT: &[u8; 64] = b"This memory on the guest's I2C bus is a file of the host's. [ok]";
/// What the guest writes, and where.
const GREETING: &[u8] = b"the guest was here";
const GREETING_AT: usize = 128;

/// In thousandths of a degree; the sensor knows half degrees.
const TEMPERATURE: &str = "36500";

fn prepare(folder: &Path) -> Result<Vec<OsString>> {
    let (memory, sensor) = (folder.join(MEMORY), folder.join(SENSOR));
    fs::write(&memory, CONTENT)?;
    fs::write(&sensor, TEMPERATURE)?;
    let list = format!(
        "sim0:0x50=24c02@{}:0x48=lm75@{}",
        memory.display(),
        sensor.display()
    );
    Ok(vec!["--device-list".into(), list.into()])
}

fn compare(folder: &Path, output: &str) -> Result<Comparison> {
    let guest = bytes_of(output);
    let host = fs::read(folder.join(MEMORY))?;
    ensure!(
        guest == CONTENT,
        "the guest read {:?} from the memory",
        String::from_utf8_lossy(&guest)
    );
    let greeting = host.get(GREETING_AT..GREETING_AT + GREETING.len());
    ensure!(
        greeting == Some(GREETING),
        "what the guest wrote is not in the host's file"
    );
    let temperature = output
        .lines()
        .find_map(|line| line.strip_prefix("temperature: "))
        .context("the guest has no temperature")?;
    ensure!(
        temperature == TEMPERATURE,
        "the guest's sensor says {temperature}, the host's file {TEMPERATURE}"
    );

    let mut view = String::new();
    for line in output.lines().filter(|line| line.get(2..3) == Some(":")) {
        writeln!(view, "  {line}")?;
    }
    writeln!(
        view,
        "{:<42} the host's file",
        "the guest's EEPROM (at24 driver)"
    )?;
    for (guest, host) in guest.chunks(32).zip(host.chunks(32)) {
        writeln!(
            view,
            "  {:<40} {}",
            String::from_utf8_lossy(guest),
            String::from_utf8_lossy(host)
        )?;
    }
    writeln!(
        view,
        "the guest's sensor (lm75 driver): {temperature}; the host's file: {TEMPERATURE}"
    )?;
    let verdict = format!(
        "{} bytes and a temperature read, {} bytes written back",
        CONTENT.len(),
        GREETING.len()
    );
    Ok(Comparison { view, verdict })
}

/// Reads the bytes back from the output of `hexdump -C`.
fn bytes_of(output: &str) -> Vec<u8> {
    let rows = output.lines().filter(|line| line.contains('|'));
    rows.flat_map(|line| {
        line.split('|')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
    })
    .filter_map(|word| u8::from_str_radix(word, 16).ok())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::Folder;

    fn output(content: &[u8], temperature: &str) -> String {
        let mut text = format!("     0  1  2\n50: 50 -- --\ntemperature: {temperature}\n");
        for (row, bytes) in content.chunks(16).enumerate() {
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

    fn host(greeting: &[u8]) -> Folder {
        let folder = Folder::new("tour").unwrap();
        prepare(folder.path()).unwrap();
        let mut memory = vec![0xff; 256];
        memory[..64].copy_from_slice(CONTENT);
        memory[GREETING_AT..][..greeting.len()].copy_from_slice(greeting);
        fs::write(folder.path().join(MEMORY), memory).unwrap();
        folder
    }

    #[test]
    fn agreement_is_shown_with_the_bus() {
        let folder = host(GREETING);
        let comparison = compare(folder.path(), &output(CONTENT, TEMPERATURE)).unwrap();
        assert!(
            comparison.view.contains("50: 50 -- --"),
            "{}",
            comparison.view
        );
        assert!(
            comparison.view.contains("a file of the host"),
            "{}",
            comparison.view
        );
    }

    #[test]
    fn a_wrong_byte_a_wrong_temperature_and_a_lost_write_are_refused() {
        let folder = host(GREETING);
        let mut wrong = *CONTENT;
        wrong[63] ^= 1;
        compare(folder.path(), &output(&wrong, TEMPERATURE)).unwrap_err();
        compare(folder.path(), &output(&CONTENT[..48], TEMPERATURE)).unwrap_err();
        compare(folder.path(), &output(CONTENT, "36000")).unwrap_err();
        let folder = host(b"");
        compare(folder.path(), &output(CONTENT, TEMPERATURE)).unwrap_err();
    }
}
