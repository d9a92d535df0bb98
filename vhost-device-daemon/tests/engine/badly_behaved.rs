//! A host that does not answer, and a device model that panics.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use vhost_device_testkit::failure::Result;
use vhost_device_testkit::framing::{Framing, UNTOUCHED};
use vhost_device_testkit::process::{Daemon, Launch};
use vhost_device_testkit::session::{Options, Pending, Request, Session};
use vhost_device_testkit::{ensure, sys};

use crate::levels;

const DONE: u8 = 0xd0;

/// The engine gives a stuck thread up after half a second; the rest is room for a busy machine.
const GIVEN_UP: Duration = Duration::from_secs(2);

fn request(queue: usize, trigger: bool) -> Request {
    Request {
        queue,
        readable: vec![u8::from(trigger)],
        writable: 1,
    }
}

/// A daemon whose host is a pipe that nobody writes to, and the pipe.
fn gate(options: &[&str]) -> Result<(Daemon, File)> {
    let launch = Launch::new(levels())?;
    let path = launch.dir().join("pipe");
    let pipe = sys::fifo(&path)?;
    let daemon = launch
        .arguments([Path::new("gate"), Path::new("--host"), &path])
        .arguments(options.iter().copied())
        .start()?;
    Ok((daemon, pipe))
}

fn submit(session: &mut Session, queue: usize, trigger: bool) -> Result<Pending> {
    session.submit(&request(queue, trigger), &Framing::whole())
}

fn answered(session: &mut Session, queue: usize) -> Result<()> {
    let pending = submit(session, queue, false)?;
    let answer = session.finish(queue, &pending)?;
    ensure!(answer.written() == [DONE], "answered {:?}", answer.bytes);
    Ok(())
}

fn within<T>(limit: Duration, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let result = work()?;
    let took = start.elapsed();
    ensure!(took < limit, "took {took:?} instead of less than {limit:?}");
    Ok(result)
}

#[test]
fn a_queue_whose_host_is_stuck_stops_in_time_and_its_thread_changes_nothing_afterwards()
-> Result<()> {
    let (mut daemon, mut pipe) = gate(&[])?;
    let mut session = Session::open(daemon.socket(), &Options::usual(2))?;
    answered(&mut session, 0)?;
    let stuck = submit(&mut session, 0, true)?;
    std::thread::sleep(Duration::from_millis(50));
    within(GIVEN_UP, || answered(&mut session, 1))?;

    let base = within(GIVEN_UP, || session.stop_ring(0))?;
    ensure!(
        base == 1,
        "resumes at {base}, behind the request that was answered"
    );
    within(GIVEN_UP, || answered(&mut session, 1))?;

    // The thread that was given up now gets its answer from the host.
    pipe.write_all(&[1])?;
    std::thread::sleep(Duration::from_millis(200));
    ensure!(
        session.rings[0].used_index() == 1,
        "a stopped queue completed a request"
    );
    let answer = stuck.placed.answer(&session.memory, 1)?;
    ensure!(
        answer.bytes == [UNTOUCHED],
        "a stopped queue wrote {:02x?} to guest memory",
        answer.bytes
    );

    // Started again where it stopped, the queue serves the same request anew.
    session.start_ring_at(0, base)?;
    session.enable(0, true)?;
    pipe.write_all(&[1])?;
    let answer = session.finish(0, &stuck)?;
    ensure!(answer.written() == [DONE], "answered {:?}", answer.bytes);
    answered(&mut session, 0)?;
    answered(&mut session, 1)?;
    drop(session);
    daemon.finish()
}

#[test]
fn a_frontend_that_leaves_a_stuck_host_behind_does_not_keep_the_next_one_waiting() -> Result<()> {
    let (mut daemon, pipe) = gate(&[])?;
    let threads = daemon.stats()?.threads;
    for _ in 0..3 {
        let mut session = Session::open(daemon.socket(), &Options::usual(2))?;
        submit(&mut session, 0, true)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    within(GIVEN_UP, || {
        let mut session = Session::open(daemon.socket(), &Options::usual(2))?;
        answered(&mut session, 0)
    })?;
    // When the host answers at last, the threads that waited for it are gone.
    (&pipe).write_all(&[1; 3])?;
    let gone = sys::wait_for(Duration::from_secs(5), || {
        let now = daemon.stats().ok()?.threads;
        (now <= threads).then_some(())
    });
    ensure!(gone.is_some(), "threads that were given up never ended");
    daemon.finish()
}

#[test]
fn a_stuck_host_does_not_keep_the_process_from_ending() -> Result<()> {
    let (mut daemon, _pipe) = gate(&[])?;
    let mut session = Session::open(daemon.socket(), &Options::usual(2))?;
    submit(&mut session, 0, true)?;
    std::thread::sleep(Duration::from_millis(50));
    within(GIVEN_UP, || daemon.finish())
}

#[test]
fn a_device_model_that_panics_ends_its_connection_and_nothing_else() -> Result<()> {
    let mut daemon = Launch::new(levels())?.arguments(["bomb"]).start()?;
    for _ in 0..3 {
        let mut session = Session::open(daemon.socket(), &Options::usual(1))?;
        answered(&mut session, 0)?;
        submit(&mut session, 0, true)?;
        session.control.wait_closed(GIVEN_UP)?;
    }
    ensure!(
        daemon.log().contains("panicked"),
        "the log does not tell of the panic"
    );
    let mut session = Session::open(daemon.socket(), &Options::usual(1))?;
    answered(&mut session, 0)?;
    drop(session);
    daemon.finish()
}

/// Both requests are with the host, and it takes a while until the daemon gives them up.
fn interrupted_twice() -> Result<Option<i32>> {
    let (mut daemon, _pipe) = gate(&["--sandbox", "landlock"])?;
    let mut session = Session::open(daemon.socket(), &Options::usual(2))?;
    ensure!(daemon.pid() == daemon.started(), "there are two processes");
    for queue in 0..2 {
        submit(&mut session, queue, true)?;
    }
    daemon.signal(libc::SIGINT)?;
    let stops = || daemon.log().contains("Interrupt: stopping").then_some(());
    ensure!(sys::wait_for(GIVEN_UP, stops).is_some(), "{}", daemon.log());
    daemon.signal(libc::SIGINT)?;
    let code = daemon.wait_end(GIVEN_UP)?.status.code();
    daemon.trust();
    Ok(code)
}

#[test]
fn a_second_interrupt_is_not_kept_waiting_by_a_host_that_is_stuck() -> Result<()> {
    // On a busy machine the second may come too late.
    for _ in 0..10 {
        match interrupted_twice()? {
            Some(130) => return Ok(()),
            Some(0) => {}
            other => ensure!(false, "ended with {other:?}"),
        }
    }
    ensure!(false, "it always ended in order");
    Ok(())
}
