//! Threads that wait for the host, so that nobody else has to.
//!
//! There is one for each thing of the host, such as an IIO device, not one for each request: what is stuck there keeps only
//! its own places waiting. Whoever asks for the same place before its reading has begun gets the same reading.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use vhost_device_core::Waker;
use vhost_device_core::limit::{self, Limiter};

use crate::protocol::{Hosts, Operation, Slot, Wait};
use crate::quantity::Values;
use crate::wire::Status;

/// One place where numbers are read, and perhaps written.
pub trait Place: Send {
    /// Reads the numbers.
    fn read(&mut self) -> io::Result<Values>;

    /// Writes numbers.
    fn write(&mut self, values: &Values) -> io::Result<()> {
        let _ = values;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Nobody reads or writes any more for now: puts back what was there before.
    fn restore(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a thread does next.
#[derive(Clone, Copy)]
enum Task {
    /// What somebody asked for.
    Asked(Operation),
    /// Putting back what was there before.
    Restore,
}

/// How an operation ended, and its number.
type Outcome = (u64, Result<Values, Status>);

#[derive(Debug)]
struct Desk {
    /// What is to be done next.
    asked: Option<Operation>,
    /// The number of the operation that was begun last.
    begun: u64,
    /// Something was done that is to be taken back when nobody is there any more.
    is_changed: bool,
    /// Nobody is there any more.
    is_left: bool,
    read: Outcome,
    written: Outcome,
}

impl Desk {
    fn new() -> Self {
        let nothing = (0, Err(Status::HardwareError));
        Self {
            asked: None,
            begun: 0,
            is_changed: false,
            is_left: false,
            read: nothing,
            written: nothing,
        }
    }

    /// Begins what is to be done next.
    fn begin(&mut self) -> Option<(Task, u64)> {
        let task = if std::mem::take(&mut self.is_left) {
            Task::Restore
        } else {
            let operation = self.asked.take()?;
            self.is_changed = true;
            Task::Asked(operation)
        };
        self.begun += 1;
        Some((task, self.begun))
    }
}

#[derive(Default)]
struct State {
    desks: Vec<Desk>,
    /// Since when the operation that is under way is.
    busy_since: Option<Instant>,
    /// Who is told of ends, and the number of its connection.
    listener: Option<(u64, Waker)>,
    connections: u64,
    is_over: bool,
}

impl State {
    /// Nobody is there any more: nothing more is to be done, and what was done is to be taken back.
    fn leave(&mut self) {
        for desk in &mut self.desks {
            desk.asked = None;
            desk.is_left = desk.is_changed;
        }
    }

    fn is_changed(&self) -> bool {
        self.desks.iter().any(|desk| desk.is_changed)
    }
}

/// How long the end of the process waits for the host to be as it was.
const LAST_PATIENCE: Duration = Duration::from_millis(100);

/// Has the threads of all helpers end, and gives them the time to leave the host as it was.
pub fn end(helpers: &[Arc<Helper>]) {
    for helper in helpers {
        helper.end();
    }
    let deadline = Instant::now() + LAST_PATIENCE;
    for helper in helpers {
        helper.wait_for_end(deadline.saturating_duration_since(Instant::now()));
    }
}

/// A thread of its own for a thing of the host.
pub struct Helper {
    name: String,
    state: Mutex<State>,
    wanted: Condvar,
    /// Something was taken back.
    restored: Condvar,
    /// What the thread works on; nobody else has it.
    places: Mutex<Vec<Box<dyn Place>>>,
    is_started: Mutex<bool>,
}

impl Helper {
    /// A helper for these places of the thing called `name`. Its thread is not there yet: none may be before the process has
    /// confined itself.
    pub fn new(name: &str, places: Vec<Box<dyn Place>>) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            state: Mutex::new(State {
                desks: places.iter().map(|_| Desk::new()).collect(),
                ..State::default()
            }),
            wanted: Condvar::new(),
            restored: Condvar::new(),
            places: Mutex::new(places),
            is_started: Mutex::new(false),
        })
    }

    /// Starts the thread, if it was not started yet.
    ///
    /// # Errors
    /// If there can be no more threads; it can be tried again.
    pub fn begin(self: &Arc<Self>) -> io::Result<()> {
        let mut is_started = self
            .is_started
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *is_started {
            return Ok(());
        }
        let helper = Arc::clone(self);
        thread::Builder::new()
            .name("host".into())
            .spawn(move || helper.run())?;
        *is_started = true;
        Ok(())
    }

    /// Has the thread end, when the host lets it. What was done is taken back before.
    fn end(&self) {
        let mut state = self.state();
        state.is_over = true;
        state.leave();
        self.wanted.notify_one();
    }

    /// Waits until what was done is taken back, but not for longer than `patience`.
    fn wait_for_end(&self, patience: Duration) {
        // Whether it was in time changes nothing any more.
        drop(
            self.restored
                .wait_timeout_while(self.state(), patience, |state| state.is_changed()),
        );
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = 0;
        while let Some((place, task, number)) = self.take(next) {
            next = place + 1;
            let result = match places.get_mut(place) {
                Some(place) => carry_out(place.as_mut(), &task),
                None => Err(io::ErrorKind::NotFound.into()),
            };
            let result = result.map_err(|error| failed(&self.name, &error));
            self.put(place, &task, (number, result));
        }
    }

    /// Waits for something to do, and begins it. The places have their turns, from `first` on.
    fn take(&self, first: usize) -> Option<(usize, Task, u64)> {
        let mut state = self.state();
        loop {
            if state.is_over && !state.is_changed() {
                return None;
            }
            let places = state.desks.len().max(1);
            for place in (0..places).map(|offset| (first + offset) % places) {
                if let Some((task, number)) = state.desks.get_mut(place).and_then(Desk::begin) {
                    state.busy_since = Some(Instant::now());
                    return Some((place, task, number));
                }
            }
            state = self
                .wanted
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn put(&self, place: usize, task: &Task, outcome: Outcome) {
        let mut state = self.state();
        state.busy_since = None;
        if let Some(desk) = state.desks.get_mut(place) {
            match task {
                Task::Asked(Operation::Read) => desk.read = outcome,
                Task::Asked(Operation::Write(_)) => desk.written = outcome,
                Task::Restore => {
                    desk.is_changed = false;
                    self.restored.notify_all();
                }
            }
        }
        let waker = state.listener.as_ref().map(|(_, waker)| waker.clone());
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn ask(&self, place: usize, operation: Operation, patience: Duration) -> Result<u64, Status> {
        let mut state = self.state();
        if state
            .busy_since
            .is_some_and(|since| since.elapsed() >= patience)
        {
            return Err(Status::HardwareError);
        }
        let desk = state.desks.get_mut(place).ok_or(Status::HardwareError)?;
        match (desk.asked, operation) {
            (None, _) => {
                desk.asked = Some(operation);
                let number = desk.begun + 1;
                drop(state);
                self.wanted.notify_one();
                Ok(number)
            }
            (Some(Operation::Read), Operation::Read) => Ok(desk.begun + 1),
            _ => Err(Status::Busy),
        }
    }

    fn outcome(&self, place: usize, number: u64, is_write: bool) -> Option<Result<Values, Status>> {
        let state = self.state();
        let desk = state.desks.get(place)?;
        let (last, result) = if is_write { desk.written } else { desk.read };
        (last >= number).then_some(result)
    }
}

fn carry_out(place: &mut dyn Place, task: &Task) -> io::Result<Values> {
    match task {
        Task::Asked(Operation::Read) => place.read(),
        Task::Asked(Operation::Write(values)) => place.write(values).map(|()| Values::default()),
        Task::Restore => place.restore().map(|()| Values::default()),
    }
}

/// The status for a failure of the host, which is logged.
fn failed(name: &str, error: &io::Error) -> Status {
    static LIMITER: Limiter = Limiter::new();
    limit::warn(&LIMITER, format_args!("{name}: {error}"));
    Status::HardwareError
}

/// What one connection asks of the host.
pub struct Connection {
    helpers: Arc<[Arc<Helper>]>,
    /// The number of this connection at each helper.
    numbers: Vec<u64>,
    patience: Duration,
}

impl Connection {
    /// A connection that `waker` is woken for when something ends. A helper that is busy for longer than `patience` is asked
    /// nothing more until it is not.
    pub fn new(helpers: Arc<[Arc<Helper>]>, waker: &Waker, patience: Duration) -> Self {
        let attach = |helper: &Arc<Helper>| {
            let mut state = helper.state();
            state.connections += 1;
            state.listener = Some((state.connections, waker.clone()));
            state.connections
        };
        Self {
            numbers: helpers.iter().map(attach).collect(),
            helpers,
            patience,
        }
    }

    /// How an operation ended, if it has.
    pub fn outcome(&self, wait: &Wait) -> Option<Result<Values, Status>> {
        let helper = self.helpers.get(wait.slot.helper)?;
        helper.outcome(wait.slot.place, wait.number, wait.purpose.is_write())
    }
}

impl Hosts for Connection {
    fn ask(&mut self, slot: Slot, operation: Operation) -> Result<u64, Status> {
        self.helpers
            .get(slot.helper)
            .ok_or(Status::HardwareError)?
            .ask(slot.place, operation, self.patience)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for (helper, number) in self.helpers.iter().zip(&self.numbers) {
            let mut state = helper.state();
            if state.listener.as_ref().is_some_and(|(at, _)| at == number) {
                state.listener = None;
                state.leave();
                helper.wanted.notify_one();
            }
        }
    }
}
