//! A GPIO driver's requests, and the outside of a simulated chip.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vhost_device_testkit::framing::Framing;
use vhost_device_testkit::process::{Daemon, Launch, Served};
use vhost_device_testkit::session::{Options, Pending, Request, Session};

pub const GET_LINE_NAMES: u16 = 1;
pub const GET_DIRECTION: u16 = 2;
pub const SET_DIRECTION: u16 = 3;
pub const GET_VALUE: u16 = 4;
pub const SET_VALUE: u16 = 5;
pub const SET_IRQ_TYPE: u16 = 6;

pub const OK: u8 = 0;
pub const ERR: u8 = 1;

pub const NONE: u32 = 0;
pub const OUT: u32 = 1;
pub const IN: u32 = 2;

pub const RISING: u32 = 1;
pub const FALLING: u32 = 2;
pub const BOTH: u32 = 3;
pub const HIGH: u32 = 4;
pub const LOW: u32 = 8;

pub const INVALID: u8 = 0;
pub const VALID: u8 = 1;

pub const REQUESTS: usize = 0;
pub const EVENTS: usize = 1;

/// How long nothing must happen to count as nothing.
const SILENCE: Duration = Duration::from_millis(50);

/// A request.
pub fn message(kind: u16, line: u16, value: u32) -> Request {
    let mut readable = Vec::new();
    readable.extend(kind.to_le_bytes());
    readable.extend(line.to_le_bytes());
    readable.extend(value.to_le_bytes());
    Request {
        queue: REQUESTS,
        readable,
        writable: 2,
    }
}

/// An event buffer.
pub fn unmasking(line: u16) -> Request {
    Request {
        queue: EVENTS,
        readable: line.to_le_bytes().to_vec(),
        writable: 1,
    }
}

/// A daemon with these arguments.
pub fn start(arguments: &[&str]) -> Daemon {
    Launch::new(env!("CARGO_BIN_EXE_vhost-device-gpio").into())
        .unwrap()
        .arguments(arguments)
        .start()
        .unwrap()
}

/// A daemon with one simulated chip of these settings, and its outside.
pub fn start_sim(settings: &str) -> (Served, Outside) {
    let launch = Launch::new(env!("CARGO_BIN_EXE_vhost-device-gpio").into()).unwrap();
    let control = launch.dir().join("control");
    let chip = format!("{settings},control={}", control.display());
    let daemon = launch.arguments(["--chip", &chip]).start().unwrap();
    (Served(daemon), Outside::connect(&control))
}

/// A connection to the control socket of a simulated chip.
pub struct Outside {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Outside {
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        Self {
            path: path.into(),
            stream: BufReader::new(stream),
        }
    }

    /// One more connection.
    pub fn another(&self) -> Self {
        Self::connect(&self.path)
    }

    /// The answer to a command.
    pub fn ask(&mut self, command: &str) -> String {
        self.say(format!("{command}\n").as_bytes());
        self.hear()
    }

    /// Writes without waiting for an answer.
    pub fn say(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// Whether there is a place for this client. One that has none may be hung up on before it asks.
    pub fn is_served(&mut self) -> bool {
        let asked = self.stream.get_mut().write_all(b"lines\n");
        let mut line = String::new();
        asked
            .and_then(|()| self.stream.read_line(&mut line))
            .is_ok()
            && line.starts_with("ok")
    }

    /// The next line.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Whether the daemon has hung up.
    pub fn is_closed(&mut self) -> bool {
        self.hear().is_empty()
    }

    /// Nothing more is said for a while.
    pub fn silent(&mut self) {
        let stream = self.stream.get_ref();
        let usual = stream.read_timeout().unwrap();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        let mut line = String::new();
        let heard = self.stream.read_line(&mut line);
        assert!(heard.is_err(), "{line:?} was said");
        self.stream.get_ref().set_read_timeout(usual).unwrap();
    }

    /// Pulls a line.
    pub fn set(&mut self, line: u16, value: u8) {
        assert_eq!(self.ask(&format!("set {line} {value}")), "ok");
    }
}

/// A driver at work.
pub struct Driver {
    pub session: Session,
}

impl Driver {
    pub fn new(daemon: &Daemon) -> Self {
        Self::with(daemon.socket(), &Options::usual(2))
    }

    pub fn with(socket: &Path, options: &Options) -> Self {
        Self {
            session: Session::open(socket, options).unwrap(),
        }
    }

    /// What a request is answered with.
    pub fn answer(&mut self, request: &Request) -> Vec<u8> {
        let mark = self.session.memory.mark();
        let pending = self.session.submit(request, &Framing::whole()).unwrap();
        let answer = self.session.finish(request.queue, &pending).unwrap();
        if request.queue == REQUESTS && self.session.rings[EVENTS].room() == 256 {
            // no event buffer lies behind the mark
            self.session.memory.rewind(&mark);
        }
        answer.written().to_vec()
    }

    /// Status and value of an ordinary request.
    pub fn ask(&mut self, kind: u16, line: u16, value: u32) -> (u8, u8) {
        match self.answer(&message(kind, line, value)).as_slice() {
            [status, value] => (*status, *value),
            other => panic!("{other:?} is no response"),
        }
    }

    /// A request that must be carried out.
    pub fn tell(&mut self, kind: u16, line: u16, value: u32) {
        assert_eq!(
            self.ask(kind, line, value),
            (OK, 0),
            "{kind} {line} {value}"
        );
    }

    /// A request that must be refused.
    pub fn refused(&mut self, kind: u16, line: u16, value: u32) {
        assert_eq!(
            self.ask(kind, line, value),
            (ERR, 0),
            "{kind} {line} {value}"
        );
    }

    /// The value of a line.
    pub fn value(&mut self, line: u16) -> u8 {
        let (status, value) = self.ask(GET_VALUE, line, 0);
        assert_eq!(status, OK, "line {line}");
        value
    }

    /// Gives an event buffer for a line.
    pub fn unmask(&mut self, line: u16) -> Pending {
        self.session
            .submit(&unmasking(line), &Framing::whole())
            .unwrap()
    }

    /// Waits for this buffer to come back; its status.
    pub fn event(&mut self, pending: &Pending) -> u8 {
        let answer = self.session.finish(EVENTS, pending).unwrap();
        assert_eq!(answer.used_len, 1);
        answer.bytes[0]
    }

    /// No buffer comes back for a while.
    pub fn no_event(&mut self) {
        assert!(self.session.rings[EVENTS].wait(SILENCE).is_err());
    }
}
