//! A simulated bus with simulated chips.

mod eeprom;
mod lm75;
mod registers;

use std::io;
use std::time::Duration;

use vhost_device_core::pause;

use super::{Bus, Failure, OpenError, not_acknowledged};
use crate::address::Address;
use crate::config;
use crate::message::{Direction, Message};

pub use eeprom::Model;

use eeprom::Eeprom;
use lm75::Lm75;
use registers::Registers;

/// A chip on a simulated bus. An error is what a missing acknowledgement is on a real one.
trait Chip: Send {
    /// The controller writes to it; no bytes if it is only addressed.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// The controller reads from it; no bytes if it is only addressed.
    fn read(&mut self, out: &mut [u8]) -> io::Result<()>;
}

/// A simulated bus. Nobody answers at addresses without a chip.
pub struct Sim {
    chips: Vec<(Address, Box<dyn Chip>)>,
}

impl Sim {
    /// A bus with these chips. `timeout` is how long a stuck one holds it.
    ///
    /// # Errors
    /// If the file of a chip cannot be used.
    pub fn open(chips: &[(Address, config::Chip)], timeout: Duration) -> Result<Self, OpenError> {
        let open = |(address, chip): &(Address, config::Chip)| {
            let chip: Box<dyn Chip> = match chip {
                config::Chip::Eeprom { model, file } => {
                    Box::new(Eeprom::open(*model, file.as_deref())?)
                }
                config::Chip::Registers => Box::new(Registers::new()),
                config::Chip::Lm75(temperature) => Box::new(Lm75::open(temperature)?),
                config::Chip::Stuck => Box::new(Stuck { timeout }),
            };
            Ok((*address, chip))
        };
        Ok(Self {
            chips: chips.iter().map(open).collect::<Result<_, _>>()?,
        })
    }

    fn message(&mut self, message: &Message, bytes: &mut [u8]) -> io::Result<()> {
        let chip = self
            .chips
            .iter_mut()
            .find(|(address, _)| *address == message.address);
        let (_, chip) = chip.ok_or_else(not_acknowledged)?;
        let room = bytes
            .get_mut(message.range.clone())
            .ok_or(io::ErrorKind::InvalidInput)?;
        match message.direction {
            Direction::Read => chip.read(room),
            Direction::Write => chip.write(room),
        }
    }
}

impl Bus for Sim {
    fn transfer(&mut self, messages: &[Message], bytes: &mut [u8]) -> Result<(), Failure> {
        for (done, message) in messages.iter().enumerate() {
            self.message(message, bytes)
                .map_err(|error| Failure { done, error })?;
        }
        Ok(())
    }
}

/// Holds the clock until the bus gives up.
struct Stuck {
    timeout: Duration,
}

impl Stuck {
    fn hold(&self) -> io::Result<()> {
        pause(self.timeout);
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Chip for Stuck {
    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        self.hold()
    }

    fn read(&mut self, _: &mut [u8]) -> io::Result<()> {
        self.hold()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus(chips: &str) -> Sim {
        let config::Bus::Sim { chips } = chips.parse().unwrap() else {
            panic!("not simulated: {chips}");
        };
        Sim::open(&chips, Duration::from_millis(1)).unwrap()
    }

    fn message(address: u8, direction: Direction, range: std::ops::Range<usize>) -> Message {
        Message {
            address: Address::Seven(address),
            direction,
            range,
        }
    }

    #[test]
    fn nobody_answers_at_other_addresses_and_the_transfer_ends_there() {
        let mut bus = bus("sim:0x20=regs");
        let mut bytes = [5, 1, 5, 0];
        let messages = [
            message(0x20, Direction::Write, 0..2),
            message(0x21, Direction::Write, 2..3),
            message(0x20, Direction::Read, 3..4),
        ];
        let failure = bus.transfer(&messages, &mut bytes).unwrap_err();
        assert_eq!(failure.done, 1);
        assert_eq!(failure.error.raw_os_error(), Some(libc::ENXIO));
        let messages = [
            message(0x20, Direction::Write, 2..3),
            message(0x20, Direction::Read, 3..4),
        ];
        bus.transfer(&messages, &mut bytes).unwrap();
        assert_eq!(bytes, [5, 1, 5, 1], "what came before the failure was done");
    }

    #[test]
    fn chips_can_be_addressed_without_a_byte() {
        let mut bus = bus("sim:0x20=regs:0x50=24c02:0x48=lm75");
        for address in [0x20, 0x50, 0x48] {
            for direction in [Direction::Read, Direction::Write] {
                bus.transfer(&[message(address, direction, 0..0)], &mut [])
                    .unwrap();
            }
        }
        bus.transfer(&[message(0x51, Direction::Write, 0..0)], &mut [])
            .unwrap_err();
    }

    #[test]
    fn a_ten_bit_address_is_another_target_than_the_same_number_in_seven_bits() {
        let mut bus = bus("sim:t0x20=regs");
        let ten = Message {
            address: Address::Ten(0x20),
            ..message(0, Direction::Write, 0..0)
        };
        bus.transfer(&[ten], &mut []).unwrap();
        bus.transfer(&[message(0x20, Direction::Write, 0..0)], &mut [])
            .unwrap_err();
    }

    #[test]
    fn a_stuck_chip_is_an_error_after_the_timeout() {
        let mut bus = bus("sim:9=stuck:0x20=regs");
        let failure = bus.transfer(&[message(9, Direction::Write, 0..0)], &mut []);
        assert_eq!(failure.unwrap_err().error.kind(), io::ErrorKind::TimedOut);
        bus.transfer(&[message(0x20, Direction::Write, 0..0)], &mut [])
            .unwrap();
    }
}
