//! The test stand: one daemon of one device, before, during and after a misbehaviour.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use crate::control::{Control, ControlError, Verdict};
use crate::failure::{At, Result};
use crate::framing::{Answer, Framing};
use crate::message::{flag, request};
use crate::process::{Daemon, Launch};
use crate::session::{Options, Pending, Request, Session, negotiate};
use crate::stats::Stats;
use crate::subject::Subject;
use crate::{ensure, fail, sys};

/// How long the daemon may take to clean up behind a frontend that has left.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Growth of the daemon's own memory over a case that is taken for the allocator's noise.
const GROWTH_KIB: u64 = 1024;

/// A daemon with its state before the case.
pub struct Stand<'a> {
    /// The device.
    pub subject: &'a dyn Subject,
    /// Its process.
    pub daemon: Daemon,
    before: Stats,
    hang_ups: Cell<u32>,
}

/// The usual way to start a subject's daemon.
///
/// # Errors
/// When its directory cannot be made.
pub fn launch(subject: &dyn Subject) -> Result<Launch> {
    let launch = Launch::new(subject.binary())?;
    let arguments = subject.arguments(launch.dir());
    Ok(launch.arguments(arguments))
}

impl<'a> Stand<'a> {
    /// Starts the daemon, serves it one client to warm it up, and notes its state.
    ///
    /// # Errors
    /// When the daemon does not start or does not serve.
    pub fn start(subject: &'a dyn Subject) -> Result<Self> {
        Self::start_by(subject, launch(subject)?)
    }

    /// As [`Stand::start`], with another way to start the daemon.
    ///
    /// # Errors
    /// As [`Stand::start`].
    pub fn start_by(subject: &'a dyn Subject, launch: Launch) -> Result<Self> {
        let daemon = launch.start().at("start the daemon")?;
        let mut stand = Self {
            subject,
            daemon,
            before: Stats::default(),
            hang_ups: Cell::new(0),
        };
        stand.serves_next().at("first client")?;
        stand.before = stand.settled()?;
        Ok(stand)
    }

    /// What a session of this device asks for by default.
    pub fn options(&self) -> Options {
        Options::usual(self.subject.queues())
    }

    /// A connection that has said nothing yet.
    ///
    /// # Errors
    /// When the daemon does not accept it.
    pub fn connect(&self) -> Result<Control> {
        Control::connect(self.daemon.socket()).at("connect")
    }

    /// A connection with features agreed on, and nothing else.
    ///
    /// # Errors
    /// When the negotiation fails.
    pub fn negotiated(&self) -> Result<Control> {
        let mut control = self.connect()?;
        negotiate(&mut control, &self.options())?;
        Ok(control)
    }

    /// A running session.
    ///
    /// # Errors
    /// When its set-up fails.
    pub fn session(&self) -> Result<Session> {
        self.session_with(&self.options())
    }

    /// A running session with other options.
    ///
    /// # Errors
    /// When its set-up fails.
    pub fn session_with(&self, options: &Options) -> Result<Session> {
        Session::open(self.daemon.socket(), options).at("open a session")
    }

    /// Makes one correct request and checks its answer.
    ///
    /// # Errors
    /// When it is not answered, or wrongly.
    pub fn probe(&self, session: &mut Session) -> Result<Answer> {
        self.exchange(session, &self.subject.probe(), &Framing::whole())
            .at("a correct request")
    }

    /// Makes a request in this framing, checks its answer, and gives its memory back.
    ///
    /// # Errors
    /// When it is not answered, or wrongly.
    pub fn exchange(
        &self,
        session: &mut Session,
        request: &Request,
        framing: &Framing,
    ) -> Result<Answer> {
        let mark = session.memory.mark();
        let pending = session.submit(request, framing)?;
        self.subject.stimulate(&self.daemon)?;
        let answer = session.finish(request.queue, &pending)?;
        self.subject.judge(request, &answer).at("answer")?;
        session.memory.rewind(&mark);
        Ok(answer)
    }

    /// Makes `count` correct requests available at once, with one kick if any is wanted. Their memory is not given back.
    ///
    /// # Errors
    /// When the ring has no room.
    pub fn load(&self, session: &mut Session, count: usize) -> Result<Vec<Pending>> {
        let request = self.subject.probe();
        let pending = (0..count)
            .map(|_| session.prepare(&request, &Framing::whole()))
            .collect::<Result<Vec<_>>>()?;
        session.rings[request.queue].submit()?;
        self.stimulate(count)?;
        Ok(pending)
    }

    /// As many correct requests as the probe's ring has room for, at most `most`.
    pub fn room(&self, session: &Session, most: usize) -> usize {
        let probe = self.subject.probe();
        let each = usize::from(!probe.readable.is_empty()) + usize::from(probe.writable > 0);
        (session.rings[probe.queue].room() / each.max(1)).min(most)
    }

    /// Emits `count` host events, for a device that needs them.
    ///
    /// # Errors
    /// When the simulated host cannot be reached.
    pub fn stimulate(&self, count: usize) -> Result<()> {
        (0..count).try_for_each(|_| self.subject.stimulate(&self.daemon))
    }

    /// Waits for loaded requests and checks their answers.
    ///
    /// # Errors
    /// When one is not answered, or wrongly.
    pub fn unload(&self, session: &mut Session, pending: &[Pending]) -> Result<()> {
        let request = self.subject.probe();
        let answers = session.finish_all(request.queue, pending)?;
        answers
            .iter()
            .try_for_each(|answer| self.subject.judge(&request, answer))
            .at("answer")
    }

    /// Notes that the daemon closed a connection, which it has to log.
    pub fn note_hang_up(&self) {
        self.hang_ups.set(self.hang_ups.get() + 1);
    }

    /// Sends a message that must not be accepted; what the daemon did instead.
    ///
    /// # Errors
    /// When the daemon accepts it, or does nothing.
    pub fn refused(
        &self,
        control: &Control,
        message: u32,
        body: &[u8],
        fds: &[RawFd],
    ) -> Result<Verdict> {
        let mut flags = flag::VERSION;
        if control.acknowledged && !request::is_question(message) {
            flags |= flag::NEED_REPLY;
        }
        let verdict = control.verdict(message, flags, body, fds);
        self.not_accepted(control, verdict.at(request::name(message))?)
            .at(request::name(message))
    }

    /// Fails if a message was accepted that must not be. An error reply may be followed by a hang-up.
    ///
    /// # Errors
    /// If so.
    pub fn not_accepted(&self, control: &Control, verdict: Verdict) -> Result<Verdict> {
        match verdict {
            Verdict::Accepted => fail!("accepted, but an error was due"),
            Verdict::Closed => {}
            Verdict::Refused(_) => match control.features() {
                Ok(_) => return Ok(verdict),
                Err(ControlError::Closed) => {}
                Err(error) => fail!("the message after an error: {error}"),
            },
        }
        self.note_hang_up();
        Ok(Verdict::Closed)
    }

    /// Connects anew, sets up everything and makes a correct request.
    ///
    /// # Errors
    /// When any of it fails.
    pub fn serves_next(&self) -> Result<()> {
        let mut session = self.session()?;
        self.probe(&mut session)?;
        Ok(())
    }

    /// After a message that may have ended the connection: the same session serves if it is alive, else the next one.
    ///
    /// # Errors
    /// When neither does.
    pub fn serves_after(&self, session: &mut Session, verdict: Verdict) -> Result<()> {
        if verdict == Verdict::Closed {
            return Ok(());
        }
        self.probe(session)
            .at("the same connection after an error")?;
        Ok(())
    }

    /// Time on a processor that the daemon spends within `window`.
    ///
    /// # Errors
    /// When the daemon is gone.
    pub fn busy_during(&self, window: Duration) -> Result<Duration> {
        let before = self.daemon.run_time()?;
        std::thread::sleep(window);
        Ok(self.daemon.run_time()?.saturating_sub(before))
    }

    /// Fails if the daemon spends more than one percent of a processor while nobody asks anything of it.
    ///
    /// # Errors
    /// If so, with the figure.
    pub fn is_quiet(&self) -> Result<()> {
        const WINDOW: Duration = Duration::from_millis(300);
        // The tail of earlier work may fall into the first window; a spinning thread spends all of them.
        let mut busy = Duration::ZERO;
        for _ in 0..3 {
            busy = self.busy_during(WINDOW)?;
            if busy * 100 <= WINDOW {
                return Ok(());
            }
        }
        fail!("{busy:?} of processor time within {WINDOW:?} of idleness")
    }

    /// The daemon's state once it no longer changes. All frontends must have left.
    ///
    /// # Errors
    /// When the daemon is gone.
    pub fn settled(&self) -> Result<Stats> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        let mut last = self.daemon.stats()?;
        let mut unchanged = 0;
        // A session that is still being torn down holds guest memory, then only descriptors for a moment.
        while Instant::now() < deadline && (unchanged < 3 || last.guest_mappings > 0) {
            std::thread::sleep(Duration::from_millis(10));
            let now = self.daemon.stats()?;
            let same = resources(&now) == resources(&last);
            unchanged = if same { unchanged + 1 } else { 0 };
            last = now;
        }
        Ok(last)
    }

    /// The daemon holds what it held before the case: descriptors, threads, mappings, and memory within the noise.
    ///
    /// # Errors
    /// When something is left over.
    pub fn leaked_nothing(&self) -> Result<()> {
        let before = resources(&self.before);
        let back = sys::wait_for(SETTLE_TIMEOUT, || {
            let now = self.daemon.stats().ok()?;
            (resources(&now) == before).then_some(now)
        });
        let Some(now) = back else {
            let now = self.daemon.stats()?;
            fail!(
                "left behind: (descriptors, threads, guest mappings) were {before:?}, now {:?}",
                resources(&now)
            );
        };
        self.grew_little(&now)
    }

    /// The daemon's own memory has not grown beyond the noise; frontends may be connected.
    ///
    /// # Errors
    /// When it has.
    pub fn leaked_no_memory(&self) -> Result<()> {
        self.grew_little(&self.daemon.stats()?)
    }

    fn grew_little(&self, now: &Stats) -> Result<()> {
        let growth = now.anonymous_kib.saturating_sub(self.before.anonymous_kib);
        ensure!(
            growth <= GROWTH_KIB,
            "memory grew by {growth} KiB, from {} to {} KiB",
            self.before.anonymous_kib,
            now.anonymous_kib
        );
        Ok(())
    }

    /// The closing checks of every case: alive, next client served, nothing left behind, no panic in the log, a clean exit.
    ///
    /// # Errors
    /// When one of them does not hold.
    pub fn close(mut self) -> Result<()> {
        self.daemon.check_alive()?;
        self.serves_next().at("next client after the case")?;
        self.leaked_nothing()?;
        let log = self.daemon.log();
        ensure!(
            !log.contains("panicked"),
            "the daemon's log tells of a panic"
        );
        ensure!(
            self.hang_ups.get() == 0 || !log.is_empty(),
            "connections were closed without a line in the log"
        );
        self.stop()
    }

    /// Ends the daemon, which must exit with code 0.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop(mut self) -> Result<()> {
        self.daemon.finish()
    }
}

fn resources(stats: &Stats) -> (usize, usize, usize) {
    (stats.descriptors, stats.threads, stats.guest_mappings)
}
