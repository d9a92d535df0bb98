//! The device and its worker.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost_device_core::{
    Device, GuestFault, HostError, Interest, Io, QueueIndex, QueueSpec, Ready, Request, Setup,
    Timer, Token, Worker,
};
use vm_memory::VolatileSlice;

use crate::config::{Config, Limit, Source};
use crate::host::{Entropy, FileSource, Kernel, Sim};
use crate::limit::Limiter;
use crate::pool::Pool;

const REQUESTS: QueueIndex = QueueIndex(0);

/// From this size on a request is filled in place; below it, copying from the pool is cheaper than a system call.
const DIRECT_BYTES: u64 = 1024;

/// Most bytes that one request gets, however large it is: a guest must not keep the thread busy with a single request.
const MAX_REQUEST_BYTES: u64 = 64 * 1024;

/// How long to wait for a source that has nothing now and cannot be watched.
const RETRY: Duration = Duration::from_millis(10);

const WAKE: Token = Token(0);
const SOURCE: Token = Token(1);

/// An opened source, from which each connection gets its own view.
#[derive(Debug)]
enum Opened {
    Kernel,
    File(FileSource),
    Sim(u64),
}

/// The entropy device.
#[derive(Debug)]
pub struct Rng {
    source: Opened,
    limit: Option<Limit>,
}

impl Rng {
    /// Opens the source.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(config: &Config) -> io::Result<Self> {
        let source = match &config.source {
            Source::Kernel => Opened::Kernel,
            Source::File(path) => Opened::File(FileSource::open(path)?),
            Source::Sim(seed) => Opened::Sim(*seed),
        };
        Ok(Self {
            source,
            limit: config.limit,
        })
    }

    fn entropy(&self) -> Box<dyn Entropy> {
        match &self.source {
            Opened::Kernel => Box::new(Kernel),
            Opened::File(file) => Box::new(file.clone()),
            Opened::Sim(seed) => Box::new(Sim::new(*seed)),
        }
    }
}

impl Device for Rng {
    type Worker = RngWorker;

    fn queues(&self) -> Vec<QueueSpec> {
        vec![QueueSpec::new()]
    }

    fn completes_in_order(&self) -> bool {
        true
    }

    /// A device file may take its time even when asked not to, and a file may lie on a network that is gone.
    fn may_block(&self) -> bool {
        matches!(self.source, Opened::File(_))
    }

    fn worker(self: &Arc<Self>, _: u16, setup: &mut Setup<'_>) -> Result<RngWorker, HostError> {
        let fail = |error| HostError::new("make a timer", error);
        let may_wait = self.limit.is_some() || matches!(self.source, Opened::File(_));
        let timer = if may_wait {
            Some(setup.reactor().timer(WAKE).map_err(fail)?)
        } else {
            None
        };
        Ok(RngWorker {
            source: self.entropy(),
            pool: Pool::new(),
            limiter: self.limit.map(Limiter::new),
            timer,
            watching: false,
            fallen_back: false,
        })
    }
}

/// Serves the request queue of one connection.
pub struct RngWorker {
    source: Box<dyn Entropy>,
    pool: Pool,
    limiter: Option<Limiter>,
    /// Fires when a request that waits can be served.
    timer: Option<Box<dyn Timer>>,
    /// The source is being watched because it had nothing.
    watching: bool,
    /// The source was replaced by the kernel's generator.
    fallen_back: bool,
}

/// Why requests are left in the ring for now.
enum Pause {
    /// The period's bytes are used up.
    Limit(Duration),
    /// The source has nothing.
    Source,
}

/// Why a request got nothing.
enum Unfilled {
    /// The source has nothing now.
    Empty,
    /// The buffer cannot be written: guest memory was truncated under us.
    Unmapped,
}

impl RngWorker {
    /// Serves requests until the ring is empty or something has to be waited for.
    fn pump(&mut self, io: &mut Io<'_>) {
        let pause = {
            let mut queue = io.queue(REQUESTS);
            loop {
                let allowed = match self.allowed() {
                    Ok(allowed) => allowed,
                    Err(wait) => break Some(Pause::Limit(wait)),
                };
                let Some(mut request) = queue.next() else {
                    break None;
                };
                if request.writable() == 0 {
                    request.fail(GuestFault::ShortAnswer);
                    continue;
                }
                match self.fill(&mut request, allowed) {
                    Ok(()) => request.finish(),
                    Err(Unfilled::Unmapped) => request.fail(GuestFault::Unmapped),
                    Err(Unfilled::Empty) => {
                        request.put_back();
                        break Some(Pause::Source);
                    }
                }
            }
        };
        match pause {
            None => {}
            Some(Pause::Limit(wait)) => self.sleep(wait),
            Some(Pause::Source) => self.await_source(io),
        }
    }

    /// Bytes that may be given now.
    fn allowed(&mut self) -> Result<u64, Duration> {
        match &mut self.limiter {
            None => Ok(MAX_REQUEST_BYTES),
            Some(limiter) => limiter
                .available(Instant::now())
                .map(|left| left.min(MAX_REQUEST_BYTES)),
        }
    }

    /// Gives a request as much as is allowed and there is, at least one byte.
    fn fill(&mut self, request: &mut Request<'_>, allowed: u64) -> Result<(), Unfilled> {
        loop {
            match self.transfer(request, allowed) {
                Ok(filled) if filled > 0 => {
                    if let Some(limiter) = &mut self.limiter {
                        limiter.spend(filled);
                    }
                    return Ok(());
                }
                Ok(_) => self.fall_back("has ended"),
                Err(error) => self.forgive(&error)?,
            }
        }
    }

    /// What an error of the source means: trying again, perhaps with the kernel's generator, or no bytes for now.
    fn forgive(&mut self, error: &io::Error) -> Result<(), Unfilled> {
        if error.kind() == io::ErrorKind::Interrupted {
            return Ok(());
        }
        if error.kind() == io::ErrorKind::WouldBlock {
            return Err(Unfilled::Empty);
        }
        // The kernel's generator fails for no other reason than the buffer.
        if error.raw_os_error() == Some(libc::EFAULT) || self.fallen_back {
            return Err(Unfilled::Unmapped);
        }
        self.fall_back(&format!("failed ({error})"));
        Ok(())
    }

    /// Moves bytes into the request. What was moved before an error counts.
    fn transfer(&mut self, request: &mut Request<'_>, allowed: u64) -> io::Result<u64> {
        let before = request.writable();
        let direct = before.min(allowed) >= DIRECT_BYTES;
        let (pool, source) = (&mut self.pool, self.source.as_mut());
        let fill = |piece: &VolatileSlice<'_>| {
            if direct {
                source.fill(piece)
            } else {
                pool.fill(piece, source)
            }
        };
        let result = request.fill_from(allowed, fill);
        match before - request.writable() {
            0 => result,
            filled => Ok(filled),
        }
    }

    /// The kernel's generator takes over from a source that is of no more use.
    fn fall_back(&mut self, why: &str) {
        log::warn!("the source {why}; random bytes come from the kernel from now on");
        self.source = Box::new(Kernel);
        self.fallen_back = true;
    }

    fn sleep(&mut self, wait: Duration) {
        if let Some(timer) = &mut self.timer {
            timer.arm(wait);
        }
    }

    /// Waits until the source has something: by watching it, or where that is not possible by trying again.
    fn await_source(&mut self, io: &mut Io<'_>) {
        let watched = self.source.descriptor().is_some_and(|descriptor| {
            io.reactor()
                .watch(descriptor, Interest::READABLE, SOURCE)
                .is_ok()
        });
        self.watching |= watched;
        if !self.watching {
            self.sleep(RETRY);
        }
    }

    fn stop_watching(&mut self, io: &mut Io<'_>) {
        if std::mem::take(&mut self.watching) {
            io.reactor().unwatch(SOURCE);
        }
    }
}

impl Worker for RngWorker {
    fn kick(&mut self, _: QueueIndex, io: &mut Io<'_>) {
        self.pump(io);
    }

    fn event(&mut self, _: Token, _: Ready, io: &mut Io<'_>) {
        self.stop_watching(io);
        self.pump(io);
    }

    fn quiesce(&mut self, _: QueueIndex, io: &mut Io<'_>) {
        self.stop_watching(io);
        if let Some(timer) = &mut self.timer {
            timer.disarm();
        }
    }
}
