//! Connections: how they come about, how they are refused, how they end.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::time::Duration;

use socket2::Type;
use vhost_device_testkit::failure::Result;
use vhost_device_testkit::session::Options;
use vhost_device_testkit::{ensure, sys};

use crate::support::guest::{Guest, Id, State};
use crate::support::host::{GUEST, Host, PORT, accept, closed, listen_with, nobody, read, read_ok};
use crate::support::link::{Buffers, Link, PATIENCE};
use crate::support::packet::*;

/// How long nothing must happen to count as nothing.
const SILENCE: Duration = Duration::from_millis(60);

#[test]
fn the_guest_reaches_a_program_that_listens_at_its_port() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (mut program, id) = host.called(&mut guest, &listener)?;
    guest.write(id, b"from the guest")?;
    assert_eq!(read(&mut program, 14)?, b"from the guest");
    program.write_all(b"from the host")?;
    assert_eq!(guest.read(id, 13)?, b"from the host");
    guest.close(id)?;
    closed(&mut program)
}

#[test]
fn a_program_reaches_a_port_of_the_guest() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let (mut program, id) = host.reach(&mut guest, PORT)?;
    assert_eq!(id.peer_cid, HOST);
    program.write_all(b"from the host")?;
    assert_eq!(guest.read(id, 13)?, b"from the host");
    guest.write(id, b"from the guest")?;
    assert_eq!(read(&mut program, 14)?, b"from the guest");
    drop(program);
    guest.ended(id)
}

#[test]
fn the_device_offers_streams_and_messages() -> Result<()> {
    let host = Host::start()?;
    let guest = host.guest()?;
    let offered = guest.link.session.features;
    assert_eq!(
        offered & (F_STREAM | F_SEQPACKET | F_NO_IMPLIED_STREAM),
        F_STREAM | F_SEQPACKET | F_NO_IMPLIED_STREAM
    );
    Ok(())
}

/// The packet that answers this one, which must be RST and back the way.
fn reset(link: &mut Link, sent: &Header) -> Result<()> {
    link.send(sent, &vec![0x55; sent.len as usize])?;
    let answer = link.receive(PATIENCE)?.header;
    ensure!(answer.op == RST, "{answer:?} came instead of RST");
    ensure!(
        (answer.src_port, answer.dst_port) == (sent.dst_port, sent.src_port),
        "{answer:?} answers {sent:?}"
    );
    ensure!(
        answer.src_cid == sent.dst_cid,
        "{answer:?} answers {sent:?}"
    );
    ensure!(answer.len == 0, "RST with {} bytes", answer.len);
    Ok(())
}

/// A packet of the guest to a port of the host.
fn packet(op: u16) -> Header {
    Header {
        src_cid: GUEST,
        dst_cid: HOST,
        src_port: 4000,
        dst_port: PORT,
        kind: STREAM,
        op,
        buf_alloc: 256 << 10,
        ..Header::default()
    }
}

fn link(host: &Host) -> Result<Link> {
    Link::open(host.daemon.socket(), &Options::usual(3), &Buffers::usual())
}

/// The guest and the host still get on.
fn works(host: &Host, guest: &mut Guest, port: u32) -> Result<()> {
    let listener = host.listen(port)?;
    let (mut program, id) = host.called(guest, &listener)?;
    guest.write(id, b"still here")?;
    assert_eq!(read(&mut program, 10)?, b"still here");
    guest.close(id)
}

#[test]
fn a_port_that_nobody_listens_at_is_refused() -> Result<()> {
    let host = Host::start()?;
    let mut link = link(&host)?;
    for kind in [STREAM, SEQPACKET] {
        let request = Header {
            kind,
            ..packet(REQUEST)
        };
        reset(&mut link, &request)?;
    }
    Ok(())
}

#[test]
fn a_socket_that_nobody_listens_at_any_more_is_refused() -> Result<()> {
    let host = Host::start()?;
    let mut link = link(&host)?;
    drop(host.listen(PORT)?);
    assert!(host.path_of(PORT).exists());
    reset(&mut link, &packet(REQUEST))?;
    std::fs::remove_file(host.path_of(PORT))?;
    std::fs::write(host.path_of(PORT), "no socket")?;
    reset(&mut link, &packet(REQUEST))
}

#[test]
fn a_listener_that_accepts_nobody_holds_nobody_up() -> Result<()> {
    let host = Host::start()?;
    let _full = listen_with(&host.path_of(99), Type::STREAM, 1)?;
    let mut guest = host.guest()?;
    // the backlog is full after a few of these
    let ids: Vec<Id> = (0..8)
        .map(|_| guest.begin(HOST, 99, STREAM))
        .collect::<Result<_>>()?;
    works(&host, &mut guest, PORT)?;
    let settled = ids
        .iter()
        .map(|id| guest.settled(*id))
        .collect::<Result<Vec<State>>>()?;
    assert!(settled.contains(&State::Ended), "{settled:?}");
    Ok(())
}

#[test]
fn a_guest_port_that_nobody_listens_at_is_an_end_without_ok() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let mut program = host.ask(PORT)?;
    guest.idle(SILENCE)?;
    closed(&mut program)
}

#[test]
fn packets_of_unknown_connections_are_reset() -> Result<()> {
    let host = Host::start()?;
    let _listener = host.listen(PORT)?;
    let mut link = link(&host)?;
    for op in [RESPONSE, SHUTDOWN, CREDIT_UPDATE, CREDIT_REQUEST] {
        reset(&mut link, &packet(op))?;
    }
    let data = Header {
        len: 5000,
        ..packet(RW)
    };
    reset(&mut link, &data)?;
    // or two of the kind would never stop
    link.send(&packet(RST), &[])?;
    link.silent(SILENCE)
}

#[test]
fn packets_of_unknown_types_are_reset() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut link = link(&host)?;
    for kind in [0, 3, 0x8000, u16::MAX] {
        reset(
            &mut link,
            &Header {
                kind,
                ..packet(REQUEST)
            },
        )?;
    }
    nobody(&listener, SILENCE)
}

#[test]
fn packets_with_another_source_are_reset_and_do_nothing() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut link = link(&host)?;
    for src_cid in [0, 1, HOST, GUEST + 1, 1 << 32 | GUEST, u64::MAX] {
        reset(
            &mut link,
            &Header {
                src_cid,
                ..packet(REQUEST)
            },
        )?;
    }
    nobody(&listener, SILENCE)
}

#[test]
fn packets_to_nobody_are_reset() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut link = link(&host)?;
    for dst_cid in [0, 1, GUEST, 77, 1 << 32 | HOST, u64::MAX] {
        reset(
            &mut link,
            &Header {
                dst_cid,
                ..packet(REQUEST)
            },
        )?;
    }
    nobody(&listener, SILENCE)
}

#[test]
fn an_unknown_operation_harms_no_other_connection() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (_victim, odd) = host.called(&mut guest, &listener)?;
    let (mut program, id) = host.called(&mut guest, &listener)?;
    for op in [0, 8, 255, u16::MAX] {
        guest.say(odd, op, 0)?;
    }
    guest.write(id, b"well")?;
    assert_eq!(read(&mut program, 4)?, b"well");
    Ok(())
}

#[test]
fn asking_twice_for_the_same_connection_makes_no_second_one() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (_program, id) = host.called(&mut guest, &listener)?;
    guest.say(id, REQUEST, 0)?;
    guest.idle(SILENCE)?;
    nobody(&listener, SILENCE)?;
    works(&host, &mut guest, PORT + 1)
}

#[test]
fn a_connection_is_answered_once_and_with_its_ports() -> Result<()> {
    let host = Host::start()?;
    let _listener = host.listen(PORT)?;
    let mut link = link(&host)?;
    link.send(&packet(REQUEST), &[])?;
    let answer = link.receive(PATIENCE)?.header;
    assert_eq!(
        Header {
            buf_alloc: 0,
            ..answer
        },
        Header {
            src_cid: HOST,
            dst_cid: GUEST,
            src_port: PORT,
            dst_port: 4000,
            kind: STREAM,
            op: RESPONSE,
            ..Header::default()
        }
    );
    assert!(answer.buf_alloc >= 256 << 10, "{}", answer.buf_alloc);
    link.silent(SILENCE)
}

#[test]
fn the_same_ports_can_be_used_again_after_a_clean_end() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let id = Id {
        port: 4000,
        peer_cid: HOST,
        peer_port: PORT,
    };
    for round in 0..50u8 {
        guest.begin_as(id, STREAM)?;
        assert_eq!(guest.settled(id)?, State::Established, "round {round}");
        let mut program = accept(&listener)?;
        guest.write(id, &[round])?;
        assert_eq!(read(&mut program, 1)?, [round]);
        guest.close(id)?;
        closed(&mut program)?;
    }
    Ok(())
}

#[test]
fn ports_of_connections_that_have_not_ended_are_not_given_again() -> Result<()> {
    let host = Host::start()?;
    let mut link = link(&host)?;
    let mut ports = HashSet::new();
    for _ in 0..64 {
        let program = host.ask(PORT)?;
        let request = link.receive(PATIENCE)?.header;
        assert_eq!((request.op, request.dst_port), (REQUEST, PORT));
        assert!(ports.insert(request.src_port), "{}", request.src_port);
        let back = Header {
            src_port: PORT,
            dst_port: request.src_port,
            ..packet(RESPONSE)
        };
        link.send(&back, &[])?;
        // the program leaves; the guest says nothing to that, so that it may still be at work
        drop(program);
        let end = link.receive(PATIENCE)?.header;
        assert!([SHUTDOWN, RST].contains(&end.op), "{end:?}");
    }
    Ok(())
}

#[test]
fn many_connections_of_the_host_have_ports_of_their_own() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let mut ports = HashSet::new();
    let mut held = Vec::new();
    for _ in 0..200 {
        let (program, id) = host.reach(&mut guest, PORT)?;
        assert!(ports.insert(id.peer_port), "{}", id.peer_port);
        held.push(program);
    }
    Ok(())
}

#[test]
fn a_guest_that_resets_ends_the_program_s_stream() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (mut program, id) = host.called(&mut guest, &listener)?;
    guest.say(id, RST, 0)?;
    closed(&mut program)?;
    guest.idle(SILENCE)?;
    guest.say(id, RW, 0)?;
    guest.ended(id)
}

#[test]
fn a_program_that_leaves_ends_the_guest_s_connection() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (program, id) = host.called(&mut guest, &listener)?;
    drop(program);
    guest.ended(id)
}

#[test]
fn a_program_that_leaves_with_unread_data_ends_the_guest_s_connection() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (program, id) = host.called(&mut guest, &listener)?;
    guest.write(id, &[7; 100_000])?;
    guest.link.all_sent()?;
    drop(program);
    guest.ended(id)?;
    works(&host, &mut guest, PORT + 1)
}

#[test]
fn a_program_that_dies_in_the_middle_of_a_transfer_ends_the_connection() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (mut program, id) = host.called(&mut guest, &listener)?;
    let reader = std::thread::spawn(move || read(&mut program, 1 << 20));
    let mut written = 0;
    // the program reads its megabyte and is gone
    while written < 64 << 20 {
        if guest.write(id, &[3; 60_000]).is_err() {
            break;
        }
        written += 60_000;
    }
    reader.join().expect("the reader panicked")?;
    assert!(written < 64 << 20);
    guest.ended(id)?;
    works(&host, &mut guest, PORT + 1)
}

#[test]
fn nothing_is_left_of_connections_that_ended() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    works(&host, &mut guest, PORT + 1)?;
    let before = host.daemon.stats()?;
    for _ in 0..300 {
        let (program, id) = host.called(&mut guest, &listener)?;
        drop(program);
        guest.ended(id)?;
        let (_program, id) = host.reach(&mut guest, PORT)?;
        guest.close(id)?;
    }
    let gone = sys::wait_for(PATIENCE, || {
        let now = host.daemon.stats().ok()?;
        (now.descriptors <= before.descriptors).then_some(now)
    });
    let now = gone.expect("descriptors are left");
    let growth = now.anonymous_kib.saturating_sub(before.anonymous_kib);
    assert!(growth < 1024, "{growth} KiB");
    Ok(())
}

#[test]
fn a_thousand_connections_all_carry_their_own_bytes() -> Result<()> {
    const MANY: u32 = 1000;
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let mut pairs = Vec::new();
    for _ in 0..MANY {
        pairs.push(host.called(&mut guest, &listener)?);
    }
    for round in 0..4u32 {
        for (number, (_, id)) in pairs.iter().enumerate() {
            guest.write(*id, &mark(round, number))?;
        }
        for (number, (program, _)) in pairs.iter_mut().enumerate() {
            let mark = mark(round, number);
            assert_eq!(read(program, mark.len())?, mark, "{number}");
            program.write_all(&mark)?;
        }
        for (number, (_, id)) in pairs.iter().enumerate() {
            let mark = mark(round, number);
            assert_eq!(guest.read(*id, mark.len())?, mark, "{number}");
        }
    }
    Ok(())
}

/// Some hundred bytes that no other connection or round has.
fn mark(round: u32, number: usize) -> Vec<u8> {
    format!("connection {number} in round {round}; ")
        .into_bytes()
        .repeat(20)
}

#[test]
fn a_thousand_idle_connections_cost_at_most_four_mebibytes() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    works(&host, &mut guest, PORT + 1)?;
    let before = host.daemon.stats()?.anonymous_kib;
    let mut pairs = Vec::new();
    for _ in 0..1000 {
        let (mut program, id) = host.called(&mut guest, &listener)?;
        // not only open: all have carried something both ways
        guest.write(id, &[1; 5000])?;
        read(&mut program, 5000)?;
        program.write_all(&[2; 5000])?;
        guest.read(id, 5000)?;
        pairs.push(program);
    }
    let growth = host.daemon.stats()?.anonymous_kib.saturating_sub(before);
    assert!(growth <= 4096, "{growth} KiB");
    Ok(())
}

#[test]
fn a_daemon_without_descriptors_refuses_and_serves_again() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    works(&host, &mut guest, PORT + 1)?;
    let used = host.daemon.stats()?.descriptors as u64;
    let usual = sys::limit(host.daemon.pid(), libc_nofile(), used + 8)?;
    let mut held = Vec::new();
    let refused = loop {
        let id = guest.begin(HOST, PORT, STREAM)?;
        match guest.settled(id)? {
            State::Established => held.push((accept(&listener)?, id)),
            _ => break held.len(),
        }
        ensure!(held.len() < 64, "no connection was refused");
    };
    assert!(refused >= 1);
    let (mut program, id) = held.swap_remove(0);
    guest.write(id, b"fine")?;
    assert_eq!(read(&mut program, 4)?, b"fine");
    // a program cannot be accepted either: it waits, and the daemon must not spin over it
    let mut waiting = host.ask(PORT)?;
    let before = host.daemon.run_time()?;
    guest.idle(Duration::from_millis(500))?;
    let busy = host.daemon.run_time()? - before;
    assert!(busy < Duration::from_millis(100), "{busy:?}");
    sys::limit(host.daemon.pid(), libc_nofile(), usual)?;
    guest.listen(PORT, STREAM);
    for (program, id) in held {
        drop(program);
        guest.ended(id)?;
    }
    guest.accept()?;
    read_ok(&mut waiting)?;
    works(&host, &mut guest, PORT + 2)
}

/// RLIMIT_NOFILE on Linux.
fn libc_nofile() -> u32 {
    7
}

#[test]
fn the_frontend_s_end_is_the_end_of_all_streams_and_the_next_guest_is_told() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (mut first, _) = host.called(&mut guest, &listener)?;
    let (mut second, _) = host.reach(&mut guest, PORT)?;
    let mut unanswered = host.ask(PORT + 7)?;
    drop(guest);
    closed(&mut first)?;
    closed(&mut second)?;
    closed(&mut unanswered)?;
    let mut guest = host.guest()?;
    assert_eq!(guest.link.event(PATIENCE)?, 0, "TRANSPORT_RESET");
    works(&host, &mut guest, PORT + 1)
}

#[test]
fn a_device_reset_ends_all_streams() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (mut program, _) = host.called(&mut guest, &listener)?;
    // as a frontend does when the guest's driver lets go of the device
    for ring in 0..3 {
        guest.link.session.stop_ring(ring)?;
    }
    drop(guest);
    closed(&mut program)?;
    let mut guest = host.guest()?;
    works(&host, &mut guest, PORT + 1)
}

#[test]
fn a_program_that_asks_before_there_is_a_guest_is_told_at_once_or_later() -> Result<()> {
    let host = Host::start()?;
    let mut program = host.ask(PORT)?;
    let mut guest = host.guest()?;
    guest.listen(PORT, STREAM);
    guest.idle(SILENCE)?;
    // either it was turned away, or it is served now; it must not hang
    let mut answer = [0; 3];
    let length = program.read(&mut answer)?;
    if length > 0 {
        assert!(answer[..length].starts_with(b"OK"), "{answer:?}");
        guest.accept()?;
    }
    let (_program, id) = host.reach(&mut guest, PORT + 1)?;
    guest.close(id)
}

#[test]
fn without_messages_negotiated_there_are_none() -> Result<()> {
    let host = Host::start()?;
    let _listener = host.listen_for_messages(PORT)?;
    let usual = Options::usual(3);
    let without = usual.features & !F_SEQPACKET;
    let mut link = Link::open(
        host.daemon.socket(),
        &usual.with_features(without),
        &Buffers::usual(),
    )?;
    let request = Header {
        kind: SEQPACKET,
        ..packet(REQUEST)
    };
    reset(&mut link, &request)
}

#[test]
fn without_any_feature_of_the_device_there_are_streams() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let usual = Options::usual(3);
    let without = usual.features & !(F_STREAM | F_SEQPACKET | F_NO_IMPLIED_STREAM);
    let mut guest = host.guest_with(&usual.with_features(without), &Buffers::usual())?;
    let (mut program, id) = host.called(&mut guest, &listener)?;
    guest.write(id, b"implied")?;
    assert_eq!(read(&mut program, 7)?, b"implied");
    Ok(())
}
