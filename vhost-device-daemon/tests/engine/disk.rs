//! Level three, a completion engine: everything a device must survive.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use vhost_device_testkit::failure::Result;
use vhost_device_testkit::framing::Answer;
use vhost_device_testkit::session::Request;
use vhost_device_testkit::subject::Subject;
use vhost_device_testkit::{conformance, ensure};

use crate::levels;

const READ: u32 = 0;
const WRITE: u32 = 1;
const STATUS_BYTES: usize = 8;
const OK: u8 = 0;
const UNSUPPORTED: u8 = 2;

const FILE_BYTES: u64 = 64 * 1024;

struct Disk;

fn byte_at(offset: u64) -> u8 {
    (offset * 31 / 7) as u8
}

fn read(offset: u64, bytes: u32) -> Request {
    Request {
        queue: 0,
        readable: [
            READ.to_le_bytes().as_slice(),
            &[0; 4],
            &offset.to_le_bytes(),
        ]
        .concat(),
        writable: bytes + STATUS_BYTES as u32,
    }
}

impl Subject for Disk {
    fn name(&self) -> &'static str {
        "levels"
    }

    fn binary(&self) -> PathBuf {
        levels()
    }

    fn arguments(&self, dir: &Path) -> Vec<String> {
        let path = dir.join("disk");
        let content: Vec<u8> = (0..FILE_BYTES).map(byte_at).collect();
        fs::write(&path, content).expect("the directory is ours");
        let path = path.to_string_lossy().into_owned();
        vec!["disk".into(), "--host".into(), path]
    }

    fn queues(&self) -> usize {
        2
    }

    fn probe(&self) -> Request {
        read(512, 64)
    }

    fn long_probe(&self) -> Option<Request> {
        Some(read(512, 1024 - 16 - STATUS_BYTES as u32))
    }

    fn judge(&self, request: &Request, answer: &Answer) -> Result<()> {
        let Some((data, status)) = answer
            .bytes
            .len()
            .checked_sub(STATUS_BYTES)
            .map(|at| answer.bytes.split_at(at))
        else {
            vhost_device_testkit::fail!("no room for a status");
        };
        let operation = request
            .readable
            .first_chunk()
            .map(|b| u32::from_le_bytes(*b));
        let offset = request
            .readable
            .get(8..16)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u64::from_le_bytes);
        match operation {
            // What the host makes of an offset that no file has is its own business.
            Some(READ | WRITE) if offset > i64::MAX as u64 => {}
            Some(READ) => {
                let expected: Vec<u8> =
                    (offset..FILE_BYTES).take(data.len()).map(byte_at).collect();
                ensure!(status.first() == Some(&OK), "status {status:?}");
                ensure!(data.starts_with(&expected), "not what the file holds");
            }
            Some(WRITE) => ensure!(status.first() == Some(&OK), "status {status:?}"),
            _ => ensure!(status.first() == Some(&UNSUPPORTED), "status {status:?}"),
        }
        Ok(())
    }

    fn is_failure(&self, _: &Request, answer: &Answer) -> bool {
        let status = answer.bytes.len().saturating_sub(STATUS_BYTES);
        answer.bytes.get(status).is_some_and(|status| *status != OK)
    }

    fn least_writable(&self) -> u32 {
        STATUS_BYTES as u32
    }

    fn header_fields(&self) -> Vec<Range<usize>> {
        vec![0..4, 8..16]
    }
}

conformance!(Disk);
