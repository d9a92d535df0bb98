//! Bytes: in order, all of them, within the credit of both sides, and without ever standing still.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vhost_device_testkit::ensure;
use vhost_device_testkit::failure::Result;
use vhost_device_testkit::session::Options;
use vhost_device_testkit::stats::Stats;

use crate::support::data::{self, bytes};
use crate::support::guest::{Guest, Id, State};
use crate::support::host::{Host, PORT, closed, read, read_to_end};
use crate::support::link::{Buffers, LONGEST, PATIENCE, RX};
use crate::support::packet::*;

const MIB: u64 = 1 << 20;
const SILENCE: Duration = Duration::from_millis(60);

/// Lets a program of the host work on its end while the guest is at the other.
fn program<T: Send + 'static>(
    mut stream: UnixStream,
    work: impl FnOnce(&mut UnixStream) -> Result<T> + Send + 'static,
) -> JoinHandle<Result<T>> {
    thread::spawn(move || work(&mut stream))
}

fn joined<T>(program: JoinHandle<Result<T>>) -> Result<T> {
    program.join().expect("the program panicked")
}

/// The guest sends the first `len` bytes of the stream in packets of at most `longest`.
fn pour(guest: &mut Guest, id: Id, len: u64, longest: usize) -> Result<()> {
    let mut at = 0;
    while at < len {
        let now = (len - at).min(LONGEST as u64);
        guest.write_as(id, &bytes(at, now as usize), longest, 0)?;
        at += now;
    }
    Ok(())
}

/// The guest reads the first `len` bytes of the stream and checks them.
fn drink(guest: &mut Guest, id: Id, len: u64) -> Result<()> {
    let mut at = 0;
    while at < len {
        let some = guest.read_some(id, (len - at).min(MIB) as usize)?;
        ensure!(!some.is_empty(), "the end came at {at} of {len}");
        data::check(at, &some)?;
        at += some.len() as u64;
    }
    Ok(())
}

#[test]
fn a_transfer_to_the_host_never_stands_still() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    for (len, longest) in [(32 * MIB, LONGEST), (8 * MIB, 4096), (2 * MIB, 333)] {
        let (stream, id) = host.called(&mut guest, &listener)?;
        let reader = program(stream, move |stream| data::drink(stream, len));
        pour(&mut guest, id, len, longest)?;
        joined(reader)?;
        guest.close(id)?;
    }
    Ok(())
}

#[test]
fn a_transfer_to_the_guest_never_stands_still() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    // no power of two either, and less than a buffer
    for (len, window) in [(32 * MIB, 256 << 10), (8 * MIB, 100_001), (MIB, 3000)] {
        guest.window = window;
        let (stream, id) = host.called(&mut guest, &listener)?;
        let writer = program(stream, move |stream| data::pour(stream, len));
        drink(&mut guest, id, len)?;
        joined(writer)?;
        guest.close(id)?;
    }
    Ok(())
}

#[test]
fn a_program_that_writes_little_at_a_time_is_heard_to_its_end() -> Result<()> {
    const LITTLE: usize = 64;
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    // long enough to be left alone between reads; the end, or silence, comes in such a moment
    for len in [LITTLE as u64, 64 << 10, MIB] {
        let (stream, id) = host.called(&mut guest, &listener)?;
        let writer = program(stream, move |stream| {
            for at in (0..len).step_by(LITTLE) {
                stream.write_all(&bytes(at, LITTLE))?;
            }
            let mut answer = [0; 5];
            stream.read_exact(&mut answer)?;
            for at in (0..len).step_by(LITTLE) {
                stream.write_all(&bytes(at, LITTLE))?;
            }
            Ok(stream.shutdown(Shutdown::Both)?)
        });
        drink(&mut guest, id, len)?;
        guest.write(id, b"again")?;
        drink(&mut guest, id, len)?;
        joined(writer)?;
        ensure!(guest.read_to_end(id)?.is_empty(), "more than was written");
        guest.ended(id)?;
    }
    Ok(())
}

#[test]
fn both_directions_at_once_go_on() -> Result<()> {
    const LEN: u64 = 8 * MIB;
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let (stream, id) = host.reach(&mut guest, PORT)?;
    let writer = program(stream.try_clone()?, |stream| data::pour(stream, LEN));
    let reader = program(stream, |stream| data::drink(stream, LEN));
    let mut got = 0;
    let mut sent = 0;
    while sent < LEN {
        guest.write(id, &bytes(sent, 32 << 10))?;
        sent += 32 << 10;
        let here = guest.connection(id)?.inbox.len();
        if here > 0 {
            let some = guest.read_some(id, here)?;
            data::check(got, &some)?;
            got += some.len() as u64;
        }
    }
    while got < LEN {
        let some = guest.read_some(id, usize::MAX)?;
        data::check(got, &some)?;
        got += some.len() as u64;
    }
    joined(reader)?;
    joined(writer)
}

#[test]
fn no_byte_comes_before_there_is_room_for_it() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    guest.window = 0;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    stream.write_all(&bytes(0, 1000))?;
    guest.idle(SILENCE)?;
    assert_eq!(guest.connection(id)?.rx_cnt, 0);
    // room for one byte, then for a few, each told by an update
    let mut room = 0;
    for more in [1, 1, 5, 93, 900] {
        room += more;
        guest.connection(id)?.alloc = room;
        guest.say(id, CREDIT_UPDATE, 0)?;
        guest.wait("as much as there is room for", |guest| {
            (guest.connections[&id].rx_cnt == room).then_some(())
        })?;
    }
    data::check(0, &guest.read(id, 1000)?)
}

#[test]
fn room_that_is_taken_away_is_not_used() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    stream.write_all(&bytes(0, 10_000))?;
    guest.wait("the first bytes", |guest| {
        (guest.connections[&id].rx_cnt == 10_000).then_some(())
    })?;
    // less than is in it already: nothing may come, and the difference must not become four billion
    guest.connection(id)?.alloc = 100;
    guest.say(id, CREDIT_UPDATE, 0)?;
    guest.link.all_sent()?;
    stream.write_all(&bytes(10_000, 10_000))?;
    guest.idle(SILENCE)?;
    assert_eq!(guest.connection(id)?.rx_cnt, 10_000);
    drink(&mut guest, id, 10_000)?;
    guest.connection(id)?.alloc = 100_000;
    guest.say(id, CREDIT_UPDATE, 0)?;
    let rest = guest.read(id, 10_000)?;
    data::check(10_000, &rest)
}

#[test]
fn a_guest_that_tells_of_no_room_is_asked_once() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    guest.window = 1000;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    stream.write_all(&bytes(0, 3000))?;
    for (round, room) in [(1, 2000), (2, 3000)] {
        guest.wait("the question", |guest| {
            (guest.connections[&id].requests == round).then_some(())
        })?;
        guest.idle(5 * SILENCE)?;
        assert_eq!(guest.connection(id)?.requests, round);
        assert_eq!(guest.connection(id)?.rx_cnt, room - 1000);
        guest.connection(id)?.alloc = room;
        guest.say(id, CREDIT_UPDATE, 0)?;
        guest.wait("what there is room for", |guest| {
            (guest.connections[&id].rx_cnt == room).then_some(())
        })?;
    }
    data::check(0, &guest.read(id, 3000)?)
}

#[test]
fn what_is_written_for_a_guest_without_room_wakes_nobody() -> Result<()> {
    const WRITES: u64 = 50;
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    guest.window = 1000;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    stream.write_all(&bytes(0, 1001))?;
    guest.wait("the question for room", |guest| {
        (guest.connections[&id].requests == 1).then_some(())
    })?;
    guest.link.all_sent()?;
    let before = Stats::of_tasks(host.daemon.pid())?.voluntary;
    for at in 0..WRITES {
        stream.write_all(&bytes(1001 + at, 1))?;
        thread::sleep(Duration::from_millis(2));
    }
    let woken = Stats::of_tasks(host.daemon.pid())?.voluntary - before;
    assert!(woken < WRITES / 4, "woken {woken} times");
    // and nothing of it is missed
    guest.connection(id)?.alloc = 5000;
    guest.say(id, CREDIT_UPDATE, 0)?;
    data::check(0, &guest.read(id, 1001 + WRITES as usize)?)?;
    stream.write_all(&bytes(1001 + WRITES, 10))?;
    data::check(1001 + WRITES, &guest.read(id, 10)?)
}

#[test]
fn a_request_for_credit_is_answered_with_what_was_taken() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    guest.write(id, &bytes(0, 5000))?;
    read(&mut stream, 5000)?;
    let before = guest.connection(id)?.updates;
    guest.say(id, CREDIT_REQUEST, 0)?;
    guest.wait("an update", |guest| {
        (guest.connections[&id].updates > before).then_some(())
    })?;
    let connection = guest.connection(id)?;
    assert_eq!(connection.peer_fwd, 5000);
    assert!(connection.peer_alloc >= 256 << 10);
    Ok(())
}

#[test]
fn a_guest_hears_of_room_between_the_packets_of_a_window() -> Result<()> {
    const PACKET: u32 = 64 << 10;
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    let mut header = guest.header(id, RW);
    header.len = PACKET;
    for _ in 0..4 {
        guest.link.post(&header)?;
        guest.connection(id)?.tx_cnt += PACKET;
    }
    guest.link.kick()?;
    let told = [
        guest.link.receive(PATIENCE)?.header.fwd_cnt,
        guest.link.receive(PATIENCE)?.header.fwd_cnt,
    ];
    // the host's socket takes the whole window although nobody reads
    assert_eq!(told, [2 * PACKET, 4 * PACKET]);
    assert_eq!(read(&mut stream, 4 * PACKET as usize)?.len(), 256 << 10);
    Ok(())
}

#[test]
fn updates_come_in_time_and_not_for_every_packet() -> Result<()> {
    const LEN: u64 = 8 * MIB;
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (stream, id) = host.called(&mut guest, &listener)?;
    let reader = program(stream, |stream| data::drink(stream, LEN));
    pour(&mut guest, id, LEN, 1024)?;
    joined(reader)?;
    let updates = guest.connection(id)?.updates;
    assert!(updates * 8 < LEN / 1024, "{updates} updates");
    Ok(())
}

#[test]
fn the_window_is_the_one_that_was_asked_for() -> Result<()> {
    // what is smaller than Linux's own would be lock-step, and is raised
    for (asked, window) in [("65536", 256 << 10), ("1000000", 1_000_000)] {
        let host = Host::start_with(&["--tx-buffer-size", asked])?;
        let listener = host.listen(PORT)?;
        let mut guest = host.guest()?;
        let (stream, id) = host.called(&mut guest, &listener)?;
        assert_eq!(guest.connection(id)?.peer_alloc, window);
        let reader = program(stream, |stream| data::drink(stream, 4 * MIB));
        pour(&mut guest, id, 4 * MIB, LONGEST)?;
        joined(reader)?;
    }
    Ok(())
}

#[test]
fn a_program_that_does_not_read_costs_a_window_and_no_more() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    let before = host.daemon.stats()?.anonymous_kib;
    let window = guest.connection(id)?.peer_alloc;
    let mut sent = 0;
    // until neither the socket nor the window takes more
    while sent < 64 * MIB {
        let deadline = Instant::now() + Duration::from_millis(300);
        while guest.connection(id)?.credit() == 0 && Instant::now() < deadline {
            guest.idle(Duration::from_millis(5))?;
        }
        let room = guest.connection(id)?.credit().min(32 << 10);
        if room == 0 {
            break;
        }
        guest.write(id, &bytes(sent, room as usize))?;
        sent += u64::from(room);
    }
    assert!(sent < 64 * MIB && sent >= u64::from(window));
    let growth = host.daemon.stats()?.anonymous_kib.saturating_sub(before);
    assert!(growth < u64::from(window) / 1024 + 1024, "{growth} KiB");
    let reader = program(stream.try_clone()?, move |stream| data::drink(stream, sent));
    joined(reader)?;
    // and it goes on from there
    guest.write(id, b"more")?;
    assert_eq!(read(&mut stream, 4)?, b"more");
    Ok(())
}

#[test]
fn a_guest_that_sends_more_than_it_may_harms_only_itself() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (_stream, id) = host.called(&mut guest, &listener)?;
    let before = host.daemon.stats()?.anonymous_kib;
    // the program does not read, and the guest does not care
    for _ in 0..1024 {
        let header = Header {
            len: LONGEST as u32,
            ..guest.header(id, RW)
        };
        guest.link.post(&header)?;
        guest.link.kick()?;
        // what the device says to it is not looked at: a lying guest may be told anything
        while guest.link.try_receive()?.is_some() {}
        guest.link.refill()?;
    }
    guest.link.all_sent()?;
    while guest.link.try_receive()?.is_some() {}
    let growth = host.daemon.stats()?.anonymous_kib.saturating_sub(before);
    assert!(growth < 2048, "{growth} KiB");
    guest.connections.clear();
    let (mut stream, id) = host.called(&mut guest, &host.listen(PORT + 1)?)?;
    guest.write(id, b"well")?;
    assert_eq!(read(&mut stream, 4)?, b"well");
    Ok(())
}

#[test]
fn a_guest_that_lies_about_what_it_took_harms_only_itself() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (mut other, good) = host.called(&mut guest, &listener)?;
    for lie in [1, 70_000, 1 << 31, u32::MAX] {
        let (mut stream, id) = host.called(&mut guest, &listener)?;
        stream.write_all(&bytes(0, 20_000))?;
        guest.wait("some bytes", |guest| {
            (guest.connections[&id].rx_cnt == 20_000).then_some(())
        })?;
        // nothing more was sent, so nothing more can have been taken; then less than before
        for fwd_cnt in [20_000u32.wrapping_add(lie), 5000, 0] {
            let header = Header {
                fwd_cnt,
                ..guest.header(id, CREDIT_UPDATE)
            };
            guest.link.send(&header, &[])?;
        }
        other.write_all(b"well")?;
        assert_eq!(guest.read(good, 4)?, b"well");
        guest.connections.remove(&id);
    }
    Ok(())
}

#[test]
fn a_slow_guest_costs_nothing_but_its_buffers() -> Result<()> {
    const LEN: u64 = 4 * MIB;
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest_with(&Options::usual(3), &Buffers::of(4, 3776))?;
    guest.window = u32::MAX;
    let (stream, id) = host.called(&mut guest, &listener)?;
    guest.link.gives_back = false;
    let before = host.daemon.stats()?.anonymous_kib;
    let writer = program(stream, |stream| data::pour(stream, LEN));
    guest.idle(Duration::from_millis(200))?;
    // four buffers were filled at most, and nothing spins or piles up meanwhile
    let busy = host.daemon.run_time()?;
    guest.idle(Duration::from_millis(300))?;
    let busy = host.daemon.run_time()? - busy;
    assert!(busy < Duration::from_millis(60), "{busy:?}");
    let growth = host.daemon.stats()?.anonymous_kib.saturating_sub(before);
    assert!(growth < 1024, "{growth} KiB");
    guest.link.give_back()?;
    drink(&mut guest, id, LEN)?;
    joined(writer)
}

#[test]
fn without_receive_buffers_the_guest_s_own_bytes_still_travel() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest_with(&Options::usual(3), &Buffers::of(1, 3776))?;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    guest.link.gives_back = false;
    stream.write_all(b"takes the only buffer")?;
    guest.wait("it", |guest| {
        (guest.connections[&id].rx_cnt > 0).then_some(())
    })?;
    assert_eq!(guest.link.session.rings[RX].room(), 256);
    guest.write(id, &bytes(0, 60_000))?;
    data::check(0, &read(&mut stream, 60_000)?)?;
    guest.link.give_back()?;
    guest.close(id)
}

#[test]
fn a_stream_that_is_full_holds_no_other_up() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (_full, stuck) = host.called(&mut guest, &listener)?;
    let (stream, id) = host.called(&mut guest, &listener)?;
    loop {
        let room = guest.connection(stuck)?.credit().min(LONGEST as u32);
        if room == 0 {
            break;
        }
        guest.write(stuck, &bytes(0, room as usize))?;
        guest.pump()?;
    }
    let reader = program(stream, |stream| data::drink(stream, 4 * MIB));
    pour(&mut guest, id, 4 * MIB, LONGEST)?;
    joined(reader)
}

#[test]
fn a_busy_program_holds_no_other_up() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    guest.window = 1 << 20;
    let mut writers = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..4 {
        let (stream, id) = host.called(&mut guest, &listener)?;
        writers.push(program(stream, |stream| data::pour(stream, 4 * MIB)));
        ids.push(id);
    }
    // all are fed in turn: none is at its end before each has had its share
    let mut got = [0; 4];
    while got.iter().sum::<u64>() < 16 * MIB {
        for (id, got) in ids.iter().zip(&mut got) {
            if *got == 4 * MIB {
                continue;
            }
            let some = guest.read_some(*id, 256 << 10)?;
            data::check(*got, &some)?;
            *got += some.len() as u64;
        }
    }
    writers.into_iter().try_for_each(joined)
}

#[test]
fn the_guest_asks_ends_its_side_and_gets_the_answer() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (stream, id) = host.called(&mut guest, &listener)?;
    let answerer = program(stream, |stream| {
        // the answer depends on the whole question
        let question = read_to_end(stream)?;
        stream.write_all(&question)?;
        Ok(question.len())
    });
    pour(&mut guest, id, MIB, LONGEST)?;
    guest.shut_down(id, NO_SEND)?;
    drink(&mut guest, id, MIB)?;
    assert!(guest.read_to_end(id)?.is_empty());
    assert_eq!(joined(answerer)? as u64, MIB);
    guest.ended(id)
}

#[test]
fn the_host_asks_ends_its_side_and_gets_the_answer() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let (mut stream, id) = host.reach(&mut guest, PORT)?;
    stream.write_all(b"question")?;
    stream.shutdown(Shutdown::Write)?;
    assert_eq!(guest.read_to_end(id)?, b"question");
    assert_eq!(guest.connection(id)?.peer_shutdown, NO_SEND);
    assert_eq!(guest.connection(id)?.state, State::Established);
    let reader = program(stream, read_to_end);
    pour(&mut guest, id, MIB, LONGEST)?;
    guest.close(id)?;
    let answer = joined(reader)?;
    assert_eq!(answer.len() as u64, MIB);
    data::check(0, &answer)
}

#[test]
fn what_was_sent_before_the_guest_s_end_arrives() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (stream, id) = host.called(&mut guest, &listener)?;
    let window = u64::from(guest.connection(id)?.peer_alloc);
    // all that fits the window, which is more than a socket takes
    pour(&mut guest, id, window, LONGEST)?;
    guest.shut_down(id, NO_RECEIVE | NO_SEND)?;
    guest.link.all_sent()?;
    thread::sleep(Duration::from_millis(100));
    let reader = program(stream, read_to_end);
    let seen = joined(reader)?;
    assert_eq!(seen.len() as u64, window);
    data::check(0, &seen)?;
    guest.ended(id)
}

#[test]
fn what_was_sent_before_the_program_s_end_arrives() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    guest.window = 20_000;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    stream.write_all(&bytes(0, 150_000))?;
    drop(stream);
    guest.idle(SILENCE)?;
    let seen = guest.read_to_end(id)?;
    assert_eq!(seen.len(), 150_000);
    data::check(0, &seen)?;
    guest.ended(id)
}

#[test]
fn hints_of_an_end_add_up() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    guest.say(id, SHUTDOWN, NO_SEND)?;
    closed(&mut stream)?;
    // the bit of before is not said again
    guest.say(id, SHUTDOWN, NO_RECEIVE)?;
    guest.ended(id)
}

#[test]
fn a_hint_of_nothing_ends_nothing() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    guest.say(id, SHUTDOWN, 0)?;
    guest.write(id, b"on")?;
    assert_eq!(read(&mut stream, 2)?, b"on");
    Ok(())
}

#[test]
fn data_behind_the_end_of_data_is_none() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    guest.write(id, b"before")?;
    guest.shut_down(id, NO_SEND)?;
    guest.write(id, b"behind")?;
    guest.link.all_sent()?;
    let mut seen = Vec::new();
    // it may also be a reset, after which there is no more to read
    let _ = stream.read_to_end(&mut seen);
    assert_eq!(seen, b"before");
    Ok(())
}

#[test]
fn a_guest_that_will_not_receive_still_sends() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (stream, id) = host.called(&mut guest, &listener)?;
    guest.shut_down(id, NO_RECEIVE)?;
    guest.link.all_sent()?;
    // whatever becomes of what the program writes, it must not wait for ever, nor reach the guest
    let writer = program(stream.try_clone()?, |stream| {
        Ok(data::pour(stream, 4 * MIB).is_ok())
    });
    let reader = program(stream, |stream| data::drink(stream, MIB));
    pour(&mut guest, id, MIB, LONGEST)?;
    joined(reader)?;
    guest.idle(SILENCE)?;
    assert_eq!(guest.connection(id)?.rx_cnt, 0);
    guest.close(id)?;
    joined(writer)?;
    Ok(())
}

#[test]
fn a_packet_without_bytes_is_not_an_end() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    for byte in 0..10u8 {
        guest.say(id, RW, 0)?;
        guest.write(id, &[byte])?;
        guest.say(id, RW, 0)?;
    }
    assert_eq!(read(&mut stream, 10)?, (0..10).collect::<Vec<u8>>());
    Ok(())
}

#[test]
fn the_counters_wrap_around_on_the_way_to_the_host() -> Result<()> {
    const LEN: u64 = (4 << 30) + 64 * MIB;
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (stream, id) = host.called(&mut guest, &listener)?;
    let reader = program(stream, |stream| swallow(stream, LEN));
    let mut left = LEN;
    while left > 0 {
        let room = guest.credit(id, 1)?.min(LONGEST as u32);
        let len = u64::from(room).min(left) as u32;
        let header = Header {
            len,
            ..guest.header(id, RW)
        };
        // the payload is what lies there: how much there is of it is what matters
        guest.link.post(&header)?;
        guest.link.kick()?;
        let connection = guest.connection(id)?;
        connection.tx_cnt = connection.tx_cnt.wrapping_add(len);
        left -= u64::from(len);
    }
    joined(reader)?;
    guest.close(id)
}

#[test]
fn the_counters_wrap_around_on_the_way_to_the_guest() -> Result<()> {
    const LEN: u64 = (4 << 30) + 64 * MIB;
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest_with(&Options::usual(3), &Buffers::of(30, 44 + 65536))?;
    guest.window = 1 << 20;
    guest.link.copies = false;
    let (stream, id) = host.called(&mut guest, &listener)?;
    let writer = program(stream, |stream| {
        let block = vec![0x5a; 256 << 10];
        for _ in 0..LEN / block.len() as u64 {
            stream.write_all(&block)?;
        }
        Ok(())
    });
    let mut left = LEN;
    while left > 0 {
        let some = guest.wait("data", |guest| {
            let unread = guest.connections[&id].unread;
            (unread > 0).then_some(unread)
        })?;
        guest.consume(id, some)?;
        left -= u64::from(some);
    }
    joined(writer)?;
    guest.close(id)
}

/// Reads this many bytes, whatever they are.
fn swallow(stream: &mut UnixStream, len: u64) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut left = len;
    while left > 0 {
        let length = stream.read(&mut buffer)?;
        ensure!(length > 0, "the end came with {left} bytes to go");
        left = left
            .checked_sub(length as u64)
            .ok_or_else(|| vhost_device_testkit::failure::Failure::new("too many bytes"))?;
    }
    Ok(())
}
