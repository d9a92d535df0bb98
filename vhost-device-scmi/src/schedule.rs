//! Commands that are carried out later, and answered by a delayed response then.

use std::time::Duration;

use crate::outbox::MAX_DELAYED;
use crate::wire::{Header, Status};

/// What is done then, and to which domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // as the commands
pub enum Job {
    ClockRate {
        clock: usize,
        rate: u64,
    },
    PowerState {
        domain: usize,
        state: u32,
    },
    SensorReading {
        sensor: usize,
    },
    Reset {
        domain: usize,
        flags: u32,
        state: u32,
    },
    VoltageLevel {
        domain: usize,
        level: i32,
    },
}

/// A command that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Later {
    /// When it is carried out.
    pub due: Duration,
    /// Its header.
    pub header: Header,
    /// What it does.
    pub job: Job,
    /// Whether its end is told.
    pub is_told: bool,
}

/// The commands that were taken, the next one first.
#[derive(Debug, Default)]
pub struct Schedule {
    list: Vec<Later>,
    /// Places that others need: delayed responses that wait for a buffer or the host.
    taken: usize,
}

impl Schedule {
    /// Takes a command.
    ///
    /// # Errors
    /// [`Status::Busy`] if [`MAX_DELAYED`] are there.
    pub fn add(&mut self, later: Later) -> Result<(), Status> {
        if self.list.len() + self.taken >= MAX_DELAYED {
            return Err(Status::Busy);
        }
        let place = self.list.partition_point(|one| one.due <= later.due);
        self.list.insert(place, later);
        Ok(())
    }

    /// Says how many more commands are not over yet.
    pub fn set_taken(&mut self, taken: usize) {
        self.taken = taken;
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Duration> {
        self.list.first().map(|later| later.due)
    }

    /// The next one, if it is due.
    pub fn take_due(&mut self, now: Duration) -> Option<Later> {
        if self.next()? > now {
            return None;
        }
        Some(self.list.remove(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MessageType;

    fn later(due: u64) -> Later {
        Later {
            due: Duration::from_millis(due),
            header: Header::new(0x15, 6, MessageType::Command, due as u16),
            job: Job::SensorReading { sensor: 0 },
            is_told: true,
        }
    }

    #[test]
    fn commands_are_due_in_order_and_equal_ones_as_they_came() {
        let mut schedule = Schedule::default();
        for due in [30, 10, 20, 10] {
            schedule.add(later(due)).unwrap();
        }
        assert_eq!(schedule.next(), Some(Duration::from_millis(10)));
        assert_eq!(schedule.take_due(Duration::from_millis(9)), None);
        let mut order = Vec::new();
        while let Some(one) = schedule.take_due(Duration::from_secs(1)) {
            order.push(one.due.as_millis());
        }
        assert_eq!(order, [10, 10, 20, 30]);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn no_more_are_taken_than_can_be_answered() {
        let mut schedule = Schedule::default();
        schedule.set_taken(10);
        for due in 0..MAX_DELAYED - 10 {
            schedule.add(later(due as u64)).unwrap();
        }
        assert_eq!(schedule.add(later(1)), Err(Status::Busy));
        schedule.set_taken(9);
        schedule.add(later(1)).unwrap();
        assert_eq!(schedule.next(), Some(Duration::ZERO));
    }
}
