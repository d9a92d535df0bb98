//! Everything a device must survive, against a simulated GPIO chip.

use std::ops::Range;
use std::path::{Path, PathBuf};

use vhost_device_testkit::failure::Result;
use vhost_device_testkit::framing::Answer;
use vhost_device_testkit::session::Request;
use vhost_device_testkit::subject::{StuckHost, Subject};
use vhost_device_testkit::{conformance, ensure, fail};

mod common;

use common::{ERR, GET_DIRECTION, GET_LINE_NAMES, GET_VALUE, OK, SET_IRQ_TYPE, message, unmasking};

const NAMES: &[u8] = b"led\0\0button\0\0\0\0\0\0";
const LINES: u16 = 8;

struct Gpio;

/// The field of 16 bits at `at` of a request.
fn field(request: &Request, at: usize) -> u16 {
    u16::from_le_bytes([request.readable[at], request.readable[at + 1]])
}

impl Subject for Gpio {
    fn name(&self) -> &'static str {
        "gpio"
    }

    fn binary(&self) -> PathBuf {
        env!("CARGO_BIN_EXE_vhost-device-gpio").into()
    }

    fn arguments(&self, _: &Path) -> Vec<String> {
        vec!["-l".into(), "s8,names=led//button".into()]
    }

    fn queues(&self) -> usize {
        2
    }

    fn config(&self) -> Vec<u8> {
        let lines = LINES.to_le_bytes();
        let names = (NAMES.len() as u32).to_le_bytes();
        [&lines[..], &[0; 2], &names].concat()
    }

    fn probe(&self) -> Request {
        message(GET_VALUE, 3, 0)
    }

    /// The names, with more room than they need.
    fn long_probe(&self) -> Option<Request> {
        Some(Request {
            writable: 1024 - 8,
            ..message(GET_LINE_NAMES, 0, 0)
        })
    }

    /// No line is pulled, so every value is 0. The lines of an odd header may be anything.
    fn judge(&self, request: &Request, answer: &Answer) -> Result<()> {
        let (kind, line) = (field(request, 0), field(request, 2));
        let Some(status) = answer.written().first() else {
            fail!("the answer is empty");
        };
        if kind == GET_LINE_NAMES && request.writable as usize > NAMES.len() {
            let expected = [&[OK], NAMES].concat();
            ensure!(answer.written() == expected, "not the names");
            return Ok(());
        }
        ensure!(answer.used_len == 2, "{} bytes were used", answer.used_len);
        let known = (GET_DIRECTION..=SET_IRQ_TYPE).contains(&kind) && line < LINES;
        if kind == GET_VALUE && known {
            ensure!(answer.written() == [OK, 0], "{:?}", answer.written());
        } else if !known {
            ensure!(
                *status == ERR,
                "status {status} for type {kind} line {line}"
            );
        }
        Ok(())
    }

    fn is_failure(&self, _: &Request, answer: &Answer) -> bool {
        answer.written().first() == Some(&ERR)
    }

    fn least_writable(&self) -> u32 {
        2
    }

    fn header_fields(&self) -> Vec<Range<usize>> {
        vec![0..2, 2..4, 4..8]
    }

    /// An event buffer among the requests.
    fn wrong_queue(&self) -> Option<Request> {
        Some(Request {
            queue: 0,
            ..unmasking(3)
        })
    }

    /// A bus on which every access takes a minute.
    fn stuck_host(&self, _: &Path) -> Result<Option<StuckHost>> {
        Ok(Some(StuckHost {
            arguments: vec!["-l".into(), "s8,delay=60000000".into()],
            held: Vec::new(),
        }))
    }

    fn has_index_alias(&self) -> bool {
        true
    }
}

conformance!(Gpio);
