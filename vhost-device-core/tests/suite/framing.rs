//! How a request is split over descriptors is the driver's choice and changes nothing (section 2.7.4).

use std::io;

use proptest::prelude::*;
use vhost_device_core::{GuestFault, MAX_CHAIN_LENGTH};
use vm_memory::Bytes;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::common;
use crate::common::framing::{Desk, Framing, Spot, Step, TABLE, TABLE_ON_BORDER, check, payload};

fn cuts() -> impl Strategy<Value = Vec<(u32, Spot)>> {
    let spot = prop_oneof![Just(Spot::Low), Just(Spot::High), Just(Spot::Border)];
    let length = prop_oneof![3 => 1..40u32, 1 => Just(0), 1 => 40..600u32];
    prop::collection::vec((length, spot), 0..12)
}

prop_compose! {
    fn framing()(
        readable in cuts(),
        writable in cuts(),
        direct in prop::option::of(0..24usize),
        table in prop_oneof![Just(TABLE), Just(TABLE_ON_BORDER)],
    ) -> Framing {
        Framing { readable, writable, direct, table }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..70usize).prop_map(Step::Read),
        Just(Step::ReadWord),
        (0..200u64, 0..100usize).prop_map(|(limit, take)| Step::Drain(limit, take)),
        (0..70usize).prop_map(Step::Write),
        (0..200u64, 0..100usize).prop_map(|(limit, give)| Step::Fill(limit, give)),
        (0..50u64).prop_map(Step::Skip),
        (0..50u64).prop_map(Step::Scatter),
    ]
}

proptest! {
    #![proptest_config(common::cases(1000))]

    #[test]
    fn any_framing_and_any_way_to_read_and_write_move_the_same_bytes(
        framing in framing(),
        length in 0..700usize,
        room in 0..700u32,
        steps in prop::collection::vec(step(), 0..20),
    ) {
        check(&framing, length, room, &steps);
    }

    #[test]
    fn a_reserved_tail_is_at_the_very_end_however_it_is_split(
        framing in framing(),
        room in 0..300u32,
        tail in 0..20usize,
        data in 0..300usize,
    ) {
        let mut desk = Desk::new();
        let placed = desk.submit(&[], room, &framing);
        let room = room as usize;
        let status: Vec<u8> = (1..=tail as u8).collect();
        let data = payload(data);
        let mut fits = false;
        let used = desk.serve(|request| {
            let reserved = request.reserve_tail(tail as u64);
            assert_eq!(reserved.is_ok(), tail <= room);
            if reserved.is_err() {
                assert_eq!(request.writable(), room as u64);
                return;
            }
            assert_eq!(request.writable(), (room - tail) as u64);
            fits = request.write_slice(&data).is_ok();
            assert_eq!(fits, data.len() <= room - tail);
            // What is reserved cannot be reached by other ways.
            let moved = request.fill_from(u64::MAX, |_| Ok(0)).unwrap();
            assert_eq!(moved, 0);
            assert_eq!(request.write_tail(&vec![0; tail + 1]), Err(GuestFault::ShortAnswer));
            assert_eq!(request.write_tail(&status), Ok(()));
        });
        let output = desk.output(&placed);
        if tail > room {
            prop_assert_eq!(used.length, 0);
        } else {
            let prefix = if fits { data.len() } else { 0 };
            prop_assert_eq!(&output[..prefix], &data[..prefix]);
            prop_assert_eq!(&output[room - tail..], &status[..]);
            prop_assert_eq!(used.length as usize, if tail > 0 { room } else { prefix });
        }
    }
}

/// A header with fields of several sizes.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    kind: U32,
    flags: U16,
    queue: U16,
    sector: U64,
}

#[test]
fn a_header_and_an_answer_may_be_split_at_any_byte() {
    let header = Header {
        kind: 0x1122_3344.into(),
        flags: 0x5566.into(),
        queue: 0x7788.into(),
        sector: 0x99aa_bbcc_ddee_ff00.into(),
    };
    let length = size_of::<Header>() as u32;
    for direct in [None, Some(0), Some(1)] {
        for first in 0..=length {
            for second in 0..=length - first {
                let cuts = vec![(first, Spot::Low), (0, Spot::Low), (second, Spot::Border)];
                let framing = Framing {
                    readable: cuts.clone(),
                    writable: cuts,
                    direct,
                    table: TABLE,
                };
                let mut desk = Desk::new();
                let placed = desk.submit(header.as_bytes(), length, &framing);
                let used = desk.serve(|request| {
                    assert_eq!(request.read::<Header>().unwrap(), header);
                    request.write(&header).unwrap();
                });
                assert_eq!(used.length, length);
                assert_eq!(desk.output(&placed), header.as_bytes(), "{framing:?}");
            }
        }
    }
}

/// The bug: an indirect table of as many entries as allowed was refused, since its own descriptor was counted too.
#[test]
fn the_longest_chain_of_single_bytes_is_one_request() {
    let half = MAX_CHAIN_LENGTH / 2;
    let framing = Framing {
        readable: vec![(1, Spot::High); half],
        writable: vec![(1, Spot::Low); half],
        direct: Some(0),
        table: TABLE,
    };
    let mut desk = Desk::new();
    let input = payload(half);
    let placed = desk.submit(&input, half as u32, &framing);
    let used = desk.serve(|request| {
        let mut bytes = vec![0; half];
        request.read_slice(&mut bytes).unwrap();
        assert_eq!(bytes, input);
        request.write_slice(&bytes).unwrap();
    });
    assert_eq!(used.length as usize, half);
    assert_eq!(desk.output(&placed), input);
}

#[test]
fn a_value_too_long_for_what_is_left_consumes_nothing() {
    let mut desk = Desk::new();
    desk.submit(&[1, 2, 3], 3, &Framing::UNSPLIT);
    let used = desk.serve(|request| {
        assert_eq!(request.read::<U32>(), Err(GuestFault::ShortRequest));
        assert_eq!(request.read::<[u8; 3]>(), Ok([1, 2, 3]));
        assert_eq!(request.write(&U32::new(9)), Err(GuestFault::ShortAnswer));
        assert_eq!(request.written(), 0);
        request.write(&[9u8, 8, 7]).unwrap();
    });
    assert_eq!(used.length, 3);
}

/// The bug: a worker that saw WouldBlock behind the first bytes put the request back, and lost them.
#[test]
fn an_error_behind_the_first_bytes_ends_a_transfer_like_a_short_one() {
    let framing = Framing {
        readable: vec![(4, Spot::Low), (4, Spot::High)],
        writable: vec![(4, Spot::Low), (4, Spot::High)],
        ..Framing::UNSPLIT
    };
    let mut desk = Desk::new();
    let placed = desk.submit(b"abcdefgh", 8, &framing);
    let blocked = || io::Error::from(io::ErrorKind::WouldBlock);
    let used = desk.serve(|request| {
        let mut calls = 0;
        let mut once = |length| {
            calls += 1;
            if calls % 2 == 1 {
                Ok(length)
            } else {
                Err(blocked())
            }
        };
        assert_eq!(request.drain_to(8, |piece| once(piece.len())).unwrap(), 4);
        assert_eq!(request.readable(), 4);
        let filled = request.fill_from(8, |piece| {
            piece.write_slice(b"wxyz", 0).unwrap();
            once(4)
        });
        assert_eq!(filled.unwrap(), 4);
        let error = request.fill_from(8, |_| Err(blocked())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(request.written(), 4);
    });
    assert_eq!(used.length, 4);
    assert_eq!(&desk.output(&placed)[..4], b"wxyz");
}

#[test]
fn a_file_is_a_source_and_a_sink_by_itself() {
    let framing = Framing {
        readable: vec![(3, Spot::Border), (0, Spot::Low), (2, Spot::High)],
        writable: vec![(1, Spot::High), (4, Spot::Border)],
        ..Framing::UNSPLIT
    };
    let mut desk = Desk::new();
    let placed = desk.submit(b"to the host", 20, &framing);
    let used = desk.serve(|request| {
        let mut sink = Vec::new();
        assert_eq!(request.write_to(&mut sink, 6).unwrap(), 6);
        assert_eq!(request.write_to(&mut sink, u64::MAX).unwrap(), 5);
        assert_eq!(sink, b"to the host");
        let mut source = io::Cursor::new(b"from the host");
        assert_eq!(request.read_from(&mut source, 4).unwrap(), 4);
        assert_eq!(request.read_from(&mut source, u64::MAX).unwrap(), 9);
        assert_eq!(
            request.read_from(&mut source, u64::MAX).unwrap(),
            0,
            "its end"
        );
    });
    assert_eq!(used.length, 13);
    assert_eq!(&desk.output(&placed)[..13], b"from the host");
}
