//! Bytes that tell where they belong.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use vhost_device_testkit::ensure;
use vhost_device_testkit::failure::{At, Result};

/// The byte at a place of a long stream: no two stretches of it are alike.
pub fn byte(at: u64) -> u8 {
    let word = (at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (word >> (8 * (at % 8))) as u8
}

/// The bytes from a place on.
pub fn bytes(at: u64, len: usize) -> Vec<u8> {
    (at..at + len as u64).map(byte).collect()
}

/// Fails unless these bytes are the ones from that place on.
pub fn check(at: u64, seen: &[u8]) -> Result<()> {
    let wrong = seen.iter().zip(at..).find(|(seen, at)| **seen != byte(*at));
    if let Some((seen, at)) = wrong {
        vhost_device_testkit::fail!("byte {at} is {seen:#04x}, not {:#04x}", byte(at));
    }
    Ok(())
}

/// Writes the first `len` bytes of the stream.
pub fn pour(stream: &mut UnixStream, len: u64) -> Result<()> {
    let mut at = 0;
    while at < len {
        let now = (len - at).min(64 << 10);
        stream
            .write_all(&bytes(at, now as usize))
            .at(format!("write at {at}"))?;
        at += now;
    }
    Ok(())
}

/// Reads the first `len` bytes of the stream and checks them.
pub fn drink(stream: &mut UnixStream, len: u64) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    while at < len {
        let most = (len - at).min(buffer.len() as u64) as usize;
        let got = stream
            .read(&mut buffer[..most])
            .at(format!("read at {at}"))?;
        ensure!(got > 0, "the end came at {at} of {len}");
        check(at, &buffer[..got])?;
        at += got as u64;
    }
    Ok(())
}
