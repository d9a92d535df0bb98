//! The three queues of a socket device, with buffers in them: packets in, packets out, nothing understood.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use vhost_device_testkit::ensure;
use vhost_device_testkit::failure::{At, Failure, Result};
use vhost_device_testkit::framing::{Framing, Split};
use vhost_device_testkit::ring::{Descriptor, Used};
use vhost_device_testkit::session::{Options, Request, Session};

use super::packet::{HEADER, Header, Packet};

/// Queue of packets to the guest.
pub const RX: usize = 0;
/// Queue of packets from the guest.
pub const TX: usize = 1;
/// Queue of events.
pub const EVENTS: usize = 2;

/// Longest payload that Linux puts into one packet.
pub const LONGEST: usize = 64 << 10;

/// How long the device may take for anything before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Packets that may be on their way to the device.
const SLOTS: usize = 32;
/// Where a payload begins behind its header's place.
const PAYLOAD_AT: usize = 64;

/// The receive buffers.
#[derive(Clone, Debug)]
pub struct Buffers {
    /// How many.
    pub count: usize,
    /// Bytes of each, header included.
    pub len: u32,
    /// How each is cut into descriptors.
    pub split: Split,
}

impl Buffers {
    /// As Linux gives them: one descriptor for header and payload, 4 KiB together with what the kernel keeps for itself.
    pub fn usual() -> Self {
        Self {
            count: 128,
            len: 3776,
            split: Split::Whole,
        }
    }

    /// Others of the same kind.
    pub fn of(count: usize, len: u32) -> Self {
        Self {
            count,
            len,
            ..Self::usual()
        }
    }
}

/// A connected device with its queues.
pub struct Link {
    pub session: Session,
    /// Whether payloads are copied out of the receive buffers, or only counted.
    pub copies: bool,
    /// Whether receive buffers go back to the device as soon as they were looked at.
    pub gives_back: bool,
    /// The parts of each receive buffer, by the head of its chain.
    receive: Vec<Vec<Range<u64>>>,
    /// Receive buffers that were not given back.
    held: Vec<u16>,
    /// Places for packets to the device: how many, and those that are free.
    places: usize,
    slots: Vec<u64>,
    /// The place of the packet with this head.
    sending: Vec<Option<u64>>,
    events: Vec<u64>,
}

impl Link {
    /// Connects, with receive buffers and a few event buffers.
    pub fn open(socket: &Path, options: &Options, buffers: &Buffers) -> Result<Self> {
        let session = Session::open(socket, options).at("open a session")?;
        let size = usize::from(options.queue_size);
        let mut link = Self {
            session,
            copies: true,
            gives_back: true,
            receive: vec![Vec::new(); size],
            held: Vec::new(),
            places: 0,
            slots: Vec::new(),
            sending: vec![None; size],
            events: vec![0; size],
        };
        link.make_places(SLOTS, LONGEST);
        link.give_buffers(buffers)?;
        for _ in 0..4 {
            link.give_event_buffer()?;
        }
        Ok(link)
    }

    /// Makes other places for packets to the device, which must have none: so many at a time, with payloads of at most
    /// `longest` bytes.
    pub fn make_places(&mut self, count: usize, longest: usize) {
        assert_eq!(self.slots.len(), self.places);
        let place = || {
            let memory = &self.session.memory;
            memory.take((PAYLOAD_AT + longest) as u64, 64)
        };
        self.slots = (0..count).map(|_| place()).collect();
        self.places = count;
    }

    /// Gives receive buffers to the device.
    pub fn give_buffers(&mut self, buffers: &Buffers) -> Result<()> {
        let memory = self.session.memory.clone();
        for _ in 0..buffers.count {
            let mut parts = Vec::new();
            for len in buffers.split.pieces(buffers.len as usize) {
                // a gap between the parts, so that they are no single area by chance
                let at = memory.take(len as u64 + 8, 1);
                parts.push(at..at + len as u64);
            }
            self.give(parts)?;
        }
        self.refill()
    }

    fn give(&mut self, parts: Vec<Range<u64>>) -> Result<()> {
        let chain: Vec<Descriptor> = parts
            .iter()
            .map(|part| Descriptor::writable(part.start, (part.end - part.start) as u32))
            .collect();
        let head = self.session.rings[RX].add(&chain)?;
        self.receive[usize::from(head)] = parts;
        Ok(())
    }

    /// Gives the held receive buffers to the device, and every one that comes back from now on.
    pub fn give_back(&mut self) -> Result<()> {
        self.gives_back = true;
        let held: Vec<_> = std::mem::take(&mut self.held)
            .into_iter()
            .map(|head| std::mem::take(&mut self.receive[usize::from(head)]))
            .collect();
        held.into_iter().try_for_each(|parts| self.give(parts))?;
        self.refill()
    }

    fn give_event_buffer(&mut self) -> Result<()> {
        let at = self.session.memory.take(8, 8);
        let ring = &mut self.session.rings[EVENTS];
        let head = ring.add(&[Descriptor::writable(at, 4)])?;
        self.events[usize::from(head)] = at;
        ring.submit()?;
        Ok(())
    }

    /// The next event, if one comes in time.
    pub fn event(&mut self, timeout: Duration) -> Result<u32> {
        let used = self.session.rings[EVENTS].wait(timeout).at("an event")?;
        ensure!(used.len == 4, "an event of {} bytes", used.len);
        let at = self.events[used.id as usize];
        let mut bytes = [0; 4];
        self.session.memory.read(at, &mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }
}

/// To the device.
impl Link {
    /// Sends a packet whose payload is what the header says.
    pub fn send(&mut self, header: &Header, payload: &[u8]) -> Result<()> {
        assert_eq!(header.len as usize, payload.len());
        self.post_with(header, Some(payload))?;
        self.kick()
    }

    /// Puts a packet into the ring, the payload being whatever lies there; [`Link::kick`] tells of it.
    pub fn post(&mut self, header: &Header) -> Result<()> {
        self.post_with(header, None)
    }

    fn post_with(&mut self, header: &Header, payload: Option<&[u8]>) -> Result<()> {
        let slot = self.slot()?;
        let at = slot + PAYLOAD_AT as u64;
        self.session.memory.write(slot, &header.to_bytes());
        if let Some(payload) = payload {
            self.session.memory.write(at, payload);
        }
        let chain = [
            Descriptor::readable(slot, HEADER as u32),
            Descriptor::readable(at, header.len),
        ];
        let parts = if header.len == 0 { 1 } else { 2 };
        let head = self.session.rings[TX].add(&chain[..parts])?;
        self.sending[usize::from(head)] = Some(slot);
        Ok(())
    }

    /// Tells the device of what was posted.
    pub fn kick(&mut self) -> Result<()> {
        self.session.rings[TX].submit()?;
        Ok(())
    }

    /// Whether a packet can be posted without waiting.
    pub fn has_slot(&mut self) -> Result<bool> {
        while let Some(used) = self.session.rings[TX].pop() {
            self.sent(used)?;
        }
        Ok(!self.slots.is_empty())
    }

    fn slot(&mut self) -> Result<u64> {
        while !self.has_slot()? {
            self.kick()?;
            let used = self.session.rings[TX]
                .wait(PATIENCE)
                .at("a packet was not taken")?;
            self.sent(used)?;
        }
        self.slots
            .pop()
            .ok_or_else(|| Failure::new("no place for a packet"))
    }

    fn sent(&mut self, used: Used) -> Result<()> {
        let slot = self.sending.get_mut(used.id as usize);
        let slot = slot.and_then(Option::take);
        let Some(slot) = slot else {
            return Err(Failure::new(format!("chain {} was not sent", used.id)));
        };
        ensure!(used.len == 0, "{} bytes written to a packet", used.len);
        self.slots.push(slot);
        Ok(())
    }

    /// Waits until the device has taken all packets.
    pub fn all_sent(&mut self) -> Result<()> {
        while self.slots.len() < self.places {
            let used = self.session.rings[TX]
                .wait(PATIENCE)
                .at("a packet was not taken")?;
            self.sent(used)?;
        }
        Ok(())
    }

    /// Sends these bytes cut in this way, and waits until they are taken.
    pub fn send_cut(&mut self, bytes: &[u8], framing: &Framing) -> Result<()> {
        self.all_sent()?;
        let request = Request {
            queue: TX,
            readable: bytes.to_vec(),
            writable: 0,
        };
        let mark = self.session.memory.mark();
        let pending = self.session.submit(&request, framing)?;
        let answer = self.session.finish(TX, &pending)?;
        ensure!(answer.used_len == 0, "{} bytes written", answer.used_len);
        self.session.memory.rewind(&mark);
        Ok(())
    }
}

/// From the device.
impl Link {
    /// The next packet, if it is there already. [`Link::refill`] tells the device of its buffer, which is free again.
    pub fn try_receive(&mut self) -> Result<Option<Packet>> {
        while let Some(used) = self.session.rings[RX].pop() {
            if !self.is_passed_over(used) {
                return self.packet(used).map(Some);
            }
        }
        Ok(None)
    }

    /// The next packet. Its buffer goes back at once.
    pub fn receive(&mut self, timeout: Duration) -> Result<Packet> {
        let used = self.session.rings[RX].wait(timeout)?;
        let packet = self.packet(used)?;
        self.refill()?;
        Ok(packet)
    }

    /// Nothing comes for a while.
    pub fn silent(&mut self, time: Duration) -> Result<()> {
        match self.receive(time) {
            Ok(packet) => Err(Failure::new(format!("{:?} came", packet.header))),
            Err(_) => Ok(()),
        }
    }

    /// Tells the device of buffers that were given back.
    pub fn refill(&mut self) -> Result<()> {
        self.session.rings[RX].submit()?;
        Ok(())
    }

    /// Whether the device gave a buffer back that has no room for a payload. It is not given again.
    fn is_passed_over(&self, used: Used) -> bool {
        let parts = self.receive.get(used.id as usize);
        let room: u64 = parts
            .into_iter()
            .flatten()
            .map(|part| part.end - part.start)
            .sum();
        used.len == 0 && (1..=HEADER as u64).contains(&room)
    }

    fn packet(&mut self, used: Used) -> Result<Packet> {
        let parts = self.receive.get(used.id as usize);
        let parts = parts.filter(|parts| !parts.is_empty());
        let Some(parts) = parts else {
            return Err(Failure::new(format!("chain {} is no buffer", used.id)));
        };
        ensure!(
            used.len as usize >= HEADER,
            "a packet of {} bytes",
            used.len
        );
        let mut header = [0; HEADER];
        gather(&self.session, parts, 0, &mut header);
        let header = Header::from_bytes(&header);
        ensure!(
            used.len as usize == HEADER + header.len as usize,
            "{} bytes were written of a packet with {} of payload",
            used.len,
            header.len
        );
        let mut payload = Vec::new();
        if self.copies {
            payload.resize(header.len as usize, 0);
            gather(&self.session, parts, HEADER, &mut payload);
        }
        if self.gives_back {
            self.session.rings[RX].expose_again(used.id as u16);
        } else {
            self.held.push(used.id as u16);
        }
        Ok(Packet { header, payload })
    }
}

/// Bytes of a buffer in parts, from its byte `skip` on.
fn gather(session: &Session, parts: &[Range<u64>], mut skip: usize, mut rest: &mut [u8]) {
    for part in parts {
        let len = (part.end - part.start) as usize;
        let skipped = skip.min(len);
        skip -= skipped;
        let (now, later) = rest.split_at_mut((len - skipped).min(rest.len()));
        session.memory.read(part.start + skipped as u64, now);
        rest = later;
    }
}
