//! Requests of an I2C driver, and what comes back for them.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use vhost_device_testkit::framing::{Answer, Framing};
use vhost_device_testkit::process::{Daemon, Launch};
use vhost_device_testkit::session::{Options, Pending, Request, Session};

pub const FAIL_NEXT: u32 = 1;
pub const M_RD: u32 = 2;
pub const OK: u8 = 0;
pub const ERROR: u8 = 1;

/// A request with any header.
pub fn request(address: u16, flags: u32, data: &[u8], room: u32) -> Request {
    let mut readable = Vec::new();
    readable.extend(address.to_le_bytes());
    readable.extend([0; 2]);
    readable.extend(flags.to_le_bytes());
    readable.extend(data);
    Request {
        queue: 0,
        readable,
        writable: room + 1,
    }
}

/// Reads so many bytes from a 7-bit address.
pub fn read(address: u8, length: u32) -> Request {
    request(u16::from(address) << 1, M_RD, &[], length)
}

/// Writes bytes to a 7-bit address.
pub fn write(address: u8, data: &[u8]) -> Request {
    request(u16::from(address) << 1, 0, data, 0)
}

/// The same request, with another one of its group behind it.
pub fn and_next(mut request: Request) -> Request {
    request.readable[4] |= FAIL_NEXT as u8;
    request
}

/// The data and the status of an answer, which must be used as a whole.
pub fn parts(answer: &Answer) -> (Vec<u8>, u8) {
    assert_eq!(answer.used_len as usize, answer.bytes.len());
    let (status, data) = answer.bytes.split_last().unwrap();
    (data.to_vec(), *status)
}

/// A daemon with this device list, and more arguments.
pub fn daemon(list: &str, more: &[&str]) -> Daemon {
    let launch = Launch::new(env!("CARGO_BIN_EXE_vhost-device-i2c").into()).unwrap();
    let arguments = [&["-l", list], more].concat();
    launch.arguments(arguments).start().unwrap()
}

/// A driver at work.
pub struct Driver {
    pub session: Session,
}

impl Driver {
    pub fn new(daemon: &Daemon) -> Self {
        Self::with(daemon, &Options::usual(1))
    }

    pub fn with(daemon: &Daemon, options: &Options) -> Self {
        Self {
            session: Session::open(daemon.socket(), options).unwrap(),
        }
    }

    /// Makes requests available at once, with one kick.
    pub fn submit(&mut self, requests: &[Request]) -> Vec<Pending> {
        let prepare = |request| self.session.prepare(request, &Framing::whole()).unwrap();
        let pending = requests.iter().map(prepare).collect();
        self.session.rings[0].submit().unwrap();
        pending
    }

    /// The answers to all of them, in order.
    pub fn finish(&mut self, pending: &[Pending]) -> Vec<(Vec<u8>, u8)> {
        let finish = |pending| parts(&self.session.finish(0, pending).unwrap());
        pending.iter().map(finish).collect()
    }

    /// Submits requests at once and returns the answers.
    pub fn batch(&mut self, requests: &[Request]) -> Vec<(Vec<u8>, u8)> {
        let mark = self.session.memory.mark();
        let pending = self.submit(requests);
        let answers = self.finish(&pending);
        self.session.memory.rewind(&mark);
        answers
    }

    /// As a batch, only the statuses.
    pub fn statuses(&mut self, requests: &[Request]) -> Vec<u8> {
        self.batch(requests)
            .into_iter()
            .map(|(_, status)| status)
            .collect()
    }

    /// Reads a register of a chip with a write and a read in one transfer.
    pub fn register(&mut self, address: u8, number: u8, length: u32) -> Vec<u8> {
        let answers = self.batch(&[and_next(write(address, &[number])), read(address, length)]);
        assert_eq!(answers[0], (vec![], OK));
        assert_eq!(answers[1].1, OK);
        answers[1].0.clone()
    }
}
