//! Kicks and interrupts, wanted and not: Q9, Q10.

use std::thread::sleep;
use std::time::Duration;

use crate::conformance::Outcome;
use crate::ensure;
use crate::failure::{At, Result};
use crate::faults::effort::Effort;
use crate::framing::Framing;
use crate::message::feature;
use crate::random::Random;
use crate::session::{Options, REQUEST_TIMEOUT, Session};
use crate::stand::Stand;
use crate::subject::Subject;

/// Q9: garbage in the event fields and flags, in between of which every wanted wake-up comes and no unwanted one.
pub fn wake_ups(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    for features in [u64::MAX, !feature::EVENT_IDX] {
        let usual = stand.options();
        let options = Options {
            features: usual.features & features,
            ..usual
        };
        let name = if features == u64::MAX {
            "event index"
        } else {
            "flags"
        };
        none_lost(&stand, &options).at(format!("wake-ups, {name}"))?;
        none_unwanted(&stand, &options).at(format!("suppression, {name}"))?;
    }
    stand.close()?;
    Ok(Outcome::Pass)
}

/// The driver's wishes are spoiled at random; whenever it really waits, it is woken.
fn none_lost(stand: &Stand<'_>, options: &Options) -> Result<()> {
    let mut session = stand.session_with(options)?;
    let request = stand.subject.probe();
    let mut random = Random::new(9);
    // Each of the two ways to wait gets half of the million.
    let mut effort = Effort::new(500_000, 20_000, Duration::from_secs(3));
    let mark = session.memory.mark();
    while let Some(round) = effort.next() {
        spoil_wishes(&session, request.queue, &mut random);
        let pending = session.submit(&request, &Framing::whole())?;
        spoil_wishes(&session, request.queue, &mut random);
        stand.stimulate(1)?;
        let used = session.rings[request.queue]
            .wait(REQUEST_TIMEOUT)
            .at(format!("round {round}"))?;
        ensure!(used.id == u32::from(pending.head), "another chain was used");
        session.memory.rewind(&mark);
    }
    Ok(())
}

fn spoil_wishes(session: &Session, queue: usize, random: &mut Random) {
    let ring = &session.rings[queue];
    match random.below(4) {
        0 => ring.set_used_event(random.bits() as u16),
        1 => ring.set_available_flags(random.bits() as u16),
        2 => ring.disarm(),
        _ => {}
    }
}

/// A driver that wants no interrupt gets none, and one that wants one per batch gets one per batch.
fn none_unwanted(stand: &Stand<'_>, options: &Options) -> Result<()> {
    let mut session = stand.session_with(options)?;
    let request = stand.subject.probe();
    let queue = request.queue;
    for _ in 0..5 {
        session.rings[queue].disarm();
        session.rings[queue].interrupts()?;
        let mark = session.memory.mark();
        let count = stand.room(&session, 64);
        let pending = stand.load(&mut session, count)?;
        for _ in &pending {
            session.rings[queue].watch(REQUEST_TIMEOUT)?;
        }
        sleep(Duration::from_millis(2));
        let interrupts = session.rings[queue].interrupts()?;
        ensure!(
            interrupts == 0,
            "{interrupts} interrupts for {count} chains to a driver that wants none"
        );
        session.memory.rewind(&mark);
    }
    // Serving goes on with interrupts as if nothing had been.
    session.rings[queue].arm();
    stand.probe(&mut session)?;
    Ok(())
}

/// Q10: kicks without work, and work before the ring is enabled.
pub fn kicks_without_work(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    storm(&stand, &session)?;
    stand.probe(&mut session).at("after the storm")?;
    drop(session);
    for round in 0..10 {
        work_before_enable(&stand).at(format!("work before the ring is enabled, round {round}"))?;
    }
    stand.close()?;
    Ok(Outcome::Pass)
}

fn storm(stand: &Stand<'_>, session: &Session) -> Result<()> {
    const KICKS: u32 = 100_000;
    /// Far above what a wake-up that finds nothing costs, far below what any work costs.
    const EACH: Duration = Duration::from_micros(30);
    let before = stand.daemon.run_time()?;
    for kick in 0..KICKS {
        let queue = kick as usize % session.rings.len();
        session.rings[queue].kick.write(1)?;
    }
    stand.is_quiet().at("after a kick storm")?;
    let spent = stand.daemon.run_time()?.saturating_sub(before);
    ensure!(
        spent < EACH * KICKS,
        "{KICKS} kicks without work cost {spent:?} of processor time"
    );
    Ok(())
}

fn work_before_enable(stand: &Stand<'_>) -> Result<()> {
    let mut session = stand.session_with(&stand.options().disabled())?;
    let queue = stand.subject.probe().queue;
    let count = stand.room(&session, 32);
    let pending = stand.load(&mut session, count)?;
    session.rings[queue].kick_always()?;
    sleep(Duration::from_millis(5));
    ensure!(
        session.rings[queue].used_index() == 0,
        "a ring was served that is not enabled"
    );
    for index in 0..session.rings.len() {
        session.enable(index, true)?;
    }
    if stand.subject.is_event_driven() {
        stand.stimulate(count)?;
    }
    stand
        .unload(&mut session, &pending)
        .at("after enabling it")?;
    Ok(())
}
