//! Memory tables that are wrong, replaced, changed region by region, or pulled away: C14, C15, C16, C21.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use crate::conformance::Outcome;
use crate::control::ControlError;
use crate::ensure;
use crate::failure::{At, Result};
use crate::framing::Framing;
use crate::memory::{PAGE, Place, Region};
use crate::message::{self, protocol, request};
use crate::ring::{Descriptor, Parts};
use crate::session::{Options, REQUEST_TIMEOUT, Session};
use crate::stand::Stand;
use crate::subject::Subject;
use crate::sys;

/// C14: tables that no guest can have. The old one stays in force.
pub fn wrong_table(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    for (what, body, count) in wrong_tables() {
        let mut session = stand.session()?;
        stand.probe(&mut session)?;
        let files = (0..count)
            .map(|_| sys::memfd("testkit-table", 1 << 20))
            .collect::<std::io::Result<Vec<_>>>()?;
        let fds: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let verdict = stand
            .refused(&session.control, request::SET_MEM_TABLE, &body, &fds)
            .at(format!("table with {what}"))?;
        stand
            .serves_after(&mut session, verdict)
            .at(format!("table with {what}"))?;
    }
    stand.close()?;
    Ok(Outcome::Pass)
}

fn wrong_tables() -> Vec<(&'static str, Vec<u8>, usize)> {
    const MIB: u64 = 1 << 20;
    let good = Place::new(0x10_0000, MIB);
    let one = |place: Place| (message::memory_table(&[place]), 1);
    let mut tables = vec![
        ("no region", (message::memory_table(&[]), 0)),
        ("a region of size 0", one(Place { len: 0, ..good })),
        (
            "a region larger than its file",
            one(Place {
                len: MIB + PAGE,
                ..good
            }),
        ),
        (
            "a region of 2^62 bytes",
            one(Place {
                len: 1 << 62,
                ..good
            }),
        ),
        ("an offset behind the file", one(good.at_offset(MIB))),
        (
            "an offset that overflows",
            one(good.at_offset(u64::MAX - PAGE + 1)),
        ),
        (
            "guest addresses that overflow",
            one(Place {
                guest: u64::MAX - PAGE + 1,
                ..good
            }),
        ),
        (
            "user addresses that overflow",
            one(Place {
                user: u64::MAX - PAGE + 1,
                ..good
            }),
        ),
    ];
    let overlap = Place::new(good.guest + MIB / 2, MIB);
    tables.push((
        "overlapping regions",
        (message::memory_table(&[good, overlap]), 2),
    ));
    tables.push((
        "the same region twice",
        (message::memory_table(&[good, good]), 2),
    ));
    let mut lying = message::memory_table(&[good]);
    lying[0] = 2;
    tables.push(("fewer regions than it says", (lying.clone(), 1)));
    lying[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
    tables.push(("2^32-1 regions, it says", (lying, 1)));
    tables
        .into_iter()
        .map(|(what, (body, count))| (what, body, count))
        .collect()
}

/// C15: the table is replaced while rings run, and rings move.
pub fn replaced_table(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    for round in 0..50 {
        same_layout(&stand, &mut session).at(format!("same layout, round {round}"))?;
    }
    for round in 0..10 {
        moved_rings(&stand, &mut session, round).at(format!("moved rings, round {round}"))?;
    }
    added_region(&stand, &mut session).at("one more region")?;
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

fn same_layout(stand: &Stand<'_>, session: &mut Session) -> Result<()> {
    let mark = session.memory.mark();
    let count = stand.room(session, 64);
    let pending = stand.load(session, count)?;
    session.control.set_memory(&session.memory)?;
    stand.unload(session, &pending)?;
    session.memory.rewind(&mark);
    Ok(())
}

/// The rings stop, the frontend's addresses of all memory change, the rings go on at other places of the guest.
fn moved_rings(stand: &Stand<'_>, session: &mut Session, round: u64) -> Result<()> {
    let mark = session.memory.mark();
    let bases = (0..session.rings.len())
        .map(|index| session.stop_ring(index))
        .collect::<Result<Vec<_>>>()?;
    let memory = Arc::new(session.memory.remapped(0x1_0000_0000 * (round % 3))?);
    memory.rewind(&mark);
    session.memory = Arc::clone(&memory);
    session.control.set_memory(&memory)?;
    for (index, base) in bases.into_iter().enumerate() {
        let region = (round as usize + 1) % 2;
        let parts = Parts::take(&memory, region, session.rings[index].size());
        session.rings[index].move_to(Arc::clone(&memory), parts);
        session.start_ring_at(index, base)?;
        session.enable(index, true)?;
    }
    stand.probe(session)?;
    Ok(())
}

/// Memory hotplug: the table grows while rings run, and requests use the new part at once.
fn added_region(stand: &Stand<'_>, session: &mut Session) -> Result<()> {
    let place = Place::new(0x2_0000_0000, 1 << 20);
    let more = Region::new(place)?;
    session.memory = Arc::new(session.memory.with(more)?);
    session.control.set_memory(&session.memory)?;
    let index = session.memory.regions().len() - 1;
    request_in(stand, session, index)
}

/// Makes a correct request whose buffers all lie in one region.
fn request_in(stand: &Stand<'_>, session: &mut Session, region: usize) -> Result<()> {
    let request = stand.subject.probe();
    let chain = chain_in(session, region, &request.readable, request.writable);
    let head = session.rings[request.queue].add(&chain)?;
    session.rings[request.queue].submit()?;
    stand.stimulate(1)?;
    let used = session.rings[request.queue].wait(REQUEST_TIMEOUT)?;
    ensure!(used.id == u32::from(head), "another chain was used");
    ensure!(
        request.writable == 0 || used.len > 0,
        "a correct request in region {region} failed"
    );
    Ok(())
}

fn chain_in(session: &Session, region: usize, readable: &[u8], writable: u32) -> Vec<Descriptor> {
    let mut chain = Vec::new();
    let memory = &session.memory;
    if !readable.is_empty() {
        let at = memory.take_from(region, readable.len() as u64, 8);
        memory.write(at, readable);
        chain.push(Descriptor::readable(at, readable.len() as u32));
    }
    if writable > 0 {
        let at = memory.take_from(region, u64::from(writable), 8);
        chain.push(Descriptor::writable(at, writable));
    }
    chain
}

/// C16: regions come and go one by one while rings run.
pub fn region_by_region(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let offered = stand.negotiated()?.protocol_features()?;
    if offered & protocol::CONFIGURE_MEM_SLOTS == 0 {
        stand.close()?;
        return Ok(Outcome::NotApplicable("the daemon takes no single regions"));
    }
    let slots = stand.negotiated()?.memory_slots()? as usize;
    ensure!(slots >= 8, "only {slots} memory regions fit");
    let options = Options {
        one_by_one: true,
        ..stand.options()
    };
    let mut session = stand.session_with(&options)?;
    stand.probe(&mut session).at("regions added one by one")?;
    for round in 0..50 {
        add_use_remove(&stand, &mut session).at(format!("round {round}"))?;
    }
    unknown_and_overlapping(&stand, session)?;
    fill_all_slots(&stand, slots.min(32)).at("all slots")?;
    stand.close()?;
    Ok(Outcome::Pass)
}

const EXTRA: u64 = 0x3_0000_0000;

fn add_use_remove(stand: &Stand<'_>, session: &mut Session) -> Result<()> {
    let request = stand.subject.probe();
    let place = Place::new(EXTRA, 1 << 20);
    let old = Arc::clone(&session.memory);
    let mark = old.mark();
    let region = Region::new(place)?;
    session.control.add_region(&region).at("ADD_MEM_REG")?;
    session.memory = Arc::new(old.with(region)?);
    let index = old.regions().len();
    request_in(stand, session, index).at("request in the new region")?;
    let chain = chain_in(session, index, &request.readable, request.writable);
    let count = stand.room(session, 32);
    let pending = stand.load(session, count)?;
    session.control.remove_region(place).at("REM_MEM_REG")?;
    stand
        .unload(session, &pending)
        .at("requests running meanwhile")?;
    let head = session.rings[request.queue].add(&chain)?;
    session.rings[request.queue].submit()?;
    stand.stimulate(1)?;
    let used = session.rings[request.queue]
        .wait(REQUEST_TIMEOUT)
        .at("request in the removed region")?;
    ensure!(
        used.id == u32::from(head) && used.len == 0,
        "a request in a removed region gave {used:?} instead of failing"
    );
    session.memory = old;
    session.memory.rewind(&mark);
    stand.probe(session)?;
    Ok(())
}

fn unknown_and_overlapping(stand: &Stand<'_>, mut session: Session) -> Result<()> {
    let unknown = message::single_region(Place::new(EXTRA, 1 << 20));
    let verdict = stand
        .refused(&session.control, request::REM_MEM_REG, &unknown, &[])
        .at("region that is not there")?;
    stand.serves_after(&mut session, verdict)?;
    drop(session);
    let mut session = stand.session()?;
    let inside = Place::new(session.memory.regions()[0].place().guest + PAGE, PAGE);
    let file = sys::memfd("testkit-overlap", PAGE)?;
    let body = message::single_region(inside);
    let verdict = stand
        .refused(
            &session.control,
            request::ADD_MEM_REG,
            &body,
            &[file.as_raw_fd()],
        )
        .at("region inside another one")?;
    stand.serves_after(&mut session, verdict)
}

fn fill_all_slots(stand: &Stand<'_>, slots: usize) -> Result<()> {
    let options = Options {
        one_by_one: true,
        ..stand.options()
    };
    let mut session = stand.session_with(&options)?;
    let regions = (session.memory.regions().len()..slots)
        .map(|slot| Region::new(Place::new(EXTRA + slot as u64 * 0x1000_0000, PAGE)))
        .collect::<std::io::Result<Vec<_>>>()?;
    for region in &regions {
        session.control.add_region(region)?;
    }
    stand.probe(&mut session)?;
    for region in &regions {
        session.control.remove_region(region.place())?;
    }
    stand.probe(&mut session)?;
    Ok(())
}

/// C21: the file behind guest memory shrinks during service.
pub fn truncated_memory(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    for (what, play) in [
        ("buffers", buffers_vanish as fn(&Stand<'_>) -> Result<()>),
        ("rings", rings_vanish),
        ("buffers in flight", buffers_vanish_in_flight),
    ] {
        for round in 0..3 {
            play(&stand).at(format!("{what} truncated, round {round}"))?;
            stand
                .serves_next()
                .at(format!("next client after {what} were truncated"))?;
        }
    }
    stand.close()?;
    Ok(Outcome::Pass)
}

// From here on nothing may touch the truncated mapping: the signal would hit the test as well.

fn buffers_vanish(stand: &Stand<'_>) -> Result<()> {
    let mut session = stand.session()?;
    let request = stand.subject.probe();
    let chain = chain_in(&session, 1, &request.readable, request.writable);
    session.memory.regions()[1].file().set_len(0)?;
    session.rings[request.queue].add(&chain)?;
    session.rings[request.queue].submit()?;
    stand.stimulate(1)?;
    gives_up_or_answers(stand, &mut session, request.queue)
}

fn rings_vanish(stand: &Stand<'_>) -> Result<()> {
    let mut session = stand.session()?;
    let request = stand.subject.probe();
    stand.probe(&mut session)?;
    session.prepare(&request, &Framing::whole())?;
    session.rings[request.queue].publish();
    session.memory.regions()[0].file().set_len(0)?;
    session.rings[request.queue].kick.write(1)?;
    stand.stimulate(1)?;
    sleep(Duration::from_millis(30));
    Ok(())
}

fn buffers_vanish_in_flight(stand: &Stand<'_>) -> Result<()> {
    let mut session = stand.session()?;
    let request = stand.subject.probe();
    let count = stand.room(&session, 64);
    for _ in 0..count {
        let chain = chain_in(&session, 1, &request.readable, request.writable);
        session.rings[request.queue].add(&chain)?;
    }
    session.rings[request.queue].submit()?;
    stand.stimulate(count)?;
    session.memory.regions()[1].file().set_len(PAGE)?;
    sleep(Duration::from_millis(10));
    Ok(())
}

/// The request is completed, or the connection is closed; the daemon is not stuck in between.
fn gives_up_or_answers(stand: &Stand<'_>, session: &mut Session, queue: usize) -> Result<()> {
    let done = sys::wait_for(Duration::from_secs(2), || {
        let closed = !session.control.is_open();
        (closed || session.rings[queue].pop().is_some()).then_some(closed)
    });
    match done {
        Some(true) => stand.note_hang_up(),
        Some(false) => {}
        None => match session.control.features() {
            Ok(_) | Err(ControlError::Closed) => {}
            Err(error) => return Err(error.into()),
        },
    }
    Ok(())
}
