//! Load for benchmarks: a driver that costs little itself, and what the machine can do at best.
//!
//! Figures are for people and for ratios within one run; no test compares them with a number.

use std::io;
use std::ops::AddAssign;
use std::thread;
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

use crate::failure::Result;
use crate::framing::Framing;
use crate::process::Daemon;
use crate::session::{Pending, Request, Session};
use crate::{ensure, sys};

/// How long a chain may stay with the device before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests between two looks at the clock.
const STRIDE: u64 = 256;

/// How the driver learns of used chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Looks at the ring all the time and wants no interrupts.
    Polling,
    /// Sleeps until interrupted, as a guest does.
    Sleeping,
}

/// What is asked of the device.
#[derive(Debug, Clone)]
pub struct Load {
    /// The requests in flight, each made available again as soon as it is used.
    pub requests: Vec<Request>,
    /// How the driver waits.
    pub waiting: Waiting,
    /// How long to go on.
    pub duration: Duration,
}

impl Load {
    /// `depth` times the same request in flight, with a polling driver.
    pub fn new(request: &Request, depth: usize, duration: Duration) -> Self {
        Self {
            requests: vec![request.clone(); depth],
            waiting: Waiting::Polling,
            duration,
        }
    }

    /// The same with a driver that sleeps.
    #[must_use]
    pub fn sleeping(self) -> Self {
        Self {
            waiting: Waiting::Sleeping,
            ..self
        }
    }
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Requests answered.
    pub requests: u64,
    /// Bytes that the device said it wrote.
    pub bytes: u64,
    /// Wall time.
    pub elapsed: Duration,
    /// Processor time of the daemon.
    pub daemon: Duration,
    /// Times that a thread of the daemon went to sleep.
    pub sleeps: u64,
    /// Kicks that the device wanted.
    pub kicks: u64,
}

impl Figures {
    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// Bytes a second.
    pub fn byte_rate(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds of the daemon's processor time per request.
    pub fn cost(&self) -> f64 {
        self.daemon.as_secs_f64() * 1e6 / self.requests.max(1) as f64
    }

    /// Requests per kick.
    pub fn requests_per_kick(&self) -> f64 {
        self.requests as f64 / self.kicks.max(1) as f64
    }
}

impl AddAssign for Figures {
    fn add_assign(&mut self, more: Self) {
        self.requests += more.requests;
        self.bytes += more.bytes;
        self.elapsed += more.elapsed;
        self.daemon += more.daemon;
        self.sleeps += more.sleeps;
        self.kicks += more.kicks;
    }
}

/// Keeps all requests of `load` in flight on `queue` for its duration.
///
/// # Errors
/// When the device does not answer.
pub fn drive(session: &mut Session, daemon: &Daemon, queue: usize, load: &Load) -> Result<Figures> {
    let pending = place(session, load)?;
    let before = daemon.stats()?;
    let start = Instant::now();
    let mut figures = Figures::default();
    submit(session, queue, &mut figures)?;
    loop {
        let answered = reap(session, queue, load, &pending, &mut figures)?;
        if figures.requests % STRIDE < answered && start.elapsed() >= load.duration {
            break;
        }
    }
    figures.elapsed = start.elapsed();
    let after = daemon.stats()?;
    figures.daemon = after.run_time.saturating_sub(before.run_time);
    figures.sleeps = after.voluntary - before.voluntary;
    drain(session, queue, pending.len(), &mut figures.clone())?;
    Ok(figures)
}

fn place(session: &mut Session, load: &Load) -> Result<Vec<Pending>> {
    load.requests
        .iter()
        .map(|request| session.prepare(request, &Framing::whole()))
        .collect()
}

fn submit(session: &mut Session, queue: usize, figures: &mut Figures) -> io::Result<()> {
    if session.rings[queue].submit()? {
        figures.kicks += 1;
    }
    Ok(())
}

/// Takes back what was used and makes it available again; how many there were.
fn reap(
    session: &mut Session,
    queue: usize,
    load: &Load,
    pending: &[Pending],
    figures: &mut Figures,
) -> Result<u64> {
    let ring = &mut session.rings[queue];
    let first = match load.waiting {
        Waiting::Polling => {
            ring.disarm();
            ring.spin(PATIENCE)?
        }
        Waiting::Sleeping => ring.wait(PATIENCE)?,
    };
    let mut next = Some(first);
    let mut answered = 0;
    while let Some(used) = next {
        ensure!(
            pending.iter().any(|one| u32::from(one.head) == used.id),
            "unknown chain {} was used",
            used.id
        );
        figures.bytes += u64::from(used.len);
        answered += 1;
        ring.expose_again(used.id as u16);
        next = ring.pop();
    }
    figures.requests += answered;
    submit(session, queue, figures)?;
    Ok(answered)
}

fn drain(session: &mut Session, queue: usize, depth: usize, figures: &mut Figures) -> Result<()> {
    submit(session, queue, figures)?;
    for _ in 0..depth {
        session.rings[queue].watch(PATIENCE)?;
    }
    Ok(())
}

/// Durations of single events, sorted.
#[derive(Debug, Clone, Default)]
pub struct Spread(Vec<Duration>);

impl Spread {
    /// What is known of these.
    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// Of these as well.
    pub fn add(&mut self, mut more: Self) {
        self.0.append(&mut more.0);
        self.0.sort_unstable();
    }

    /// The duration that `percent` of the events do not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        let at = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or_default()
    }
}

/// The middle of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quartiles {
    /// A quarter is below.
    pub lower: f64,
    /// Half of them are below.
    pub median: f64,
    /// A quarter is above.
    pub upper: f64,
}

impl Quartiles {
    /// Of these.
    pub fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_unstable_by(f64::total_cmp);
        let at = |quarter: usize| {
            let place = figures.len().saturating_sub(1) * quarter;
            let [below, above] = [place / 4, place.div_ceil(4)]
                .map(|place| figures.get(place).copied().unwrap_or(f64::NAN));
            below + (above - below) * (place % 4) as f64 / 4.0
        };
        Self {
            lower: at(1),
            median: at(2),
            upper: at(3),
        }
    }

    /// From where to where the middle half lies, as tables have it.
    pub fn spread(&self) -> String {
        format!("{:.3} to {:.3}", self.lower, self.upper)
    }
}

/// Round trips of one request at a time, by a driver that sleeps in between.
///
/// # Errors
/// When the device does not answer.
pub fn round_trips(
    session: &mut Session,
    queue: usize,
    request: &Request,
    count: usize,
    waiting: Waiting,
) -> Result<Spread> {
    let pending = session.prepare(request, &Framing::whole())?;
    let mut times = Vec::with_capacity(count);
    for round in 0..count {
        let ring = &mut session.rings[queue];
        match waiting {
            Waiting::Polling => ring.disarm(),
            Waiting::Sleeping => ring.arm(),
        }
        let start = Instant::now();
        ring.submit()?;
        let used = match waiting {
            Waiting::Polling => ring.spin(PATIENCE)?,
            Waiting::Sleeping => ring.wait(PATIENCE)?,
        };
        times.push(start.elapsed());
        ensure!(
            used.id == u32::from(pending.head),
            "unknown chain {} was used",
            used.id
        );
        if round + 1 < count {
            ring.expose_again(used.id as u16);
        }
    }
    Ok(Spread::new(times))
}

/// Round trips between two threads that wake each other through eventfds and sleep in epoll or poll, as a guest and a
/// device do: the least that a round trip without polling can take.
///
/// # Errors
/// When descriptors or threads run out.
pub fn eventfd_round_trips(count: usize) -> io::Result<Spread> {
    let (there, back) = (EventFd::new(0)?, EventFd::new(0)?);
    let (their_there, their_back) = (there.try_clone()?, back.try_clone()?);
    let echo = thread::spawn(move || -> io::Result<()> {
        for _ in 0..count {
            sys::readable(&their_there, PATIENCE)?;
            their_there.read()?;
            their_back.write(1)?;
        }
        Ok(())
    });
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        there.write(1)?;
        sys::readable(&back, PATIENCE)?;
        back.read()?;
        times.push(start.elapsed());
    }
    echo.join()
        .map_err(|_| io::Error::other("the echoing thread panicked"))??;
    Ok(Spread::new(times))
}

/// What a daemon costs while nothing is asked of it.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    /// Times a second that one of its threads woke up.
    pub wakeups: f64,
    /// Threads.
    pub threads: usize,
    /// Resident memory in KiB, with what it has touched of guest memory.
    pub resident_kib: u64,
}

/// Watches a daemon that has nothing to do.
///
/// # Errors
/// When the daemon is gone.
pub fn idle(daemon: &Daemon, duration: Duration) -> Result<Idle> {
    // Whatever it was doing, it goes to sleep after it.
    thread::sleep(Duration::from_millis(100));
    let before = daemon.stats()?;
    thread::sleep(duration);
    let after = daemon.stats()?;
    Ok(Idle {
        wakeups: (after.voluntary - before.voluntary) as f64 / duration.as_secs_f64(),
        threads: after.threads,
        resident_kib: after.resident_kib,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_neighbours() {
        let quartiles = |figures: &[f64]| {
            let Quartiles {
                lower,
                median,
                upper,
            } = Quartiles::of(figures.to_vec());
            [lower, median, upper]
        };
        assert_eq!(quartiles(&[5.0, 1.0, 2.0, 4.0, 3.0]), [2.0, 3.0, 4.0]);
        assert_eq!(quartiles(&[2.0, 1.0]), [1.25, 1.5, 1.75]);
        assert_eq!(quartiles(&[7.0]), [7.0; 3]);
    }
}
