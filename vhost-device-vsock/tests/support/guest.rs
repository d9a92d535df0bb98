//! A guest that keeps its connections as Linux does: it answers what has to be answered, keeps to the credit it was
//! given, tells of its own in time, and fails the test when the device does not.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use vhost_device_testkit::failure::{At, Failure, Result};
use vhost_device_testkit::session::Options;
use vhost_device_testkit::{ensure, fail, sys};

use super::link::{Buffers, LONGEST, Link, PATIENCE, RX};
use super::packet::*;

/// Room for received bytes that Linux gives a connection.
pub const WINDOW: u32 = 256 << 10;

/// A connection, seen from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub port: u32,
    pub peer_cid: u64,
    pub peer_port: u32,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// REQUEST was sent.
    Connecting,
    /// Both know of it.
    Established,
    /// Ended by RST, ours or the device's.
    Ended,
}

/// One connection with its counters (section 5.10.6.3).
#[derive(Debug)]
pub struct Connection {
    pub kind: u16,
    pub state: State,
    /// The peer's room and what it has taken out of it.
    pub peer_alloc: u32,
    pub peer_fwd: u32,
    /// Bytes sent.
    pub tx_cnt: u32,
    /// Our room, what came into it, what was taken out, and what of that the peer was told.
    pub alloc: u32,
    pub rx_cnt: u32,
    pub fwd_cnt: u32,
    told: u32,
    /// Bytes that came and were not read.
    pub inbox: VecDeque<u8>,
    /// The same count, also where payloads are not copied.
    pub unread: u32,
    /// Whole messages that came, with the flags of their last packet.
    pub messages: VecDeque<(Vec<u8>, u32)>,
    part: Vec<u8>,
    /// Flags of the peer's SHUTDOWN, and of ours.
    pub peer_shutdown: u32,
    pub own_shutdown: u32,
    /// CREDIT_UPDATE and CREDIT_REQUEST packets that came.
    pub updates: u64,
    pub requests: u64,
}

impl Connection {
    fn new(kind: u16, state: State, alloc: u32) -> Self {
        Self {
            kind,
            state,
            peer_alloc: 0,
            peer_fwd: 0,
            tx_cnt: 0,
            alloc,
            rx_cnt: 0,
            fwd_cnt: 0,
            told: 0,
            inbox: VecDeque::new(),
            unread: 0,
            messages: VecDeque::new(),
            part: Vec::new(),
            peer_shutdown: 0,
            own_shutdown: 0,
            updates: 0,
            requests: 0,
        }
    }

    /// Bytes that may be sent now.
    pub fn credit(&self) -> u32 {
        let in_flight = self.tx_cnt.wrapping_sub(self.peer_fwd);
        self.peer_alloc.saturating_sub(in_flight)
    }

    fn note_credit(&mut self, header: &Header) -> Result<()> {
        let taken = header.fwd_cnt.wrapping_sub(self.peer_fwd);
        let in_flight = self.tx_cnt.wrapping_sub(self.peer_fwd);
        ensure!(
            taken <= in_flight,
            "fwd_cnt went from {} to {} with {} sent",
            self.peer_fwd,
            header.fwd_cnt,
            self.tx_cnt
        );
        (self.peer_alloc, self.peer_fwd) = (header.buf_alloc, header.fwd_cnt);
        Ok(())
    }

    /// Data that came.
    fn take(&mut self, packet: &Packet) -> Result<()> {
        ensure!(packet.header.kind == self.kind, "of another type");
        ensure!(
            self.state == State::Established,
            "data in state {:?}",
            self.state
        );
        self.note_credit(&packet.header)?;
        self.take_payload(packet)
    }

    fn take_payload(&mut self, packet: &Packet) -> Result<()> {
        let len = packet.header.len;
        let held = self.rx_cnt.wrapping_sub(self.fwd_cnt);
        ensure!(
            u64::from(held) + u64::from(len) <= u64::from(self.alloc),
            "{len} bytes sent into a window of {} with {held} in it",
            self.alloc
        );
        ensure!(
            self.peer_shutdown & NO_SEND == 0,
            "data after the end of data was told"
        );
        self.rx_cnt = self.rx_cnt.wrapping_add(len);
        if self.kind == SEQPACKET {
            self.part.extend(&packet.payload);
            if packet.header.flags & EOM != 0 {
                let message = std::mem::take(&mut self.part);
                self.messages.push_back((message, packet.header.flags));
            }
        } else {
            self.unread += len;
            self.inbox.extend(&packet.payload);
        }
        Ok(())
    }
}

/// The guest.
pub struct Guest {
    pub link: Link,
    pub cid: u64,
    /// Room for new connections.
    pub window: u32,
    pub connections: BTreeMap<Id, Connection>,
    /// Listening ports with the type of their sockets.
    listening: BTreeMap<u32, u16>,
    accepted: VecDeque<Id>,
    next_port: u32,
}

impl Guest {
    /// A guest with everything negotiated and buffers as Linux gives them.
    pub fn open(socket: &Path, cid: u64) -> Result<Self> {
        Self::with(socket, cid, &Options::usual(3), &Buffers::usual())
    }

    /// A guest with other options or buffers.
    pub fn with(socket: &Path, cid: u64, options: &Options, buffers: &Buffers) -> Result<Self> {
        let link = Link::open(socket, options, buffers)?;
        let config = link.session.control.config(0, 8).at("guest_cid")?;
        ensure!(config == cid.to_le_bytes(), "guest_cid is {config:?}");
        Ok(Self {
            link,
            cid,
            window: WINDOW,
            connections: BTreeMap::new(),
            listening: BTreeMap::new(),
            accepted: VecDeque::new(),
            next_port: 50_000,
        })
    }

    /// The connection, which must exist.
    pub fn connection(&mut self, id: Id) -> Result<&mut Connection> {
        self.connections
            .get_mut(&id)
            .ok_or_else(|| Failure::new(format!("no connection {id:?}")))
    }

    /// A header of a connection, which tells of our credit.
    pub fn header(&mut self, id: Id, op: u16) -> Header {
        let mut header = Header {
            src_cid: self.cid,
            dst_cid: id.peer_cid,
            src_port: id.port,
            dst_port: id.peer_port,
            kind: STREAM,
            op,
            ..Header::default()
        };
        if let Some(connection) = self.connections.get_mut(&id) {
            header.kind = connection.kind;
            header.buf_alloc = connection.alloc;
            header.fwd_cnt = connection.fwd_cnt;
            connection.told = connection.fwd_cnt;
        }
        header
    }

    /// Sends a packet without payload.
    pub fn say(&mut self, id: Id, op: u16, flags: u32) -> Result<()> {
        let header = Header {
            flags,
            ..self.header(id, op)
        };
        self.link.send(&header, &[])
    }
}

/// Connections come and go.
impl Guest {
    /// Begins a connection to a port of the peer, from a fresh port.
    pub fn begin(&mut self, peer_cid: u64, peer_port: u32, kind: u16) -> Result<Id> {
        self.next_port += 1;
        let id = Id {
            port: self.next_port,
            peer_cid,
            peer_port,
        };
        self.begin_as(id, kind)?;
        Ok(id)
    }

    /// Begins this connection.
    pub fn begin_as(&mut self, id: Id, kind: u16) -> Result<()> {
        let connection = Connection::new(kind, State::Connecting, self.window);
        self.connections.insert(id, connection);
        self.say(id, REQUEST, 0)
    }

    /// Connects to a port of the peer that accepts.
    pub fn connect_to(&mut self, peer_cid: u64, peer_port: u32, kind: u16) -> Result<Id> {
        let id = self.begin(peer_cid, peer_port, kind)?;
        let state = self.settled(id)?;
        ensure!(
            state == State::Established,
            "port {peer_port} of {peer_cid} refused"
        );
        Ok(id)
    }

    /// Connects a stream to a port of the host that accepts.
    pub fn connect(&mut self, port: u32) -> Result<Id> {
        self.connect_to(HOST, port, STREAM).at("connect")
    }

    /// What the peer says to a connection that was begun.
    pub fn settled(&mut self, id: Id) -> Result<State> {
        self.wait("an answer to REQUEST", |guest| {
            let state = guest.connections.get(&id)?.state;
            (state != State::Connecting).then_some(state)
        })
    }

    /// Accepts connections to a port from now on.
    pub fn listen(&mut self, port: u32, kind: u16) {
        self.listening.insert(port, kind);
    }

    /// The next connection of the peer's to a port that listens.
    pub fn accept(&mut self) -> Result<Id> {
        self.wait("a connection", |guest| guest.accepted.pop_front())
    }

    /// Says that this guest will not send, not receive, or neither.
    pub fn shut_down(&mut self, id: Id, flags: u32) -> Result<()> {
        let connection = self.connection(id)?;
        connection.own_shutdown |= flags;
        let flags = connection.own_shutdown;
        self.say(id, SHUTDOWN, flags)
    }

    /// Closes a connection and waits for the RST that ends it.
    pub fn close(&mut self, id: Id) -> Result<()> {
        if self.connection(id)?.state == State::Ended {
            return Ok(());
        }
        self.shut_down(id, NO_RECEIVE | NO_SEND)?;
        self.ended(id)
    }

    /// Waits until the connection has ended.
    pub fn ended(&mut self, id: Id) -> Result<()> {
        self.wait("the connection's end", |guest| {
            (guest.connections.get(&id)?.state == State::Ended).then_some(())
        })
    }
}

/// Bytes.
impl Guest {
    /// Sends all of the bytes, in packets as long as credit and Linux allow.
    pub fn write(&mut self, id: Id, data: &[u8]) -> Result<()> {
        self.write_as(id, data, LONGEST, 0)
    }

    /// Sends all of the bytes in packets of at most `longest`, the last with these flags.
    pub fn write_as(&mut self, id: Id, data: &[u8], longest: usize, flags: u32) -> Result<()> {
        let mut rest = data;
        loop {
            let room = self.credit(id, u32::from(!rest.is_empty()))?;
            let len = rest.len().min(longest).min(room as usize);
            let (now, later) = rest.split_at(len);
            let header = Header {
                len: len as u32,
                flags: if later.is_empty() { flags } else { 0 },
                ..self.header(id, RW)
            };
            self.link.send(&header, now)?;
            let connection = self.connection(id)?;
            connection.tx_cnt = connection.tx_cnt.wrapping_add(len as u32);
            rest = later;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Sends one message of a seqpacket connection.
    pub fn write_message(&mut self, id: Id, data: &[u8], flags: u32) -> Result<()> {
        self.write_as(id, data, LONGEST, flags)
    }

    /// Waits until at least this many bytes may be sent; how many may.
    pub fn credit(&mut self, id: Id, least: u32) -> Result<u32> {
        self.wait("credit", |guest| {
            let connection = guest.connections.get(&id)?;
            let over = connection.state == State::Ended;
            (over || connection.credit() >= least).then_some((over, connection.credit()))
        })
        .and_then(|(over, credit)| match over {
            true => Err(Failure::new("the connection ended")),
            false => Ok(credit),
        })
    }

    /// Reads bytes that came, at least one unless the peer sends no more.
    pub fn read_some(&mut self, id: Id, most: usize) -> Result<Vec<u8>> {
        self.wait("data", |guest| {
            let connection = guest.connections.get(&id)?;
            let over = connection.peer_shutdown & NO_SEND != 0 || connection.state == State::Ended;
            (over || !connection.inbox.is_empty()).then_some(())
        })?;
        let connection = self.connection(id)?;
        let len = most.min(connection.inbox.len());
        let data = connection.inbox.drain(..len).collect();
        self.consume(id, len as u32)?;
        Ok(data)
    }

    /// Counts bytes as read and tells the peer of the room when it has little left.
    pub fn consume(&mut self, id: Id, len: u32) -> Result<()> {
        let connection = self.connection(id)?;
        connection.fwd_cnt = connection.fwd_cnt.wrapping_add(len);
        connection.unread = connection.unread.saturating_sub(len);
        let in_use = connection.rx_cnt.wrapping_sub(connection.told);
        let left = connection.alloc.saturating_sub(in_use);
        let is_new = connection.fwd_cnt != connection.told;
        if is_new && left < LONGEST as u32 && connection.state == State::Established {
            self.say(id, CREDIT_UPDATE, 0)?;
        }
        Ok(())
    }

    /// Reads exactly this many bytes.
    pub fn read(&mut self, id: Id, len: usize) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        while data.len() < len {
            let more = self.read_some(id, len - data.len())?;
            ensure!(!more.is_empty(), "{} bytes came of {len}", data.len());
            data.extend(more);
        }
        Ok(data)
    }

    /// Reads until the peer sends no more.
    pub fn read_to_end(&mut self, id: Id) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        loop {
            let more = self.read_some(id, usize::MAX)?;
            if more.is_empty() {
                return Ok(data);
            }
            data.extend(more);
        }
    }

    /// The next message of a seqpacket connection, with the flags of its last packet.
    pub fn read_message(&mut self, id: Id) -> Result<(Vec<u8>, u32)> {
        let message = self.wait("a message", |guest| {
            guest.connections.get_mut(&id)?.messages.pop_front()
        })?;
        self.consume(id, message.0.len() as u32)?;
        Ok(message)
    }
}

/// Packets.
impl Guest {
    /// Waits for something to become true while packets come.
    pub fn wait<T>(
        &mut self,
        what: &str,
        mut seen: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.pump()?;
            if let Some(value) = seen(self) {
                return Ok(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                fail!("waited for {what} in vain");
            }
            self.sleep(left)?;
        }
    }

    /// Lets packets come for a while.
    pub fn idle(&mut self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.pump()?;
            self.sleep(deadline.saturating_duration_since(Instant::now()))?;
        }
        self.pump().map(drop)
    }

    /// Sleeps until a packet comes.
    pub fn sleep(&mut self, time: Duration) -> Result<()> {
        let ring = &mut self.link.session.rings[RX];
        ring.arm();
        if ring.used_index() == ring.next_used() && sys::readable(&ring.call, time)? {
            ring.call.read()?;
        }
        Ok(())
    }

    /// Looks at all packets that came; how many.
    pub fn pump(&mut self) -> Result<usize> {
        let mut count = 0;
        while let Some(packet) = self.link.try_receive()? {
            self.look_at(&packet)
                .map_err(|failure| failure.within(format!("{:?}", packet.header)))?;
            count += 1;
        }
        if count > 0 {
            self.link.refill()?;
        }
        Ok(count)
    }

    fn look_at(&mut self, packet: &Packet) -> Result<()> {
        let header = &packet.header;
        ensure!(header.dst_cid == self.cid, "for another guest");
        let id = Id {
            port: header.dst_port,
            peer_cid: header.src_cid,
            peer_port: header.src_port,
        };
        let known = self.connections.get_mut(&id);
        match (header.op, known.filter(|known| known.state != State::Ended)) {
            (REQUEST, None) => self.requested(id, header),
            (RST, None) => Ok(()),
            (_, None) => self.say(id, RST, 0),
            (RW, Some(connection)) => connection.take(packet),
            (_, Some(_)) => self.proceed(id, header),
        }
    }

    fn requested(&mut self, id: Id, header: &Header) -> Result<()> {
        if self.listening.get(&id.port) != Some(&header.kind) {
            let reply = Header {
                kind: header.kind,
                ..self.header(id, RST)
            };
            return self.link.send(&reply, &[]);
        }
        let mut connection = Connection::new(header.kind, State::Established, self.window);
        connection.note_credit(header)?;
        self.connections.insert(id, connection);
        self.accepted.push_back(id);
        self.say(id, RESPONSE, 0)
    }

    fn proceed(&mut self, id: Id, header: &Header) -> Result<()> {
        let connection = self.connection(id)?;
        ensure!(header.kind == connection.kind, "of another type");
        if header.op == RST {
            connection.state = State::Ended;
            return Ok(());
        }
        connection.note_credit(header)?;
        match (header.op, connection.state) {
            (RESPONSE, State::Connecting) => connection.state = State::Established,
            (CREDIT_UPDATE, State::Established) => connection.updates += 1,
            (CREDIT_REQUEST, State::Established) => {
                connection.requests += 1;
                self.say(id, CREDIT_UPDATE, 0)?;
            }
            (SHUTDOWN, State::Established) => {
                connection.peer_shutdown |= header.flags;
                if connection.peer_shutdown == NO_RECEIVE | NO_SEND {
                    self.say(id, RST, 0)?;
                    self.connection(id)?.state = State::Ended;
                }
            }
            _ => fail!("not in state {:?}", connection.state),
        }
        Ok(())
    }
}
