//! Packets as a guest should not send them, and in every framing in which it may.

use std::io::Write;
use std::time::Duration;

use vhost_device_testkit::failure::Result;
use vhost_device_testkit::framing::{Framing, Split};
use vhost_device_testkit::ring::Descriptor;
use vhost_device_testkit::session::Options;

use crate::support::data::{self, bytes};
use crate::support::guest::{Guest, Id, State};
use crate::support::host::{Host, PORT, accept, read};
use crate::support::link::{Buffers, PATIENCE, RX, TX};
use crate::support::packet::*;

#[test]
fn every_framing_of_a_packet_gives_one_answer() -> Result<()> {
    const PAYLOAD: usize = 21;
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    let framings = Framing::all(HEADER + PAYLOAD, 0, 128, true);
    assert!(framings.len() > 100);
    for (round, framing) in framings.iter().enumerate() {
        let payload = bytes(round as u64 * 64, PAYLOAD);
        let header = Header {
            len: PAYLOAD as u32,
            ..guest.header(id, RW)
        };
        let packet = [&header.to_bytes()[..], &payload].concat();
        guest.link.send_cut(&packet, framing)?;
        let connection = guest.connection(id)?;
        connection.tx_cnt += PAYLOAD as u32;
        assert_eq!(read(&mut stream, PAYLOAD)?, payload, "{framing:?}");
    }
    Ok(())
}

#[test]
fn a_request_in_single_bytes_connects() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    for indirect in [false, true] {
        let id = guest.begin(HOST, PORT, STREAM)?;
        guest.settled(id)?;
        accept(&listener)?;
        let again = Id {
            port: id.port + 1000,
            ..id
        };
        let header = Header {
            src_port: again.port,
            ..guest.header(id, REQUEST)
        };
        let framing = Framing {
            readable: Split::Bytes,
            indirect,
            ..Framing::whole()
        };
        guest.link.send_cut(&header.to_bytes(), &framing)?;
        accept(&listener)?;
    }
    Ok(())
}

#[test]
fn every_framing_of_the_receive_buffers_gives_the_same_bytes() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let sizes = [
        (Split::Bytes, 100),
        (Split::At(1), 3776),
        (Split::At(43), 3776),
        (Split::At(44), 44 + 4096),
        (Split::At(45), 3776),
        (Split::At(60), 61),
        (Split::Random(3), 3776),
        (Split::Random(4), 800),
    ];
    for (split, len) in sizes {
        let descriptors = split.pieces(len as usize).len();
        let buffers = Buffers {
            count: 256 / descriptors,
            len,
            split,
        };
        let mut guest = host.guest_with(&Options::usual(3), &buffers)?;
        let (mut stream, id) = host.called(&mut guest, &listener)?;
        stream.write_all(&bytes(0, 50_000))?;
        let seen = guest.read(id, 50_000)?;
        data::check(0, &seen)?;
        guest.close(id)?;
    }
    Ok(())
}

#[test]
fn receive_buffers_too_short_for_anything_are_passed_over() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest_with(&Options::usual(3), &Buffers::of(0, 0))?;
    let memory = guest.link.session.memory.clone();
    for len in [1, 20, 43] {
        let at = memory.take(64, 8);
        guest.link.session.rings[RX].add(&[Descriptor::writable(at, len)])?;
    }
    guest.link.session.rings[RX].submit()?;
    guest.begin(HOST, PORT, STREAM)?;
    let mut seen = Vec::new();
    guest.link.give_buffers(&Buffers::of(4, 3776))?;
    let answer = loop {
        let ring = &mut guest.link.session.rings[RX];
        let used = ring.wait(PATIENCE)?;
        if used.len > 0 {
            break used;
        }
        seen.push(used);
    };
    assert_eq!(answer.len as usize, HEADER);
    assert_eq!(seen.len(), 3);
    accept(&listener)?;
    Ok(())
}

#[test]
fn receive_buffers_with_room_for_a_header_only_do_not_stop_the_rest() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest_with(&Options::usual(3), &Buffers::of(8, 44))?;
    guest.link.give_buffers(&Buffers::of(8, 400))?;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    stream.write_all(&bytes(0, 20_000))?;
    data::check(0, &guest.read(id, 20_000)?)
}

/// An established connection beside which something odd is sent, and which must not notice.
fn beside(odd: impl Fn(&mut Guest, Id) -> Result<()>) -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (_victim, victim) = host.called(&mut guest, &listener)?;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    odd(&mut guest, victim)?;
    guest.write(id, b"well")?;
    assert_eq!(read(&mut stream, 4)?, b"well");
    stream.write_all(b"well")?;
    assert_eq!(guest.read(id, 4)?, b"well");
    Ok(())
}

#[test]
fn a_packet_shorter_than_its_header_says_delivers_nothing_wrong() -> Result<()> {
    for (len, real) in [
        (100u32, 99usize),
        (1, 0),
        (65_537, 10),
        (1 << 31, 10),
        (u32::MAX, 500),
    ] {
        let host = Host::start()?;
        let listener = host.listen(PORT)?;
        let mut guest = host.guest()?;
        let (mut victim, id) = host.called(&mut guest, &listener)?;
        let header = Header {
            len,
            ..guest.header(id, RW)
        };
        let packet = [&header.to_bytes()[..], &bytes(0, real)].concat();
        guest.link.send_cut(&packet, &Framing::whole())?;
        // a refused packet may end its connection; nothing that was not in it may come out
        victim.set_nonblocking(true)?;
        let mut seen = vec![0; 70_000];
        let length = std::io::Read::read(&mut victim, &mut seen).unwrap_or(0);
        assert!(length <= real, "{length} bytes out of {real}");
        data::check(0, &seen[..length])?;
        let (mut stream, id) = host.called(&mut guest, &listener)?;
        guest.write(id, b"well")?;
        assert_eq!(read(&mut stream, 4)?, b"well");
    }
    Ok(())
}

#[test]
fn bytes_behind_the_payload_are_not_part_of_it() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest()?;
    let (mut stream, id) = host.called(&mut guest, &listener)?;
    let header = Header {
        len: 3,
        ..guest.header(id, RW)
    };
    let packet = [&header.to_bytes()[..], b"abcdefgh"].concat();
    guest.link.send_cut(&packet, &Framing::whole())?;
    guest.connection(id)?.tx_cnt += 3;
    guest.write(id, b"xyz")?;
    assert_eq!(read(&mut stream, 6)?, b"abcxyz");
    Ok(())
}

#[test]
fn packets_shorter_than_a_header_are_nothing() -> Result<()> {
    beside(|guest, victim| {
        let header = guest.header(victim, RST).to_bytes();
        (1..HEADER).try_for_each(|len| guest.link.send_cut(&header[..len], &Framing::whole()))?;
        guest.pump()?;
        assert_eq!(guest.connection(victim)?.state, State::Established);
        Ok(())
    })
}

#[test]
fn packets_that_the_device_could_only_write_to_are_nothing() -> Result<()> {
    beside(|guest, _| {
        let at = guest.link.session.memory.take(64, 8);
        // or one of the packets before would be taken for it
        guest.link.all_sent()?;
        let ring = &mut guest.link.session.rings[TX];
        ring.add(&[Descriptor::writable(at, 64)])?;
        ring.submit()?;
        let used = ring.wait(PATIENCE)?;
        assert_eq!(used.len, 0);
        Ok(())
    })
}

#[test]
fn receive_buffers_that_the_device_could_only_read_are_passed_over() -> Result<()> {
    let host = Host::start()?;
    let listener = host.listen(PORT)?;
    let mut guest = host.guest_with(&Options::usual(3), &Buffers::of(0, 0))?;
    let at = guest.link.session.memory.take(64, 8);
    guest.link.session.rings[RX].add(&[Descriptor::readable(at, 64)])?;
    guest.link.session.rings[RX].submit()?;
    guest.begin(HOST, PORT, STREAM)?;
    accept(&listener)?;
    let used = guest.link.session.rings[RX].wait(PATIENCE)?;
    assert_eq!(used.len, 0);
    guest.link.give_buffers(&Buffers::of(4, 3776))?;
    let answer = guest.link.receive(PATIENCE)?;
    assert_eq!(answer.header.op, RESPONSE);
    Ok(())
}

#[test]
fn payloads_of_packets_that_have_none_are_ignored() -> Result<()> {
    beside(|guest, victim| {
        for op in [CREDIT_UPDATE, CREDIT_REQUEST, SHUTDOWN] {
            let header = Header {
                len: 500,
                ..guest.header(victim, op)
            };
            let packet = [&header.to_bytes()[..], &[0xee; 500]].concat();
            guest.link.send_cut(&packet, &Framing::whole())?;
        }
        Ok(())
    })
}

#[test]
fn packets_of_random_bytes_harm_no_connection() -> Result<()> {
    use vhost_device_testkit::random::Random;
    beside(|guest, _| {
        let mut random = Random::new(4);
        let mut replies = 0;
        for _ in 0..5000 {
            let mut bytes = random.bytes(HEADER);
            let len = random.below(60);
            // half of them look like the guest's own, with ports that nobody has
            if random.below(2) == 0 {
                bytes[..16].copy_from_slice(
                    &Header {
                        src_cid: guest.cid,
                        dst_cid: HOST,
                        ..Header::default()
                    }
                    .to_bytes()[..16],
                );
                bytes[24..28].copy_from_slice(&(len as u32).to_le_bytes());
                bytes[28..30].copy_from_slice(&(random.below(4) as u16).to_le_bytes());
                bytes[30..32].copy_from_slice(&(random.below(9) as u16).to_le_bytes());
            }
            bytes.extend(random.bytes(len as usize));
            guest.link.send_cut(&bytes, &Framing::whole())?;
            while let Some(packet) = guest.link.try_receive()? {
                assert_eq!(packet.header.op, RST, "{:?}", packet.header);
                replies += 1;
            }
            guest.link.refill()?;
        }
        assert!(replies > 0);
        // the last ones may still be on their way
        while let Ok(packet) = guest.link.receive(Duration::from_millis(60)) {
            assert_eq!(packet.header.op, RST, "{:?}", packet.header);
        }
        Ok(())
    })
}
