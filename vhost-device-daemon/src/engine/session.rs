//! One connection: the thread that reads its control messages, and how it ends.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use vhost::vhost_user::{BackendReqHandler, Error};
use vhost_device_core::{Device, Interest};

use super::bell::Bell;
use super::crew::{Crew, workers};
use super::glance::Glance;
use super::handler::Handler;
use super::message::{self, Peeked};
use super::reactor::EventLoop;
use super::station::{Plan, Station};
use crate::metrics::{self, SocketMetrics};

/// Ends a connection from any thread.
#[derive(Clone)]
pub struct Hangup(Arc<UnixStream>);

impl Hangup {
    /// Shuts the socket down; the control thread sees the end and tears the session down.
    pub fn now(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }

    /// Whether the other end is gone already, so that this session is about to end by itself.
    fn peer_is_gone(&self) -> bool {
        Glance::at(&self.0, Interest::READABLE).is_ok_and(|glance| {
            let seen = glance.look();
            seen.hangup || seen.error
        })
    }
}

/// A frontend being served.
pub struct Session<D: Device> {
    hangup: Hangup,
    control: Option<JoinHandle<()>>,
    /// The queues, if the caller's own thread serves them.
    station: Option<Station<D>>,
}

/// How sessions are served.
pub struct Service<'a> {
    /// Longest busy-poll.
    pub poll: Duration,
    /// Where the caller serves the queues itself, if it does.
    pub inline: Option<&'a Arc<EventLoop>>,
    /// Distinguishes this session's events from those of earlier ones.
    pub generation: u32,
    /// Where what happens is counted.
    pub metrics: Arc<SocketMetrics>,
    /// Rung when the session is over.
    pub ended: Arc<Bell>,
}

impl<D: Device> Session<D> {
    /// Whether a device's queues can be served on the caller's thread: there is one worker, and it never waits.
    pub fn can_be_inline(device: &D) -> bool {
        workers(device) <= 1 && !device.may_block()
    }

    /// Begins to serve a connection, which must be in blocking mode.
    ///
    /// # Errors
    /// If descriptors or threads run out.
    pub fn start(stream: UnixStream, device: &Arc<D>, service: Service<'_>) -> io::Result<Self> {
        let connection = Arc::new(OwnedFd::from(stream.try_clone()?));
        let hangup = Hangup(Arc::new(stream.try_clone()?));
        let plan = Plan {
            device: Arc::clone(device),
            worker: 0,
            poll: service.poll,
            hangup: hangup.clone(),
        };
        let (crew, station) = match service.inline {
            Some(events) => {
                let station = Station::new(plan.clone(), service.generation, events)?;
                let mailbox = Arc::clone(station.mailbox());
                (Crew::inline(plan, mailbox), Some(station))
            }
            None => (Crew::threads(plan), None),
        };
        let metrics = service.metrics;
        let handler = Handler::new(Arc::clone(device), crew, connection, Arc::clone(&metrics));
        let ended = service.ended;
        let control = std::thread::Builder::new()
            .name("control".into())
            .stack_size(CONTROL_STACK)
            .spawn(move || {
                let _told = TellOnDrop(ended);
                control(stream, handler, &metrics);
            })?;
        Ok(Self {
            hangup,
            control: Some(control),
            station,
        })
    }

    /// The queues, if the caller serves them.
    pub fn station(&mut self) -> Option<&mut Station<D>> {
        self.station.as_mut()
    }

    /// Asks the session to end.
    pub fn hang_up(&self) {
        self.hangup.now();
    }

    /// Whether the frontend has left, so that the session is about to end by itself.
    pub fn is_ending(&self) -> bool {
        self.hangup.peer_is_gone()
    }

    /// Whether the control thread is done.
    pub fn is_over(&self) -> bool {
        self.control.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl<D: Device> Drop for Session<D> {
    fn drop(&mut self) {
        self.hangup.now();
        // An inline station that nobody serves any more must not keep the control thread waiting.
        self.station = None;
        if let Some(control) = self.control.take() {
            let _ = control.join();
        }
    }
}

/// The control thread handles one small message at a time.
const CONTROL_STACK: usize = 256 * 1024;

/// Tells the main thread that the control thread is done, however it ends.
struct TellOnDrop(Arc<Bell>);

impl Drop for TellOnDrop {
    fn drop(&mut self) {
        self.0.ring();
    }
}

/// Makes sure that the queues are drained however the control thread ends.
struct Ending<D: Device>(Arc<Mutex<Handler<D>>>);

impl<D: Device> Drop for Ending<D> {
    fn drop(&mut self) {
        lock(&self.0).end();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn control<D: Device>(stream: UnixStream, handler: Handler<D>, metrics: &SocketMetrics) {
    let handler = Arc::new(Mutex::new(handler));
    let ending = Ending(Arc::clone(&handler));
    let Ok(own) = stream.try_clone() else {
        log::error!("out of descriptors; closing the connection");
        return;
    };
    let mut requests = BackendReqHandler::from_stream(own, handler);
    loop {
        let peeked = message::peek(&stream);
        if !peeked.is_acceptable() {
            log::warn!("closing the connection: {peeked}: too many descriptors");
            break;
        }
        let Err(error) = requests.handle_request() else {
            continue;
        };
        if !matches!(error, Error::Disconnected | Error::SocketBroken(_)) {
            metrics::count(&metrics.refused_messages);
        }
        if !survives(&error, &peeked, &ending.0) {
            report(&error, &peeked);
            break;
        }
        log::warn!("{peeked} refused: {error}");
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// Whether the connection can go on: the whole message was read, nothing was changed, and the frontend was told.
fn survives<D: Device>(error: &Error, peeked: &Peeked, handler: &Mutex<Handler<D>>) -> bool {
    let mut handler = lock(handler);
    let refused = handler.take_refused();
    refused
        && peeked.needs_reply()
        && handler.acknowledges()
        && !matches!(error, Error::SocketBroken(_) | Error::SocketError(_))
}

fn report(error: &Error, peeked: &Peeked) {
    match error {
        Error::Disconnected => log::info!("the frontend left"),
        Error::SocketBroken(error) => log::info!("the frontend left: {error}"),
        error => log::warn!("closing the connection: {peeked}: {error}"),
    }
}
