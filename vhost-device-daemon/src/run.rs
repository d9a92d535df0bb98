//! The life of a daemon, stage by stage: parse, open, listen, confine, threads, filter, accept, serve, stop.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vhost_device_core::{Device, Interest, Ready};

use crate::app::App;
use crate::cli::{self, CommonArgs, Parsed, SocketPlan};
use crate::confine::Started;
use crate::engine::{self, Bell, EventLoop, Service, Session, Tag};
use crate::exit::{self, Exit, StartError};
use crate::metrics::{self, ControlSocket, Page, SocketMetrics};
use crate::notify::Watchdog;
use crate::signals::{Signal, Signals};
use crate::socket::{self, Endpoint};
use crate::{capabilities, check, confine, logging, notify};

/// Longest wait for sessions to end after a signal.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Pause after a failed accept: descriptors or memory have run out, and the listener stays readable.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The number of the signal descriptor among the main thread's own events; sockets follow.
const SIGNALS: u32 = 0;
/// The number of the control socket; its readers follow. Far above those of the sockets.
const CONTROL: u32 = 1 << 16;
const READERS: u32 = CONTROL + 1;

/// Runs a daemon from the process's command line to its exit code.
pub fn run<A: App>() -> ExitCode {
    run_from::<A>(std::env::args_os()).into()
}

/// Runs a daemon from the command line given, which starts with the program's name.
pub fn run_from<A: App>(argv: impl IntoIterator<Item = OsString>) -> Exit {
    match cli::parse::<A::Args>(A::NAME, A::VERSION, A::ABOUT, argv, A::sockets) {
        Err(exit) => exit,
        Ok(Parsed::PrintCapabilities) => capabilities::print(A::TYPE, A::CAPABILITIES),
        Ok(Parsed::Check { common, device }) => {
            logging::init(&common, A::NAME);
            check::run::<A>(&common, device)
        }
        Ok(Parsed::Serve { common, device }) => match serve::<A>(&common, device) {
            Ok(()) => Exit::Done,
            Err(error) => error.report(A::NAME),
        },
    }
}

fn serve<A: App>(common: &CommonArgs, args: A::Args) -> Result<(), StartError> {
    logging::init(common, A::NAME);
    let notified = notify::prepare();
    let signals = Signals::block().map_err(internal("block signals"))?;
    engine::install_sigbus_handler().map_err(internal("handle SIGBUS"))?;
    let plan = common.validate()?;
    let count = plan.count();
    let profile = A::profile(&args);
    let devices = A::open(args, count)?;
    let endpoints = socket::open_all(common, A::COMPAT)?;
    let control = common
        .control_path
        .as_deref()
        .map(socket::open_control)
        .transpose()?;
    let named = endpoints.iter().chain(&control);
    let folders: Vec<_> = named.flat_map(Endpoint::folders).collect();
    let started = Started {
        sockets: count,
        folders: &folders,
        managed: notified || matches!(plan, SocketPlan::Activated(_)),
    };
    let obtained = confine::confine(common, &profile, started)?;
    A::begin(&devices)?;
    let opened = Opened {
        identity: (A::NAME, A::VERSION),
        signals,
        devices,
        endpoints,
        control,
    };
    let mut main = Main::new(common, opened).map_err(internal("set up the event loop"))?;
    confine::filter(common, &profile, obtained)?;
    notify::ready();
    main.serve().map_err(internal("wait for events"))
}

fn internal(action: &'static str) -> impl Fn(io::Error) -> StartError {
    move |error| StartError::internal(format!("cannot {action}: {error}"))
}

/// What the stages before have made.
struct Opened<D> {
    /// Name and version.
    identity: (&'static str, &'static str),
    signals: Signals,
    devices: Vec<D>,
    endpoints: Vec<Endpoint>,
    /// Whoever connects is given the counters.
    control: Option<Endpoint>,
}

/// A socket, its device, and who is being served.
struct Slot<D: Device> {
    endpoint: Endpoint,
    device: Arc<D>,
    session: Option<Session<D>>,
    /// Connected while the frontend before it was just leaving.
    waiting: Option<UnixStream>,
    ended: Arc<Bell>,
    metrics: Arc<SocketMetrics>,
    /// Accept no frontend before this moment.
    paused: Option<Instant>,
    served: bool,
}

/// The main thread.
struct Main<D: Device> {
    events: Arc<EventLoop>,
    signals: Signals,
    slots: Vec<Slot<D>>,
    poll: Duration,
    once: bool,
    inline: bool,
    generation: u32,
    stopping: Option<Instant>,
    /// Name and version.
    identity: (&'static str, &'static str),
    control: Option<ControlSocket>,
    watchdog: Option<Watchdog>,
}

fn accept_tag(slot: usize) -> Tag {
    Tag::Own(1 + 2 * slot as u32)
}

fn ended_tag(slot: usize) -> Tag {
    Tag::Own(2 + 2 * slot as u32)
}

impl<D: Device> Main<D> {
    fn new(common: &CommonArgs, opened: Opened<D>) -> io::Result<Self> {
        let Opened {
            identity,
            signals,
            devices,
            endpoints,
            control,
        } = opened;
        let events = Arc::new(EventLoop::new()?);
        let watch = |descriptor: BorrowedFd<'_>, number| {
            events.add(descriptor.as_raw_fd(), Interest::READABLE, Tag::Own(number))
        };
        watch(signals.as_fd(), SIGNALS)?;
        let control = control.map(ControlSocket::new);
        if let Some(listener) = control.as_ref().and_then(ControlSocket::listener) {
            watch(listener, CONTROL)?;
        }
        let inline = endpoints.len() == 1 && devices.iter().all(Session::can_be_inline);
        let mut slots = Vec::with_capacity(endpoints.len());
        for (number, (endpoint, device)) in endpoints.into_iter().zip(devices).enumerate() {
            slots.push(Slot::new(&events, number, endpoint, device)?);
        }
        Ok(Self {
            events,
            signals,
            slots,
            poll: common.poll(),
            once: common.once,
            inline,
            generation: 0,
            stopping: None,
            identity,
            control,
            watchdog: Watchdog::from_environment(),
        })
    }

    /// Accepts and serves until a signal arrives or nobody can connect any more.
    fn serve(&mut self) -> io::Result<()> {
        for slot in &self.slots {
            log::info!("listening on {}", slot.endpoint);
        }
        // An endpoint that is a connection already is not announced by an event.
        for number in 0..self.slots.len() {
            self.accept(number);
        }
        let mut ready = Vec::new();
        let mut more = false;
        while !self.is_done() {
            let timeout = self.timeout(more);
            self.events
                .wait(timeout, |tag, what| ready.push((tag, what)))?;
            if !more && let Some(station) = self.station() {
                station.woke();
            }
            for (tag, what) in ready.drain(..) {
                self.dispatch(tag, what);
            }
            self.resume_accepting();
            if let Some(watchdog) = &mut self.watchdog {
                watchdog.keep(Instant::now());
            }
            more = self.station().is_some_and(|station| station.settle());
        }
        Ok(())
    }

    /// How long to sleep: without end, unless work is left, accepting pauses, the service manager wants signs of life, or the
    /// process is stopping.
    fn timeout(&self, more: bool) -> Option<Duration> {
        if more {
            return Some(Duration::ZERO);
        }
        let pauses = self.slots.iter().filter_map(|slot| slot.paused);
        let sign = self.watchdog.as_ref().map(Watchdog::next);
        let until = self.stopping.into_iter().chain(pauses).chain(sign).min()?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    fn is_done(&self) -> bool {
        let idle = self.slots.iter().all(|slot| slot.session.is_none());
        match self.stopping {
            Some(deadline) => idle || Instant::now() >= deadline,
            None => idle && self.slots.iter().all(|slot| slot.is_finished(self.once)),
        }
    }

    fn dispatch(&mut self, tag: Tag, ready: Ready) {
        match tag {
            Tag::Own(SIGNALS) => self.signal(),
            Tag::Own(CONTROL) => self.accept_reader(),
            Tag::Own(number @ READERS..) => self.resume_reader(number),
            Tag::Own(number) => {
                let slot = (number as usize - 1) / 2;
                if tag == accept_tag(slot) {
                    self.accept(slot);
                } else {
                    self.ended(slot);
                }
            }
            queues => {
                if let Some(station) = self.station()
                    && queues.generation() == Some(station.generation())
                {
                    station.handle(queues, ready);
                }
            }
        }
    }

    /// The queues served by this thread, if there are any.
    fn station(&mut self) -> Option<&mut engine::Station<D>> {
        if !self.inline {
            return None;
        }
        self.slots.first_mut()?.session.as_mut()?.station()
    }

    fn signal(&mut self) {
        while let Some(signal) = self.signals.take() {
            if signal == Signal::Report {
                self.slots.iter().for_each(|slot| slot.metrics.log());
                continue;
            }
            if signal == Signal::Interrupt && self.stopping.is_some() {
                // Whoever presses Ctrl-C a second time does not want to wait for an orderly end.
                exit::interrupted();
            }
            log::info!("{signal:?}: stopping");
            notify::stopping();
            self.stopping
                .get_or_insert_with(|| Instant::now() + STOP_GRACE);
            for slot in &mut self.slots {
                slot.waiting = None;
                if let Some(session) = &slot.session {
                    session.hang_up();
                }
            }
        }
    }

    /// Takes a new frontend: to serve it, to let it wait for one that is leaving, or to turn it away.
    fn accept(&mut self, number: usize) {
        let stopping = self.stopping.is_some();
        let Some(slot) = self.slots.get_mut(number) else {
            return;
        };
        if stopping || slot.waiting.is_some() {
            return slot.set_listening(&self.events, number, false);
        }
        match slot.endpoint.accept() {
            Ok(None) => {}
            Ok(Some(stream)) => self.admit(number, stream),
            Err(error) => {
                log::warn!("cannot accept a frontend on {}: {error}", slot.endpoint);
                slot.paused = Some(Instant::now() + ACCEPT_PAUSE);
                slot.set_listening(&self.events, number, false);
            }
        }
    }

    fn admit(&mut self, number: usize, stream: UnixStream) {
        let Some(slot) = self.slots.get_mut(number) else {
            return;
        };
        match &slot.session {
            None if self.once && slot.served => {}
            None => self.start(number, stream),
            Some(session) if session.is_ending() || session.is_over() => {
                slot.waiting = Some(stream);
            }
            Some(_) => {
                metrics::count(&slot.metrics.turned_away);
                log::warn!(
                    "{}: a second frontend was turned away; the device is in use",
                    slot.endpoint
                );
            }
        }
    }

    fn start(&mut self, number: usize, stream: UnixStream) {
        self.generation = self.generation.wrapping_add(1) & 0x00ff_ffff;
        let Some(slot) = self.slots.get_mut(number) else {
            return;
        };
        let service = Service {
            poll: self.poll,
            inline: self.inline.then_some(&self.events),
            generation: self.generation,
            metrics: Arc::clone(&slot.metrics),
            ended: Arc::clone(&slot.ended),
        };
        slot.served = true;
        match Session::start(stream, &slot.device, service) {
            Ok(session) => {
                log::info!("{}: a frontend connected", slot.endpoint);
                metrics::count(&slot.metrics.frontends);
                slot.metrics.connected.store(true, Ordering::Relaxed);
                slot.session = Some(session);
            }
            Err(error) => log::error!("{}: cannot serve a frontend: {error}", slot.endpoint),
        }
    }

    /// A control thread is done: clean up, and serve whoever waits.
    fn ended(&mut self, number: usize) {
        let Some(slot) = self.slots.get_mut(number) else {
            return;
        };
        slot.session = None;
        slot.metrics.connected.store(false, Ordering::Relaxed);
        let Some(stream) = slot.waiting.take() else {
            return;
        };
        slot.set_listening(&self.events, number, true);
        if self.once {
            return;
        }
        self.start(number, stream);
    }

    /// Somebody wants the counters.
    fn accept_reader(&mut self) {
        let Some(control) = &mut self.control else {
            return;
        };
        let sockets: Vec<_> = self.slots.iter().map(|slot| &*slot.metrics).collect();
        let (name, version) = self.identity;
        let watched = control
            .accept(|| Page::of(name, version, &sockets))
            .and_then(|rest| match rest {
                Some((place, descriptor)) => {
                    let tag = Tag::Own(READERS + place as u32);
                    self.events.add(descriptor, Interest::WRITABLE, tag)
                }
                None => Ok(()),
            });
        if let Err(error) = watched {
            log::warn!("cannot give the counters: {error}");
        }
    }

    fn resume_reader(&mut self, number: u32) {
        if let Some(control) = &mut self.control {
            control.resume((number - READERS) as usize);
        }
    }

    fn resume_accepting(&mut self) {
        let now = Instant::now();
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if slot.paused.is_some_and(|until| until <= now) {
                slot.paused = None;
                slot.set_listening(&self.events, number, true);
            }
        }
    }
}

impl<D: Device> Slot<D> {
    fn new(
        events: &Arc<EventLoop>,
        number: usize,
        endpoint: Endpoint,
        device: D,
    ) -> io::Result<Self> {
        let ended = Arc::new(Bell::new(events, ended_tag(number))?);
        if let Some(listener) = endpoint.listener() {
            events.add(listener.as_raw_fd(), Interest::READABLE, accept_tag(number))?;
        }
        let label = endpoint.to_string();
        Ok(Self {
            metrics: Arc::new(SocketMetrics::new(label, device.queues().len())),
            endpoint,
            device: Arc::new(device),
            session: None,
            waiting: None,
            ended,
            paused: None,
            served: false,
        })
    }

    /// Whether no frontend will be served after the present one.
    fn is_finished(&self, once: bool) -> bool {
        self.endpoint.is_exhausted() || (once && self.served)
    }

    /// Listens or pauses; the backlog keeps those who connect meanwhile.
    fn set_listening(&self, events: &EventLoop, number: usize, on: bool) {
        let Some(listener) = self.endpoint.listener() else {
            return;
        };
        let interest = if on {
            Interest::READABLE
        } else {
            Interest::NONE
        };
        if let Err(error) = events.modify(listener.as_raw_fd(), interest, accept_tag(number)) {
            log::error!("{}: cannot change what is watched: {error}", self.endpoint);
        }
    }
}
