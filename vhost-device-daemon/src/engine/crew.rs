//! The serving threads of one connection: making them, talking to them, giving them up.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use vhost_device_core::{Device, Memory, Stopped};

use super::handler::STOP_DEADLINE;
use super::mailbox::{Command, Mailbox, Reply, Stuck};
use super::station::{self, Plan};

/// Longest wait for threads to drain when the connection is over: the next frontend waits meanwhile.
const END_DEADLINE: Duration = Duration::from_millis(80);

/// Why a command was not carried out.
#[derive(Debug, Error)]
pub enum CrewFault {
    /// The thread waits for the host.
    #[error("the host does not answer")]
    Stuck,
    /// The device or the ring refused.
    #[error("{0}")]
    Refused(String),
    /// No thread could be made.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

impl From<Stuck> for CrewFault {
    fn from(_: Stuck) -> Self {
        Self::Stuck
    }
}

/// A mailbox, and the thread behind it unless the main thread serves it.
struct Link {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    fn call(&self, command: Command) -> Result<Option<Stopped>, CrewFault> {
        match self.mailbox.call(command, STOP_DEADLINE)? {
            Reply::Done(stopped) => Ok(stopped),
            Reply::Refused(why) => Err(CrewFault::Refused(why)),
        }
    }

    fn end(self) -> Result<(), Stuck> {
        self.mailbox.call(Command::End, END_DEADLINE)?;
        if let Some(thread) = self.thread {
            // It has answered, and does nothing but return.
            let _ = thread.join();
        }
        Ok(())
    }
}

/// The serving threads by worker index.
pub struct Crew<D: Device> {
    plan: Plan<D>,
    links: Vec<Option<Link>>,
}

impl<D: Device> Crew<D> {
    /// A crew whose threads are started when the first queue of each starts.
    pub fn threads(plan: Plan<D>) -> Self {
        let workers = workers(plan.device.as_ref());
        Self {
            plan,
            links: (0..workers).map(|_| None).collect(),
        }
    }

    /// A crew of one, whose station another thread already serves through `mailbox`.
    pub fn inline(plan: Plan<D>, mailbox: Arc<Mailbox>) -> Self {
        let link = Link {
            mailbox,
            thread: None,
        };
        Self {
            plan,
            links: vec![Some(link)],
        }
    }

    /// Has a worker carry out `command`. A worker without a thread gets one for a `Start`, with `memory`; other commands
    /// mean nothing to it.
    pub fn command(
        &mut self,
        worker: u16,
        command: Command,
        memory: &Arc<Memory>,
    ) -> Result<Option<Stopped>, CrewFault> {
        let Some(slot) = self.links.get_mut(usize::from(worker)) else {
            return Ok(None);
        };
        if slot.is_none() {
            if !matches!(command, Command::Start(..)) {
                return Ok(None);
            }
            let plan = Plan {
                worker,
                ..self.plan.clone()
            };
            let (mailbox, thread) = station::spawn(plan)?;
            let link = Link {
                mailbox,
                thread: Some(thread),
            };
            link.call(Command::Memory(Arc::clone(memory)))?;
            *slot = Some(link);
        }
        match slot {
            Some(link) => link.call(command),
            None => Ok(None),
        }
    }

    /// Gives all workers new memory.
    pub fn set_memory(&mut self, memory: &Arc<Memory>) -> Result<(), CrewFault> {
        for link in self.links.iter().flatten() {
            link.call(Command::Memory(Arc::clone(memory)))?;
        }
        Ok(())
    }

    /// Drops all workers; the threads stay.
    pub fn reset(&mut self) -> Result<(), CrewFault> {
        for link in self.links.iter().flatten() {
            link.call(Command::Reset)?;
        }
        Ok(())
    }

    /// Forgets a stuck thread; it ends by itself when the host answers. The others get `memory`.
    pub fn renew(&mut self, worker: u16, memory: &Arc<Memory>) {
        if let Some(slot) = self.links.get_mut(usize::from(worker))
            && let Some(link) = slot.take()
        {
            link.mailbox.close();
        }
        if let Err(error) = self.set_memory(memory) {
            log::warn!("{error}");
        }
    }

    /// Drains and ends all threads.
    ///
    /// # Errors
    /// [`Stuck`] if one does not answer; it is forgotten then.
    pub fn end(&mut self) -> Result<(), Stuck> {
        let mut result = Ok(());
        for link in self.links.drain(..).flatten() {
            if link.end().is_err() {
                result = Err(Stuck);
            }
        }
        result
    }
}

/// How many workers a device has.
pub fn workers<D: Device>(device: &D) -> usize {
    device
        .queues()
        .iter()
        .map(|queue| usize::from(queue.worker) + 1)
        .max()
        .unwrap_or(0)
}
