//! Messages: whole, in order, with their ends where the sender put them.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vhost_device_testkit::failure::Result;

use crate::support::data::{self, bytes};
use crate::support::guest::{Guest, Id, State};
use crate::support::host::{
    Host, PORT, accept, closed, connect_for_messages, message, messages_path, patient, read,
};
use crate::support::link::{LONGEST, TX};
use crate::support::packet::*;

const SILENCE: Duration = Duration::from_millis(60);

fn connected(host: &Host, guest: &mut Guest) -> Result<(std::os::unix::net::UnixStream, Id)> {
    let listener = host.listen_for_messages(PORT)?;
    let id = guest.connect_to(HOST, PORT, SEQPACKET)?;
    Ok((accept(&listener)?, id))
}

#[test]
fn messages_of_the_guest_keep_their_ends() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let (mut program, id) = connected(&host, &mut guest)?;
    for len in [1, 2, 100, 4096, 65_535, 65_536, 1, 30_000] {
        guest.write_message(id, &bytes(len as u64, len), EOM)?;
    }
    for len in [1, 2, 100, 4096, 65_535, 65_536, 1, 30_000] {
        let seen = message(&mut program)?;
        assert_eq!(seen.len(), len);
        data::check(len as u64, &seen)?;
    }
    Ok(())
}

#[test]
fn a_message_in_many_packets_is_one() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let (mut program, id) = connected(&host, &mut guest)?;
    for (len, longest) in [(100, 1), (5000, 700), (100_000, 4096), (100_000, LONGEST)] {
        guest.write_as(id, &bytes(0, len), longest, EOM)?;
        let seen = message(&mut program)?;
        assert_eq!(seen.len(), len);
        data::check(0, &seen)?;
    }
    Ok(())
}

#[test]
fn an_unfinished_message_is_not_delivered() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let (mut program, id) = connected(&host, &mut guest)?;
    guest.write_message(id, b"first, ", 0)?;
    guest.link.all_sent()?;
    program.set_read_timeout(Some(SILENCE))?;
    assert!(program.read(&mut [0; 100]).is_err());
    let mut program = patient(program)?;
    guest.write_message(id, b"last", EOM | EOR)?;
    assert_eq!(message(&mut program)?, b"first, last");
    Ok(())
}

#[test]
fn an_unfinished_message_is_lost_with_the_guest_s_end() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let (mut program, id) = connected(&host, &mut guest)?;
    guest.write_message(id, b"whole", EOM)?;
    guest.write_message(id, b"half", 0)?;
    guest.shut_down(id, NO_SEND | NO_RECEIVE)?;
    assert_eq!(message(&mut program)?, b"whole");
    closed(&mut program)?;
    guest.ended(id)
}

#[test]
fn messages_of_a_program_keep_their_ends() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let (mut program, id) = connected(&host, &mut guest)?;
    let lens = [1usize, 3, 3732, 3733, 3734, 65_536, 10, 100_000];
    for len in lens {
        assert_eq!(program.write(&bytes(len as u64, len))?, len);
    }
    for len in lens {
        let (seen, flags) = guest.read_message(id)?;
        assert_eq!(seen.len(), len);
        assert_ne!(flags & EOM, 0);
        data::check(len as u64, &seen)?;
    }
    Ok(())
}

#[test]
fn an_end_that_came_while_the_guest_had_no_room_is_seen() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    guest.window = 100;
    let (mut program, id) = connected(&host, &mut guest)?;
    for part in [&[1; 60][..], &[2; 60], &[], &[3; 10]] {
        // not write_all, which leaves an empty one out
        assert_eq!(program.write(part)?, part.len());
    }
    guest.idle(SILENCE)?;
    program.shutdown(Shutdown::Write)?;
    guest.idle(SILENCE)?;
    for (byte, len) in [(1, 60), (2, 60), (3, 10)] {
        assert_eq!(guest.read_message(id)?.0, vec![byte; len]);
    }
    guest.wait("the end", |guest| {
        (guest.connections[&id].peer_shutdown == NO_SEND).then_some(())
    })?;
    guest.write_message(id, b"understood", EOM)?;
    assert_eq!(message(&mut program)?, b"understood");
    Ok(())
}

#[test]
fn a_program_that_sends_messages_without_bytes_holds_nothing_up() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let (program, flooded) = connected(&host, &mut guest)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if (&program).write(&[]).is_err() {
                        break;
                    }
                }
            });
        }
        // by a guest and its end, while it goes on
        let result = guest.idle(SILENCE).and_then(|()| {
            let (mut other, id) = host.reach(&mut guest, PORT)?;
            guest.write(id, b"meanwhile")?;
            assert_eq!(read(&mut other, 9)?, b"meanwhile");
            guest.close(flooded)?;
            guest.link.session.stop_ring(TX)
        });
        over.store(true, Ordering::Relaxed);
        result.map(drop)
    })
}

#[test]
fn a_program_reaches_a_port_of_the_guest_for_messages() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    guest.listen(PORT, SEQPACKET);
    let mut program = connect_for_messages(&messages_path(host.path()))?;
    program.write_all(format!("CONNECT {PORT}\n").as_bytes())?;
    let id = guest.accept()?;
    let answer = message(&mut program)?;
    assert_eq!(answer, format!("OK {}\n", id.peer_port).into_bytes());
    program.write_all(b"to the guest")?;
    assert_eq!(guest.read_message(id)?.0, b"to the guest");
    guest.write_message(id, b"to the host", EOM)?;
    assert_eq!(message(&mut program)?, b"to the host");
    guest.close(id)?;
    closed(&mut program)
}

#[test]
fn a_message_longer_than_the_window_ends_its_connection_only() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let before = host.daemon.stats()?.anonymous_kib;
    let (mut program, id) = connected(&host, &mut guest)?;
    let listener = host.listen(PORT + 1)?;
    let (mut other, good) = host.called(&mut guest, &listener)?;
    // no end of it: the window is full, or the connection is over, but no credit comes for ever
    let mut sent = 0;
    while sent < 64 << 20 && guest.connection(id)?.state == State::Established {
        let room = guest.connection(id)?.credit().min(LONGEST as u32) as usize;
        if room == 0 {
            guest.idle(SILENCE)?;
            if guest.connection(id)?.credit() == 0 {
                break;
            }
            continue;
        }
        guest.write_as(id, &bytes(0, room), LONGEST, 0)?;
        guest.pump()?;
        sent += room;
    }
    assert!(sent < 64 << 20, "{sent} bytes of one message were taken");
    let growth = host.daemon.stats()?.anonymous_kib.saturating_sub(before);
    assert!(growth < 3 * 1024, "{growth} KiB");
    guest.write(good, b"well")?;
    assert_eq!(read(&mut other, 4)?, b"well");
    if guest.connection(id)?.state == State::Established {
        guest.say(id, RST, 0)?;
    }
    closed(&mut program)
}

#[test]
fn streams_and_messages_do_not_meet() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let _streams = host.listen(PORT)?;
    let _messages = host.listen_for_messages(PORT + 1)?;
    for (port, kind) in [(PORT, SEQPACKET), (PORT + 1, STREAM)] {
        let id = guest.begin(HOST, port, kind)?;
        assert_eq!(guest.settled(id)?, State::Ended, "port {port}");
    }
    Ok(())
}

#[test]
fn a_connection_does_not_change_its_type() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let (mut program, id) = connected(&host, &mut guest)?;
    let header = Header {
        kind: STREAM,
        len: 4,
        ..guest.header(id, RW)
    };
    guest.link.send(&header, b"what")?;
    // an answer to that would be of the other type: not this connection's
    let answer = guest.link.receive(Duration::from_secs(10))?.header;
    assert_eq!((answer.op, answer.kind), (RST, STREAM));
    guest.write_message(id, b"still whole", EOM)?;
    assert_eq!(message(&mut program)?, b"still whole");
    Ok(())
}

#[test]
fn a_program_that_does_not_read_stops_the_guest_within_its_window() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let (mut program, id) = connected(&host, &mut guest)?;
    let mut sent = 0u64;
    loop {
        if guest.connection(id)?.credit() < 5000 {
            guest.idle(Duration::from_millis(200))?;
            if guest.connection(id)?.credit() < 5000 {
                break;
            }
        }
        guest.write_message(id, &bytes(sent, 5000), EOM)?;
        sent += 1;
        assert!(sent < 10_000);
    }
    for number in 0..sent {
        let seen = message(&mut program)?;
        assert_eq!(seen.len(), 5000);
        data::check(number, &seen)?;
    }
    guest.write_message(id, b"goes on", EOM)?;
    assert_eq!(message(&mut program)?, b"goes on");
    Ok(())
}

#[test]
fn a_guest_that_reads_slowly_gets_whole_messages() -> Result<()> {
    const MESSAGES: u64 = 300;
    let host = Host::start()?;
    let mut guest = host.guest()?;
    guest.window = 64 << 10;
    let (mut program, id) = connected(&host, &mut guest)?;
    let writer = std::thread::spawn(move || -> Result<()> {
        for number in 0..MESSAGES {
            let len = 1 + (number as usize * 997) % 20_000;
            program.write_all(&bytes(number, len))?;
        }
        Ok(())
    });
    for number in 0..MESSAGES {
        let (seen, _) = guest.read_message(id)?;
        assert_eq!(seen.len(), 1 + (number as usize * 997) % 20_000);
        data::check(number, &seen)?;
    }
    writer.join().expect("the program panicked")
}
