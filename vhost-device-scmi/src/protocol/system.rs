//! The system power management protocol (DEN0056, section 4.4): a guest asks for a shutdown or a reset, the host decides.

use std::sync::Arc;

use super::{Answer, Call, Command, Protocol, Reply, bit};
use crate::wire::{Status, Writer, protocol};

const STATE_SET: u8 = 3;
const STATE_NOTIFIER: u8 = 0;
const POWERED_UP: u32 = 3;

/// How long a graceful request may take, in milliseconds: as long as it likes.
const NO_TIMEOUT: u32 = 0;

/// What a guest can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the specification's names
pub enum SystemState {
    Shutdown,
    ColdReset,
    WarmReset,
    Suspend,
}

impl SystemState {
    fn decode(word: u32) -> Option<Self> {
        Some(match word {
            0 => Self::Shutdown,
            1 => Self::ColdReset,
            2 => Self::WarmReset,
            4 => Self::Suspend,
            _ => return None,
        })
    }

    /// As it is logged and told to the host.
    pub fn text(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::ColdReset => "cold-reset",
            Self::WarmReset => "warm-reset",
            Self::Suspend => "suspend",
        }
    }
}

/// The host's side: decides about a request.
///
/// # Errors
/// The status with which it is refused.
pub type Decide = Arc<dyn Fn(SystemState) -> Result<(), Status> + Send + Sync>;

/// The system power protocol.
pub struct System {
    decide: Decide,
    is_told: bool,
}

impl System {
    /// A platform whose host decides so.
    pub fn new(decide: Decide) -> Self {
        Self {
            decide,
            is_told: false,
        }
    }

    fn state_set(&mut self, call: &mut Call<'_>) -> Answer {
        let flags = call.input.flags(1)?;
        let word = call.input.word()?;
        let state = SystemState::decode(word).ok_or(Status::InvalidParameters)?;
        (self.decide)(state)?;
        let is_graceful = flags & 1 != 0;
        if is_graceful && self.is_told {
            // a graceful request is carried out by those that are told of it
            call.outbox
                .notify(protocol::SYSTEM_POWER, STATE_NOTIFIER, 0, |out| {
                    out.word(flags)?;
                    out.word(word)?;
                    out.word(NO_TIMEOUT)
                });
        }
        Ok(Reply::Done)
    }

    fn state_get(&mut self, call: &mut Call<'_>) -> Answer {
        call.out.word(POWERED_UP)?;
        Ok(Reply::Done)
    }

    fn state_notify(&mut self, call: &mut Call<'_>) -> Answer {
        self.is_told = call.input.flags(1)? != 0;
        Ok(Reply::Done)
    }
}

impl Protocol for System {
    const VERSION: u32 = 0x2_0001;
    const COMMANDS: &'static [Command<Self>] = &[
        Command::new(STATE_SET, 8, Self::state_set),
        Command::new(0x4, 0, Self::state_get),
        Command::new(0x5, 4, Self::state_notify).for_events(),
    ];

    fn attributes(&self, _: bool, out: &mut Writer<'_>) -> Result<(), Status> {
        out.word(0)
    }

    /// Warm resets and suspending can be asked for.
    fn message_attributes(&self, message: u8) -> u32 {
        bit(31, message == STATE_SET) | bit(30, message == STATE_SET)
    }

    fn forget(&mut self) {
        self.is_told = false;
    }
}
