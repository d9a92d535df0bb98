//! The device over a real socket: the common catalogue, and what is special about it.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use vhost_device_testkit::failure::Result;
use vhost_device_testkit::framing::{Answer, Framing};
use vhost_device_testkit::process::{Daemon, Launch};
use vhost_device_testkit::session::{Options, Request, Session};
use vhost_device_testkit::subject::{StuckHost, Subject};
use vhost_device_testkit::{conformance, ensure};

const ECHO: u32 = 0;
const TRANSLATE: u32 = 1;

const OK: u32 = 0;
const UNSUPPORTED: u32 = 1;
const INVALID: u32 = 2;
const HOST_FAILED: u32 = 3;

const MAX_PAYLOAD: usize = 4096;
const STATUS_BYTES: usize = 4;
const OPERATION: Range<usize> = 0..4;
const SHIFT: Range<u32> = 4..5;

/// What the catalogue has to know of the device.
struct Template;

impl Subject for Template {
    fn name(&self) -> &'static str {
        "template"
    }

    fn binary(&self) -> PathBuf {
        env!("CARGO_BIN_EXE_vhost-device-template").into()
    }

    fn arguments(&self, _: &Path) -> Vec<String> {
        vec!["--translation=sim".into()]
    }

    fn config(&self) -> Vec<u8> {
        vec![0x00, 0x10, 0, 0, 0, 0, 0, 0]
    }

    fn writable_config(&self) -> Vec<Range<u32>> {
        vec![SHIFT]
    }

    fn probe(&self) -> Request {
        request(TRANSLATE, &bytes(64))
    }

    fn long_probe(&self) -> Option<Request> {
        Some(request(TRANSLATE, &bytes((1024 - 2 * STATUS_BYTES) / 2)))
    }

    /// With the simulated host, and the shift that the driver did not change, an answer is the payload itself.
    fn judge(&self, request: &Request, answer: &Answer) -> Result<()> {
        let mut expected = expected_status(request).to_le_bytes().to_vec();
        if expected == OK.to_le_bytes() {
            expected.extend(&request.readable[STATUS_BYTES..]);
        }
        ensure!(
            answer.written() == expected,
            "answer {:02x?} instead of {expected:02x?}",
            answer.written()
        );
        Ok(())
    }

    fn is_failure(&self, _: &Request, answer: &Answer) -> bool {
        status(answer) != Some(OK)
    }

    fn least_writable(&self) -> u32 {
        self.probe().writable
    }

    fn header_fields(&self) -> Vec<Range<usize>> {
        vec![OPERATION]
    }

    fn stuck_host(&self, _: &Path) -> Result<Option<StuckHost>> {
        Ok(Some(StuckHost {
            arguments: vec![format!("--translation=sim:{}", u32::MAX)],
            held: Vec::new(),
        }))
    }
}

conformance!(Template);

/// A request with room for its answer.
fn request(operation: u32, payload: &[u8]) -> Request {
    Request {
        queue: 0,
        readable: [&operation.to_le_bytes(), payload].concat(),
        writable: (STATUS_BYTES + payload.len()) as u32,
    }
}

/// A payload in which no two neighbours are equal.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 7) as u8).collect()
}

fn expected_status(request: &Request) -> u32 {
    let Some((operation, payload)) = request.readable.split_first_chunk() else {
        return INVALID;
    };
    let room = request.writable as usize - STATUS_BYTES;
    match u32::from_le_bytes(*operation) {
        ECHO | TRANSLATE if payload.len() <= MAX_PAYLOAD.min(room) => OK,
        ECHO | TRANSLATE => INVALID,
        _ => UNSUPPORTED,
    }
}

fn status(answer: &Answer) -> Option<u32> {
    let status = answer.written().first_chunk()?;
    Some(u32::from_le_bytes(*status))
}

/// A daemon that translates by a table, and the table.
fn with_table(table: &[u8]) -> Result<(Daemon, PathBuf)> {
    let launch = Launch::new(Template.binary())?;
    let path = launch.dir().join("table");
    fs::write(&path, table)?;
    let daemon = launch
        .arguments(["--translation".into(), path.clone()])
        .start()?;
    Ok((daemon, path))
}

fn session(daemon: &Daemon) -> Result<Session> {
    Session::open(daemon.socket(), &Options::usual(1))
}

fn exchange(session: &mut Session, request: &Request) -> Result<Answer> {
    let pending = session.submit(request, &Framing::whole())?;
    session.finish(request.queue, &pending)
}

/// The payload of the answer to a request that succeeds.
fn payload(session: &mut Session, operation: u32, payload: &[u8]) -> Result<Vec<u8>> {
    let answer = exchange(session, &request(operation, payload))?;
    ensure!(status(&answer) == Some(OK), "status {:?}", status(&answer));
    Ok(answer.written()[STATUS_BYTES..].to_vec())
}

fn reversed() -> Vec<u8> {
    (0..=255).rev().collect()
}

#[test]
fn an_echo_is_the_payload_and_a_translation_goes_by_the_table() -> Result<()> {
    let (mut daemon, _) = with_table(&reversed())?;
    let mut session = session(&daemon)?;
    let original = bytes(MAX_PAYLOAD);
    let translated: Vec<u8> = original.iter().map(|byte| 255 - byte).collect();
    assert_eq!(payload(&mut session, ECHO, &original)?, original);
    assert_eq!(payload(&mut session, TRANSLATE, &original)?, translated);
    assert_eq!(payload(&mut session, TRANSLATE, &[])?, []);
    daemon.finish()
}

#[test]
fn the_drivers_shift_counts_until_the_device_is_reset_or_the_frontend_leaves() -> Result<()> {
    let (mut daemon, _) = with_table(&reversed())?;
    for _ in 0..2 {
        let mut session = session(&daemon)?;
        assert_eq!(payload(&mut session, TRANSLATE, &[0, 255])?, [255, 0]);
        session.control.set_config(SHIFT.start, &[1])?;
        assert_eq!(session.control.config(SHIFT.start, 1)?, [1]);
        assert_eq!(payload(&mut session, TRANSLATE, &[0, 255])?, [254, 255]);
        assert_eq!(payload(&mut session, ECHO, &[0, 255])?, [0, 255]);
    }
    let session = session(&daemon)?;
    session.control.set_config(SHIFT.start, &[1])?;
    session.control.reset_device()?;
    assert_eq!(session.control.config(SHIFT.start, 1)?, [0]);
    daemon.finish()
}

#[test]
fn a_bad_request_is_answered_with_its_status_and_nothing_else() -> Result<()> {
    let (mut daemon, _) = with_table(&reversed())?;
    let mut session = session(&daemon)?;
    let long = request(TRANSLATE, &bytes(MAX_PAYLOAD + 1));
    let narrow = Request {
        writable: (STATUS_BYTES + 9) as u32,
        ..request(TRANSLATE, &bytes(10))
    };
    let short = Request {
        readable: vec![0; 3],
        ..request(ECHO, &[])
    };
    let table = [
        (long, INVALID),
        (narrow, INVALID),
        (short, INVALID),
        (request(2, &bytes(10)), UNSUPPORTED),
        (request(u32::MAX, &bytes(10)), UNSUPPORTED),
    ];
    for (request, expected) in table {
        let answer = exchange(&mut session, &request)?;
        assert_eq!(answer.written(), expected.to_le_bytes());
    }
    daemon.finish()
}

#[test]
fn a_host_that_fails_is_told_to_the_driver_and_tried_again() -> Result<()> {
    let (mut daemon, table) = with_table(&reversed())?;
    let mut session = session(&daemon)?;
    fs::write(&table, [])?;
    let answer = exchange(&mut session, &request(TRANSLATE, &[1, 2, 3]))?;
    assert_eq!(answer.written(), HOST_FAILED.to_le_bytes());
    assert_eq!(payload(&mut session, ECHO, &[1, 2, 3])?, [1, 2, 3]);
    fs::write(&table, reversed())?;
    assert_eq!(payload(&mut session, TRANSLATE, &[1, 2])?, [254, 253]);
    daemon.finish()
}
