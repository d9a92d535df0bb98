//! An entropy device on vhost-user-backend's own daemon, in the way that crate is usually used: what `cargo xtask bench rng`
//! compares our engine with. `peer_rng --socket-path PATH`; it serves one frontend.

use std::io;
use std::process::ExitCode;
use std::sync::{Arc, RwLock};

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringRwLock, VringT};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::QueueOwnedT;
use vm_memory::{Bytes, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

/// VHOST_USER_F_PROTOCOL_FEATURES.
const PROTOCOL_FEATURES: u64 = 1 << 30;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

struct Peer {
    memory: Option<Memory>,
    event_idx: bool,
    buffer: Vec<u8>,
}

impl Peer {
    /// Serves what is in the ring. True if there was something.
    fn serve(&mut self, vring: &VringRwLock) -> io::Result<bool> {
        let Some(memory) = &self.memory else {
            return Ok(false);
        };
        let memory = memory.memory();
        let chains: Vec<_> = vring
            .get_mut()
            .get_queue_mut()
            .iter(memory.clone())
            .map_err(io::Error::other)?
            .collect();
        let served = !chains.is_empty();
        for chain in chains {
            let head = chain.head_index();
            let mut written = 0;
            for descriptor in chain.writable() {
                self.buffer.resize(descriptor.len() as usize, 0);
                fill(&mut self.buffer)?;
                memory
                    .write_slice(&self.buffer, descriptor.addr())
                    .map_err(io::Error::other)?;
                written += descriptor.len();
            }
            vring.add_used(head, written).map_err(io::Error::other)?;
        }
        if served && vring.needs_notification().map_err(io::Error::other)? {
            vring.signal_used_queue()?;
        }
        Ok(served)
    }
}

fn fill(buffer: &mut [u8]) -> io::Result<()> {
    // SAFETY: the buffer has the length given.
    let filled = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    if filled < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl VhostUserBackendMut for Peer {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        1
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | PROTOCOL_FEATURES
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn set_event_idx(&mut self, enabled: bool) {
        self.event_idx = enabled;
    }

    fn update_memory(&mut self, memory: Memory) -> io::Result<()> {
        self.memory = Some(memory);
        Ok(())
    }

    fn handle_event(
        &mut self,
        _: u16,
        _: EventSet,
        vrings: &[VringRwLock],
        _: usize,
    ) -> io::Result<()> {
        let Some(vring) = vrings.first() else {
            return Ok(());
        };
        if !self.event_idx {
            self.serve(vring)?;
            return Ok(());
        }
        loop {
            vring.disable_notification().map_err(io::Error::other)?;
            self.serve(vring)?;
            if !vring.enable_notification().map_err(io::Error::other)? {
                return Ok(());
            }
        }
    }
}

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().last() else {
        return ExitCode::from(2);
    };
    let peer = Peer {
        memory: None,
        event_idx: false,
        buffer: Vec::new(),
    };
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let served = VhostUserDaemon::new("peer".into(), Arc::new(RwLock::new(peer)), memory)
        .and_then(|mut daemon| daemon.serve(path));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peer_rng: {error}");
            ExitCode::FAILURE
        }
    }
}
