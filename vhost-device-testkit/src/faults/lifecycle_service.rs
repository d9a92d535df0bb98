//! What a daemon promises while it serves: L14 to L21.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Duration;

use crate::conformance::Outcome;
use crate::failure::{At, Result};
use crate::faults::effort::Effort;
use crate::faults::host_faults::Frontend;
use crate::framing::{Framing, Split};
use crate::memory::PAGE;
use crate::message::{feature, protocol, request};
use crate::ring::{Descriptor, WRITE};
use crate::session::{Options, REQUEST_TIMEOUT, Session};
use crate::stand::{Stand, launch};
use crate::subject::Subject;
use crate::{ensure, sys};

/// L14: nothing asked, nothing done: no wake-up in two seconds, few threads.
pub fn idle(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    stand.probe(&mut session)?;
    sleep(Duration::from_millis(100));
    let before = stand.daemon.stats()?;
    sleep(Duration::from_secs(2));
    let after = stand.daemon.stats()?;
    let wake_ups = after.voluntary - before.voluntary;
    ensure!(wake_ups == 0, "{wake_ups} wake-ups in two idle seconds");
    ensure!(
        after.threads <= subject.idle_threads(),
        "{} threads when idle, {} are promised",
        after.threads,
        subject.idle_threads()
    );
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

/// L15: connecting over and over leaves nothing behind, and is never refused.
pub fn reconnects(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut effort = Effort::new(100_000, 2_000, Duration::from_secs(8));
    let mut done = 0;
    while let Some(round) = effort.next() {
        stand.negotiated().at(format!("round {round}"))?;
        done = round;
    }
    stand.leaked_nothing().at(format!("after {done} rounds"))?;
    stand.close()?;
    Ok(Outcome::Pass)
}

/// L16: every page that the device writes while the log is on is marked in it.
pub fn dirty_log(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let control = stand.negotiated()?;
    let offered = control.protocol_features()? & protocol::LOG_SHMFD != 0
        && control.features()? & feature::LOG_ALL != 0;
    drop(control);
    ensure!(offered, "the dirty log is not offered");
    let mut session = stand.session()?;
    stand.probe(&mut session)?;
    let log = Log::new(&session)?;
    log.switch(&session, true)?;
    for round in 0..20 {
        let written = spread_request(&stand, &mut session)?;
        log.has_all(&written).at(format!("request {round}"))?;
        log.clear()?;
    }
    // The frontend may replace the log while rings run.
    let second = Log::new(&session)?;
    second.switch(&session, true)?;
    let written = spread_request(&stand, &mut session)?;
    second.has_all(&written).at("second log")?;
    second.switch(&session, false)?;
    second.clear()?;
    stand.probe(&mut session)?;
    ensure!(
        second.marks()? == 0,
        "pages are marked after the log was switched off"
    );
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

struct Log {
    file: File,
    len: u64,
}

impl Log {
    fn new(session: &Session) -> Result<Self> {
        let end = (0..session.memory.regions().len())
            .map(|region| session.memory.end_of(region))
            .max()
            .unwrap_or(0);
        // Whole pages of the log, one bit for each page of the guest.
        let len = (end / PAGE / 8 + 1).next_multiple_of(PAGE);
        let file = sys::memfd("testkit-log", len)?;
        session.control.set_log(len, &file).at("SET_LOG_BASE")?;
        Ok(Self { file, len })
    }

    /// As a migrating frontend does it: the feature bit, then every ring's address with the log flag.
    fn switch(&self, session: &Session, on: bool) -> Result<()> {
        let features = session.features | if on { feature::LOG_ALL } else { 0 };
        session
            .control
            .set_features(features)
            .at("SET_FEATURES with F_LOG_ALL")?;
        for (index, ring) in session.rings.iter().enumerate() {
            let mut address = ring.parts().address(&session.memory);
            address.log = on.then_some(ring.parts().used);
            session
                .control
                .set_vring_address(index as u32, address)
                .at("SET_VRING_ADDR")?;
        }
        Ok(())
    }

    fn clear(&self) -> Result<()> {
        self.file.write_all_at(&vec![0; self.len as usize], 0)?;
        Ok(())
    }

    fn marks(&self) -> Result<u32> {
        let mut bytes = vec![0; self.len as usize];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes.iter().map(|byte| byte.count_ones()).sum())
    }

    fn is_marked(&self, page: u64) -> Result<bool> {
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, page / 8)?;
        Ok(byte[0] & 1 << (page % 8) != 0)
    }

    fn has_all(&self, written: &Written) -> Result<()> {
        for page in &written.pages {
            ensure!(
                self.is_marked(*page)?,
                "page {page:#x} was written and is not marked"
            );
        }
        for page in &written.untouched {
            ensure!(
                !self.is_marked(*page)?,
                "page {page:#x} was not written and is marked"
            );
        }
        Ok(())
    }
}

struct Written {
    pages: Vec<u64>,
    untouched: Vec<u64>,
}

/// A correct request whose writable bytes lie across the borders of pages, in a region that begins above 4 GiB.
fn spread_request(stand: &Stand<'_>, session: &mut Session) -> Result<Written> {
    let request = stand.subject.probe();
    let mark = session.memory.mark();
    let mut placed = Framing {
        readable: Split::Whole,
        writable: Split::At(request.writable as usize / 2),
        indirect: false,
    }
    .place(&session.memory, &request.readable, request.writable);
    let mut untouched = Vec::new();
    for buffer in placed
        .chain
        .iter_mut()
        .filter(|buffer| buffer.flags & WRITE != 0)
    {
        let room = session.memory.take_from(1, 4 * PAGE, PAGE);
        buffer.address = room + PAGE - u64::from(buffer.len) / 2;
        untouched.push(room / PAGE + 3);
    }
    let first = session.rings[request.queue].next_used();
    let head = session.rings[request.queue].add(&placed.chain)?;
    session.rings[request.queue].submit()?;
    stand.stimulate(1)?;
    let used = session.rings[request.queue].wait(REQUEST_TIMEOUT)?;
    ensure!(used.id == u32::from(head), "another chain was used");
    ensure!(
        used.len == request.writable || stand.subject.is_event_driven(),
        "{} of {} bytes were written",
        used.len,
        request.writable
    );
    let mut pages = pages_of(&placed.chain, used.len);
    let parts = session.rings[request.queue].parts();
    let entry = parts.used + 4 + 8 * u64::from(first % parts.size);
    pages.extend([parts.used / PAGE, entry / PAGE]);
    session.memory.rewind(&mark);
    Ok(Written { pages, untouched })
}

/// The pages with the first `written` writable bytes of a chain: a device that fills receive buffers may need less.
fn pages_of(chain: &[Descriptor], written: u32) -> Vec<u64> {
    let mut left = written;
    let mut pages = Vec::new();
    for buffer in chain.iter().filter(|buffer| buffer.flags & WRITE != 0) {
        let len = buffer.len.min(left);
        if len > 0 {
            let last = buffer.address + u64::from(len) - 1;
            pages.extend(buffer.address / PAGE..=last / PAGE);
        }
        left -= len;
    }
    pages
}

/// L17: every feature on and off; what is not agreed on is not needed.
pub fn feature_subsets(subject: &dyn Subject) -> Result<Outcome> {
    const BITS: [u64; 4] = [
        feature::EVENT_IDX,
        feature::INDIRECT,
        feature::PROTOCOL_FEATURES,
        feature::VERSION_1,
    ];
    let stand = Stand::start(subject)?;
    for subset in 0..1u32 << BITS.len() {
        let off = (0..BITS.len())
            .filter(|bit| subset & 1 << bit != 0)
            .fold(0, |off, bit| off | BITS[bit]);
        let options = stand.options();
        let features = options.features & !off;
        served_with(&stand, &options.with_features(features))
            .at(format!("without features {off:#x}"))?;
    }
    for off in [
        protocol::REPLY_ACK,
        protocol::MQ,
        protocol::CONFIG,
        u64::MAX,
    ] {
        let usual = stand.options();
        let options = Options {
            protocol: usual.protocol & !off,
            ..usual
        };
        served_with(&stand, &options).at(format!("without protocol features {off:#x}"))?;
    }
    with_device_requests(&stand).at("with requests of the device to the frontend")?;
    stand.close()?;
    Ok(Outcome::Pass)
}

fn served_with(stand: &Stand<'_>, options: &Options) -> Result<()> {
    let mut session = match stand.session_with(options) {
        // A device may insist on virtio 1: then it says so when features are agreed on.
        Err(failure) if options.features & feature::VERSION_1 == 0 => {
            ensure!(failure.to_string().contains("FEATURES"), "{failure}");
            return Ok(());
        }
        session => session?,
    };
    for _ in 0..5 {
        stand.probe(&mut session)?;
        if session.indirect() {
            let framing = Framing::whole().indirect();
            stand.exchange(&mut session, &stand.subject.probe(), &framing)?;
        }
    }
    Ok(())
}

/// A device that may send requests to the frontend gets a socket for them, and serves as before.
fn with_device_requests(stand: &Stand<'_>) -> Result<()> {
    if stand.negotiated()?.protocol_features()? & protocol::BACKEND_REQ == 0 {
        return Ok(());
    }
    let usual = stand.options();
    let options = Options {
        protocol: usual.protocol | protocol::BACKEND_REQ,
        ..usual
    };
    let mut session = stand.session_with(&options)?;
    let (_ours, theirs) = UnixStream::pair()?;
    session
        .control
        .tell(request::SET_BACKEND_REQ_FD, &[], &[theirs.as_raw_fd()])?;
    stand.probe(&mut session)?;
    Ok(())
}

/// L18: with the event index a batch interrupts once, at the entry that the driver named.
pub fn one_interrupt_per_batch(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    if session.features & feature::EVENT_IDX == 0 {
        drop(session);
        stand.close()?;
        return Ok(Outcome::NotApplicable("the device has no event index"));
    }
    let queue = subject.probe().queue;
    for round in 0..20 {
        let mark = session.memory.mark();
        let count = stand.room(&session, 32);
        let ring = &session.rings[queue];
        ring.interrupts()?;
        ring.set_used_event(ring.next_used().wrapping_add(count as u16 - 1));
        let pending = stand.load(&mut session, count)?;
        ensure!(
            sys::readable(&session.rings[queue].call, REQUEST_TIMEOUT)?,
            "round {round}: no interrupt for the last chain of a batch"
        );
        sleep(Duration::from_millis(2));
        let interrupts = session.rings[queue].interrupts()?;
        ensure!(
            interrupts == 1,
            "round {round}: {interrupts} interrupts for one batch of {count}"
        );
        for _ in &pending {
            session.rings[queue].watch(REQUEST_TIMEOUT)?;
        }
        session.memory.rewind(&mark);
    }
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

/// L19: a device that offers IN_ORDER uses chains in the order in which they were made available.
pub fn in_order(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    if stand.connect()?.features()? & feature::IN_ORDER == 0 {
        stand.close()?;
        return Ok(Outcome::NotApplicable("the device completes out of order"));
    }
    let usual = stand.options();
    let options = Options {
        features: usual.features | feature::IN_ORDER,
        ..usual
    };
    let mut session = stand.session_with(&options)?;
    let queue = subject.probe().queue;
    for round in 0..20 {
        session.revive_ring(queue)?;
        let mark = session.memory.mark();
        let count = stand.room(&session, 64);
        let used = session.rings[queue].parts().used_range();
        // An entry that the device skips keeps this: with IN_ORDER it may write only the last of a batch.
        session
            .memory
            .fill(used.start + 4, used.end - used.start - 6, 0xff);
        let pending = stand.load(&mut session, count)?;
        let ring = &session.rings[queue];
        sys::wait_for(REQUEST_TIMEOUT, || {
            (usize::from(ring.used_index()) == count).then_some(())
        })
        .ok_or_else(|| crate::failure::Failure::new("not all chains were used"))?;
        for (at, one) in pending.iter().enumerate() {
            let id = ring.used_entry(at as u16).id;
            let skipped = id == u32::MAX && at + 1 < count;
            ensure!(
                skipped || id == u32::from(one.head),
                "round {round}: place {at} has chain {id} instead of {}",
                one.head
            );
        }
        session.memory.rewind(&mark);
    }
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

/// L20: a frontend killed in mid-request, one hundred times.
pub fn killed_in_mid_request(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    for round in 0..100 {
        let mut session = stand.session().at(format!("round {round}"))?;
        let count = stand.room(&session, 64);
        stand.load(&mut session, count)?;
        Frontend::take(session)?.kill()?;
        stand.leaked_nothing().at(format!("round {round}"))?;
    }
    stand.close()?;
    Ok(Outcome::Pass)
}

/// L21: busy polling serves, and costs nothing when there is nothing to do.
pub fn busy_poll(subject: &dyn Subject) -> Result<Outcome> {
    let launch = launch(subject)?.arguments(["--poll-us", "100"]);
    let stand = Stand::start_by(subject, launch)?;
    let mut session = stand.session()?;
    for _ in 0..1000 {
        stand.probe(&mut session)?;
    }
    stand.is_quiet().at("polling daemon, idle")?;
    let before = stand.daemon.stats()?;
    sleep(Duration::from_secs(1));
    let wake_ups = stand.daemon.stats()?.voluntary - before.voluntary;
    ensure!(
        wake_ups == 0,
        "{wake_ups} wake-ups in an idle second of a polling daemon"
    );
    stand.probe(&mut session)?;
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}
