//! Chains that are malformed, or framed in an unusual way: Q3 to Q6, Q8.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::conformance::Outcome;
use crate::ensure;
use crate::failure::{At, Failure, Result};
use crate::faults::fate::{Fate, Table, fails_alone, placed_probe, recovers};
use crate::framing::{Answer, Framing};
use crate::memory::Memory;
use crate::random::Random;
use crate::ring::{Descriptor, INDIRECT, NEXT, WRITE, linked, write_table};
use crate::session::{REQUEST_TIMEOUT, Request, Session};
use crate::stand::Stand;
use crate::subject::Subject;

/// Q3: indirect tables that are none.
pub fn broken_table(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    if !session.indirect() {
        drop(session);
        stand.close()?;
        return Ok(Outcome::NotApplicable(
            "the device takes no indirect descriptors",
        ));
    }
    let memory = Arc::clone(&session.memory);
    let buffer = Descriptor::writable(memory.take(64, 8), 64);
    let table = memory.take(65_536 * 16, 16);
    write_table(&memory, table, &[buffer]);
    let references = [
        ("of length 0", Descriptor::table(table, 0)),
        ("shorter than an entry", Descriptor::table(table, 15)),
        ("of 17 bytes", Descriptor::table(table, 17)),
        ("of one and a half entries", Descriptor::table(table, 24)),
        ("that is not mapped", Descriptor::table(0x1000, 16)),
        (
            "running into a hole",
            Descriptor::table(memory.end_of(0) - 16, 32),
        ),
        ("wrapping around 2^64", Descriptor::table(u64::MAX - 15, 32)),
        ("of 4 GiB - 16", Descriptor::table(table, u32::MAX - 15)),
        (
            "that says it continues",
            Descriptor {
                flags: INDIRECT | NEXT,
                ..Descriptor::table(table, 16)
            },
        ),
    ];
    for (what, reference) in references {
        malformed(&stand, &mut session, &[reference]).at(format!("table {what}"))?;
    }
    write_table(&memory, table, &[Descriptor::table(table + 64, 16)]);
    write_table(&memory, table + 64, &[buffer]);
    malformed(&stand, &mut session, &[Descriptor::table(table, 16)]).at("nested table")?;
    let long: Vec<Descriptor> = linked(&vec![buffer; 65_536], 0);
    write_table(&memory, table, &long);
    malformed(
        &stand,
        &mut session,
        &[Descriptor::table(table, 65_536 * 16)],
    )
    .at("table of 65,536 entries")?;
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

/// One chain as it is; it must fail and leave the ring running.
fn malformed(stand: &Stand<'_>, session: &mut Session, chain: &[Descriptor]) -> Result<()> {
    fails_alone(stand, session, chain, Table::Direct)
}

/// Q4: buffers that are not guest memory, or far too large.
pub fn impossible_buffer(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    let before = stand.daemon.stats()?.peak_virtual_kib;
    for (what, bad) in impossible_buffers(&session.memory) {
        for table in tables(&session) {
            for (part, chain) in chains_with(&stand, &session, &bad) {
                fails_alone(&stand, &mut session, &chain, table)
                    .at(format!("{part} buffer {what}, {table:?}"))?;
            }
        }
    }
    empty_among_good(&stand, &mut session).at("buffers of length 0 between good ones")?;
    let grown = stand
        .daemon
        .stats()?
        .peak_virtual_kib
        .saturating_sub(before);
    ensure!(
        grown < 256 << 10,
        "address space grew by {grown} KiB: the guest's lengths size an allocation"
    );
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

/// A buffer of length 0 holds nothing: the request is served or fails, and the ring goes on.
fn empty_among_good(stand: &Stand<'_>, session: &mut Session) -> Result<()> {
    let queue = stand.subject.probe().queue;
    let address = session.memory.take(8, 8);
    let mut chain = vec![Descriptor::readable(address, 0)];
    chain.extend(placed_probe(stand, session).chain);
    chain.push(Descriptor::writable(address, 0));
    let head = session.rings[queue].add(&chain)?;
    session.rings[queue].submit()?;
    stand.stimulate(1)?;
    let used = session.rings[queue].wait(REQUEST_TIMEOUT)?;
    ensure!(used.id == u32::from(head), "another chain was used");
    stand.probe(session)?;
    Ok(())
}

fn tables(session: &Session) -> Vec<Table> {
    match session.indirect() {
        true => vec![Table::Direct, Table::Indirect],
        false => vec![Table::Direct],
    }
}

/// (what, one or more descriptors without direction)
fn impossible_buffers(memory: &Memory) -> Vec<(&'static str, Vec<Descriptor>)> {
    let inside = memory.take(64, 8);
    let end = memory.end_of(0);
    let one = |address, len| vec![Descriptor::readable(address, len)];
    vec![
        ("not mapped", one(0x1000, 64)),
        ("crossing a hole", one(end - 32, 64)),
        ("one byte into a hole", one(end - 63, 64)),
        ("wrapping around 2^64", one(u64::MAX - 31, 64)),
        ("of 4 GiB - 1", one(inside, u32::MAX)),
        ("of 4 GiB - 1 at 2^64 - 1", one(u64::MAX, u32::MAX)),
        (
            "of more than 4 GiB in pieces",
            vec![Descriptor::readable(inside, 0x7fff_ffff); 4],
        ),
    ]
}

/// The bad buffer in the part that the device reads, and in the part that it writes.
fn chains_with(
    stand: &Stand<'_>,
    session: &Session,
    bad: &[Descriptor],
) -> Vec<(&'static str, Vec<Descriptor>)> {
    let placed = placed_probe(stand, session).chain;
    let (writable, readable): (Vec<Descriptor>, Vec<Descriptor>) = placed
        .into_iter()
        .partition(|buffer| buffer.flags & WRITE != 0);
    let bad_writable = bad.iter().map(|buffer| Descriptor {
        flags: WRITE,
        ..*buffer
    });
    let mut chains = Vec::new();
    if !readable.is_empty() {
        chains.push(("readable", [bad.to_vec(), writable.clone()].concat()));
    }
    if !writable.is_empty() {
        chains.push((
            "writable",
            readable.iter().copied().chain(bad_writable).collect(),
        ));
    }
    chains
}

/// Q5: directions out of order, or missing.
pub fn wrong_direction(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    let request = subject.probe();
    let memory = Arc::clone(&session.memory);
    let readable = Descriptor::readable(memory.take(256, 8), request.readable.len().max(8) as u32);
    let writable = Descriptor::writable(
        memory.take(u64::from(request.writable) + 8, 8),
        request.writable.max(8),
    );
    memory.write(readable.address, &request.readable);
    let mut chains = vec![("readable after writable", vec![writable, readable])];
    chains.push((
        "a buffer of length 0",
        vec![Descriptor::writable(writable.address, 0)],
    ));
    if request.writable > 0 {
        chains.push(("only readable", vec![readable]));
    }
    if !request.readable.is_empty() {
        chains.push(("only writable", vec![writable]));
    }
    let least = subject.least_writable();
    if least > 1 {
        let short = Descriptor::writable(writable.address, least - 1);
        chains.push(("no room for the status", vec![readable, short]));
    }
    for (what, chain) in chains {
        for table in tables(&session) {
            fails_alone(&stand, &mut session, &chain, table).at(format!("{what}, {table:?}"))?;
        }
    }
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

/// Q6: every framing gives the answer of the unsplit request.
pub fn any_framing(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let probes = [Some(subject.probe()), subject.long_probe()];
    for request in probes.into_iter().flatten() {
        let options = stand.options().with_queue_size(1024);
        let reference = first_answer(subject, &request, &Framing::whole())?;
        let mut session = stand.session_with(&options)?;
        let all = Framing::all(
            request.readable.len(),
            request.writable as usize,
            1024,
            session.indirect(),
        );
        for framing in all {
            stand
                .exchange(&mut session, &request, &framing)
                .at(format!("{framing:?}"))?;
            // Answers that depend on what was asked before are compared on fresh daemons.
            if subject.is_repeatable() && is_sampled(&framing) {
                let answer = first_answer(subject, &request, &framing)?;
                ensure!(
                    answer == reference,
                    "{framing:?} gave {answer:02x?} instead of {reference:02x?}"
                );
            }
        }
    }
    stand.close()?;
    Ok(Outcome::Pass)
}

/// A fresh daemon costs a few milliseconds: single cuts are compared at a few places only.
fn is_sampled(framing: &Framing) -> bool {
    use crate::framing::Split::At;
    match (&framing.readable, &framing.writable) {
        (At(at), _) | (_, At(at)) => at.is_power_of_two() && !framing.indirect,
        _ => true,
    }
}

fn first_answer(subject: &dyn Subject, request: &Request, framing: &Framing) -> Result<Answer> {
    let mut daemon = crate::stand::launch(subject)?.start()?;
    let options = crate::session::Options::usual(subject.queues()).with_queue_size(1024);
    let mut session = Session::open(daemon.socket(), &options)?;
    let pending = session.submit(request, framing)?;
    subject.stimulate(&daemon)?;
    let answer = session.finish(request.queue, &pending)?;
    daemon.trust();
    Ok(answer)
}

/// Q8: buffers over each other and over the ring, and a guest that rewrites everything meanwhile.
pub fn shifting_ground(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    for (what, place) in [
        ("the descriptor table", 0),
        ("the available ring", 1),
        ("the used ring", 2),
    ] {
        over_the_ring(&stand, place).at(format!("buffer over {what}"))?;
    }
    over_each_other(&stand).at("buffers over each other")?;
    rewritten_meanwhile(&stand)?;
    stand.close()?;
    Ok(Outcome::Pass)
}

fn over_the_ring(stand: &Stand<'_>, place: usize) -> Result<()> {
    let mut session = stand.session()?;
    let request = stand.subject.probe();
    let queue = request.queue;
    let parts = session.rings[queue].parts();
    let address = [parts.descriptors, parts.available, parts.used][place];
    let placed = placed_probe(stand, &session);
    let chain: Vec<Descriptor> = placed
        .chain
        .iter()
        .map(|buffer| match buffer.flags & WRITE {
            0 => *buffer,
            _ => Descriptor { address, ..*buffer },
        })
        .collect();
    session.rings[queue].add(&chain)?;
    session.rings[queue].submit()?;
    stand.stimulate(1)?;
    sleep(Duration::from_millis(20));
    stand.is_quiet()?;
    recovers(stand, &mut session, queue, Fate::Stopped)
}

fn over_each_other(stand: &Stand<'_>) -> Result<()> {
    let mut session = stand.session()?;
    let request = stand.subject.probe();
    let queue = request.queue;
    let address = session.memory.take(1024, 8);
    session.memory.write(address, &request.readable);
    let mut chain = Vec::new();
    if !request.readable.is_empty() {
        chain.push(Descriptor::readable(address, request.readable.len() as u32));
    }
    let half = request.writable / 2;
    for len in [half, request.writable - half] {
        if len > 0 {
            chain.push(Descriptor::writable(address, len));
        }
    }
    let head = session.rings[queue].add(&chain)?;
    session.rings[queue].submit()?;
    stand.stimulate(1)?;
    let used = session.rings[queue].wait(REQUEST_TIMEOUT)?;
    ensure!(used.id == u32::from(head), "another chain was used");
    stand.probe(&mut session)?;
    Ok(())
}

/// A thread writes garbage over the request's bytes and descriptors while the device works on it.
fn rewritten_meanwhile(stand: &Stand<'_>) -> Result<()> {
    let mut session = stand.session()?;
    let request = stand.subject.probe();
    let queue = request.queue;
    let stop = Arc::new(AtomicBool::new(false));
    let placed = placed_probe(stand, &session);
    let table = session.memory.take(16 * 8, 16);
    let good = linked(&placed.chain, 0);
    write_table(&session.memory, table, &good);
    let rewriter = Rewriter {
        memory: Arc::clone(&session.memory),
        stop: Arc::clone(&stop),
        table,
        good: good.clone(),
        header: placed
            .chain
            .first()
            .filter(|buffer| buffer.flags & WRITE == 0)
            .map(|buffer| (buffer.address, buffer.len)),
    };
    let thread = std::thread::spawn(move || rewriter.run());
    let outcome = requests_over(stand, &mut session, table, good.len());
    stop.store(true, Ordering::Relaxed);
    thread
        .join()
        .map_err(|_| Failure::new("the rewriting thread panicked"))?;
    outcome.at("requests rewritten meanwhile")?;
    // A ring that met a broken link may have stopped, which a restart ends.
    recovers(stand, &mut session, queue, Fate::Stopped)
}

fn requests_over(
    stand: &Stand<'_>,
    session: &mut Session,
    table: u64,
    entries: usize,
) -> Result<()> {
    let queue = stand.subject.probe().queue;
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        let chain = if session.indirect() {
            vec![Descriptor::table(table, entries as u32 * 16)]
        } else {
            placed_probe(stand, session).chain
        };
        let mark = session.memory.mark();
        let head = session.rings[queue].add(&chain)?;
        session.rings[queue].submit()?;
        stand.stimulate(1)?;
        let used = session.rings[queue].watch(Duration::from_millis(150));
        match used {
            Ok(used) => ensure!(used.id == u32::from(head), "chain {} was used", used.id),
            Err(_) => session.revive_ring(queue)?,
        }
        session.memory.rewind(&mark);
    }
    Ok(())
}

struct Rewriter {
    memory: Arc<Memory>,
    stop: Arc<AtomicBool>,
    table: u64,
    good: Vec<Descriptor>,
    header: Option<(u64, u32)>,
}

impl Rewriter {
    fn run(self) {
        let mut random = Random::new(8);
        while !self.stop.load(Ordering::Relaxed) {
            let at = random.below(self.good.len() as u64);
            let good = self.good[at as usize];
            let spoiled = match random.below(5) {
                0 => Descriptor {
                    len: u32::MAX,
                    ..good
                },
                1 => Descriptor {
                    address: 0x1000,
                    ..good
                },
                2 => Descriptor {
                    flags: good.flags ^ WRITE,
                    ..good
                },
                3 => Descriptor {
                    next: 0x7fff,
                    flags: good.flags | NEXT,
                    ..good
                },
                _ => Descriptor { len: 1, ..good },
            };
            write_table(&self.memory, self.table + at * 16, &[spoiled]);
            if let Some((address, len)) = self.header {
                self.memory.write(address, &random.bytes(len as usize));
            }
            write_table(&self.memory, self.table + at * 16, &[good]);
        }
        write_table(&self.memory, self.table, &self.good);
    }
}
