//! Everything a device must survive, once on the queue of packets from the guest and once on that of packets to it.
#![allow(
    clippy::single_range_in_vec_init,
    reason = "a list of one field is meant"
)]

use std::collections::VecDeque;
use std::io::Write;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use vhost_device_testkit::ensure;
use vhost_device_testkit::failure::Result;
use vhost_device_testkit::framing::Answer;
use vhost_device_testkit::process::Daemon;
use vhost_device_testkit::session::Request;
use vhost_device_testkit::subject::Subject;

#[path = "support/mod.rs"]
mod support;

use support::host::{GUEST, PORT};
use support::link::{RX, TX};
use support::packet::*;

const SOCKET: &str = "vm.vsock";

fn arguments(dir: &Path) -> Vec<String> {
    let path = dir.join(SOCKET).to_string_lossy().into_owned();
    vec![
        "--guest-cid".into(),
        GUEST.to_string(),
        "--uds-path".into(),
        path,
    ]
}

/// Packets from the guest. The one that nothing answers ends a connection that does not exist.
struct FromGuest;

impl FromGuest {
    fn packet(payload: usize) -> Request {
        let header = Header {
            src_cid: GUEST,
            dst_cid: HOST,
            src_port: 4000,
            dst_port: PORT,
            len: payload as u32,
            kind: STREAM,
            op: RST,
            ..Header::default()
        };
        Request {
            queue: TX,
            readable: [&header.to_bytes()[..], &vec![0x33; payload]].concat(),
            writable: 0,
        }
    }
}

impl Subject for FromGuest {
    fn name(&self) -> &'static str {
        "vsock"
    }

    fn binary(&self) -> PathBuf {
        env!("CARGO_BIN_EXE_vhost-device-vsock").into()
    }

    fn arguments(&self, dir: &Path) -> Vec<String> {
        arguments(dir)
    }

    fn queues(&self) -> usize {
        3
    }

    fn config(&self) -> Vec<u8> {
        GUEST.to_le_bytes().into()
    }

    fn probe(&self) -> Request {
        Self::packet(0)
    }

    fn long_probe(&self) -> Option<Request> {
        Some(Self::packet(1024 - HEADER))
    }

    /// A packet is taken, whatever is in it.
    fn judge(&self, _: &Request, answer: &Answer) -> Result<()> {
        ensure!(answer.used_len == 0, "{} bytes written", answer.used_len);
        Ok(())
    }

    fn least_writable(&self) -> u32 {
        0
    }

    fn header_fields(&self) -> Vec<Range<usize>> {
        vec![
            0..8,
            8..16,
            16..20,
            20..24,
            24..28,
            28..30,
            30..32,
            32..36,
            36..40,
            40..44,
        ]
    }

    /// A packet among the receive buffers.
    fn wrong_queue(&self) -> Option<Request> {
        Some(Request {
            queue: RX,
            ..self.probe()
        })
    }
}

/// Packets to the guest: programs of the host ask for one of its ports.
struct ToGuest {
    /// Programs that have asked and wait.
    programs: Mutex<VecDeque<UnixStream>>,
}

/// Programs that wait at the same time.
const PROGRAMS: usize = 512;

static TO_GUEST: ToGuest = ToGuest {
    programs: Mutex::new(VecDeque::new()),
};

impl Subject for &ToGuest {
    fn name(&self) -> &'static str {
        "vsock-receive"
    }

    fn binary(&self) -> PathBuf {
        FromGuest.binary()
    }

    fn arguments(&self, dir: &Path) -> Vec<String> {
        arguments(dir)
    }

    fn queues(&self) -> usize {
        3
    }

    fn config(&self) -> Vec<u8> {
        FromGuest.config()
    }

    fn probe(&self) -> Request {
        Request {
            queue: RX,
            readable: Vec::new(),
            writable: 1000,
        }
    }

    fn long_probe(&self) -> Option<Request> {
        Some(Request {
            writable: 1024,
            ..self.probe()
        })
    }

    fn judge(&self, _: &Request, answer: &Answer) -> Result<()> {
        ensure!(
            answer.used_len as usize == HEADER,
            "{} bytes written",
            answer.used_len
        );
        let Some(header) = answer.bytes.first_chunk().map(Header::from_bytes) else {
            vhost_device_testkit::fail!("a buffer shorter than a header was used");
        };
        let is_request = header.op == REQUEST
            && (header.src_cid, header.dst_cid, header.dst_port) == (HOST, GUEST, PORT);
        ensure!(is_request, "{header:?}");
        Ok(())
    }

    fn least_writable(&self) -> u32 {
        HEADER as u32
    }

    fn is_event_driven(&self) -> bool {
        true
    }

    fn stimulate(&self, daemon: &Daemon) -> Result<()> {
        let mut program = UnixStream::connect(daemon.dir().join(SOCKET))?;
        program.write_all(format!("CONNECT {PORT}\n").as_bytes())?;
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if programs.len() == PROGRAMS {
            programs.pop_front();
        }
        programs.push_back(program);
        Ok(())
    }
}

mod from_guest {
    use super::*;
    use vhost_device_testkit::conformance;

    conformance!(FromGuest);
}

mod to_guest {
    use super::*;
    use vhost_device_testkit::conformance;

    conformance!(&TO_GUEST);
}
