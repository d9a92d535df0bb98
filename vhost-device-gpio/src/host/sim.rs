//! A simulated chip: lines that a guest drives and senses, wires between them, and an outside that pulls inputs.
//!
//! It lives as long as the process. A line is an input unless a guest makes it an output; nothing pulls it at first.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vhost_device_core::{HostError, Reactor, Ready, Token, Waker, pause};

use super::control::{Control, Watcher};
use super::{Chip, error};
use crate::config::SimSpec;
use crate::line::{Direction, Edge, Edges, Line};

const EVENTS: Token = Token(0);

/// A simulated chip.
#[derive(Debug)]
pub struct Sim {
    bank: Arc<Bank>,
    /// Removes its socket when dropped.
    control: Option<Control>,
}

impl Sim {
    /// Makes the chip, and its control socket if it has one.
    ///
    /// # Errors
    /// If the control socket cannot be made.
    pub fn open(spec: &SimSpec) -> io::Result<Self> {
        let bank = Arc::new(Bank::new(spec));
        let control = match &spec.control {
            Some(path) => Some(Control::open(path)?),
            None => None,
        };
        Ok(Self { bank, control })
    }

    /// Starts to serve the control socket, if there is one.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn begin(&self) -> io::Result<()> {
        match &self.control {
            Some(control) => control.begin(&self.bank),
            None => Ok(()),
        }
    }

    /// The lines.
    pub fn bank(&self) -> &Bank {
        &self.bank
    }

    /// Whether each access takes its time.
    pub fn is_slow(&self) -> bool {
        !self.bank.delay.is_zero()
    }

    /// The chip for one connection.
    ///
    /// # Errors
    /// If descriptors run out.
    pub fn chip(&self, reactor: &mut dyn Reactor) -> Result<SimChip, HostError> {
        let waker = reactor
            .waker(EVENTS)
            .map_err(|error| HostError::new("make a waker for the simulated chip", error))?;
        let mut state = self.bank.state();
        state.listener = Some(waker);
        state.connection += 1;
        Ok(SimChip {
            bank: Arc::clone(&self.bank),
            connection: state.connection,
        })
    }
}

/// The lines, shared by a connection and the outside.
#[derive(Debug)]
pub struct Bank {
    /// The values that lines have now; changed only under the lock, so that values and edges agree.
    values: Box<[AtomicBool]>,
    /// The chip is not there.
    unplugged: AtomicBool,
    names: Vec<String>,
    delay: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lines: Vec<Wiring>,
    /// Lines with edges that the connection has not been told of.
    dirty: Vec<Line>,
    /// The connection that uses the chip now; one whose thread was given up may still be around.
    connection: u64,
    listener: Option<Waker>,
    watchers: Vec<Watcher>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}

/// What decides the value of one line.
#[derive(Clone, Debug, Default)]
struct Wiring {
    is_output: bool,
    /// What the guest drives it to, as an output.
    driven: bool,
    /// What the outside pulls it to, as an input.
    pulled: bool,
    /// The line at the other end of a wire that drives this one.
    source: Option<Line>,
    /// Lines at the other ends of wires that this one drives.
    sinks: Vec<Line>,
    detected: Edges,
    seen: Edges,
    /// Whether the line is among the dirty ones.
    queued: bool,
}

impl Bank {
    fn new(spec: &SimSpec) -> Self {
        let count = usize::from(spec.lines);
        let mut lines = vec![Wiring::default(); count];
        for (output, input) in &spec.wires {
            if let Some(line) = lines.get_mut(usize::from(*output)) {
                line.sinks.push(Line(*input));
            }
            if let Some(line) = lines.get_mut(usize::from(*input)) {
                line.source = Some(Line(*output));
            }
        }
        let mut names = spec.names.clone();
        names.resize(count, String::new());
        Self {
            values: (0..count).map(|_| AtomicBool::new(false)).collect(),
            unplugged: AtomicBool::new(false),
            names,
            delay: spec.delay,
            state: Mutex::new(State {
                lines,
                ..State::default()
            }),
        }
    }

    /// How many lines there are.
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// The lines' names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The value of a line.
    ///
    /// # Errors
    /// If the chip is unplugged.
    pub fn value(&self, line: Line) -> io::Result<bool> {
        self.check()?;
        let value = self.values.get(line.position());
        value
            .map(|value| value.load(Ordering::Acquire))
            .ok_or_else(|| error(libc::EINVAL))
    }

    /// Whether a line is an output.
    ///
    /// # Errors
    /// If the chip is unplugged.
    pub fn is_output(&self, line: Line) -> io::Result<bool> {
        self.check()?;
        Ok(self.state().line(line)?.is_output)
    }

    /// Which edges of a line somebody waits for.
    ///
    /// # Errors
    /// If there is no such line.
    pub fn detected(&self, line: Line) -> io::Result<Edges> {
        Ok(self.state().line(line)?.detected)
    }

    /// The outside pulls a line. It has that value whenever it is an input and no wire drives it.
    ///
    /// # Errors
    /// If there is no such line.
    pub fn pull(&self, line: Line, value: bool) -> io::Result<()> {
        self.change(line, |wiring| wiring.pulled = value)
    }

    /// Takes the chip away, or puts it back. Whoever uses it gets ENODEV meanwhile, as from a real one.
    pub fn unplug(&self, unplugged: bool) {
        self.unplugged.store(unplugged, Ordering::Release);
    }

    /// Tells `watcher` of all changes from now on, each once however often its client asks for that. `answer` tells the
    /// client so first; no change can come in between.
    ///
    /// # Errors
    /// Those of `answer`; the watcher is not told of anything then.
    pub fn watch(
        &self,
        watcher: Watcher,
        answer: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.state();
        answer()?;
        let is_same = |known: &Watcher| known.client() == watcher.client();
        if !state.watchers.iter().any(is_same) {
            state.watchers.push(watcher);
        }
        Ok(())
    }

    /// Forgets a watcher.
    pub fn unwatch(&self, client: u64) {
        self.state()
            .watchers
            .retain(|watcher| watcher.client() != client);
    }

    fn check(&self) -> io::Result<()> {
        if self.unplugged.load(Ordering::Acquire) {
            return Err(error(libc::ENODEV));
        }
        Ok(())
    }

    /// A panic while the lock was held leaves lines that can be used: every change is a single assignment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, line: Line, change: impl FnOnce(&mut Wiring)) -> io::Result<()> {
        let mut state = self.state();
        change(state.line(line)?);
        self.settle(&mut state, line);
        let sinks = state.line(line)?.sinks.clone();
        for sink in sinks {
            self.settle(&mut state, sink);
        }
        Ok(())
    }

    /// Gives a line the value it must have now, and tells whoever waits for that.
    fn settle(&self, state: &mut State, line: Line) {
        let (Some(new), Some(value)) = (state.value(line), self.values.get(line.position())) else {
            return;
        };
        if value.swap(new, Ordering::AcqRel) != new {
            state.changed(line, new);
        }
    }
}

impl State {
    fn line(&mut self, line: Line) -> io::Result<&mut Wiring> {
        self.lines
            .get_mut(line.position())
            .ok_or_else(|| error(libc::EINVAL))
    }

    fn value(&self, line: Line) -> Option<bool> {
        let wiring = self.lines.get(line.position())?;
        if wiring.is_output {
            return Some(wiring.driven);
        }
        let source = wiring
            .source
            .and_then(|source| self.lines.get(source.position()))
            .filter(|source| source.is_output);
        Some(source.map_or(wiring.pulled, |source| source.driven))
    }

    fn changed(&mut self, line: Line, value: bool) {
        let edge = if value { Edge::Rising } else { Edge::Falling };
        if let Some(wiring) = self.lines.get_mut(line.position())
            && wiring.detected.contains(edge)
        {
            if !std::mem::replace(&mut wiring.queued, true) {
                self.dirty.push(line);
            }
            wiring.seen.insert(edge);
            if let Some(listener) = &self.listener {
                listener.wake();
            }
        }
        self.watchers
            .retain_mut(|watcher| watcher.tell(line, value));
    }
}

/// A connection's use of a simulated chip.
#[derive(Debug)]
pub struct SimChip {
    bank: Arc<Bank>,
    connection: u64,
}

impl SimChip {
    fn access(&self) -> io::Result<()> {
        take(self.bank.delay);
        self.bank.check()
    }

    fn let_go(&self, line: Line) {
        // A line that is not there has nothing to let go.
        let _ = self.bank.change(line, |wiring| {
            wiring.is_output = false;
            wiring.driven = false;
            wiring.detected = Edges::NONE;
            wiring.seen = Edges::NONE;
        });
    }
}

/// A sleep takes at least this long, however short it is meant to be.
const SHORTEST_SLEEP: Duration = Duration::from_micros(100);

/// Lets time pass.
fn take(delay: Duration) {
    if delay >= SHORTEST_SLEEP {
        return pause(delay);
    }
    if !delay.is_zero() {
        let begin = Instant::now();
        while begin.elapsed() < delay {
            std::hint::spin_loop();
        }
    }
}

impl Chip for SimChip {
    fn direction(&mut self, line: Line) -> io::Result<Direction> {
        self.access()?;
        Ok(if self.bank.is_output(line)? {
            Direction::Out
        } else {
            Direction::In
        })
    }

    fn set_input(&mut self, line: Line) -> io::Result<()> {
        self.access()?;
        self.bank.change(line, |wiring| wiring.is_output = false)
    }

    fn set_output(&mut self, line: Line, value: bool) -> io::Result<()> {
        self.access()?;
        self.bank.change(line, |wiring| {
            wiring.is_output = true;
            wiring.driven = value;
        })
    }

    fn release(&mut self, line: Line, _: &mut dyn Reactor) {
        self.let_go(line);
    }

    fn value(&mut self, line: Line) -> io::Result<bool> {
        take(self.bank.delay);
        self.bank.value(line)
    }

    fn set_value(&mut self, line: Line, value: bool) -> io::Result<()> {
        self.access()?;
        self.bank.change(line, |wiring| wiring.driven = value)
    }

    fn detect(&mut self, line: Line, edges: Edges, _: &mut dyn Reactor) -> io::Result<()> {
        self.access()?;
        let mut state = self.bank.state();
        let wiring = state.line(line)?;
        wiring.detected = edges;
        wiring.seen = Edges::NONE;
        Ok(())
    }

    fn events(
        &mut self,
        _: Token,
        _: Ready,
        _: &mut dyn Reactor,
        seen: &mut dyn FnMut(Line, Edge),
    ) {
        let mut state = self.bank.state();
        let mut dirty = std::mem::take(&mut state.dirty);
        for line in dirty.drain(..) {
            if let Ok(wiring) = state.line(line) {
                wiring.queued = false;
                let edges = std::mem::take(&mut wiring.seen);
                edges.iter().for_each(|edge| seen(line, edge));
            }
        }
        // keeps its room
        state.dirty = dirty;
    }
}

impl Drop for SimChip {
    fn drop(&mut self) {
        if self.bank.state().connection != self.connection {
            return;
        }
        for position in 0..self.bank.values.len() {
            if let Ok(line) = u16::try_from(position) {
                self.let_go(Line(line));
            }
        }
        self.bank.state().listener = None;
    }
}
