//! Requests with odd contents, in odd places and numbers: Q11 to Q14.

use std::ops::Range;

use crate::conformance::Outcome;
use crate::ensure;
use crate::failure::{At, Result};
use crate::framing::Framing;
use crate::random::Random;
use crate::session::Request;
use crate::stand::Stand;
use crate::subject::Subject;

/// Q11: every header field at its limits, and headers without sense. There is always an answer.
pub fn odd_headers(subject: &dyn Subject) -> Result<Outcome> {
    let probe = subject.probe();
    if subject.header_fields().is_empty() {
        return Ok(Outcome::NotApplicable("requests carry no header"));
    }
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    for (what, readable) in odd_requests(&probe, &subject.header_fields()) {
        let request = Request {
            readable,
            ..probe.clone()
        };
        stand
            .exchange(&mut session, &request, &Framing::whole())
            .at(what)?;
        stand.probe(&mut session).at("the request after it")?;
    }
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

fn odd_requests(probe: &Request, fields: &[Range<usize>]) -> Vec<(String, Vec<u8>)> {
    let mut requests = Vec::new();
    for field in fields {
        for (name, value) in limits(field.len()) {
            let mut readable = probe.readable.clone();
            readable[field.clone()].copy_from_slice(&value);
            requests.push((format!("header bytes {field:?} at {name}"), readable));
        }
    }
    let header = 0..fields.iter().map(|field| field.end).max().unwrap_or(0);
    let mut random = Random::new(11);
    let mut whole = vec![
        ("all-zero header".to_owned(), vec![0; header.len()]),
        ("all-one header".to_owned(), vec![0xff; header.len()]),
    ];
    whole.extend((0..200).map(|number| {
        (
            format!("random header {number}"),
            random.bytes(header.len()),
        )
    }));
    for (what, bytes) in whole {
        let mut readable = probe.readable.clone();
        readable[header.clone()].copy_from_slice(&bytes);
        requests.push((what, readable));
    }
    requests
}

/// Little-endian values at the limits of a field of `len` bytes.
fn limits(len: usize) -> Vec<(&'static str, Vec<u8>)> {
    let mut one = vec![0; len];
    one[0] = 1;
    let mut almost = vec![0xff; len];
    almost[0] = 0xfe;
    let mut half = vec![0; len];
    half[len - 1] = 0x80;
    vec![
        ("0", vec![0; len]),
        ("1", one),
        ("half of its range", half),
        ("max - 1", almost),
        ("max", vec![0xff; len]),
    ]
}

/// Q12: a request that would be right on another queue.
pub fn wrong_queue(subject: &dyn Subject) -> Result<Outcome> {
    let Some(request) = subject.wrong_queue() else {
        return Ok(Outcome::NotApplicable("no request is wrong on some queue"));
    };
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    for _ in 0..10 {
        let pending = session.submit(&request, &Framing::whole())?;
        let answer = session.finish(request.queue, &pending)?;
        ensure!(
            answer.used_len == 0 || subject.is_failure(&request, &answer),
            "answered with {answer:02x?}"
        );
        stand.probe(&mut session).at("the next request")?;
    }
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

/// Q13: buffers that are never given, and buffers that are given and never taken back.
pub fn neglected_buffers(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    if subject.is_event_driven() {
        stand.stimulate(1000).at("1000 events and no buffer")?;
        stand.is_quiet().at("1000 events and no buffer")?;
        stand.leaked_no_memory().at("1000 events and no buffer")?;
        // What became of the events is for the device's own tests; here they must only be over.
        session.revive_ring(subject.probe().queue)?;
    }
    let count = stand.room(&session, usize::MAX);
    let pending = stand.load(&mut session, count)?;
    stand.stimulate(100)?;
    stand.is_quiet().at("a full ring that nobody takes from")?;
    session.rings[subject.probe().queue].kick_always()?;
    stand
        .is_quiet()
        .at("a full ring that nobody takes from, kicked")?;
    stand
        .leaked_no_memory()
        .at("a full ring that nobody takes from")?;
    stand
        .unload(&mut session, &pending)
        .at("taken back at last")?;
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

/// Q14: ring sizes from the smallest to the largest.
pub fn ring_sizes(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    for size in [1, 2, 4, 64, 128, 256, 512, 1024] {
        served_at(&stand, size).at(format!("ring of {size}"))?;
    }
    stand.close()?;
    Ok(Outcome::Pass)
}

fn served_at(stand: &Stand<'_>, size: u16) -> Result<()> {
    let request = stand.subject.probe();
    let options = stand.options().with_queue_size(size);
    let mut session = stand.session_with(&options)?;
    let descriptors = Framing::whole()
        .place(&session.memory, &request.readable, request.writable)
        .chain
        .len();
    let framing = match descriptors > usize::from(size) {
        true if session.indirect() => Framing::whole().indirect(),
        true => return Ok(()),
        false => Framing::whole(),
    };
    // Twice around the ring and a bit.
    for round in 0..2 * u32::from(size) + 3 {
        stand
            .exchange(&mut session, &request, &framing)
            .at(format!("request {round}"))?;
    }
    let count = stand.room(&session, usize::MAX);
    let mark = session.memory.mark();
    let pending = stand.load(&mut session, count)?;
    ensure!(
        session.rings[request.queue].room() < descriptors,
        "the test did not fill the ring"
    );
    stand.unload(&mut session, &pending).at("a full ring")?;
    session.memory.rewind(&mark);
    ensure!(
        session.rings[request.queue].pop().is_none(),
        "a chain was used twice"
    );
    Ok(())
}
