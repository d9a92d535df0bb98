//! Wrong control messages: C5, C6, C9, C10.

use std::os::fd::{AsRawFd, RawFd};

use crate::conformance::Outcome;
use crate::failure::{At, Result};
use crate::memory::Place;
use crate::message::{self, VringAddress, feature, flag, protocol, request};
use crate::session::{Options, negotiate};
use crate::stand::Stand;
use crate::subject::Subject;
use crate::sys;

/// C5: unknown requests, and requests of features that were not agreed on.
pub fn unknown_request(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    for unknown in [0, 45, 46, 99, 0x1000, 0x7fff_ffff, u32::MAX] {
        for body in [Vec::new(), message::number(0)] {
            let control = stand.negotiated()?;
            stand.refused(&control, unknown, &body, &[])?;
        }
    }
    let bare = Options {
        protocol: protocol::REPLY_ACK,
        ..stand.options()
    };
    let spare = sys::memfd("testkit-spare", 4096)?;
    for (request, body, with_descriptor) in unagreed_requests() {
        let mut control = stand.connect()?;
        negotiate(
            &mut control,
            &Options {
                queues: 0,
                ..bare.clone()
            },
        )?;
        let fd = [spare.as_raw_fd()];
        let fds: &[RawFd] = if with_descriptor { &fd } else { &[] };
        stand
            .refused(&control, request, &body, fds)
            .at("feature not agreed on")?;
    }
    enable_without_protocol_features(&stand)?;
    stand.close()?;
    Ok(Outcome::Pass)
}

fn unagreed_requests() -> Vec<(u32, Vec<u8>, bool)> {
    let region = message::single_region(Place::new(0x1000, 4096));
    let inflight = [message::log(4096, 0), vec![1, 0, 0, 1]].concat();
    vec![
        (request::GET_QUEUE_NUM, Vec::new(), false),
        (request::GET_CONFIG, message::config(0, 4, &[0; 4]), false),
        (request::SET_CONFIG, message::config(0, 4, &[0; 4]), false),
        (request::SET_BACKEND_REQ_FD, Vec::new(), true),
        (request::SET_LOG_BASE, message::log(4096, 0), true),
        (request::SET_LOG_FD, Vec::new(), true),
        (request::RESET_DEVICE, Vec::new(), false),
        (request::GET_MAX_MEM_SLOTS, Vec::new(), false),
        (request::ADD_MEM_REG, region.clone(), true),
        (request::REM_MEM_REG, region, false),
        (request::SET_STATUS, message::number(0), false),
        (request::GET_STATUS, Vec::new(), false),
        (request::GET_INFLIGHT_FD, inflight.clone(), false),
        (request::SET_INFLIGHT_FD, inflight, true),
        (request::SEND_RARP, message::number(0), false),
        (request::NET_SET_MTU, message::number(1500), false),
        (request::IOTLB_MSG, vec![0; 32], false),
        (request::SET_VRING_ENDIAN, message::vring_state(0, 0), false),
        (request::CREATE_CRYPTO_SESSION, vec![0; 8], false),
        (request::CLOSE_CRYPTO_SESSION, message::number(0), false),
        (request::POSTCOPY_ADVISE, Vec::new(), false),
        (request::POSTCOPY_LISTEN, Vec::new(), false),
        (request::POSTCOPY_END, Vec::new(), false),
        (request::GPU_SET_SOCKET, Vec::new(), true),
        (request::VRING_KICK, message::vring_state(0, 0), false),
        (request::GET_SHARED_OBJECT, vec![1; 16], false),
        (
            request::SET_DEVICE_STATE_FD,
            message::vring_state(0, 0),
            true,
        ),
        (request::CHECK_DEVICE_STATE, Vec::new(), false),
        (request::GET_SHMEM_CONFIG, Vec::new(), false),
    ]
}

/// Rings are enabled by message only with protocol features; there is no acknowledgement to refuse with.
fn enable_without_protocol_features(stand: &Stand<'_>) -> Result<()> {
    let control = stand.connect()?;
    let features = control.features()? & !feature::PROTOCOL_FEATURES;
    control.set_owner()?;
    control.set_features(features)?;
    let body = message::vring_state(0, 1);
    control
        .verdict(request::SET_VRING_ENABLE, flag::VERSION, &body, &[])
        .at("SET_VRING_ENABLE without protocol features")?;
    Ok(())
}

/// C6: headers that contradict the message, the protocol version, or common sense.
pub fn wrong_header(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let table = message::memory_table(&[Place::new(0x1000, 4096)]);
    let address = VringAddress {
        descriptors: 0,
        used: 0,
        available: 0,
        log: None,
    };
    let messages: [(u32, Vec<u8>); 7] = [
        (request::GET_FEATURES, Vec::new()),
        (request::SET_FEATURES, message::number(0)),
        (request::SET_OWNER, Vec::new()),
        (request::SET_MEM_TABLE, table),
        (request::SET_VRING_NUM, message::vring_state(0, 256)),
        (request::SET_VRING_ADDR, message::vring_address(0, address)),
        (request::GET_CONFIG, message::config(0, 4, &[0; 4])),
    ];
    for (request, body) in &messages {
        for (what, size, sent) in wrong_sizes(body.len()) {
            let mut bytes = vec![0; sent];
            let known = sent.min(body.len());
            bytes[..known].copy_from_slice(&body[..known]);
            spoiled(&stand, *request, flag::VERSION, size, &bytes)
                .at(format!("{} with {what}", request::name(*request)))?;
        }
        for (what, flags) in wrong_flags() {
            spoiled(&stand, *request, flags, body.len() as u32, body)
                .at(format!("{} with {what}", request::name(*request)))?;
        }
    }
    stand.close()?;
    Ok(Outcome::Pass)
}

/// (what, size in the header, bytes that follow)
fn wrong_sizes(right: usize) -> Vec<(&'static str, u32, usize)> {
    let mut sizes = vec![
        ("8 bytes too many", right as u32 + 8, right + 8),
        ("4 KiB + 1", 4097, 4097),
        ("2^31-1", 0x7fff_ffff, 0),
        ("2^32-1", u32::MAX, 0),
    ];
    if right > 0 {
        sizes.push(("size 0", 0, 0));
        sizes.push(("half its size", (right / 2) as u32, right / 2));
    }
    sizes
}

fn wrong_flags() -> Vec<(&'static str, u32)> {
    vec![
        ("version 0", 0),
        ("version 2", 2),
        ("version 3", 3),
        ("the reply flag", flag::VERSION | flag::REPLY),
    ]
}

fn spoiled(stand: &Stand<'_>, request: u32, flags: u32, size: u32, body: &[u8]) -> Result<()> {
    let control = stand.negotiated()?;
    let mut flags = flags;
    if !request::is_question(request) {
        flags |= flag::NEED_REPLY;
    }
    let mut bytes = message::header(request, flags, size).to_vec();
    bytes.extend_from_slice(body);
    let verdict = control.verdict_on_bytes(&bytes, &[])?;
    stand.not_accepted(&control, verdict)?;
    Ok(())
}

/// C9: a second owner, and feature bits that were never offered.
pub fn never_offered(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let control = stand.negotiated()?;
    stand
        .refused(&control, request::SET_OWNER, &[], &[])
        .at("second time")?;
    drop(control);
    let control = stand.negotiated()?;
    let (offered, protocols) = (control.features()?, control.protocol_features()?);
    drop(control);
    for bit in (0..64).filter(|bit| offered & (1 << bit) == 0) {
        let control = stand.negotiated()?;
        let body = message::number(offered | 1 << bit);
        stand
            .refused(&control, request::SET_FEATURES, &body, &[])
            .at(format!("feature bit {bit}, never offered"))?;
    }
    for bit in (0..64).filter(|bit| protocols & (1 << bit) == 0) {
        let control = stand.negotiated()?;
        let body = message::number(protocols | 1 << bit);
        stand
            .refused(&control, request::SET_PROTOCOL_FEATURES, &body, &[])
            .at(format!("protocol feature bit {bit}, never offered"))?;
    }
    stand.close()?;
    Ok(Outcome::Pass)
}

/// C10: a ring that does not exist, in each ring message.
pub fn wrong_ring(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let count = subject.queues() as u32;
    let fd = sys::memfd("testkit-spare", 4096)?;
    let address =
        |session: &crate::session::Session| session.rings[0].parts().address(&session.memory);
    for index in [count, 255, u32::MAX] {
        let session = stand.session()?;
        let bodies = [
            (request::SET_VRING_NUM, message::vring_state(index, 256)),
            (request::SET_VRING_BASE, message::vring_state(index, 0)),
            (request::SET_VRING_ENABLE, message::vring_state(index, 1)),
            (request::GET_VRING_BASE, message::vring_state(index, 0)),
            (
                request::SET_VRING_ADDR,
                message::vring_address(index, address(&session)),
            ),
        ];
        drop(session);
        for (request, body) in bodies {
            refused_while_running(&stand, request, &body, &[]).at(format!("ring {index}"))?;
        }
    }
    for index in [count as u8, 255] {
        for request in [
            request::SET_VRING_KICK,
            request::SET_VRING_CALL,
            request::SET_VRING_ERR,
        ] {
            let body = message::vring_descriptor(index, true);
            refused_while_running(&stand, request, &body, &[fd.as_raw_fd()])
                .at(format!("ring {index}"))?;
            let body = message::vring_descriptor(index, false);
            refused_while_running(&stand, request, &body, &[]).at(format!("ring {index}"))?;
        }
    }
    stand.close()?;
    Ok(Outcome::Pass)
}

fn refused_while_running(
    stand: &Stand<'_>,
    request: u32,
    body: &[u8],
    fds: &[RawFd],
) -> Result<()> {
    let mut session = stand.session()?;
    let verdict = stand.refused(&session.control, request, body, fds)?;
    stand.serves_after(&mut session, verdict)
}
