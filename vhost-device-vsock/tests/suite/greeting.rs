//! The line with which a program of the host asks for a port of the guest.

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use vhost_device_testkit::failure::Result;

use crate::support::host::{Host, PORT, closed, line, read, read_ok, read_to_end};
use crate::support::link::PATIENCE;
use crate::support::packet::*;

const SILENCE: Duration = Duration::from_millis(60);

#[test]
fn ok_tells_the_port_that_the_guest_sees() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    guest.listen(PORT, STREAM);
    let program = host.ask(PORT)?;
    let id = guest.accept()?;
    assert_eq!(line(&program)?, format!("OK {}\n", id.peer_port));
    Ok(())
}

#[test]
fn data_may_follow_the_line_in_the_same_write() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    guest.listen(PORT, STREAM);
    let mut program = host.connect()?;
    let data = vec![9; 20_000];
    let mut all = format!("CONNECT {PORT}\n").into_bytes();
    all.extend(&data);
    program.write_all(&all)?;
    let id = guest.accept()?;
    read_ok(&mut program)?;
    assert_eq!(guest.read(id, data.len())?, data);
    Ok(())
}

#[test]
fn the_line_may_come_in_pieces() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    guest.listen(PORT, STREAM);
    let mut program = host.connect()?;
    for byte in format!("CONNECT {PORT}\nx").into_bytes() {
        program.write_all(&[byte])?;
        guest.idle(Duration::from_millis(2))?;
    }
    let id = guest.accept()?;
    read_ok(&mut program)?;
    assert_eq!(guest.read(id, 1)?, b"x");
    Ok(())
}

#[test]
fn ok_is_not_said_before_the_guest_has_accepted() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let program = host.ask(PORT)?;
    let request = guest.link.receive(PATIENCE)?.header;
    assert_eq!(request.op, REQUEST);
    assert!(!vhost_device_testkit::sys::readable(&program, SILENCE)?);
    Ok(())
}

#[test]
fn no_data_travels_before_the_guest_has_accepted() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let mut program = host.ask(PORT)?;
    program.write_all(&[1; 1000])?;
    assert_eq!(guest.link.receive(PATIENCE)?.header.op, REQUEST);
    guest.link.silent(SILENCE)
}

#[test]
fn a_line_that_is_none_is_the_end() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let long = format!("CONNECT {}1234\n", "0".repeat(5000));
    for garbage in [
        &b"\n"[..],
        b"CONNECT\n",
        b"CONNECT \n",
        b"CONNECT x\n",
        b"CONNECT -1\n",
        b"CONNECT 1 2\n",
        b"CONNECT 4294967296\n",
        b"CONNECT 99999999999999999999\n",
        b"CONNECT 0x10\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECTED 5\n",
        b"\xff\xfe\0\0CONNECT 5\n",
        long.as_bytes(),
        &[b'C'; 100_000],
    ] {
        let mut program = host.connect()?;
        // the daemon may hang up in the middle of a long one
        let _ = program.write_all(garbage);
        guest.idle(Duration::from_millis(5))?;
        assert!(closed(&mut program).is_ok(), "{garbage:?}");
    }
    assert!(guest.connections.is_empty());
    let (_program, id) = host.reach(&mut guest, PORT)?;
    guest.close(id)
}

#[test]
fn programs_that_leave_early_harm_nobody() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let line = format!("CONNECT {PORT}\nrest");
    for length in 0..line.len() {
        let mut program = host.connect()?;
        program.write_all(&line.as_bytes()[..length])?;
        drop(program);
        guest.idle(Duration::from_millis(2))?;
    }
    let (mut program, id) = host.reach(&mut guest, PORT)?;
    guest.write(id, b"good")?;
    assert_eq!(read(&mut program, 4)?, b"good");
    Ok(())
}

#[test]
fn a_program_that_leaves_before_the_guest_s_answer_is_forgotten() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    for _ in 0..20 {
        let program = host.ask(PORT)?;
        let request = guest.link.receive(PATIENCE)?.header;
        assert_eq!(request.op, REQUEST);
        drop(program);
        guest.link.send(&request.answer(RESPONSE), &[])?;
        // the guest believes in the connection, so that it has to be told
        let end = guest.link.receive(PATIENCE)?.header;
        let is_end = end.op == RST || end.op == SHUTDOWN && end.flags == NO_RECEIVE | NO_SEND;
        assert!(is_end, "{end:?}");
        guest.link.send(&request.answer(RST), &[])?;
        guest.link.all_sent()?;
    }
    let (_program, id) = host.reach(&mut guest, PORT)?;
    guest.close(id)
}

#[test]
fn silent_programs_hold_nobody_up() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let silent: Vec<_> = (0..40).map(|_| host.connect()).collect::<Result<_>>()?;
    let mut half: Vec<_> = (0..20).map(|_| host.connect()).collect::<Result<_>>()?;
    for program in &mut half {
        program.write_all(b"CONNE")?;
    }
    let (mut program, id) = host.reach(&mut guest, PORT)?;
    guest.write(id, b"good")?;
    assert_eq!(read(&mut program, 4)?, b"good");
    drop(silent);
    Ok(())
}

#[test]
fn a_program_may_end_its_side_with_the_request() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    guest.listen(PORT, STREAM);
    let mut program = host.connect()?;
    program.write_all(format!("CONNECT {PORT}\nquestion").as_bytes())?;
    program.shutdown(Shutdown::Write)?;
    let id = guest.accept()?;
    assert_eq!(guest.read_to_end(id)?, b"question");
    guest.write(id, b"answer")?;
    guest.close(id)?;
    read_ok(&mut program)?;
    assert_eq!(read_to_end(&mut program)?, b"answer");
    Ok(())
}

#[test]
fn a_guest_that_never_answers_is_not_asked_for_ever() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let mut patient = host.ask(PORT)?;
    let first = guest.link.receive(PATIENCE)?.header;
    let left = host.ask(PORT)?;
    let second = guest.link.receive(PATIENCE)?.header;
    assert_eq!((first.op, second.op), (REQUEST, REQUEST));
    drop(left);
    guest.link.silent(SILENCE)?;
    for _ in 0..2 {
        let end = guest.link.receive(PATIENCE)?.header;
        assert_eq!(end.op, RST);
        assert!([first.src_port, second.src_port].contains(&end.src_port));
    }
    closed(&mut patient)?;
    // an answer that comes too late is one to nothing
    for request in [first, second] {
        guest.link.send(&request.answer(RESPONSE), &[])?;
        let end = guest.link.receive(PATIENCE)?.header;
        assert_eq!((end.op, end.src_port), (RST, request.src_port));
    }
    Ok(())
}
