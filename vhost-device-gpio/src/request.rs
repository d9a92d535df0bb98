//! What a request asks for.

use crate::line::{Direction, Edges, Line, Trigger};
use crate::wire::{self, direction, irq, kind};

/// A well-formed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The block of names.
    LineNames,
    /// A line's direction.
    Direction(Line),
    /// A line's value.
    Value(Line),
    /// Gives a line a value, now or once it is an output.
    SetValue(Line, bool),
    /// Activates a line, or deactivates it.
    SetDirection(Line, Option<Direction>),
    /// Enables a line's interrupt, or disables it.
    SetInterrupt(Line, Option<Trigger>),
}

/// Decodes a request to a chip with `lines` lines. `None` if a field has no meaning: the type, the line, or the value.
pub fn decode(request: &wire::Request, lines: u16) -> Option<Command> {
    let value = request.value.get();
    let line = || {
        let gpio = request.gpio.get();
        (gpio < lines).then_some(Line(gpio))
    };
    Some(match request.kind.get() {
        kind::GET_LINE_NAMES => Command::LineNames,
        kind::GET_DIRECTION => Command::Direction(line()?),
        kind::SET_DIRECTION => Command::SetDirection(line()?, direction(value)?),
        kind::GET_VALUE => Command::Value(line()?),
        kind::SET_VALUE => Command::SetValue(line()?, level(value)?),
        kind::SET_IRQ_TYPE => Command::SetInterrupt(line()?, trigger(value)?),
        _ => return None,
    })
}

fn level(value: u32) -> Option<bool> {
    match value {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn direction(value: u32) -> Option<Option<Direction>> {
    match u8::try_from(value).ok()? {
        direction::NONE => Some(None),
        direction::OUT => Some(Some(Direction::Out)),
        direction::IN => Some(Some(Direction::In)),
        _ => None,
    }
}

fn trigger(value: u32) -> Option<Option<Trigger>> {
    let edge = |rising, falling| Some(Some(Trigger::Edge(Edges { rising, falling })));
    match value {
        irq::NONE => Some(None),
        irq::EDGE_RISING => edge(true, false),
        irq::EDGE_FALLING => edge(false, true),
        irq::EDGE_BOTH => edge(true, true),
        irq::LEVEL_HIGH => Some(Some(Trigger::Level(true))),
        irq::LEVEL_LOW => Some(Some(Trigger::Level(false))),
        _ => None,
    }
}

/// The number of a direction on the wire.
pub fn encode(direction: Option<Direction>) -> u8 {
    match direction {
        None => direction::NONE,
        Some(Direction::Out) => direction::OUT,
        Some(Direction::In) => direction::IN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: u16 = 8;

    fn decoded(kind: u16, gpio: u16, value: u32) -> Option<Command> {
        let request = wire::Request {
            kind: kind.into(),
            gpio: gpio.into(),
            value: value.into(),
        };
        decode(&request, LINES)
    }

    #[test]
    fn every_request_of_the_specification_is_understood() {
        let line = Line(7);
        let both = Edges {
            rising: true,
            falling: true,
        };
        let table = [
            ((1, 0, 0), Command::LineNames),
            ((2, 7, 0), Command::Direction(line)),
            ((3, 7, 0), Command::SetDirection(line, None)),
            ((3, 7, 1), Command::SetDirection(line, Some(Direction::Out))),
            ((3, 7, 2), Command::SetDirection(line, Some(Direction::In))),
            ((4, 7, 0), Command::Value(line)),
            ((5, 7, 0), Command::SetValue(line, false)),
            ((5, 7, 1), Command::SetValue(line, true)),
            ((6, 7, 0), Command::SetInterrupt(line, None)),
            (
                (6, 7, 3),
                Command::SetInterrupt(line, Some(Trigger::Edge(both))),
            ),
            (
                (6, 7, 4),
                Command::SetInterrupt(line, Some(Trigger::Level(true))),
            ),
            (
                (6, 7, 8),
                Command::SetInterrupt(line, Some(Trigger::Level(false))),
            ),
        ];
        for ((kind, gpio, value), command) in table {
            assert_eq!(decoded(kind, gpio, value), Some(command), "{kind} {value}");
        }
    }

    #[test]
    fn what_the_specification_does_not_name_is_refused() {
        for kind in [0, 7, 8, 0x100, 0xffff] {
            assert_eq!(decoded(kind, 0, 0), None, "type {kind}");
        }
        for kind in 2..=6 {
            for gpio in [LINES, LINES + 1, 0x7fff, 0xffff] {
                assert_eq!(decoded(kind, gpio, 0), None, "type {kind} line {gpio}");
            }
        }
        for value in [3, 4, 0x100, 0x101, u32::MAX] {
            assert_eq!(decoded(3, 0, value), None, "direction {value}");
        }
        for value in [2, 3, 0x100, 0x101, u32::MAX] {
            assert_eq!(decoded(5, 0, value), None, "value {value}");
        }
        for value in [5, 6, 7, 9, 0x0c, 0x10, 0x100, 0x101, u32::MAX] {
            assert_eq!(decoded(6, 0, value), None, "trigger {value}");
        }
    }
}
