//! Everything a device must survive, once on the queue of packets from the guest and once on that of packets to it.
#![allow(
    clippy::single_range_in_vec_init,
    reason = "a list of one field is meant"
)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use vhost_device_testkit::conformance::check;
use vhost_device_testkit::failure::Result;
use vhost_device_testkit::framing::Answer;
use vhost_device_testkit::process::Daemon;
use vhost_device_testkit::session::Request;
use vhost_device_testkit::subject::Subject;
use vhost_device_testkit::{conformance, ensure};

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

    /// A receive buffer among the packets.
    fn wrong_queue(&self) -> Option<Request> {
        Some(Request {
            queue: TX,
            ..ToGuest::buffer()
        })
    }

    /// Each guest has a context id and sockets of its own.
    fn has_twins(&self) -> bool {
        false
    }
}

/// Packets to the guest: programs of the host ask for one of its ports.
struct ToGuest;

/// Programs that wait at the same time.
const PROGRAMS: usize = 512;

thread_local! {
    /// Programs that have asked and wait; each row is played on a thread of its own, and must not see those of others leave.
    static WAITING: RefCell<VecDeque<UnixStream>> = const { RefCell::new(VecDeque::new()) };
}

impl ToGuest {
    /// A receive buffer, not much longer than a header, so that one lies across whatever the bytes are cut by.
    fn buffer() -> Request {
        Request {
            queue: RX,
            readable: Vec::new(),
            writable: 60,
        }
    }
}

impl Subject for ToGuest {
    fn name(&self) -> &'static str {
        "vsock"
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
        Self::buffer()
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
        match program.write_all(format!("CONNECT {PORT}\n").as_bytes()) {
            // Whoever has just broken the session has its programs sent away; where an answer is due it will be missed.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            result => result?,
        }
        WAITING.with_borrow_mut(|programs| {
            if programs.len() == PROGRAMS {
                programs.pop_front();
            }
            programs.push_back(program);
        });
        Ok(())
    }
}

conformance!(FromGuest);

/// The rows of the catalogue that are about a queue whose buffers the device fills, and about what becomes of them.
macro_rules! rows {
    ($($name:ident $id:literal;)+) => {
        mod to_guest {
            use super::*;
            $(
                #[test]
                fn $name() {
                    let case = vhost_device_testkit::faults::case($id);
                    check(&ToGuest, case, env!("CARGO_TARGET_TMPDIR"));
                }
            )+
        }
    };
}

rows! {
    c08_wrong_kind_of_descriptor "C8";
    c12_replaced_descriptors "C12";
    c13_ring_base "C13";
    c15_replaced_table "C15";
    c16_region_by_region "C16";
    c18_reset_under_load "C18";
    c20_dies_anywhere "C20";
    c21_truncated_memory "C21";
    q01_lost_index "Q1";
    q02_lost_link "Q2";
    q03_broken_table "Q3";
    q04_impossible_buffer "Q4";
    q05_wrong_direction "Q5";
    q06_any_framing "Q6";
    q07_same_head_twice "Q7";
    q08_shifting_ground "Q8";
    q10_kicks_without_work "Q10";
    q13_neglected_buffers "Q13";
    q14_ring_sizes "Q14";
    f1_frontend_killed_or_stopped "F1";
    f2_daemon_stopped "F2";
    l14_idle "L14";
    l15_reconnects "L15";
    l16_dirty_log "L16";
    l17_feature_subsets "L17";
    l18_one_interrupt_per_batch "L18";
    l19_in_order "L19";
    l20_killed_in_mid_request "L20";
    l21_busy_poll "L21";
}
