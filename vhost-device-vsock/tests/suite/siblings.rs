//! Guests of one process that talk to each other.

use std::time::Duration;

use vhost_device_testkit::ensure;
use vhost_device_testkit::failure::Result;
use vhost_device_testkit::process::Daemon;

use crate::support::data::{self, bytes};
use crate::support::guest::{Guest, Id, State};
use crate::support::host::{launch, path_of, read};
use crate::support::link::{LONGEST, PATIENCE};
use crate::support::packet::*;

const SILENCE: Duration = Duration::from_millis(60);
const PORT: u32 = 7;

/// A daemon with a guest for each of these context ids and groups.
struct Family(Daemon);

impl Family {
    fn start(guests: &[(u64, &str)]) -> Result<Self> {
        let mut launch = launch()?;
        let dir = launch.dir().to_path_buf();
        for (cid, groups) in guests {
            let groups = if groups.is_empty() {
                String::new()
            } else {
                format!(",groups={groups}")
            };
            let dir = dir.display();
            let vm = format!("guest-cid={cid},socket={dir}/s{cid},uds-path={dir}/v{cid}{groups}");
            launch = launch.arguments(["--vm", &vm]);
        }
        let mut daemon = launch.spawn()?;
        for (cid, _) in guests {
            daemon.wait_listening(&dir.join(format!("s{cid}")))?;
        }
        Ok(Self(daemon))
    }

    fn guest(&self, cid: u64) -> Result<Guest> {
        Guest::open(&self.0.dir().join(format!("s{cid}")), cid)
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        // a test that failed already has more to say; the log is shown then
        if !std::thread::panicking() {
            let ended = self.0.finish();
            assert!(ended.is_ok(), "{ended:?}");
        }
    }
}

/// Lets both guests see their packets until something is true.
fn until<T>(
    a: &mut Guest,
    b: &mut Guest,
    mut seen: impl FnMut(&mut Guest, &mut Guest) -> Result<Option<T>>,
) -> Result<T> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let some = a.pump()? + b.pump()?;
        if let Some(value) = seen(a, b)? {
            return Ok(value);
        }
        ensure!(std::time::Instant::now() < deadline, "waited in vain");
        if some == 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// A connection from `a` to `b`, seen from both.
fn connected(a: &mut Guest, b: &mut Guest, kind: u16) -> Result<(Id, Id)> {
    b.listen(PORT, kind);
    let id = a.begin(b.cid, PORT, kind)?;
    let other = b.accept()?;
    ensure!(
        a.settled(id)? == State::Established,
        "{} refused {}",
        b.cid,
        a.cid
    );
    ensure!(
        (other.peer_cid, other.peer_port) == (a.cid, id.port),
        "{other:?}"
    );
    Ok((id, other))
}

#[test]
fn guests_reach_each_other_by_their_context_ids() -> Result<()> {
    let family = Family::start(&[(3, ""), (4, "")])?;
    let (mut a, mut b) = (family.guest(3)?, family.guest(4)?);
    let (here, there) = connected(&mut a, &mut b, STREAM)?;
    a.write(here, b"question")?;
    a.shut_down(here, NO_SEND)?;
    assert_eq!(b.read_to_end(there)?, b"question");
    b.write(there, b"answer")?;
    b.shut_down(there, NO_SEND | NO_RECEIVE)?;
    assert_eq!(a.read_to_end(here)?, b"answer");
    a.ended(here)?;
    b.ended(there)
}

#[test]
fn messages_travel_between_guests_with_all_their_marks() -> Result<()> {
    let family = Family::start(&[(3, ""), (4, "")])?;
    let (mut a, mut b) = (family.guest(3)?, family.guest(4)?);
    let (here, there) = connected(&mut a, &mut b, SEQPACKET)?;
    for (len, flags) in [(5, EOM), (20_000, EOM | EOR), (1, EOM), (60_000, EOM)] {
        a.write_message(here, &bytes(0, len), flags)?;
        let (seen, marks) = b.read_message(there)?;
        assert_eq!((seen.len(), marks), (len, flags));
        data::check(0, &seen)?;
    }
    Ok(())
}

#[test]
fn a_guest_that_does_not_listen_refuses_for_itself() -> Result<()> {
    let family = Family::start(&[(3, ""), (4, "")])?;
    let (mut a, mut b) = (family.guest(3)?, family.guest(4)?);
    let id = a.begin(4, PORT, STREAM)?;
    b.idle(SILENCE)?;
    assert_eq!(a.settled(id)?, State::Ended);
    Ok(())
}

#[test]
fn a_guest_that_is_not_there_is_refused() -> Result<()> {
    let family = Family::start(&[(3, ""), (4, "")])?;
    let mut a = family.guest(3)?;
    let id = a.begin(4, PORT, STREAM)?;
    assert_eq!(a.settled(id)?, State::Ended);
    // once it is there it is reached
    let mut b = family.guest(4)?;
    let (here, there) = connected(&mut a, &mut b, STREAM)?;
    a.write(here, b"now")?;
    assert_eq!(b.read(there, 3)?, b"now");
    Ok(())
}

#[test]
fn guests_without_a_group_in_common_do_not_meet() -> Result<()> {
    let family = Family::start(&[(3, "red"), (4, "red+blue"), (5, "blue"), (6, "")])?;
    let mut guests: Vec<Guest> = [3, 4, 5, 6]
        .into_iter()
        .map(|cid| family.guest(cid))
        .collect::<Result<_>>()?;
    for guest in &mut guests {
        guest.listen(PORT, STREAM);
    }
    let meet = [(3, 4), (4, 3), (4, 5), (5, 4)];
    for from in 0..4 {
        for to in 0..4 {
            if from == to {
                continue;
            }
            let (from_cid, to_cid) = (guests[from].cid, guests[to].cid);
            let id = guests[from].begin(to_cid, PORT, STREAM)?;
            guests[to].idle(Duration::from_millis(30))?;
            let state = guests[from].settled(id)?;
            let expected = match meet.contains(&(from_cid, to_cid)) {
                true => State::Established,
                false => State::Ended,
            };
            assert_eq!(state, expected, "{from_cid} to {to_cid}");
            let seen = guests[to].connections.keys();
            let known = seen
                .filter(|id| id.peer_cid == from_cid && id.port == PORT)
                .count();
            assert_eq!(known > 0, expected == State::Established, "{from_cid}");
        }
    }
    Ok(())
}

#[test]
fn credit_holds_from_end_to_end() -> Result<()> {
    const LEN: usize = 6 << 20;
    let family = Family::start(&[(3, ""), (4, "")])?;
    let (mut a, mut b) = (family.guest(3)?, family.guest(4)?);
    b.window = 100_000;
    let (here, there) = connected(&mut a, &mut b, STREAM)?;
    let before = family.0.stats()?.anonymous_kib;
    // the sender may have as much on the way as the receiver, or what is between them, has room for
    let (mut sent, mut got) = (0, 0);
    until(&mut a, &mut b, |a, b| {
        while sent < LEN {
            let room = a.connection(here)?.credit() as usize;
            let len = room.min(LONGEST).min(LEN - sent);
            if len == 0 {
                break;
            }
            a.write(here, &bytes(sent as u64, len))?;
            sent += len;
        }
        // the receiver takes its time: a little of what is there
        let there_is = b.connection(there)?.inbox.len();
        if there_is > 0 {
            let some = b.read_some(there, there_is.div_ceil(2))?;
            data::check(got as u64, &some)?;
            got += some.len();
        }
        Ok((got == LEN).then_some(()))
    })?;
    let growth = family.0.stats()?.anonymous_kib.saturating_sub(before);
    assert!(growth < 2048, "{growth} KiB");
    Ok(())
}

#[test]
fn a_sibling_that_takes_nothing_costs_little() -> Result<()> {
    let family = Family::start(&[(3, ""), (4, "")])?;
    let (mut a, mut b) = (family.guest(3)?, family.guest(4)?);
    let (here, there) = connected(&mut a, &mut b, STREAM)?;
    let before = family.0.stats()?.anonymous_kib;
    let mut sent = 0;
    // the other guest is not even looked at
    while sent < 64 << 20 {
        if a.connection(here)?.credit() == 0 {
            a.idle(Duration::from_millis(100))?;
        }
        let len = a.connection(here)?.credit().min(LONGEST as u32) as usize;
        if len == 0 {
            break;
        }
        a.write(here, &bytes(sent as u64, len))?;
        sent += len;
    }
    assert!(sent < 64 << 20);
    let growth = family.0.stats()?.anonymous_kib.saturating_sub(before);
    assert!(growth < 4096, "{growth} KiB");
    let mut got = 0;
    while got < sent {
        let some = b.read_some(there, usize::MAX)?;
        data::check(got as u64, &some)?;
        got += some.len();
    }
    Ok(())
}

#[test]
fn a_guest_s_end_resets_what_it_had_with_its_siblings() -> Result<()> {
    let family = Family::start(&[(3, ""), (4, "")])?;
    let (mut a, mut b) = (family.guest(3)?, family.guest(4)?);
    let (here, _) = connected(&mut a, &mut b, STREAM)?;
    drop(b);
    a.ended(here)?;
    let mut b = family.guest(4)?;
    let (here, there) = connected(&mut a, &mut b, STREAM)?;
    b.write(there, b"again")?;
    assert_eq!(a.read(here, 5)?, b"again");
    Ok(())
}

#[test]
fn a_guest_cannot_speak_for_its_sibling() -> Result<()> {
    let family = Family::start(&[(3, ""), (4, ""), (5, "")])?;
    let (mut a, mut b, mut c) = (family.guest(3)?, family.guest(4)?, family.guest(5)?);
    let (here, there) = connected(&mut a, &mut b, STREAM)?;
    // the third guest knows all the numbers and says that it is the first
    for op in [RST, RW, SHUTDOWN] {
        let forged = Header {
            flags: 3,
            ..a.header(here, op)
        };
        c.link.send(&forged, &[])?;
    }
    c.link.all_sent()?;
    b.idle(SILENCE)?;
    a.write(here, b"mine")?;
    assert_eq!(b.read(there, 4)?, b"mine");
    Ok(())
}

#[test]
fn each_guest_has_its_own_programs() -> Result<()> {
    let family = Family::start(&[(3, ""), (4, "")])?;
    let dir = family.0.dir();
    for cid in [3, 4] {
        let mut guest = family.guest(cid)?;
        let path = path_of(&dir.join(format!("v{cid}")), 99);
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        let id = guest.connect(99)?;
        let mut program = crate::support::host::accept(&listener)?;
        guest.write(id, &cid.to_le_bytes())?;
        assert_eq!(read(&mut program, 8)?, cid.to_le_bytes());
    }
    Ok(())
}

#[test]
fn a_guest_has_so_many_connections_and_no_more() -> Result<()> {
    // documented; connections of siblings take no descriptors, so that it can be reached
    const MOST: usize = 16 * 1024;
    let family = Family::start(&[(3, ""), (4, "")])?;
    let (mut a, mut b) = (family.guest(3)?, family.guest(4)?);
    b.listen(PORT, STREAM);
    let before = family.0.stats()?.anonymous_kib;
    let mut open = Vec::new();
    let refused = loop {
        let id = a.begin(4, PORT, STREAM)?;
        let state = until(&mut a, &mut b, |a, _| {
            let state = a.connection(id)?.state;
            Ok((state != State::Connecting).then_some(state))
        })?;
        if state == State::Ended {
            break id;
        }
        open.push(id);
        ensure!(open.len() <= MOST, "more than {MOST} connections");
    };
    assert_eq!(open.len(), MOST);
    let growth = family.0.stats()?.anonymous_kib.saturating_sub(before);
    assert!(growth <= 32 * 1024, "{growth} KiB");
    // one goes, and one can come
    let gone = open[7];
    a.shut_down(gone, NO_SEND | NO_RECEIVE)?;
    until(&mut a, &mut b, |a, _| {
        Ok((a.connection(gone)?.state == State::Ended).then_some(()))
    })?;
    a.begin_as(refused, STREAM)?;
    until(&mut a, &mut b, |a, _| {
        Ok((a.connection(refused)?.state == State::Established).then_some(()))
    })
}
