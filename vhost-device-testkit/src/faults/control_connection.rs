//! Frontends that come and go: C1 to C4, C19, C20.

use std::os::fd::{AsRawFd, RawFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::conformance::Outcome;
use crate::control::{Control, ControlError, Cut, Verdict};
use crate::ensure;
use crate::failure::{At, Result};
use crate::faults::watch::PathWatch;
use crate::message::{self, HEADER, flag, request};
use crate::session::Session;
use crate::stand::Stand;
use crate::subject::Subject;

/// C1: a client that leaves at once must not cost the next one its connection, nor the path its socket.
pub fn connect_and_close(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let watch = PathWatch::start(stand.daemon.socket());
    for round in 0..200 {
        drop(stand.connect().at(format!("round {round}"))?);
        answers(&stand.connect()?).at(format!("client after round {round}"))?;
    }
    watch.never_absent()?;
    stand.close()?;
    Ok(Outcome::Pass)
}

fn answers(control: &Control) -> Result<()> {
    control.features().at("GET_FEATURES")?;
    Ok(())
}

/// C2: every proper part of a header, and of a body.
pub fn partial_message(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut whole = message::header(request::SET_FEATURES, flag::VERSION, 8).to_vec();
    whole.extend(message::number(0));
    for len in 1..whole.len() {
        let control = stand.connect()?;
        control.send_bytes(&whole[..len], &[])?;
        drop(control);
        answers(&stand.connect()?).at(format!("client after {len} bytes of a message"))?;
    }
    stand.close()?;
    Ok(Outcome::Pass)
}

/// C3: messages that arrive in pieces.
pub fn message_in_pieces(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let ones = vec![1; HEADER];
    let halves = vec![HEADER, 4, 4];
    let features = stand.connect()?.features()?;
    let cases: [(&str, u32, Vec<u8>, Vec<usize>); 3] = [
        (
            "header in single bytes",
            request::GET_FEATURES,
            Vec::new(),
            ones.clone(),
        ),
        (
            "body in two segments",
            request::SET_FEATURES,
            message::number(features),
            halves,
        ),
        (
            "all in single bytes",
            request::SET_FEATURES,
            message::number(features),
            vec![1; HEADER + 8],
        ),
    ];
    for (name, request, body, pieces) in cases {
        let control = stand.negotiated()?;
        let verdict = in_pieces(&control, request, &body, &[], &pieces).at(name)?;
        works_or_errs(&stand, &control, verdict).at(name)?;
    }
    let session = stand.session()?;
    let kick = session.rings[0].kick.as_raw_fd();
    let body = message::vring_descriptor(0, true);
    let mut pieces = ones;
    pieces.extend([3, 5]);
    let verdict = in_pieces(
        &session.control,
        request::SET_VRING_KICK,
        &body,
        &[kick],
        &pieces,
    )
    .at("descriptor with the first byte")?;
    works_or_errs(&stand, &session.control, verdict)?;
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

fn in_pieces(
    control: &Control,
    request: u32,
    body: &[u8],
    fds: &[RawFd],
    pieces: &[usize],
) -> std::result::Result<Verdict, ControlError> {
    let flags = message_flags(control, request);
    let mut bytes = message::header(request, flags, body.len() as u32).to_vec();
    bytes.extend_from_slice(body);
    let mut rest = bytes.as_slice();
    for (at, len) in pieces.iter().enumerate() {
        let (piece, tail) = rest.split_at(*len);
        let fds = if at == 0 { fds } else { &[] };
        match control.send_bytes(piece, fds) {
            Err(ControlError::Closed) => return Ok(Verdict::Closed),
            sent => sent?,
        }
        rest = tail;
        sleep(Duration::from_millis(2));
    }
    control.verdict_on_sent(request, flags)
}

fn message_flags(control: &Control, message: u32) -> u32 {
    if control.acknowledged && !request::is_question(message) {
        flag::VERSION | flag::NEED_REPLY
    } else {
        flag::VERSION
    }
}

fn works_or_errs(stand: &Stand<'_>, control: &Control, verdict: Verdict) -> Result<()> {
    match verdict {
        Verdict::Closed => stand.note_hang_up(),
        Verdict::Refused(_) | Verdict::Accepted => answers(control).at("the message after it")?,
    }
    Ok(())
}

/// C4: half a message that never goes on.
pub fn stall(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut half = message::header(request::SET_FEATURES, flag::VERSION, 8).to_vec();
    half.extend([0, 0, 0]);
    for len in [1, 6, HEADER, half.len()] {
        let mut session = stand.session()?;
        session.control.send_bytes(&half[..len], &[])?;
        sleep(Duration::from_millis(20));
        if !session.control.is_open() {
            // A body in two segments may be an error, as in C3; what arrived of a header may not.
            ensure!(len > HEADER, "closed after {len} bytes of a message");
            stand.note_hang_up();
            continue;
        }
        for _ in 0..10 {
            stand.probe(&mut session).at(format!(
                "rings while {len} bytes of a message wait for the rest"
            ))?;
        }
    }
    stand.serves_next()?;
    stand.leaked_nothing()?;
    let session = stand.session()?;
    session.control.send_bytes(&half, &[])?;
    sleep(Duration::from_millis(20));
    let begin = Instant::now();
    stand.stop().at("SIGTERM during half a message")?;
    ensure!(
        begin.elapsed() < Duration::from_secs(2),
        "SIGTERM during half a message took {:?}",
        begin.elapsed()
    );
    Ok(Outcome::Pass)
}

/// C19: a second frontend is turned away at once, and the first does not notice.
pub fn second_frontend(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut first = stand.session()?;
    for round in 0..20 {
        let second = stand.connect()?;
        if round % 2 == 1 {
            // It may be closed before or after this arrives.
            let _ = second.send(request::GET_FEATURES, flag::VERSION, &[], &[]);
        }
        second
            .wait_closed(Duration::from_secs(1))
            .at(format!("second frontend {round}"))?;
        stand.note_hang_up();
        stand.probe(&mut first).at("first frontend")?;
    }
    ensure!(
        first.control.is_open(),
        "the first frontend lost its connection"
    );
    drop(first);
    stand.close()?;
    Ok(Outcome::Pass)
}

/// C20: a frontend that dies at every message of the handshake, between two and in the middle of one, and in mid-request.
pub fn dies_anywhere(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut messages = 0;
    for round in 0..100 {
        let bytes = [0, 5, 14][round % 3];
        if !dies_after(&stand, Cut { messages, bytes })? {
            messages = 0;
            continue;
        }
        if bytes == 14 {
            messages += 1;
        }
        stand.serves_next().at(format!(
            "client after a death at message {messages}+{bytes}"
        ))?;
    }
    for _ in 0..20 {
        let mut session = stand.session()?;
        let count = stand.room(&session, 64);
        stand.load(&mut session, count)?;
        drop(session);
        stand
            .serves_next()
            .at("client after a death in mid-request")?;
    }
    stand.close()?;
    Ok(Outcome::Pass)
}

/// Whether the frontend died before its handshake was over.
fn dies_after(stand: &Stand<'_>, cut: Cut) -> Result<bool> {
    let control = stand.connect()?;
    control.cut(cut);
    let session = Session::over(control, &stand.options());
    match session {
        Ok(_) => Ok(false),
        Err(failure) => {
            ensure!(
                failure
                    .to_string()
                    .contains(&ControlError::Closed.to_string()),
                "{failure}"
            );
            Ok(true)
        }
    }
}
