//! Ring indices and links that lead nowhere: Q1, Q2, Q7.

use std::thread::sleep;
use std::time::Duration;

use crate::conformance::Outcome;
use crate::ensure;
use crate::failure::{At, Result};
use crate::faults::fate::{Fate, fate_of, placed_probe, recovers};
use crate::framing::Framing;
use crate::ring::{Descriptor, NEXT, linked, write_table};
use crate::session::Session;
use crate::stand::Stand;
use crate::subject::Subject;

/// Q1: an available index out of reach, and heads that do not exist.
pub fn lost_index(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    let size = session.rings[0].size();
    let own = subject.probe().queue;
    for jump in [size + 1, 2 * size, 0x8000, 0xffff, 0xfffb] {
        index_jumps(&stand, &mut session, own, jump)
            .at(format!("available index jumps by {jump:#x}"))?;
    }
    for head in [size, size + 7, 0x7fff, 0xffff] {
        head_is(&stand, &mut session, own, head).at(format!("head index {head:#x}"))?;
    }
    for other in (0..subject.queues()).filter(|queue| *queue != own) {
        index_jumps(&stand, &mut session, other, size + 1).at(format!("queue {other}, index"))?;
        head_is(&stand, &mut session, other, size).at(format!("queue {other}, head"))?;
    }
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

fn index_jumps(stand: &Stand<'_>, session: &mut Session, queue: usize, jump: u16) -> Result<()> {
    stand.probe(session)?;
    let ring = &session.rings[queue];
    let used = ring.used_index();
    ring.set_available_index(ring.next_available().wrapping_add(jump));
    ring.kick.write(1)?;
    stand.stimulate(1)?;
    sleep(Duration::from_millis(10));
    stand.is_quiet()?;
    others_go_on(stand, session, queue)?;
    ensure!(
        session.rings[queue].used_index() == used,
        "{} chains were used that nobody made available",
        session.rings[queue].used_index().wrapping_sub(used)
    );
    recovers(stand, session, queue, Fate::Stopped)
}

fn head_is(stand: &Stand<'_>, session: &mut Session, queue: usize, head: u16) -> Result<()> {
    stand.probe(session)?;
    let ring = &mut session.rings[queue];
    let used = ring.used_index();
    ring.expose(head, Vec::new());
    ring.publish();
    ring.kick_always()?;
    stand.stimulate(1)?;
    sleep(Duration::from_millis(10));
    stand.is_quiet()?;
    others_go_on(stand, session, queue)?;
    let ring = &session.rings[queue];
    ensure!(
        ring.used_index() == used,
        "a head that does not exist was used as {:?}",
        ring.used_entry(used)
    );
    recovers(stand, session, queue, Fate::Stopped)
}

/// A broken ring stops nothing but itself.
fn others_go_on(stand: &Stand<'_>, session: &mut Session, broken: usize) -> Result<()> {
    if stand.subject.probe().queue != broken {
        stand.probe(session).at("another queue")?;
    }
    session.control.features().at("the control socket")?;
    Ok(())
}

/// Q2: links out of the table and in circles.
pub fn lost_link(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    let size = session.rings[0].size();
    for next in [size, size + 1, 0xffff] {
        links_to(&stand, &mut session, &[next]).at(format!("next = {next:#x}"))?;
    }
    links_to(&stand, &mut session, &[0]).at("a link to itself")?;
    links_to(&stand, &mut session, &[1, 0]).at("a loop of two")?;
    let circle: Vec<u16> = (1..size).chain([0]).collect();
    links_to(&stand, &mut session, &circle).at("a loop over the whole ring")?;
    if session.indirect() {
        for (what, next) in [("itself", 0), ("the first entry", 1), ("outside", 9)] {
            table_links_to(&stand, &mut session, next)
                .at(format!("indirect table, link to {what}"))?;
        }
    }
    stand.is_quiet()?;
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

/// A chain from descriptor 0 of an empty ring whose links are `next`, in order.
fn links_to(stand: &Stand<'_>, session: &mut Session, next: &[u16]) -> Result<()> {
    let queue = stand.subject.probe().queue;
    session.revive_ring(queue)?;
    let address = session.memory.take(64, 8);
    let ring = &mut session.rings[queue];
    for (at, next) in next.iter().enumerate() {
        let buffer = Descriptor {
            flags: crate::ring::WRITE | NEXT,
            next: *next,
            ..Descriptor::writable(address, 8)
        };
        ring.set(at as u16, buffer);
    }
    ring.expose(0, Vec::new());
    ring.publish();
    ring.kick_always()?;
    stand.stimulate(1)?;
    let fate = fate_of(session, queue, 0)?;
    session.revive_ring(queue)?;
    recovers(stand, session, queue, fate)
}

fn table_links_to(stand: &Stand<'_>, session: &mut Session, next: u16) -> Result<()> {
    let queue = stand.subject.probe().queue;
    let address = session.memory.take(64, 8);
    let buffer = Descriptor::writable(address, 8);
    let mut table = linked(&[buffer, buffer], 0);
    let from = usize::from(next == 1);
    table[from].flags |= NEXT;
    table[from].next = if next == 1 { 0 } else { next };
    let at = session.memory.take(32, 16);
    write_table(&session.memory, at, &table);
    let head = session.rings[queue].add(&[Descriptor::table(at, 32)])?;
    session.rings[queue].submit()?;
    stand.stimulate(1)?;
    let fate = fate_of(session, queue, head)?;
    recovers(stand, session, queue, fate)
}

/// Q7: one head made available twice.
pub fn same_head_twice(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    let request = subject.probe();
    let queue = request.queue;
    for round in 0..20 {
        let placed = placed_probe(&stand, &session);
        let head = session.rings[queue].add(&placed.chain)?;
        // The descriptors become free once, with the first of the two completions.
        let owned = session.rings[queue].release(head);
        session.rings[queue].expose(head, owned);
        session.rings[queue].submit()?;
        stand.stimulate(2)?;
        for turn in 0..2 {
            let used = session.rings[queue]
                .wait(crate::session::REQUEST_TIMEOUT)
                .at(format!("round {round}, completion {turn}"))?;
            ensure!(
                used.id == u32::from(head),
                "chain {} was used instead of {head}",
                used.id
            );
            placed.answer(&session.memory, used.len)?;
        }
        ensure!(
            session.rings[queue].pop().is_none(),
            "a chain was used three times"
        );
        stand
            .exchange(&mut session, &request, &Framing::whole())
            .at("the next request")?;
    }
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}
