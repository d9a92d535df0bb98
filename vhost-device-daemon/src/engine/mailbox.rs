//! How the control thread of a connection talks to the thread that serves its queues: one command at a time, answered, with
//! a deadline.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vhost_device_core::{Memory, Notifier, QueueIndex, Start, Stopped};

use super::bell::Bell;

/// What the serving thread is asked to do.
pub enum Command {
    /// Starts a queue; kicks arrive on the descriptor. The worker is made if this is its first queue.
    Start(Box<Start>, OwnedFd),
    /// Drains and stops a queue.
    Stop(QueueIndex),
    /// Exchanges the way to interrupt the driver.
    Call(QueueIndex, Box<dyn Notifier>),
    /// Exchanges guest memory.
    Memory(Arc<Memory>),
    /// Drops the worker: the device was reset.
    Reset,
    /// The connection is over: stops everything and drops the worker.
    End,
}

/// What came of a command.
#[derive(Debug)]
pub enum Reply {
    /// Done; a stopped queue says where it can resume.
    Done(Option<Stopped>),
    /// Not done, and why.
    Refused(String),
}

/// The serving thread did not answer in time: it is stuck in the host.
#[derive(Debug, PartialEq, Eq)]
pub struct Stuck;

#[derive(Default)]
struct State {
    command: Option<Command>,
    reply: Option<Reply>,
    /// Nobody waits for replies any more; or nobody will take commands.
    closed: bool,
}

/// The mailbox between the two threads.
pub struct Mailbox {
    state: Mutex<State>,
    answered: Condvar,
    bell: Bell,
}

impl Mailbox {
    /// An empty mailbox. The bell is rung when a command waits.
    pub fn new(bell: Bell) -> Self {
        Self {
            state: Mutex::default(),
            answered: Condvar::new(),
            bell,
        }
    }

    /// Has `command` carried out, and waits for the answer.
    ///
    /// # Errors
    /// [`Stuck`] if there is none within `deadline`. The mailbox is closed then; what the serving thread does later is
    /// not heard.
    pub fn call(&self, command: Command, deadline: Duration) -> Result<Reply, Stuck> {
        let until = Instant::now() + deadline;
        let mut state = self.lock();
        if state.closed {
            return Err(Stuck);
        }
        state.command = Some(command);
        self.bell.ring();
        loop {
            if let Some(reply) = state.reply.take() {
                return Ok(reply);
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                state.closed = true;
                return Err(Stuck);
            }
            state = self
                .answered
                .wait_timeout(state, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
    }

    /// The command that waits, if any. For the serving thread.
    pub fn take(&self) -> Option<Command> {
        self.lock().command.take()
    }

    /// Answers the command taken last.
    pub fn answer(&self, reply: Reply) {
        self.lock().reply = Some(reply);
        self.answered.notify_all();
    }

    /// The serving thread does not look for commands any more.
    pub fn leave(&self) {
        self.bell.mute();
        self.close();
    }

    /// No commands are taken, and no answers heard, any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.answered.notify_all();
    }

    /// Whether the other side has given up.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// A panic while the lock was held leaves a state that is still meaningful: each field stands for itself.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::reactor::{EventLoop, Tag};

    fn mailbox() -> Mailbox {
        let events = Arc::new(EventLoop::new().unwrap());
        Mailbox::new(Bell::new(&events, Tag::Mail(0)).unwrap())
    }

    #[test]
    fn a_thread_that_does_not_answer_is_given_up_after_the_deadline() {
        let mailbox = mailbox();
        let start = Instant::now();
        let result = mailbox.call(Command::End, Duration::from_millis(20));
        assert!(matches!(result, Err(Stuck)));
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert!(mailbox.is_closed());
        assert!(
            mailbox.call(Command::End, Duration::from_secs(60)).is_err(),
            "a closed mailbox answers at once"
        );
    }

    #[test]
    fn commands_are_answered_across_threads() {
        let mailbox = Arc::new(mailbox());
        let serving = Arc::clone(&mailbox);
        let thread = std::thread::spawn(move || {
            let mut served = 0;
            while served < 100 {
                if serving.take().is_some() {
                    serving.answer(Reply::Done(None));
                    served += 1;
                }
            }
        });
        for _ in 0..100 {
            let reply = mailbox
                .call(Command::Reset, Duration::from_secs(10))
                .unwrap();
            assert!(matches!(reply, Reply::Done(None)));
        }
        thread.join().unwrap();
    }
}
