//! Everything a device must survive, against simulated sensors and domains.

use std::ops::Range;
use std::path::{Path, PathBuf};

use vhost_device_testkit::failure::Result;
use vhost_device_testkit::framing::Answer;
use vhost_device_testkit::session::Request;
use vhost_device_testkit::subject::{StuckHost, Subject};
use vhost_device_testkit::{conformance, ensure, fail};

mod common;

use common::*;

/// What the simulated thermometer reads, in thousandths of a degree.
const READING: u64 = 21_500;

struct Scmi;

impl Subject for Scmi {
    fn name(&self) -> &'static str {
        "scmi"
    }

    fn binary(&self) -> PathBuf {
        env!("CARGO_BIN_EXE_vhost-device-scmi").into()
    }

    fn arguments(&self, _: &Path) -> Vec<String> {
        [
            "-d",
            "sim,name=room,value=21.5",
            "-d",
            "clock,name=bus,rates=1000+2000",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn queues(&self) -> usize {
        2
    }

    fn probe(&self) -> Request {
        command(SENSOR, READING_GET, 5, &[0, 0], 16)
    }

    /// The vendor, with more room than it needs.
    fn long_probe(&self) -> Option<Request> {
        Some(Request {
            writable: 1024 - 4,
            ..command(BASE, 3, 5, &[], 16)
        })
    }

    /// The header comes back as it is. Odd headers may name any command.
    fn judge(&self, request: &Request, answer: &Answer) -> Result<()> {
        let written = answer.written();
        ensure!(written.len() >= 8, "no status: {written:02x?}");
        ensure!(
            written[..4] == request.readable[..4],
            "another header: {written:02x?}"
        );
        let header = word(&request.readable, 0);
        let status = word(written, 4) as i32;
        ensure!((-10..=0).contains(&status), "status {status}");
        if status != SUCCESS {
            ensure!(written.len() == 8, "return values behind status {status}");
        }
        let probe = self.probe();
        if request.readable == probe.readable && request.writable >= probe.writable {
            ensure!(status == SUCCESS, "status {status}");
            ensure!(written.len() == 24, "{} bytes", written.len());
            let reading = u64::from(word(written, 8)) | u64::from(word(written, 12)) << 32;
            ensure!(reading == READING, "a reading of {reading}");
        } else if header >> 8 & 3 != 0 || header >> 28 != 0 {
            ensure!(
                status == PROTOCOL_ERROR,
                "status {status} for header {header:#x}"
            );
        }
        Ok(())
    }

    fn is_failure(&self, _: &Request, answer: &Answer) -> bool {
        answer.written().len() >= 8 && word(answer.written(), 4) != 0
    }

    fn least_writable(&self) -> u32 {
        8
    }

    fn header_fields(&self) -> Vec<Range<usize>> {
        vec![0..4, 4..8, 8..12]
    }

    /// A command among the event buffers.
    fn wrong_queue(&self) -> Option<Request> {
        Some(Request {
            queue: EVENTS,
            ..self.probe()
        })
    }

    /// A pipe that nothing comes from.
    fn stuck_host(&self, dir: &Path) -> Result<Option<StuckHost>> {
        let path = dir.join("silent");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        let Ok(made) = made else {
            fail!("mkfifo cannot be run");
        };
        ensure!(made.success(), "mkfifo: {made}");
        let sensor = format!("file,path={}", path.display());
        Ok(Some(StuckHost {
            arguments: vec!["-d".into(), sensor, "--host-timeout".into(), "60000".into()],
            held: Vec::new(),
        }))
    }
}

conformance!(Scmi);
