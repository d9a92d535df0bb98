//! A negotiated connection with memory and rings: what a virtual machine monitor has when its guest is running.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::control::Control;
use crate::ensure;
use crate::failure::{At, Failure, Result};
use crate::framing::{Answer, Framing, Placed};
use crate::memory::{Memory, Place};
use crate::message::{feature, protocol, request};
use crate::ring::{Parts, Ring, Used};

/// How long a request may take before the case fails.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What a session asks for. Only what the device offers is agreed on.
#[derive(Debug, Clone)]
pub struct Options {
    /// Wanted virtio features.
    pub features: u64,
    /// Wanted protocol features.
    pub protocol: u64,
    /// Entries of every ring.
    pub queue_size: u16,
    /// Rings to set up.
    pub queues: usize,
    /// Memory regions.
    pub places: Vec<Place>,
    /// Hand the memory over region by region instead of as one table.
    pub one_by_one: bool,
    /// Enable the rings at the end of the set-up.
    pub enable: bool,
}

impl Options {
    /// Everything a modern frontend uses: all features but those that change what the driver has to do (packed rings,
    /// in-order use, dirty log), 256 entries like User Mode Linux.
    pub fn usual(queues: usize) -> Self {
        Self {
            features: !(feature::LOG_ALL | feature::PACKED | feature::IN_ORDER),
            protocol: protocol::MQ
                | protocol::REPLY_ACK
                | protocol::CONFIG
                | protocol::LOG_SHMFD
                | protocol::RESET_DEVICE
                | protocol::CONFIGURE_MEM_SLOTS
                | protocol::STATUS,
            queue_size: 256,
            queues,
            places: Place::usual(),
            one_by_one: false,
            enable: true,
        }
    }

    /// The same with other features.
    #[must_use]
    pub fn with_features(self, features: u64) -> Self {
        Self { features, ..self }
    }

    /// The same with rings of another size.
    #[must_use]
    pub fn with_queue_size(self, queue_size: u16) -> Self {
        Self { queue_size, ..self }
    }

    /// The same with rings that stay disabled.
    #[must_use]
    pub fn disabled(self) -> Self {
        Self {
            enable: false,
            ..self
        }
    }
}

/// One request to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The queue it goes to.
    pub queue: usize,
    /// What the device reads.
    pub readable: Vec<u8>,
    /// How many bytes the device may write.
    pub writable: u32,
}

/// A request that was made available and not yet taken back.
#[derive(Debug)]
pub struct Pending {
    /// Head of its chain.
    pub head: u16,
    /// Where it lies.
    pub placed: Placed,
}

/// A running connection.
#[derive(Debug)]
pub struct Session {
    /// The control socket.
    pub control: Control,
    /// The guest's memory.
    pub memory: Arc<Memory>,
    /// The rings, by queue index.
    pub rings: Vec<Ring>,
    /// Virtio features agreed on.
    pub features: u64,
    /// Protocol features agreed on.
    pub protocol: u64,
}

/// Features and protocol features agreed on over a control socket.
///
/// # Errors
/// When a message of the negotiation fails.
pub fn negotiate(control: &mut Control, options: &Options) -> Result<(u64, u64)> {
    let features = control.features().at("GET_FEATURES")? & options.features;
    let mut agreed = 0;
    if features & feature::PROTOCOL_FEATURES != 0 {
        agreed = control.protocol_features().at("GET_PROTOCOL_FEATURES")? & options.protocol;
        control
            .set_protocol_features(agreed)
            .at("SET_PROTOCOL_FEATURES")?;
    }
    if agreed & protocol::MQ != 0 {
        let count = control.queue_count().at("GET_QUEUE_NUM")?;
        ensure!(
            count as usize >= options.queues,
            "the device offers {count} queues, {} are needed",
            options.queues
        );
    }
    control.set_owner().at("SET_OWNER")?;
    control.set_features(features).at("SET_FEATURES")?;
    Ok((features, agreed))
}

impl Session {
    /// Connects and sets everything up.
    ///
    /// # Errors
    /// When any step of the set-up fails.
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        let control = Control::connect(path).at("connect")?;
        Self::over(control, options)
    }

    /// Sets everything up on a connected control socket.
    ///
    /// # Errors
    /// When any step of the set-up fails.
    pub fn over(mut control: Control, options: &Options) -> Result<Self> {
        let (features, protocol) = negotiate(&mut control, options)?;
        let memory = Arc::new(Memory::new(&options.places)?);
        if options.one_by_one {
            for region in memory.regions() {
                control.add_region(region).at("ADD_MEM_REG")?;
            }
        } else {
            control.set_memory(&memory).at("SET_MEM_TABLE")?;
        }
        let mut session = Self {
            control,
            memory: Arc::clone(&memory),
            rings: Vec::new(),
            features,
            protocol,
        };
        for index in 0..options.queues {
            let parts = Parts::take(&memory, 0, options.queue_size);
            let event_idx = features & feature::EVENT_IDX != 0;
            let ring = Ring::new(Arc::clone(&memory), parts, event_idx)?;
            session.rings.push(ring);
            session.start_ring(index)?;
            if options.enable {
                session.enable(index, true)?;
            }
        }
        Ok(session)
    }

    /// Whether indirect descriptors were agreed on.
    pub fn indirect(&self) -> bool {
        self.features & feature::INDIRECT != 0
    }

    /// Tells the device everything about a ring, from where its driver stands, except to enable it.
    ///
    /// # Errors
    /// When a message fails.
    pub fn start_ring(&self, index: usize) -> Result<()> {
        self.start_ring_at(index, self.rings[index].next_used())
    }

    /// As [`Session::start_ring`], with another base than what this driver has taken back so far.
    ///
    /// # Errors
    /// When a message fails.
    pub fn start_ring_at(&self, index: usize, base: u16) -> Result<()> {
        let ring = &self.rings[index];
        let (at, short) = (index as u32, index as u8);
        let control = &self.control;
        control
            .set_vring_num(at, u32::from(ring.size()))
            .at("SET_VRING_NUM")?;
        control.set_vring_base(at, base).at("SET_VRING_BASE")?;
        control
            .set_vring_address(at, ring.parts().address(&self.memory))
            .at("SET_VRING_ADDR")?;
        for (message, fd) in [
            (request::SET_VRING_ERR, &ring.error),
            (request::SET_VRING_CALL, &ring.call),
            (request::SET_VRING_KICK, &ring.kick),
        ] {
            control
                .set_vring_descriptor(message, short, fd)
                .at(request::name(message))?;
        }
        Ok(())
    }

    /// Enables or disables a ring. Without protocol features a ring needs no enabling.
    ///
    /// # Errors
    /// When the message fails.
    pub fn enable(&self, index: usize, on: bool) -> Result<()> {
        if self.features & feature::PROTOCOL_FEATURES == 0 {
            return Ok(());
        }
        self.control
            .set_vring_enable(index as u32, on)
            .at("SET_VRING_ENABLE")
    }

    /// Stops a ring; the base that the device gives back.
    ///
    /// # Errors
    /// When the message fails.
    pub fn stop_ring(&self, index: usize) -> Result<u16> {
        self.control.vring_base(index as u32).at("GET_VRING_BASE")
    }

    /// Stops a ring that may be broken, empties it and starts it anew.
    ///
    /// # Errors
    /// When a message fails.
    pub fn revive_ring(&mut self, index: usize) -> Result<()> {
        self.stop_ring(index)?;
        self.rings[index].reset();
        self.start_ring(index)?;
        self.enable(index, true)
    }

    /// Lays a request out and exposes it; nothing is published yet.
    ///
    /// # Errors
    /// When the ring has no room.
    pub fn prepare(&mut self, request: &Request, framing: &Framing) -> Result<Pending> {
        let placed = framing.place(&self.memory, &request.readable, request.writable);
        let ring = &mut self.rings[request.queue];
        let head = if placed.indirect {
            ring.add_indirect(&placed.chain)?
        } else {
            ring.add(&placed.chain)?
        };
        Ok(Pending { head, placed })
    }

    /// Lays a request out, publishes it and kicks if wanted.
    ///
    /// # Errors
    /// When the ring has no room.
    pub fn submit(&mut self, request: &Request, framing: &Framing) -> Result<Pending> {
        let pending = self.prepare(request, framing)?;
        self.rings[request.queue].submit()?;
        Ok(pending)
    }

    /// Waits for this request, which must be the next one used.
    ///
    /// # Errors
    /// When it is not used in time, or something else is.
    pub fn finish(&mut self, queue: usize, pending: &Pending) -> Result<Answer> {
        let used = self.rings[queue].wait(REQUEST_TIMEOUT)?;
        self.answer_of(pending, used)
    }

    /// The answer in a used chain that must be this request's.
    ///
    /// # Errors
    /// When it is another chain's.
    pub fn answer_of(&self, pending: &Pending, used: Used) -> Result<Answer> {
        ensure!(
            used.id == u32::from(pending.head),
            "chain {} was used instead of chain {}",
            used.id,
            pending.head
        );
        pending.placed.answer(&self.memory, used.len)
    }

    /// Waits until all of these are used, in any order; their answers in the order of `pending`.
    ///
    /// # Errors
    /// When one is not used in time, used twice, or something else is used.
    pub fn finish_all(&mut self, queue: usize, pending: &[Pending]) -> Result<Vec<Answer>> {
        let mut answers: Vec<Option<Answer>> = vec![None; pending.len()];
        for done in 0..pending.len() {
            let used = self.rings[queue].wait(REQUEST_TIMEOUT).at(format!(
                "request {} of {}",
                done + 1,
                pending.len()
            ))?;
            let place = pending
                .iter()
                .position(|one| u32::from(one.head) == used.id)
                .ok_or_else(|| Failure::new(format!("unknown chain {} was used", used.id)))?;
            ensure!(answers[place].is_none(), "chain {} was used twice", used.id);
            answers[place] = Some(pending[place].placed.answer(&self.memory, used.len)?);
        }
        Ok(answers.into_iter().flatten().collect())
    }
}
