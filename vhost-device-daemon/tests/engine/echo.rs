//! Level one, request and response: everything a device must survive.

use std::ops::Range;
use std::path::{Path, PathBuf};

use vhost_device_testkit::failure::Result;
use vhost_device_testkit::framing::Answer;
use vhost_device_testkit::session::Request;
use vhost_device_testkit::subject::Subject;
use vhost_device_testkit::{conformance, ensure};

use crate::levels;

struct Echo;

/// A request to give `payload` back.
pub fn echo(payload: &[u8]) -> Request {
    Request {
        queue: 0,
        readable: [&(payload.len() as u32).to_le_bytes(), payload].concat(),
        writable: payload.len() as u32 + 1,
    }
}

impl Subject for Echo {
    fn name(&self) -> &'static str {
        "levels"
    }

    fn binary(&self) -> PathBuf {
        levels()
    }

    fn arguments(&self, _: &Path) -> Vec<String> {
        vec!["echo".into()]
    }

    fn config(&self) -> Vec<u8> {
        vec![0, 0, 1, 0, 0]
    }

    fn writable_config(&self) -> Vec<Range<u32>> {
        vec![4..5]
    }

    fn probe(&self) -> Request {
        echo(&[0x5a; 60])
    }

    fn long_probe(&self) -> Option<Request> {
        Some(Request {
            writable: 512,
            ..echo(&[0x5a; 508])
        })
    }

    fn judge(&self, request: &Request, answer: &Answer) -> Result<()> {
        let length = request
            .readable
            .first_chunk()
            .map(|bytes| u32::from_le_bytes(*bytes) as usize);
        let payload = request.readable.get(4..).unwrap_or_default();
        let fits = length
            .is_some_and(|length| length <= payload.len() && length < request.writable as usize);
        let status = answer.bytes.last().copied();
        ensure!(
            status == Some(u8::from(!fits)),
            "status {status:?}, and the request {}",
            if fits { "fits" } else { "does not fit" }
        );
        let expected = payload.get(..length.filter(|_| fits).unwrap_or(0));
        let seen = answer.bytes.get(..expected.unwrap_or_default().len());
        ensure!(seen == expected, "the payload came back changed");
        Ok(())
    }

    fn is_failure(&self, _: &Request, answer: &Answer) -> bool {
        answer.bytes.last() == Some(&1)
    }

    fn least_writable(&self) -> u32 {
        1
    }

    fn header_fields(&self) -> Vec<Range<usize>> {
        vec![0..4]
    }
}

conformance!(Echo);
