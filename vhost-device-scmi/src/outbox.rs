//! What waits for buffers of the event queue.
//!
//! Delayed responses are all sent, in order; there are at most [`MAX_DELAYED`] of them, because no more commands are taken to
//! be carried out later (they are answered BUSY). Of notifications about the same thing the newest is kept, in the place of
//! the oldest; there are at most [`MAX_NOTICES`], and the oldest is dropped for a new one.

use std::collections::VecDeque;

use crate::wire::{AGENT, Header, MAX_EVENT, MessageType, Status, Writer};

/// Most commands that are carried out later at a time, counted until their delayed response is with the driver.
pub const MAX_DELAYED: usize = 64;
/// Most notifications that wait.
pub const MAX_NOTICES: usize = 256;

/// A message for the event queue.
#[derive(Clone, Debug)]
pub struct Event {
    bytes: [u8; MAX_EVENT],
    length: usize,
    /// The header and the source; the same ones are about the same thing.
    about: (u32, u32),
}

impl Event {
    fn new(
        header: Header,
        source: u32,
        fill: impl FnOnce(&mut Writer<'_>) -> Result<(), Status>,
    ) -> Option<Self> {
        let mut bytes = [0; MAX_EVENT];
        let mut out = Writer::new(&mut bytes);
        out.word(header.0).ok()?;
        fill(&mut out).ok()?;
        let length = out.length();
        Some(Self {
            bytes,
            length,
            about: (header.0, source),
        })
    }

    /// The message.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Whether it may be lost.
    pub fn is_notice(&self) -> bool {
        Header(self.about.0).kind() == MessageType::Notification
    }
}

/// What waits.
#[derive(Debug, Default)]
pub struct Outbox {
    delayed: VecDeque<Event>,
    notices: VecDeque<Event>,
    dropped: u64,
}

impl Outbox {
    /// Tells the agent that something happened to domain `source`; `fill` writes what follows the agent's number.
    pub fn notify(
        &mut self,
        protocol: u8,
        message: u8,
        source: usize,
        fill: impl FnOnce(&mut Writer<'_>) -> Result<(), Status>,
    ) {
        let header = Header::new(protocol, message, MessageType::Notification, 0);
        let source = u32::try_from(source).unwrap_or(u32::MAX);
        let event = Event::new(header, source, |out| {
            out.word(AGENT)?;
            fill(out)
        });
        let Some(event) = event else {
            return;
        };
        let same = self.notices.iter_mut().find(|old| old.about == event.about);
        if let Some(old) = same {
            *old = event;
            return;
        }
        if self.notices.len() >= MAX_NOTICES {
            self.notices.pop_front();
            self.dropped += 1;
        }
        self.notices.push_back(event);
    }

    /// Answers a command that took longer. Nothing but the status is told if it failed, or if its values do not fit.
    pub fn respond(
        &mut self,
        command: Header,
        fill: impl FnOnce(&mut Writer<'_>) -> Result<(), Status>,
    ) {
        let header = command.delayed();
        let mut failure = Status::Success;
        let event = Event::new(header, 0, |out| {
            out.word(Status::Success as i32 as u32)?;
            fill(out).inspect_err(|status| failure = *status)
        });
        let event = event.or_else(|| Event::new(header, 0, |out| out.signed(failure as i32)));
        self.delayed.extend(event);
    }

    /// Delayed responses that wait.
    pub fn delayed(&self) -> usize {
        self.delayed.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.delayed.is_empty() && self.notices.is_empty()
    }

    /// The message that is sent next.
    pub fn first(&self) -> Option<&Event> {
        self.delayed.front().or(self.notices.front())
    }

    /// The first message is with the driver, or lost.
    pub fn remove_first(&mut self) {
        if self.delayed.pop_front().is_none() {
            self.notices.pop_front();
        }
    }

    /// How many notifications were dropped since this was asked last.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Forgets all notifications.
    pub fn forget_notices(&mut self) {
        self.notices.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(event: &Event) -> Vec<u32> {
        let words = event.bytes().chunks_exact(4);
        words
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect()
    }

    #[test]
    fn of_two_notifications_about_the_same_thing_the_newer_one_is_sent() {
        let mut outbox = Outbox::default();
        for value in [7, 8] {
            outbox.notify(0x15, 1, 3, |out| out.word(value));
            outbox.notify(0x15, 1, 4, |out| out.word(value));
        }
        let header = 0x15 << 10 | 3 << 8 | 1;
        assert_eq!(words(outbox.first().unwrap()), [header, AGENT, 8]);
        outbox.remove_first();
        assert_eq!(words(outbox.first().unwrap()), [header, AGENT, 8]);
        outbox.remove_first();
        assert!(outbox.is_empty());
    }

    #[test]
    fn notifications_are_bounded_and_the_oldest_are_dropped() {
        let mut outbox = Outbox::default();
        for source in 0..MAX_NOTICES + 10 {
            outbox.notify(0x15, 0, source, |out| out.word(source as u32));
        }
        assert_eq!(outbox.take_dropped(), 10);
        assert_eq!(outbox.take_dropped(), 0);
        assert_eq!(words(outbox.first().unwrap())[2], 10);
    }

    #[test]
    fn delayed_responses_go_first_and_tell_a_failure_by_the_status_alone() {
        let mut outbox = Outbox::default();
        let command = Header::new(0x14, 5, MessageType::Command, 9);
        outbox.notify(0x14, 0, 0, |out| out.word(1));
        outbox.respond(command, |out| out.word(5));
        outbox.respond(command, |out| {
            out.word(5)?;
            Err(Status::HardwareError)
        });
        assert_eq!(outbox.delayed(), 2);
        assert_eq!(words(outbox.first().unwrap()), [command.delayed().0, 0, 5]);
        assert!(!outbox.first().unwrap().is_notice());
        outbox.remove_first();
        let failure = Status::HardwareError as i32 as u32;
        assert_eq!(
            words(outbox.first().unwrap()),
            [command.delayed().0, failure]
        );
        outbox.remove_first();
        outbox.forget_notices();
        assert!(outbox.first().is_none());
    }
}
