//! An SCMI agent.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::time::{Duration, Instant};

use vhost_device_testkit::framing::Framing;
use vhost_device_testkit::process::{Daemon, Launch, Served};
use vhost_device_testkit::session::{Options, Pending, Request, Session};

pub const COMMANDS: usize = 0;
pub const EVENTS: usize = 1;

pub const BASE: u32 = 0x10;
pub const POWER: u32 = 0x11;
pub const SYSTEM: u32 = 0x12;
pub const PERF: u32 = 0x13;
pub const CLOCK: u32 = 0x14;
pub const SENSOR: u32 = 0x15;
pub const RESET: u32 = 0x16;
pub const VOLTAGE: u32 = 0x17;

pub const READING_GET: u32 = 6;

pub const SUCCESS: i32 = 0;
pub const NOT_SUPPORTED: i32 = -1;
pub const INVALID_PARAMETERS: i32 = -2;
pub const DENIED: i32 = -3;
pub const NOT_FOUND: i32 = -4;
pub const OUT_OF_RANGE: i32 = -5;
pub const BUSY: i32 = -6;
pub const HARDWARE_ERROR: i32 = -9;
pub const PROTOCOL_ERROR: i32 = -10;

/// Room for payloads that Linux has.
pub const ROOM: u32 = 128;

/// How long nothing must happen to count as nothing.
pub const SILENCE: Duration = Duration::from_millis(50);

/// The bit of VIRTIO_SCMI_F_P2A_CHANNELS.
pub const P2A: u64 = 1;

/// The word at `at`.
pub fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Some bytes as words.
pub fn words(bytes: &[u8]) -> Vec<u32> {
    assert!(
        bytes.len().is_multiple_of(4),
        "{} bytes are no words",
        bytes.len()
    );
    (0..bytes.len())
        .step_by(4)
        .map(|at| word(bytes, at))
        .collect()
}

/// Words as bytes.
pub fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub fn header(protocol: u32, message: u32, token: u32) -> u32 {
    message | protocol << 10 | token << 18
}

/// A command with room for `room` bytes of return values.
pub fn command(protocol: u32, message: u32, token: u32, parameters: &[u32], room: u32) -> Request {
    let mut readable = header(protocol, message, token).to_le_bytes().to_vec();
    readable.extend(bytes(parameters));
    Request {
        queue: COMMANDS,
        readable,
        writable: 8 + room,
    }
}

/// A name as text.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap();
    String::from_utf8(bytes[..end].to_vec()).unwrap()
}

/// A daemon with these arguments.
pub fn start<S: AsRef<str>>(arguments: &[S]) -> Served {
    let launch = Launch::new(env!("CARGO_BIN_EXE_vhost-device-scmi").into()).unwrap();
    let arguments = arguments
        .iter()
        .map(|argument| argument.as_ref().to_owned());
    Served(launch.arguments(arguments).start().unwrap())
}

/// A daemon with these sensors and domains.
pub fn start_with<S: AsRef<str>>(entries: &[S]) -> Served {
    let mut arguments = Vec::new();
    for entry in entries {
        arguments.push("-d".to_owned());
        arguments.push(entry.as_ref().to_owned());
    }
    start(&arguments)
}

/// An event.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    pub header: u32,
    pub payload: Vec<u32>,
}

/// An agent at work.
pub struct Agent {
    pub session: Session,
    token: u32,
    buffers: Vec<Pending>,
}

impl Agent {
    pub fn new(daemon: &Daemon) -> Self {
        Self::with(daemon.socket(), &Options::usual(2))
    }

    /// An agent without an event queue.
    pub fn without_events(daemon: &Daemon) -> Self {
        let options = Options::usual(2);
        let features = options.features & !P2A;
        Self::with(daemon.socket(), &options.with_features(features))
    }

    pub fn with(socket: &Path, options: &Options) -> Self {
        Self {
            session: Session::open(socket, options).unwrap(),
            token: 0,
            buffers: Vec::new(),
        }
    }

    /// Makes a command available.
    pub fn send(&mut self, request: &Request) -> Pending {
        self.session.submit(request, &Framing::whole()).unwrap()
    }

    /// Status and return values of a command that was made available before all others.
    pub fn hear(&mut self, request: &Request, pending: &Pending) -> (i32, Vec<u8>) {
        let answer = self.session.finish(request.queue, pending).unwrap();
        let written = answer.written();
        assert_eq!(written[..4], request.readable[..4], "the header");
        (word(written, 4) as i32, written[8..].to_vec())
    }

    /// Status and return values of a command.
    pub fn ask_with(&mut self, request: &Request) -> (i32, Vec<u8>) {
        let mark = self.session.memory.mark();
        let pending = self.send(request);
        let answer = self.hear(request, &pending);
        if self.buffers.is_empty() {
            self.session.memory.rewind(&mark);
        }
        answer
    }

    /// Status and return values of a command with the room that Linux gives.
    pub fn ask(&mut self, protocol: u32, message: u32, parameters: &[u32]) -> (i32, Vec<u8>) {
        self.token = (self.token + 1) & 0x3ff;
        self.ask_with(&command(protocol, message, self.token, parameters, ROOM))
    }

    /// Return values of a command that must succeed.
    pub fn get(&mut self, protocol: u32, message: u32, parameters: &[u32]) -> Vec<u8> {
        let (status, values) = self.ask(protocol, message, parameters);
        assert_eq!(
            status, SUCCESS,
            "{protocol:#x} {message:#x} {parameters:x?}"
        );
        values
    }

    /// The same as words.
    pub fn words(&mut self, protocol: u32, message: u32, parameters: &[u32]) -> Vec<u32> {
        words(&self.get(protocol, message, parameters))
    }

    /// A command that must succeed and has no return values.
    pub fn tell(&mut self, protocol: u32, message: u32, parameters: &[u32]) {
        assert_eq!(self.get(protocol, message, parameters), [0u8; 0]);
    }

    /// A command that must be refused with this status and nothing else.
    pub fn refused(&mut self, status: i32, protocol: u32, message: u32, parameters: &[u32]) {
        let answer = self.ask(protocol, message, parameters);
        assert_eq!(
            answer,
            (status, Vec::new()),
            "{protocol:#x} {message:#x} {parameters:x?}"
        );
    }

    /// The first reading of a sensor, synchronous.
    pub fn reading(&mut self, sensor: u32) -> i64 {
        let values = self.words(SENSOR, READING_GET, &[sensor, 0]);
        (u64::from(values[0]) | u64::from(values[1]) << 32) as i64
    }

    /// The token of the last command.
    pub fn token(&self) -> u32 {
        self.token
    }

    /// Gives event buffers of this many bytes.
    pub fn give(&mut self, count: usize, size: u32) {
        for _ in 0..count {
            let buffer = Request {
                queue: EVENTS,
                readable: Vec::new(),
                writable: size,
            };
            let pending = self.send(&buffer);
            self.buffers.push(pending);
        }
    }

    /// The next event buffer that comes back, which must be the oldest one.
    pub fn used_buffer(&mut self) -> Vec<u8> {
        let pending = self.buffers.remove(0);
        let answer = self.session.finish(EVENTS, &pending).unwrap();
        answer.written().to_vec()
    }

    /// The next event.
    pub fn event(&mut self) -> Event {
        let words = words(&self.used_buffer());
        Event {
            header: words[0],
            payload: words[1..].to_vec(),
        }
    }

    /// No event comes for a while.
    pub fn no_event(&mut self) {
        assert!(self.session.rings[EVENTS].wait(SILENCE).is_err());
    }
}

/// Waits until `is_so`, for at most ten seconds.
pub fn becomes(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The header of a notification.
pub fn notification(protocol: u32, message: u32) -> u32 {
    header(protocol, message, 0) | 3 << 8
}

/// The header of the delayed response to a command.
pub fn delayed(protocol: u32, message: u32, token: u32) -> u32 {
    header(protocol, message, token) | 2 << 8
}
