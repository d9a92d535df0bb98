//! A correct request in any framing, read and written in any way.

use crate::common::framing::{Framing, Spot, Step, TABLE, TABLE_ON_BORDER, check};
use crate::tape::Tape;

/// The ring's table has room for twice so many buffers, and memory for as many bytes in each.
const MAX_PIECES: u8 = 40;
const MAX_BYTES: u16 = 600;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let length = usize::from(tape.u16() % 2048);
    let room = u32::from(tape.u16() % 2048);
    let shape = tape.u8();
    let framing = Framing {
        readable: cuts(&mut tape),
        writable: cuts(&mut tape),
        direct: (shape & 1 != 0).then_some(usize::from(shape >> 2)),
        table: if shape & 2 == 0 {
            TABLE
        } else {
            TABLE_ON_BORDER
        },
    };
    let steps: Vec<Step> = (0..tape.u8() % 64).map(|_| step(&mut tape)).collect();
    check(&framing, length, room, &steps);
}

fn cuts(tape: &mut Tape<'_>) -> Vec<(u32, Spot)> {
    (0..tape.u8() % MAX_PIECES)
        .map(|_| {
            let spot = tape.u8();
            let length = match spot >> 6 {
                0 => tape.u16() % MAX_BYTES,
                _ => u16::from(tape.u8() % 16),
            };
            let spot = match spot % 3 {
                0 => Spot::Low,
                1 => Spot::High,
                _ => Spot::Border,
            };
            (length.into(), spot)
        })
        .collect()
}

fn step(tape: &mut Tape<'_>) -> Step {
    let kind = tape.u8();
    let (limit, count) = (tape.u8(), usize::from(tape.u8()));
    let limit = if limit == u8::MAX {
        u64::MAX
    } else {
        u64::from(limit) * 4
    };
    match kind % 7 {
        0 => Step::Read(count),
        1 => Step::ReadWord,
        2 => Step::Drain(limit, count),
        3 => Step::Write(count),
        4 => Step::Fill(limit, count),
        5 => Step::Skip(limit),
        _ => Step::Scatter(limit),
    }
}
