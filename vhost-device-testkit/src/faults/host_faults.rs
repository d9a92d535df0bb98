//! Processes that die or stop, limits that are reached, logs that nobody reads: F1, F2, F5, F6.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::conformance::Outcome;
use crate::control::{Control, Verdict};
use crate::ensure;
use crate::failure::{At, Result};
use crate::memory::{Memory, Place};
use crate::message::{flag, request};
use crate::process::Stderr;
use crate::session::Session;
use crate::stand::{self, Stand};
use crate::stats::address_space;
use crate::subject::Subject;
use crate::sys::{self, Pid};

/// A process that holds all descriptors of a session, so that killing it is killing the frontend.
pub(super) struct Frontend {
    process: Child,
}

impl Frontend {
    /// Starts the process; the session's control socket is its own from now on.
    pub(super) fn take(mut session: Session) -> Result<Self> {
        let mut fds: Vec<RawFd> = vec![session.control.stream().as_raw_fd()];
        fds.extend(
            session
                .memory
                .regions()
                .iter()
                .map(|region| region.file().as_raw_fd()),
        );
        for ring in &session.rings {
            fds.extend([
                ring.kick.as_raw_fd(),
                ring.call.as_raw_fd(),
                ring.error.as_raw_fd(),
            ]);
        }
        let mut command = Command::new("/bin/sleep");
        command
            .arg("60")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: the closure only makes system calls.
        unsafe {
            command.pre_exec(move || {
                fds.iter()
                    .try_for_each(|fd| sys::place_descriptor(*fd, *fd))
            })
        };
        let process = command.spawn().at("start the frontend process")?;
        session.control.hand_over();
        Ok(Self { process })
    }

    pub(super) fn pid(&self) -> Pid {
        self.process.id() as Pid
    }

    /// Ends it with SIGKILL.
    pub(super) fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Frontend {
    fn drop(&mut self) {
        // Already dead after `kill`: then there is nothing to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// F1: the frontend is killed, or stops for a while.
pub fn frontend_killed_or_stopped(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    torn_down_quickly(&stand)?;
    stopped_for_a_while(&stand)?;
    stand.close()?;
    Ok(Outcome::Pass)
}

/// The machine may be busy: the best of a few attempts has to be within the limit.
fn torn_down_quickly(stand: &Stand<'_>) -> Result<()> {
    const LIMIT: Duration = Duration::from_millis(100);
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let mut session = stand.session()?;
        let count = stand.room(&session, 64);
        stand.load(&mut session, count)?;
        let frontend = Frontend::take(session)?;
        sleep(Duration::from_millis(5));
        ensure!(
            stand.daemon.stats()?.guest_mappings > 0,
            "the session ended while its frontend lives"
        );
        let begin = Instant::now();
        frontend.kill()?;
        stand.leaked_nothing().at("frontend killed")?;
        best = best.min(begin.elapsed());
        stand
            .serves_next()
            .at("next client after the frontend was killed")?;
    }
    ensure!(
        best <= LIMIT,
        "the session of a killed frontend is gone after {best:?} at best, not {LIMIT:?}"
    );
    Ok(())
}

fn stopped_for_a_while(stand: &Stand<'_>) -> Result<()> {
    let mut session = stand.session()?;
    // Used chains that nobody takes, control replies that nobody reads: what a stopped frontend leaves lying.
    let count = stand.room(&session, 256);
    let pending = stand.load(&mut session, count)?;
    for _ in 0..10 {
        session
            .control
            .send(request::GET_FEATURES, flag::VERSION, &[], &[])?;
    }
    sleep(Duration::from_millis(1500));
    stand.is_quiet().at("frontend stopped")?;
    stand.leaked_no_memory().at("frontend stopped")?;
    for _ in 0..10 {
        session.control.receive_reply(request::GET_FEATURES)?;
    }
    stand
        .unload(&mut session, &pending)
        .at("frontend continued")?;
    drop(session);
    let session = stand.session()?;
    let frontend = Frontend::take(session)?;
    sys::kill(frontend.pid(), libc::SIGSTOP)?;
    stand.is_quiet().at("frontend process stopped")?;
    frontend.kill()?;
    Ok(())
}

/// F2: the daemon is stopped and continued.
pub fn daemon_stopped(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let mut session = stand.session()?;
    for round in 0..10 {
        sys::kill(stand.daemon.pid(), libc::SIGSTOP)?;
        let continued = stopped_round(&stand, &mut session);
        sys::kill(stand.daemon.pid(), libc::SIGCONT)?;
        let pending = continued.at(format!("round {round}, stopped"))?;
        stand
            .unload(&mut session, &pending)
            .at(format!("round {round}, continued"))?;
        session.control.receive_reply(request::GET_FEATURES)?;
    }
    drop(session);
    stand.close()?;
    Ok(Outcome::Pass)
}

fn stopped_round(stand: &Stand<'_>, session: &mut Session) -> Result<Vec<crate::session::Pending>> {
    let count = stand.room(session, 64);
    let pending = stand.load(session, count)?;
    session
        .control
        .send(request::GET_FEATURES, flag::VERSION, &[], &[])?;
    sleep(Duration::from_millis(20));
    Ok(pending)
}

/// F5: no descriptor is left, no memory is left.
pub fn limits_reached(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    no_descriptors(&stand).at("descriptor limit")?;
    no_memory(&stand).at("memory limit")?;
    stand.close()?;
    Ok(Outcome::Pass)
}

fn no_descriptors(stand: &Stand<'_>) -> Result<()> {
    let mut session = stand.session()?;
    stand.probe(&mut session)?;
    let pid = stand.daemon.pid();
    let old = sys::limit(pid, libc::RLIMIT_NOFILE, 4)?;
    let outcome = under_descriptor_limit(stand, session);
    sys::limit(pid, libc::RLIMIT_NOFILE, old)?;
    outcome?;
    stand.serves_next().at("after the limit was lifted")
}

fn under_descriptor_limit(stand: &Stand<'_>, mut session: Session) -> Result<()> {
    stand.probe(&mut session).at("running rings")?;
    let memory = Memory::new(&Place::usual())?;
    let files: Vec<RawFd> = memory
        .regions()
        .iter()
        .map(|region| region.file().as_raw_fd())
        .collect();
    let places: Vec<Place> = memory
        .regions()
        .iter()
        .map(crate::memory::Region::place)
        .collect();
    let verdict = stand.refused(
        &session.control,
        request::SET_MEM_TABLE,
        &crate::message::memory_table(&places),
        &files,
    )?;
    if verdict != Verdict::Closed {
        stand.probe(&mut session).at("after a refused table")?;
    }
    // A client that cannot be accepted waits, without making the daemon spin.
    let waiting = stand.connect()?;
    stand.is_quiet().at("a client that cannot be accepted")?;
    drop(waiting);
    Ok(())
}

fn no_memory(stand: &Stand<'_>) -> Result<()> {
    const ROOM: u64 = 4 << 20;
    let mut session = stand.session()?;
    stand.probe(&mut session)?;
    let pid = stand.daemon.pid();
    let limit = address_space(pid, ROOM)?;
    let old = sys::limit(pid, libc::RLIMIT_AS, limit)?;
    let huge = Memory::new(&[Place::new(0x10_0000, 256 << 20)])?;
    let region = &huge.regions()[0];
    let outcome = stand
        .refused(
            &session.control,
            request::SET_MEM_TABLE,
            &crate::message::memory_table(&[region.place()]),
            &[region.file().as_raw_fd()],
        )
        .and_then(|verdict| stand.serves_after(&mut session, verdict));
    sys::limit(pid, libc::RLIMIT_AS, old)?;
    outcome?;
    drop(session);
    stand.serves_next().at("after the limit was lifted")
}

/// F6: stderr is closed, full, or read by nobody.
pub fn log_nobody_reads(subject: &dyn Subject) -> Result<Outcome> {
    let (_, broken) = sys::pipe()?;
    let (reader, mut full) = sys::pipe()?;
    sys::set_nonblocking(&full, true)?;
    while full.write(&[b'.'; 1]).is_ok() {}
    sys::set_nonblocking(&full, false)?;
    for (what, stderr) in [
        ("closed", Stderr::Closed),
        ("a pipe nobody reads any more", Stderr::To(broken.into())),
        ("a full pipe", Stderr::To(full.into())),
    ] {
        silent(subject, stderr).at(format!("stderr is {what}"))?;
    }
    let _: File = reader;
    Ok(Outcome::Pass)
}

fn silent(subject: &dyn Subject, stderr: Stderr) -> Result<()> {
    let launch = stand::launch(subject)?
        .stderr(stderr)
        .arguments(["--log-level", "trace"]);
    let stand = Stand::start_by(subject, launch)?;
    let mut session = stand.session()?;
    for round in 0..50 {
        provoke(&stand).at(format!("provocation {round}"))?;
        stand.probe(&mut session).at(format!("request {round}"))?;
    }
    drop(session);
    // Not `close`: nothing of the log can be read here.
    stand.serves_next()?;
    stand.leaked_nothing()?;
    stand.stop()
}

/// Makes the daemon log something: a second frontend is always worth a line.
fn provoke(stand: &Stand<'_>) -> Result<()> {
    let control: Control = stand.connect()?;
    control.wait_closed(Duration::from_secs(1))?;
    Ok(())
}
