//! The base protocol (DEN0056, section 4.2): who is there, and what it offers.

use super::{Answer, Call, Command, Protocol, Reply};
use crate::wire::{AGENT, SHORT_NAME, Status, Writer};

const VENDOR: &[u8] = b"vhost-device";
const SUB_VENDOR: &[u8] = b"virtio";
const IMPLEMENTATION_VERSION: u32 = 1;

/// The number of the platform among the agents.
const PLATFORM: u32 = 0;
/// Whoever asks.
const MYSELF: u32 = u32::MAX;

/// The base protocol.
#[derive(Debug)]
pub struct Base {
    /// The other protocols that are offered.
    protocols: Vec<u8>,
}

impl Base {
    /// A platform that offers these protocols beside this one.
    pub fn new(protocols: Vec<u8>) -> Self {
        Self { protocols }
    }

    /// Whether a protocol is offered.
    pub fn offers(&self, protocol: u8) -> bool {
        self.protocols.contains(&protocol)
    }

    fn vendor(&mut self, call: &mut Call<'_>) -> Answer {
        call.out.bytes(&padded(VENDOR))?;
        Ok(Reply::Done)
    }

    fn sub_vendor(&mut self, call: &mut Call<'_>) -> Answer {
        call.out.bytes(&padded(SUB_VENDOR))?;
        Ok(Reply::Done)
    }

    fn implementation_version(&mut self, call: &mut Call<'_>) -> Answer {
        call.out.word(IMPLEMENTATION_VERSION)?;
        Ok(Reply::Done)
    }

    /// Protocols are bytes, four to a word, the last word filled up with zeroes.
    fn list_protocols(&mut self, call: &mut Call<'_>) -> Answer {
        let skip = usize::try_from(call.input.word()?).unwrap_or(usize::MAX);
        let rest = self
            .protocols
            .get(skip..)
            .ok_or(Status::InvalidParameters)?;
        let fits = call.out.room().saturating_sub(4) / 4 * 4;
        let told = rest.get(..fits.min(rest.len())).unwrap_or_default();
        if told.is_empty() && !rest.is_empty() {
            return Err(Status::ProtocolError);
        }
        // there are eight protocols at most
        call.out.word(u32::try_from(told.len()).unwrap_or(0))?;
        call.out.bytes(told)?;
        call.out
            .bytes(&[0; 3][..told.len().next_multiple_of(4) - told.len()])?;
        Ok(Reply::Done)
    }

    fn discover_agent(&mut self, call: &mut Call<'_>) -> Answer {
        let (agent, name) = match call.input.word()? {
            PLATFORM => (PLATFORM, &b"platform"[..]),
            AGENT | MYSELF => (AGENT, &b"guest"[..]),
            _ => return Err(Status::NotFound),
        };
        call.out.word(agent)?;
        call.out.bytes(&padded(name))?;
        Ok(Reply::Done)
    }

    /// Permissions are the host's to give: an agent can only ask, and is refused.
    fn set_device_permissions(&mut self, call: &mut Call<'_>) -> Answer {
        known(call.input.word()?)?;
        let _device = call.input.word()?;
        call.input.flags(1)?;
        Err(Status::Denied)
    }

    fn set_protocol_permissions(&mut self, call: &mut Call<'_>) -> Answer {
        known(call.input.word()?)?;
        let _device = call.input.word()?;
        let protocol = call.input.flags(0xff)?;
        call.input.flags(1)?;
        if !u8::try_from(protocol).is_ok_and(|protocol| self.offers(protocol)) {
            return Err(Status::NotFound);
        }
        Err(Status::Denied)
    }

    /// There are no permissions that the agent could have got, so the flag that asks for theirs to be reset too changes nothing.
    fn reset_agent_configuration(&mut self, call: &mut Call<'_>) -> Answer {
        let agent = call.input.word()?;
        known(agent)?;
        call.input.flags(1)?;
        if agent == PLATFORM {
            return Err(Status::Denied);
        }
        Ok(Reply::Forget)
    }
}

fn known(agent: u32) -> Result<(), Status> {
    if matches!(agent, PLATFORM | AGENT) {
        Ok(())
    } else {
        Err(Status::NotFound)
    }
}

fn padded(text: &[u8]) -> [u8; SHORT_NAME] {
    let mut bytes = [0; SHORT_NAME];
    for (to, from) in bytes.iter_mut().zip(text) {
        *to = *from;
    }
    bytes
}

impl Protocol for Base {
    const VERSION: u32 = 0x2_0001;
    const COMMANDS: &'static [Command<Self>] = &[
        Command::new(0x3, 0, Self::vendor),
        Command::new(0x4, 0, Self::sub_vendor),
        Command::new(0x5, 0, Self::implementation_version),
        Command::new(0x6, 4, Self::list_protocols),
        Command::new(0x7, 4, Self::discover_agent),
        Command::new(0x9, 12, Self::set_device_permissions),
        Command::new(0xa, 16, Self::set_protocol_permissions),
        Command::new(0xb, 8, Self::reset_agent_configuration),
    ];

    fn attributes(&self, _: bool, out: &mut Writer<'_>) -> Result<(), Status> {
        // there are eight protocols at most, and one agent
        let protocols = u32::try_from(self.protocols.len()).unwrap_or(0);
        out.word(protocols | 1 << 8)
    }
}
