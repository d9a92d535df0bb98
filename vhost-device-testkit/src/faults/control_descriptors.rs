//! Descriptors that are missing, too many, of the wrong kind, or replaced under load: C7, C8, C12.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::conformance::Outcome;
use crate::control::Verdict;
use crate::failure::{At, Result};
use crate::framing::Framing;
use crate::memory::Place;
use crate::message::{self, protocol, request};
use crate::process::TempDir;
use crate::session::{Options, REQUEST_TIMEOUT, Session, negotiate};
use crate::stand::Stand;
use crate::subject::Subject;
use crate::{ensure, fail, sys};

/// Descriptors that tell when the last copy of them is closed: write ends of one pipe.
struct Tracers {
    reader: File,
    writers: Vec<File>,
}

impl Tracers {
    fn new(count: usize) -> Result<Self> {
        let (reader, writer) = sys::pipe()?;
        let mut writers = Vec::new();
        for _ in 0..count {
            writers.push(writer.try_clone()?);
        }
        Ok(Self { reader, writers })
    }

    fn fds(&self) -> Vec<RawFd> {
        self.writers.iter().map(AsRawFd::as_raw_fd).collect()
    }

    /// Closes our copies and waits until the daemon has closed all of its own.
    fn all_closed(self) -> Result<()> {
        drop(self.writers);
        ensure!(
            sys::readable(&self.reader, Duration::from_secs(2))?,
            "a descriptor of a refused message stays open in the daemon"
        );
        Ok(())
    }
}

/// C7: none, two and 33 descriptors where one is due, and some where none is.
pub fn wrong_count(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let offered = stand.negotiated()?.protocol_features()?;
    for (request, body, counts, needs) in counted_messages() {
        if needs & !offered != 0 {
            continue;
        }
        for count in counts {
            with_descriptors(&stand, request, &body, count).at(format!(
                "{} with {count} descriptors",
                request::name(request)
            ))?;
        }
    }
    stand.close()?;
    Ok(Outcome::Pass)
}

type Counted = (u32, Vec<u8>, Vec<usize>, u64);

/// (request, body, wrong numbers of descriptors, protocol feature it belongs to)
fn counted_messages() -> Vec<Counted> {
    let place = Place::new(0x1000, 4096);
    let one_due = vec![0, 2, 33];
    let with = message::vring_descriptor(0, true);
    let without = message::vring_descriptor(0, false);
    let mut messages: Vec<Counted> = vec![
        (
            request::SET_MEM_TABLE,
            message::memory_table(&[place]),
            one_due.clone(),
            0,
        ),
        (
            request::ADD_MEM_REG,
            message::single_region(place),
            one_due.clone(),
            protocol::CONFIGURE_MEM_SLOTS,
        ),
        (
            request::SET_LOG_BASE,
            message::log(4096, 0),
            one_due.clone(),
            protocol::LOG_SHMFD,
        ),
        (
            request::SET_BACKEND_REQ_FD,
            Vec::new(),
            one_due.clone(),
            protocol::BACKEND_REQ,
        ),
        (request::GET_FEATURES, Vec::new(), vec![1, 33], 0),
        (request::SET_FEATURES, message::number(0), vec![1, 33], 0),
        (
            request::SET_VRING_NUM,
            message::vring_state(0, 256),
            vec![1, 33],
            0,
        ),
    ];
    for request in [
        request::SET_VRING_KICK,
        request::SET_VRING_CALL,
        request::SET_VRING_ERR,
    ] {
        messages.push((request, with.clone(), one_due.clone(), 0));
        messages.push((request, without.clone(), vec![1, 33], 0));
    }
    messages
}

fn with_descriptors(stand: &Stand<'_>, request: u32, body: &[u8], count: usize) -> Result<()> {
    let mut options = stand.options();
    options.protocol |= protocol::BACKEND_REQ;
    let mut control = stand.connect()?;
    negotiate(&mut control, &options)?;
    let tracers = Tracers::new(count)?;
    stand.refused(&control, request, body, &tracers.fds())?;
    if count > 0 {
        tracers.all_closed()?;
    }
    Ok(())
}

/// C8: kick, call and memory descriptors of the wrong kind.
pub fn wrong_kind(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let dir = TempDir::new()?;
    for (name, file) in kick_kinds(&dir)? {
        wrong_kick(&stand, &file).at(format!("kick descriptor is {name}"))?;
    }
    for (name, file, _peer) in call_kinds(&dir)? {
        wrong_call(&stand, &file).at(format!("call descriptor is {name}"))?;
    }
    for (name, file) in memory_kinds(&dir)? {
        wrong_memory(&stand, &file).at(format!("memory is {name}"))?;
    }
    stand.close()?;
    Ok(Outcome::Pass)
}

fn regular_file(dir: &TempDir, name: &str, len: u64) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(dir.path().join(name))?;
    file.set_len(len)?;
    Ok(file)
}

fn kick_kinds(dir: &TempDir) -> Result<Vec<(&'static str, File)>> {
    let (hung_up, _) = sys::pipe()?;
    Ok(vec![
        ("a regular file", regular_file(dir, "kick", 64)?),
        ("a directory", File::open(dir.path())?),
        ("a closed pipe", hung_up),
        ("/dev/null", File::open("/dev/null")?),
        ("/dev/zero", File::open("/dev/zero")?),
    ])
}

fn wrong_kick(stand: &Stand<'_>, file: &File) -> Result<()> {
    let mut session = stand.session()?;
    stand.probe(&mut session)?;
    let queue = stand.subject.probe().queue as u8;
    let verdict = session.control.verdict(
        request::SET_VRING_KICK,
        message::flag::VERSION | message::flag::NEED_REPLY,
        &message::vring_descriptor(queue, true),
        &[file.as_raw_fd()],
    )?;
    if verdict == Verdict::Closed {
        stand.note_hang_up();
        return Ok(());
    }
    stand.is_quiet()
}

type WithPeer = (&'static str, File, Option<File>);

fn call_kinds(dir: &TempDir) -> Result<Vec<WithPeer>> {
    let (_, broken) = sys::pipe()?;
    let (reader, writer) = sys::pipe()?;
    let (full_reader, mut full) = sys::pipe()?;
    sys::set_nonblocking(&full, true)?;
    while full.write(&[0; 4096]).is_ok() {}
    sys::set_nonblocking(&full, false)?;
    Ok(vec![
        ("a regular file", regular_file(dir, "call", 0)?, None),
        ("a directory", File::open(dir.path())?, None),
        ("a pipe nobody reads any more", broken, None),
        ("the reading end of a pipe", reader, Some(writer)),
        ("a full pipe", full, Some(full_reader)),
    ])
}

fn wrong_call(stand: &Stand<'_>, file: &File) -> Result<()> {
    let mut session = stand.session()?;
    stand.probe(&mut session)?;
    let request = stand.subject.probe();
    let verdict = session.control.verdict(
        request::SET_VRING_CALL,
        message::flag::VERSION | message::flag::NEED_REPLY,
        &message::vring_descriptor(request.queue as u8, true),
        &[file.as_raw_fd()],
    )?;
    if verdict == Verdict::Closed {
        stand.note_hang_up();
        return Ok(());
    }
    for round in 0..3 {
        session.submit(&request, &Framing::whole())?;
        stand.stimulate(1)?;
        session.rings[request.queue].arm();
        session.rings[request.queue]
            .watch(REQUEST_TIMEOUT)
            .at(format!("request {round} after it"))?;
    }
    stand.is_quiet()
}

fn memory_kinds(dir: &TempDir) -> Result<Vec<(&'static str, File)>> {
    let (pipe, _) = sys::pipe()?;
    let read_only = {
        regular_file(dir, "read-only", 1 << 20)?;
        File::open(dir.path().join("read-only"))?
    };
    Ok(vec![
        ("a pipe", pipe),
        ("a directory", File::open(dir.path())?),
        (
            "/dev/null",
            File::options().read(true).write(true).open("/dev/null")?,
        ),
        (
            "a file one page too short",
            regular_file(dir, "short", (1 << 20) - 4096)?,
        ),
        ("an empty file", regular_file(dir, "empty", 0)?),
        ("a file opened for reading", read_only),
    ])
}

fn wrong_memory(stand: &Stand<'_>, file: &File) -> Result<()> {
    let control = stand.negotiated()?;
    let table = message::memory_table(&[Place::new(0x10_0000, 1 << 20)]);
    stand.refused(
        &control,
        request::SET_MEM_TABLE,
        &table,
        &[file.as_raw_fd()],
    )?;
    Ok(())
}

/// C12: the descriptors of a running ring are replaced, and a call counter is full.
pub fn replaced(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    for round in 0..50 {
        replace_call(&stand, &mut session).at(format!("call replaced, round {round}"))?;
        replace_kick(&stand, &mut session).at(format!("kick replaced, round {round}"))?;
        replace_error(&stand, &mut session).at(format!("err replaced, round {round}"))?;
    }
    drop(session);
    for flags in [EFD_NONBLOCK, 0] {
        full_counter(&stand, flags).at(match flags {
            0 => "full blocking call counter",
            _ => "full call counter",
        })?;
    }
    stand.close()?;
    Ok(Outcome::Pass)
}

fn replace_call(stand: &Stand<'_>, session: &mut Session) -> Result<()> {
    let queue = stand.subject.probe().queue;
    let count = stand.room(session, 16);
    let mark = session.memory.mark();
    let outstanding = stand.load(session, count)?;
    // The old one stays open until the new one is in place, as in any frontend.
    let old = std::mem::replace(&mut session.rings[queue].call, EventFd::new(EFD_NONBLOCK)?);
    let ring = &session.rings[queue];
    session
        .control
        .set_vring_descriptor(request::SET_VRING_CALL, queue as u8, &ring.call)?;
    drop(old);
    // An interrupt may have gone to the old descriptor: a driver looks at the ring after the change.
    for _ in &outstanding {
        session.rings[queue].watch(REQUEST_TIMEOUT)?;
    }
    session.memory.rewind(&mark);
    stand.probe(session)?;
    Ok(())
}

fn replace_kick(stand: &Stand<'_>, session: &mut Session) -> Result<()> {
    let request = stand.subject.probe();
    let mark = session.memory.mark();
    let new = EventFd::new(EFD_NONBLOCK)?;
    let pending = session.submit(&request, &Framing::whole())?;
    let ring = &mut session.rings[request.queue];
    ring.kick = new;
    session.control.set_vring_descriptor(
        request::SET_VRING_KICK,
        request.queue as u8,
        &session.rings[request.queue].kick,
    )?;
    stand.stimulate(1)?;
    let answer = session
        .finish(request.queue, &pending)
        .at("request kicked just before")?;
    stand.subject.judge(&request, &answer)?;
    session.memory.rewind(&mark);
    stand.probe(session)?;
    Ok(())
}

fn replace_error(stand: &Stand<'_>, session: &mut Session) -> Result<()> {
    let queue = stand.subject.probe().queue;
    session.rings[queue].error = EventFd::new(EFD_NONBLOCK)?;
    let ring = &session.rings[queue];
    session
        .control
        .set_vring_descriptor(request::SET_VRING_ERR, queue as u8, &ring.error)?;
    stand.probe(session)?;
    Ok(())
}

fn full_counter(stand: &Stand<'_>, flags: i32) -> Result<()> {
    let options: Options = stand.options();
    let mut session = stand.session_with(&options)?;
    let queue = stand.subject.probe().queue;
    let call = EventFd::new(flags)?;
    call.write(u64::MAX - 1)?;
    session.rings[queue].call = call;
    let ring = &session.rings[queue];
    session
        .control
        .set_vring_descriptor(request::SET_VRING_CALL, queue as u8, &ring.call)?;
    for round in 0..5 {
        let pending = stand.load(&mut session, 1)?;
        session.rings[queue].arm();
        let used = session.rings[queue]
            .watch(REQUEST_TIMEOUT)
            .at(format!("request {round} with the counter full"))?;
        ensure!(
            used.id == u32::from(pending[0].head),
            "another chain was used"
        );
    }
    if session.rings[queue].call.read()? == 0 {
        fail!("the counter was empty");
    }
    stand
        .probe(&mut session)
        .at("request after the counter was read")?;
    Ok(())
}
