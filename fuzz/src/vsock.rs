//! The socket device behind a driver whose rings are correct and whose packets are not, and the line of a host program.

use std::collections::HashMap;
use std::sync::Arc;

use vhost_device_core::{Device, Memory, Poll, QueueIndex, Ready, Runner, Setup};
use vhost_device_vsock::{
    Config, Greeting, Groups, GuestCid, HostSpec, MIN_WINDOW, Vsock, VsockWorker, parse_greeting,
};

use crate::common::driver::{Driver, EVENT_IDX, Place, readable, writable};
use crate::common::guest::{self, BUFFERS};
use crate::device::SimReactor;
use crate::tape::Tape;

const CID: u64 = 3;
const RX: u16 = 0;
const TX: u16 = 1;
const SIZE: u16 = 32;

/// Bytes of a packet's header.
const HEADER: usize = 44;

/// The guest's own window for each connection.
const WINDOW: u32 = 5000;

/// Where receive buffers are, and how long one is.
const RECEIVE: u64 = BUFFERS;
const RECEIVE_BYTES: u32 = 300;
/// Where packets are, and how long their payloads may be.
const SEND: u64 = RECEIVE + SIZE as u64 * RECEIVE_BYTES as u64;
const PAYLOAD: u32 = 2000;

/// What a connection is known by: kind, the guest's port, the peer's port.
type Key = (u16, u32, u32);

/// What came for a connection, and how much of it the guest said that it took.
#[derive(Default)]
struct Flow {
    received: u32,
    told: u32,
}

struct Guest {
    runner: Runner<VsockWorker>,
    reactor: SimReactor,
    memory: Arc<Memory>,
    rx: Driver,
    tx: Driver,
    /// By head: where the buffer is.
    buffers: HashMap<u16, u64>,
    spare: Vec<u64>,
    flows: HashMap<Key, Flow>,
    /// Packets in the ring.
    sent: usize,
}

/// Runs one input: a sequence of packets and events.
pub fn packets(data: &[u8]) {
    let config = Config {
        guest_cid: GuestCid::try_from(CID).expect("a guest can have it"),
        host: HostSpec::Sim,
        window: MIN_WINDOW,
        queue_size: SIZE,
        groups: Groups::default(),
    };
    let device = Arc::new(Vsock::open(&config, &Arc::default()).expect("it opens nothing"));
    let mut guest = Guest::new(&device);
    let mut tape = Tape::new(data);
    for _ in 0..128 {
        guest.step(&mut tape);
    }
    guest.end();
}

impl Guest {
    fn new(device: &Arc<Vsock>) -> Self {
        let memory = guest::memory();
        let mut reactor = SimReactor::default();
        let features = EVENT_IDX | device.features();
        let worker = device
            .worker(0, &mut Setup::new(features, &mut reactor))
            .expect("the host is simulated");
        let driver = |queue| Driver::new(memory.map(), Place::of_queue(queue, SIZE), EVENT_IDX);
        let mut guest = Self {
            runner: Runner::new(worker, 3, Arc::clone(&memory), Poll::off()),
            reactor,
            rx: driver(RX),
            tx: driver(TX),
            memory,
            buffers: HashMap::new(),
            spare: (0..u64::from(SIZE))
                .map(|number| RECEIVE + number * u64::from(RECEIVE_BYTES))
                .collect(),
            flows: HashMap::new(),
            sent: 0,
        };
        for (queue, driver) in [(RX, &guest.rx), (TX, &guest.tx)] {
            let start = driver.start(queue, &guest.memory, || {});
            guest.runner.start(start).expect("the rings are there");
        }
        guest.settle();
        guest
    }

    fn step(&mut self, tape: &mut Tape<'_>) {
        match tape.u8() % 8 {
            0..=3 => self.send(tape),
            4 => self.provide(tape.u8()),
            5 => self.fire(tape),
            6 => self.runner.kick(QueueIndex(RX), &mut self.reactor),
            _ => self.runner.kick(QueueIndex(TX), &mut self.reactor),
        }
        self.settle();
        self.collect();
    }

    fn settle(&mut self) {
        let mut turns = 0;
        while self.runner.settle(&mut self.reactor) {
            turns += 1;
            assert!(turns < 10_000, "the device never comes to rest");
        }
    }

    /// Sends a packet that may mean anything, of few connections so that packets meet.
    fn send(&mut self, tape: &mut Tape<'_>) {
        if self.tx.free() < 2 {
            return;
        }
        let (what, ports, flags) = (tape.u8(), tape.u8(), tape.u8());
        let kind = [1, 1, 2, 3][usize::from(what >> 6)];
        let op = u16::from(what % 9);
        let (ours, theirs) = (u32::from(ports >> 6), u32::from(ports & 7));
        let length = match op {
            5 => u32::from(tape.u16()) % (PAYLOAD + 100),
            _ => 0,
        };
        let cid = if flags & 0x80 == 0 { CID } else { CID + 1 };
        let peer = if flags & 0x40 == 0 { 2 } else { 4 };
        let flow = self.flows.entry((kind, ours, theirs)).or_default();
        if op == 1 {
            *flow = Flow::default();
        } else if flags & 0x20 == 0 {
            flow.told = flow.received;
        }
        let mut header = Vec::new();
        for number in [cid, peer] {
            header.extend(u64::to_le_bytes(number));
        }
        for number in [ours, theirs, length] {
            header.extend(number.to_le_bytes());
        }
        header.extend(kind.to_le_bytes());
        header.extend(op.to_le_bytes());
        for number in [u32::from(flags & 3), WINDOW, flow.told] {
            header.extend(number.to_le_bytes());
        }
        let at = SEND + (self.sent % usize::from(SIZE)) as u64 * u64::from(PAYLOAD + 64);
        self.sent += 1;
        guest::write(self.memory.map(), at, &header);
        let pieces = [
            readable(at, HEADER as u32),
            readable(at + HEADER as u64, length.clamp(1, PAYLOAD)),
        ];
        self.tx.add(&pieces).expect("there is room for two");
        self.runner.kick(QueueIndex(TX), &mut self.reactor);
    }

    /// Provides receive buffers.
    fn provide(&mut self, count: u8) {
        for _ in 0..count % 16 {
            let Some(address) = self.spare.pop() else {
                break;
            };
            let head = self
                .rx
                .add(&[writable(address, RECEIVE_BYTES)])
                .expect("there is a descriptor for each buffer");
            self.buffers.insert(head, address);
        }
        self.runner.kick(QueueIndex(RX), &mut self.reactor);
    }

    /// Something happens on the host, or seems to.
    fn fire(&mut self, tape: &mut Tape<'_>) {
        let tokens = self.reactor.tokens();
        let (which, what) = (tape.u8(), tape.u8());
        let Some(token) = tokens.get(usize::from(which) % tokens.len().max(1)) else {
            return;
        };
        let ready = Ready {
            readable: what & 1 != 0,
            writable: what & 2 != 0,
            hangup: what & 4 != 0,
            error: what & 8 != 0,
        };
        self.runner.event(*token, ready, &mut self.reactor);
    }

    /// Looks at what came back.
    fn collect(&mut self) {
        for used in self.tx.take_all() {
            assert_eq!(used.length, 0, "the device wrote to a packet of the guest");
        }
        for used in self.rx.take_all() {
            let address = self.buffers.remove(&used.head).expect("it was provided");
            self.spare.push(address);
            let bytes = guest::read(self.memory.map(), address, used.length as usize);
            self.look(&bytes);
        }
    }

    /// A packet of the device.
    fn look(&mut self, bytes: &[u8]) {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let u16_at = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
        assert!(bytes.len() >= HEADER, "a packet without a header");
        let (theirs, ours, length) = (u32_at(16), u32_at(20), u32_at(24));
        let (kind, op) = (u16_at(28), u16_at(30));
        assert_eq!(bytes.len(), HEADER + length as usize);
        assert!((1..=7).contains(&op), "operation {op}");
        if op != 5 {
            assert_eq!(length, 0, "operation {op} with data");
            return;
        }
        let flow = self.flows.entry((kind, ours, theirs)).or_default();
        flow.received = flow.received.wrapping_add(length);
        let held = flow.received.wrapping_sub(flow.told);
        assert!(held <= WINDOW, "{held} bytes in a window of {WINDOW}");
    }

    fn end(mut self) {
        for queue in [TX, RX] {
            let stopped = self.runner.stop(QueueIndex(queue), &mut self.reactor);
            assert_eq!(stopped.and_then(|stopped| stopped.fault), None);
        }
        self.collect();
    }
}

/// What a host program says first, as it comes in and as a whole.
pub fn line(data: &[u8]) {
    let whole = parse_greeting(data);
    for length in 0..data.len() {
        match (parse_greeting(&data[..length]), whole) {
            (Greeting::Incomplete, _) => {}
            (early, late) => assert_eq!(early, late, "more data changed what a line means"),
        }
    }
    if let Greeting::Connect { port, length } = whole {
        let line = std::str::from_utf8(&data[..length]).expect("a line is text");
        let digits = line.trim_end().rsplit(' ').next().expect("there is a word");
        assert_eq!(digits.parse(), Ok(port));
        assert!(line.ends_with('\n'));
    }
}
