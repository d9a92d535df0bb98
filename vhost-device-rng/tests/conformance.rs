//! Everything a device must survive, against the entropy device.

use std::path::{Path, PathBuf};

use vhost_device_testkit::failure::Result;
use vhost_device_testkit::framing::{Answer, UNTOUCHED};
use vhost_device_testkit::session::Request;
use vhost_device_testkit::subject::{StuckHost, Subject};
use vhost_device_testkit::{conformance, ensure, sys};

struct Rng;

impl Subject for Rng {
    fn name(&self) -> &'static str {
        "rng"
    }

    fn binary(&self) -> PathBuf {
        env!("CARGO_BIN_EXE_vhost-device-rng").into()
    }

    fn arguments(&self, _: &Path) -> Vec<String> {
        vec!["--rng-source".into(), "sim".into()]
    }

    fn probe(&self) -> Request {
        Request {
            queue: 0,
            readable: Vec::new(),
            writable: 64,
        }
    }

    fn long_probe(&self) -> Option<Request> {
        Some(Request {
            writable: 1024,
            ..self.probe()
        })
    }

    /// Readable bytes are ignored, so the answer is the same whatever they are.
    fn judge(&self, request: &Request, answer: &Answer) -> Result<()> {
        ensure!(
            answer.used_len == request.writable,
            "{} of {} bytes were given",
            answer.used_len,
            request.writable
        );
        ensure!(
            answer.bytes.iter().any(|byte| *byte != UNTOUCHED),
            "no byte was written"
        );
        Ok(())
    }

    /// A pipe that stays open and empty.
    fn stuck_host(&self, dir: &Path) -> Result<Option<StuckHost>> {
        let path = dir.join("source");
        let held = vec![sys::fifo(&path)?];
        let source = path.to_string_lossy().into_owned();
        Ok(Some(StuckHost {
            arguments: vec!["--rng-source".into(), source],
            held,
        }))
    }

    fn has_index_alias(&self) -> bool {
        true
    }
}

conformance!(Rng);
