//! Ring set-up and tear-down: C11, C13, C18.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::conformance::Outcome;
use crate::control::Verdict;
use crate::failure::{At, Result};
use crate::framing::Framing;
use crate::memory::Memory;
use crate::message::{self, VringAddress, flag, protocol, request};
use crate::session::Session;
use crate::stand::Stand;
use crate::subject::Subject;
use crate::{ensure, fail};

/// C11: sizes and addresses that no ring can have.
pub fn impossible_ring(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    for size in [0, 3, 255, 1025, 65536, 0x1_0100, u32::MAX] {
        never_starts(&stand, |_, _| {}, Some(size)).at(format!("ring of {size}"))?;
    }
    for part in ["descriptor table", "available ring", "used ring"] {
        for (what, spoil) in spoilers() {
            let spoil_part = |address: &mut VringAddress, memory: &Memory| {
                let field = match part {
                    "descriptor table" => &mut address.descriptors,
                    "available ring" => &mut address.available,
                    _ => &mut address.used,
                };
                *field = spoil(*field, memory);
            };
            never_starts(&stand, spoil_part, None).at(format!("{part} {what}"))?;
        }
    }
    stand.close()?;
    Ok(Outcome::Pass)
}

type Spoil = fn(u64, &Memory) -> u64;

fn spoilers() -> Vec<(&'static str, Spoil)> {
    vec![
        ("at an address that is not mapped", |_, _| 0x1000),
        ("at address 0", |_, _| 0),
        ("one byte off its alignment", |at, _| at + 1),
        ("running past its region", |_, memory| {
            let place = memory.regions()[0].place();
            place.user + place.len - 16
        }),
        ("wrapping around 2^64", |_, _| u64::MAX - 15),
    ]
}

/// Sets ring 0 up with something wrong in it. Some message is refused, or the ring never does anything.
fn never_starts(
    stand: &Stand<'_>,
    spoil: impl Fn(&mut VringAddress, &Memory),
    size: Option<u32>,
) -> Result<()> {
    let request = stand.subject.probe();
    let queue = request.queue;
    let mut session = stand.session()?;
    session.stop_ring(queue)?;
    session.rings[queue].reset();
    let ring = &session.rings[queue];
    let mut address = ring.parts().address(&session.memory);
    spoil(&mut address, &session.memory);
    let size = size.unwrap_or(u32::from(ring.size()));
    let index = queue as u32;
    let steps = [
        (request::SET_VRING_NUM, message::vring_state(index, size)),
        (request::SET_VRING_BASE, message::vring_state(index, 0)),
        (
            request::SET_VRING_ADDR,
            message::vring_address(index, address),
        ),
        (request::SET_VRING_ENABLE, message::vring_state(index, 1)),
    ];
    let flags = flag::VERSION | flag::NEED_REPLY;
    for (message, body) in steps {
        match session.control.verdict(message, flags, &body, &[])? {
            Verdict::Accepted => {}
            Verdict::Refused(_) => return still_starts(stand, &mut session, queue),
            Verdict::Closed => {
                stand.note_hang_up();
                return Ok(());
            }
        }
    }
    // Not refused so far: the eventfds start it, and then nothing may happen.
    let ring = &session.rings[queue];
    let started =
        session
            .control
            .set_vring_descriptor(request::SET_VRING_KICK, queue as u8, &ring.kick);
    if started.is_err() {
        return Ok(());
    }
    session.submit(&request, &Framing::whole())?;
    session.rings[queue].kick_always()?;
    sleep(Duration::from_millis(50));
    ensure!(
        session.rings[queue].used_index() == 0,
        "a ring that cannot exist served a request"
    );
    Ok(())
}

fn still_starts(stand: &Stand<'_>, session: &mut Session, queue: usize) -> Result<()> {
    session.rings[queue].reset();
    session.start_ring(queue).at("a correct ring after it")?;
    session.enable(queue, true)?;
    stand.probe(session).at("a correct ring after it")?;
    Ok(())
}

/// C13: GET_VRING_BASE gives the right value, twice, and under load.
pub fn ring_base(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    let queue = subject.probe().queue;
    base_is(&session, queue, 0).at("ring without a request")?;
    base_is(&session, queue, 0).at("the same ring again")?;
    session.revive_ring(queue)?;
    for _ in 0..5 {
        stand.probe(&mut session)?;
    }
    base_is(&session, queue, 5).at("after five requests")?;
    base_is(&session, queue, 5).at("asked again")?;
    continue_at(&mut session, queue, 5)?;
    stand.probe(&mut session).at("continued ring")?;
    base_is(&session, queue, 6)?;
    odd_base(&stand, &mut session, queue)?;
    for round in 0..20 {
        base_under_load(&stand, &mut session, queue).at(format!("under load, round {round}"))?;
    }
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

fn base_is(session: &Session, queue: usize, wanted: u16) -> Result<()> {
    let base = session.stop_ring(queue)?;
    ensure!(base == wanted, "base is {base} instead of {wanted}");
    Ok(())
}

fn continue_at(session: &mut Session, queue: usize, base: u16) -> Result<()> {
    session.start_ring_at(queue, base)?;
    session.enable(queue, true)
}

/// A ring that starts just before the index wraps.
fn odd_base(stand: &Stand<'_>, session: &mut Session, queue: usize) -> Result<()> {
    session.rings[queue].reset();
    session.rings[queue].set_base(65_534);
    continue_at(session, queue, 65_534)?;
    for round in 0..4 {
        stand
            .probe(session)
            .at(format!("request {round} from base 65534"))?;
    }
    base_is(session, queue, 2).at("after the index wrapped")?;
    session.rings[queue].reset();
    continue_at(session, queue, 0)
}

fn base_under_load(stand: &Stand<'_>, session: &mut Session, queue: usize) -> Result<()> {
    let mark = session.memory.mark();
    let count = stand.room(session, 64);
    let first = session.rings[queue].next_used();
    let pending = stand.load(session, count)?;
    let base = session.stop_ring(queue)?;
    let used = session.rings[queue].used_index();
    ensure!(
        base == used,
        "the ring stopped at {base} with {used} used: {} lost or unfinished",
        base.wrapping_sub(used)
    );
    ensure!(
        base.wrapping_sub(first) as usize <= count,
        "base {base} is behind what was made available"
    );
    sleep(Duration::from_millis(2));
    ensure!(
        session.rings[queue].used_index() == used,
        "a stopped ring was written to"
    );
    continue_at(session, queue, base)?;
    session.rings[queue].kick_always()?;
    // A host event that found no ring may be gone: one for each buffer that is still waiting.
    stand.stimulate(count - usize::from(base.wrapping_sub(first)))?;
    stand.unload(session, &pending)?;
    session.memory.rewind(&mark);
    Ok(())
}

/// C13b: a host resource that hangs keeps neither the control socket nor the end of the session nor the next client waiting.
pub fn stuck_host(subject: &dyn Subject) -> Result<Outcome> {
    const DEADLINE: Duration = Duration::from_secs(2);
    let launch = crate::process::Launch::new(subject.binary())?;
    let Some(host) = subject.stuck_host(launch.dir())? else {
        return Ok(Outcome::NotApplicable("nothing of the host can hang"));
    };
    let mut daemon = launch.arguments(host.arguments).start()?;
    let options = crate::session::Options::usual(subject.queues());
    let mut session = Session::open(daemon.socket(), &options)?;
    let request = subject.probe();
    session.submit(&request, &Framing::whole())?;
    sleep(Duration::from_millis(50));
    ensure!(
        session.rings[request.queue].used_index() == 0,
        "the host is not stuck: the request was answered"
    );
    session
        .control
        .features()
        .at("control socket, host stuck")?;
    let begin = Instant::now();
    let base = session.stop_ring(request.queue).at("host stuck")?;
    let took = begin.elapsed();
    ensure!(
        took < DEADLINE,
        "GET_VRING_BASE with the host stuck took {took:?}"
    );
    let used = session.rings[request.queue].used_index();
    ensure!(base == used, "host stuck: base {base} with {used} used");
    drop(session);
    let mut next = Session::open(daemon.socket(), &options).at("next client, host stuck")?;
    next.submit(&request, &Framing::whole())?;
    drop(next);
    daemon.finish().at("host stuck")?;
    drop(host.held);
    Ok(Outcome::Pass)
}

/// C18: reset, disable and enable under load.
pub fn reset_under_load(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    for round in 0..10 {
        reset(&stand, request::RESET_OWNER).at(format!("RESET_OWNER, round {round}"))?;
    }
    let offered = stand.negotiated()?.protocol_features()?;
    if offered & protocol::RESET_DEVICE != 0 {
        for round in 0..10 {
            reset(&stand, request::RESET_DEVICE).at(format!("RESET_DEVICE, round {round}"))?;
        }
    }
    let mut session = stand.session()?;
    for round in 0..20 {
        disable_and_enable(&stand, &mut session).at(format!("disable, round {round}"))?;
    }
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

fn reset(stand: &Stand<'_>, message: u32) -> Result<()> {
    let mut session = stand.session()?;
    let queue = stand.subject.probe().queue;
    let count = stand.room(&session, 128);
    stand.load(&mut session, count)?;
    session.control.tell(message, &[], &[])?;
    let used = session.rings[queue].used_index();
    sleep(Duration::from_millis(5));
    if session.rings[queue].used_index() != used {
        fail!("the ring was written to after {}", request::name(message));
    }
    if message == request::RESET_OWNER {
        // The owner gave up the device: everything is negotiated anew.
        session.control.acknowledged = false;
        let options = stand.options();
        (session.features, session.protocol) =
            crate::session::negotiate(&mut session.control, &options)?;
    } else {
        session.control.set_features(session.features)?;
    }
    session.control.set_memory(&session.memory)?;
    for index in 0..session.rings.len() {
        session.rings[index].reset();
        session.start_ring(index)?;
        session.enable(index, true)?;
    }
    stand.probe(&mut session).at("restarted ring")?;
    Ok(())
}

fn disable_and_enable(stand: &Stand<'_>, session: &mut Session) -> Result<()> {
    let queue = stand.subject.probe().queue;
    let mark = session.memory.mark();
    let each = stand.room(session, 64) / 2;
    let mut pending = stand.load(session, each)?;
    session.enable(queue, false)?;
    let used = session.rings[queue].used_index();
    pending.extend(stand.load(session, each)?);
    session.rings[queue].kick_always()?;
    sleep(Duration::from_millis(5));
    ensure!(
        session.rings[queue].used_index() == used,
        "a disabled ring was served"
    );
    session.enable(queue, true)?;
    if stand.subject.is_event_driven() {
        stand.stimulate(pending.len())?;
    }
    stand.unload(session, &pending).at("after enabling it")?;
    session.memory.rewind(&mark);
    Ok(())
}
