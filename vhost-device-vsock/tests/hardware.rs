//! The host's own AF_VSOCK as the host side of the device.
//!
//! Not among the tests that run everywhere: `cargo xtask test --only hardware` runs these in a machine whose kernel has
//! the loopback of AF_VSOCK.
#![allow(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use vhost_device_testkit::ensure;
use vhost_device_testkit::failure::{At, Result};
use vhost_device_testkit::process::Daemon;
use vhost_device_testkit::sys;

#[path = "support/mod.rs"]
mod support;

use support::data::{self, bytes};
use support::guest::{Guest, State};
use support::host::{GUEST, launch};
use support::link::{LONGEST, PATIENCE};
use support::packet::*;

/// This host, for itself (VMADDR_CID_LOCAL).
const LOCAL: u32 = 1;
/// Every context id of this host (VMADDR_CID_ANY).
const ANY: u32 = u32::MAX;

/// Ports of the guest that programs of the host reach.
const FORWARDED: u32 = 9001;
const SECOND: u32 = 9002;

struct Host(Daemon);

impl Host {
    fn start() -> Result<Self> {
        let cid = GUEST.to_string();
        let daemon = launch()?
            .arguments(["--guest-cid", &cid, "--forward-cid", "1"])
            .arguments(["--forward-listen", "9001+9002"])
            .start()?;
        Ok(Self(daemon))
    }

    fn guest(&self) -> Result<Guest> {
        Guest::open(self.0.socket(), GUEST)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // a test that failed already has more to say; the log is shown then
        if !std::thread::panicking() {
            let ended = self.0.finish();
            assert!(ended.is_ok(), "{ended:?}");
        }
    }
}

fn patient(socket: Socket) -> Result<Socket> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn listen(port: u32, kind: Type) -> Result<Socket> {
    let socket = Socket::new(Domain::VSOCK, kind, None).at("AF_VSOCK is needed")?;
    socket.bind(&SockAddr::vsock(ANY, port))?;
    socket.listen(16)?;
    Ok(socket)
}

fn accept(listener: &Socket) -> Result<Socket> {
    ensure!(
        sys::readable(listener, PATIENCE)?,
        "nobody connected to the host's program"
    );
    patient(listener.accept()?.0)
}

fn connect(port: u32, kind: Type) -> Result<Socket> {
    let socket = Socket::new(Domain::VSOCK, kind, None)?;
    socket.connect(&SockAddr::vsock(LOCAL, port))?;
    patient(socket)
}

#[test]
fn the_guest_reaches_programs_of_the_host() -> Result<()> {
    const LEN: usize = 1 << 20;
    let host = Host::start()?;
    let listener = listen(5000, Type::STREAM)?;
    let mut guest = host.guest()?;
    let id = guest.connect(5000)?;
    let mut program = accept(&listener)?;
    let echo = std::thread::spawn(move || -> Result<()> {
        let mut question = Vec::new();
        program.read_to_end(&mut question)?;
        program.write_all(&question)?;
        Ok(())
    });
    let mut at = 0;
    while at < LEN {
        guest.write(id, &bytes(at as u64, LONGEST))?;
        at += LONGEST;
    }
    guest.shut_down(id, NO_SEND)?;
    let answer = guest.read_to_end(id)?;
    assert_eq!(answer.len(), LEN);
    data::check(0, &answer)?;
    echo.join().expect("the program panicked")?;
    guest.ended(id)
}

#[test]
fn programs_of_the_host_reach_the_ports_that_are_forwarded() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    for port in [FORWARDED, SECOND] {
        guest.listen(port, STREAM);
        let mut program = connect(port, Type::STREAM)?;
        // no greeting here: what is written is the guest's
        program.write_all(b"question")?;
        program.shutdown(Shutdown::Write)?;
        let id = guest.accept()?;
        assert_eq!(id.port, port);
        assert_eq!(guest.read_to_end(id)?, b"question");
        guest.write(id, b"answer")?;
        guest.close(id)?;
        let mut answer = Vec::new();
        program.read_to_end(&mut answer)?;
        assert_eq!(answer, b"answer");
    }
    assert!(connect(FORWARDED + 2, Type::STREAM).is_err());
    Ok(())
}

#[test]
fn messages_keep_their_ends() -> Result<()> {
    let host = Host::start()?;
    let listener = listen(5001, Type::SEQPACKET)?;
    let mut guest = host.guest()?;
    let id = guest.connect_to(HOST, 5001, SEQPACKET)?;
    let mut program = accept(&listener)?;
    let mut buffer = vec![0; 256 << 10];
    for len in [1, 4096, 50_000, 7] {
        guest.write_message(id, &bytes(0, len), EOM)?;
        let seen = program.read(&mut buffer)?;
        assert_eq!(seen, len);
        data::check(0, &buffer[..seen])?;
        program.write_all(&bytes(5, len))?;
        let (message, flags) = guest.read_message(id).at(format!("{len} bytes"))?;
        assert_eq!((message.len(), flags & EOM), (len, EOM));
        data::check(5, &message)?;
    }
    guest.close(id)
}

#[test]
fn a_port_of_the_host_that_nobody_listens_at_is_refused() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    for kind in [STREAM, SEQPACKET] {
        let id = guest.begin(HOST, 5999, kind)?;
        assert_eq!(guest.settled(id)?, State::Ended);
    }
    Ok(())
}

#[test]
fn a_guest_that_does_not_listen_ends_the_program_s_stream() -> Result<()> {
    let host = Host::start()?;
    let mut guest = host.guest()?;
    let mut program = connect(FORWARDED, Type::STREAM)?;
    guest.idle(Duration::from_millis(100))?;
    let over = program.read(&mut [0; 10]);
    assert!(!matches!(over, Ok(1..)), "{over:?}");
    assert!(!matches!(&over, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
    Ok(())
}
