//! The control plane: what each vhost-user message means for the rings, the memory and the workers.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use vhost_device_core::{Device, DirtyLog, Layout, Memory, Notifier, QueueIndex, QueueSpec, Start};
use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::Bytes;

use super::call::{Call, Silent};
use super::crew::{Crew, CrewFault};
use super::dirty::PageLog;
use super::mailbox::Command;
use super::memory::{MAX_SLOTS, MemoryTable};
use crate::metrics::{self, SocketMetrics};

/// VHOST_F_LOG_ALL: log every write to guest memory.
const LOG_ALL: u64 = 1 << 26;
/// VHOST_USER_F_PROTOCOL_FEATURES.
const PROTOCOL_FEATURES: u64 = 1 << 30;
/// What the rings and the transport offer for every device.
const RING_BITS: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | LOG_ALL
    | PROTOCOL_FEATURES;

/// Longest wait for a queue to drain before its thread is given up.
pub const STOP_DEADLINE: Duration = Duration::from_millis(500);

/// A ring as the frontend described it so far.
#[derive(Default)]
struct RingControl {
    size: u32,
    /// Descriptor table, available ring and used ring, as guest addresses.
    parts: Option<(u64, u64, u64)>,
    base: u16,
    kick: Option<File>,
    call: Option<File>,
    enabled: bool,
    running: bool,
}

/// One connection's control plane.
pub struct Handler<D: Device> {
    device: Arc<D>,
    queues: Vec<QueueSpec>,
    rings: Vec<RingControl>,
    crew: Crew<D>,
    memory: MemoryTable,
    connection: Arc<OwnedFd>,
    metrics: Arc<SocketMetrics>,
    log: Option<Arc<dyn DirtyLog>>,
    features: u64,
    /// SET_FEATURES was seen since the connection began or the device was reset.
    negotiated: bool,
    protocol_features: u64,
    owned: bool,
    /// A queue was started since the connection began or a reset was counted.
    used: bool,
    /// Why the last message was refused, if the refusal came from here and left everything as it was.
    refused: bool,
}

fn fault(error: impl std::fmt::Display) -> Error {
    Error::ReqHandlerError(io::Error::other(error.to_string()))
}

/// All feature bits that a device offers over vhost-user.
fn offered_features<D: Device>(device: &D) -> u64 {
    let in_order = u64::from(device.completes_in_order()) << VIRTIO_F_IN_ORDER;
    device.features() | in_order | RING_BITS
}

impl<D: Device> Handler<D> {
    /// The control plane of a new connection.
    pub fn new(
        device: Arc<D>,
        crew: Crew<D>,
        connection: Arc<OwnedFd>,
        metrics: Arc<SocketMetrics>,
    ) -> Self {
        let queues = device.queues();
        Self {
            rings: queues.iter().map(|_| RingControl::default()).collect(),
            queues,
            device,
            crew,
            memory: MemoryTable::new(Arc::clone(&connection)),
            connection,
            metrics,
            log: None,
            features: 0,
            negotiated: false,
            protocol_features: 0,
            owned: false,
            used: false,
            refused: false,
        }
    }

    /// Whether the last message was refused here with everything left as it was; asking resets it.
    pub fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }

    /// Whether the frontend is told of refusals.
    pub fn acknowledges(&self) -> bool {
        self.protocol_features & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0
    }

    /// The connection is over: drains and drops everything.
    pub fn end(&mut self) {
        if self.crew.end().is_err() {
            log::warn!("the host does not answer; the thread that waits for it is given up");
            if let Err(error) = self.memory.revoke(|_| {}) {
                log::debug!("{error}");
            }
        }
        self.device.reset();
    }

    /// Marks an error as a refusal that changed nothing.
    fn refusable<T>(&mut self, result: Result<T>) -> Result<T> {
        self.refused = result.is_err();
        result
    }

    fn ring(&mut self, index: u32) -> Result<(QueueIndex, &mut RingControl)> {
        let queue = u16::try_from(index).map_err(|_| Error::InvalidParam)?;
        let ring = self
            .rings
            .get_mut(usize::from(queue))
            .ok_or_else(|| fault(format_args!("there is no queue {index}")))?;
        Ok((QueueIndex(queue), ring))
    }

    fn spec(&self, queue: QueueIndex) -> QueueSpec {
        self.queues
            .get(queue.position())
            .copied()
            .unwrap_or_default()
    }

    /// Starts or stops a queue, whichever its state asks for.
    fn refresh(&mut self, queue: QueueIndex) -> Result<()> {
        let always_enabled = self.negotiated && self.features & PROTOCOL_FEATURES == 0;
        let Some(ring) = self.rings.get(queue.position()) else {
            return Ok(());
        };
        let wanted = ring.kick.is_some()
            && ring.parts.is_some()
            && ring.size > 0
            && (ring.enabled || always_enabled);
        match (ring.running, wanted) {
            (false, true) => self.start(queue),
            (true, false) => self.stop(queue),
            _ => Ok(()),
        }
    }

    fn refresh_all(&mut self) -> Result<()> {
        (0..self.rings.len())
            .filter_map(|position| u16::try_from(position).ok())
            .try_for_each(|queue| self.refresh(QueueIndex(queue)))
    }

    fn layout(&self, queue: QueueIndex, size: u32, parts: (u64, u64, u64)) -> Result<Layout> {
        let (descriptors, available, used) = parts;
        let limit = self.spec(queue).max_size;
        let memory = self.memory.snapshot();
        Layout::new(size, limit, descriptors, available, used, &memory).map_err(fault)
    }

    fn start(&mut self, queue: QueueIndex) -> Result<()> {
        let spec = self.spec(queue);
        let Some(ring) = self.rings.get(queue.position()) else {
            return Ok(());
        };
        let (Some(parts), Some(kick)) = (ring.parts, &ring.kick) else {
            return Ok(());
        };
        let kick = kick.try_clone().map_err(Error::ReqHandlerError)?;
        let start = Start {
            index: queue,
            layout: self.layout(queue, ring.size, parts)?,
            next_available: ring.base,
            features: self.features,
            notifier: notifier(ring.call.as_ref())?,
            meter: self.metrics.meter(queue),
        };
        let memory = self.memory.snapshot();
        self.crew
            .command(
                spec.worker,
                Command::Start(Box::new(start), kick.into()),
                &memory,
            )
            .map_err(fault)?;
        self.set_running(queue, true);
        self.used = true;
        Ok(())
    }

    /// Drains and stops a queue. If its thread is stuck in the host, the thread is given up and guest memory is taken
    /// away from it; the queue then resumes behind the last request that the driver got back.
    fn stop(&mut self, queue: QueueIndex) -> Result<()> {
        let worker = self.spec(queue).worker;
        let memory = self.memory.snapshot();
        match self.crew.command(worker, Command::Stop(queue), &memory) {
            Ok(stopped) => {
                if let Some(stopped) = stopped {
                    self.set_base(queue, stopped.next_available);
                }
                self.set_running(queue, false);
                Ok(())
            }
            Err(CrewFault::Stuck) => self.give_up(worker, queue),
            Err(error) => Err(fault(error)),
        }
    }

    /// Gives a stuck thread up: its queues resume at what the driver saw last, all but `stopping` at once, on a new thread.
    fn give_up(&mut self, worker: u16, stopping: QueueIndex) -> Result<()> {
        log::warn!(
            "the host did not answer within {STOP_DEADLINE:?}; the thread that waits for it is given up"
        );
        let memory = self.memory.snapshot();
        let queues = self.queues_of(worker);
        for queue in &queues {
            if let Some(used) = self.published(*queue, &memory) {
                self.set_base(*queue, used);
            }
            self.set_running(*queue, false);
        }
        let crew = &mut self.crew;
        self.memory
            .revoke(|renewed| crew.renew(worker, &renewed))
            .map_err(fault)?;
        queues
            .into_iter()
            .filter(|queue| *queue != stopping)
            .try_for_each(|queue| self.refresh(queue))
    }

    fn queues_of(&self, worker: u16) -> Vec<QueueIndex> {
        (0u16..)
            .zip(&self.queues)
            .filter(|(_, spec)| spec.worker == worker)
            .map(|(index, _)| QueueIndex(index))
            .collect()
    }

    /// The used index that the driver sees, read from the ring itself.
    fn published(&self, queue: QueueIndex, memory: &Memory) -> Option<u16> {
        let ring = self.rings.get(queue.position())?;
        let (_, _, used) = ring.parts.filter(|_| ring.running)?;
        let header = memory.slice(used, 4)?;
        header
            .load::<u16>(2, Ordering::Acquire)
            .ok()
            .map(u16::from_le)
    }

    fn set_running(&mut self, queue: QueueIndex, running: bool) {
        if let Some(ring) = self.rings.get_mut(queue.position()) {
            ring.running = running;
        }
    }

    fn set_base(&mut self, queue: QueueIndex, base: u16) {
        if let Some(ring) = self.rings.get_mut(queue.position()) {
            ring.base = base;
        }
    }

    fn stop_all(&mut self) -> Result<()> {
        for ring in &mut self.rings {
            ring.enabled = false;
        }
        for position in 0..self.rings.len() {
            let running = self.rings.get(position).is_some_and(|ring| ring.running);
            if let (true, Ok(queue)) = (running, u16::try_from(position)) {
                self.stop(QueueIndex(queue))?;
            }
        }
        Ok(())
    }

    /// Applies a change of the memory table: the queues move over one after the other, none of them stops.
    fn publish_memory(&mut self) -> Result<()> {
        let memory = self.memory.snapshot();
        self.crew.set_memory(&memory).map_err(fault)
    }

    fn apply_log(&mut self) -> Result<()> {
        let wanted = self.features & LOG_ALL != 0;
        self.memory.set_log(self.log.clone().filter(|_| wanted));
        self.publish_memory()
    }

    fn try_set_features(&mut self, features: u64) -> Result<()> {
        let unknown = features & !offered_features(self.device.as_ref());
        if unknown != 0 {
            return Err(fault(format_args!(
                "features {unknown:#x} were not offered"
            )));
        }
        let logging = (self.features ^ features) & LOG_ALL != 0;
        self.features = features;
        self.negotiated = true;
        if logging {
            self.apply_log()?;
        }
        self.refresh_all()
    }

    fn try_set_num(&mut self, index: u32, num: u32) -> Result<()> {
        let (queue, ring) = self.ring(index)?;
        if ring.running {
            return Err(fault(format_args!("queue {index} is running")));
        }
        let limit = self.spec(queue).max_size;
        if num == 0 || num > u32::from(limit) || !num.is_power_of_two() {
            return Err(fault(format_args!(
                "queue {index}: size {num} is not a power of two up to {limit}"
            )));
        }
        self.ring(index)?.1.size = num;
        self.refresh(queue)
    }

    fn try_set_addr(&mut self, index: u32, user: (u64, u64, u64)) -> Result<()> {
        let (queue, _) = self.ring(index)?;
        let translate = |address: u64| {
            self.memory.guest_address(address).ok_or_else(|| {
                fault(format_args!(
                    "queue {index}: no memory at user address {address:#x}"
                ))
            })
        };
        let parts = (translate(user.0)?, translate(user.1)?, translate(user.2)?);
        let ring = self.ring(index)?.1;
        let (size, running) = (ring.size, ring.running);
        if size > 0 {
            self.layout(queue, size, parts)?;
        }
        if running && self.ring(index)?.1.parts != Some(parts) {
            // The ring moved while it runs: stop it where it was, go on where it is.
            self.stop(queue)?;
        }
        self.ring(index)?.1.parts = Some(parts);
        self.refresh(queue)
    }

    fn try_set_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base)
            .map_err(|_| fault(format_args!("queue {index}: base {base} is out of range")))?;
        let ring = self.ring(index)?.1;
        if ring.running {
            return Err(fault(format_args!("queue {index} is running")));
        }
        let anew = base == 0 && ring.base != 0;
        ring.base = base;
        if anew && self.rings.iter().all(|ring| !ring.running) {
            // A reset that was told, or inferred from the queue before, is not another one.
            if self.used {
                self.count_reset();
            }
            self.start_over()?;
        }
        Ok(())
    }

    /// Forgets what the driver set up. A guest that was only paused goes on with its rings where they stopped; if they begin
    /// anew it was reset, of which QEMU says nothing else: it stops the rings, and sets them up when the driver is back.
    fn start_over(&mut self) -> Result<()> {
        self.crew.reset().map_err(fault)?;
        self.device.reset();
        Ok(())
    }

    fn count_reset(&mut self) {
        self.used = false;
        metrics::count(&self.metrics.resets);
    }

    fn try_set_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let (queue, ring) = self.ring(index.into())?;
        if file.is_none() {
            return Err(fault(format_args!(
                "queue {index}: a queue without a kick descriptor is not supported"
            )));
        }
        let running = ring.running;
        if running {
            // Whatever was kicked through the old descriptor is served when the queue starts again.
            self.stop(queue)?;
        }
        let ring = self.ring(index.into())?.1;
        ring.kick = file;
        let result = self.refresh(queue);
        if result.is_err() {
            self.ring(index.into())?.1.kick = None;
        }
        result
    }

    fn try_set_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let (queue, ring) = self.ring(index.into())?;
        let notifier = notifier(file.as_ref())?;
        ring.call = file;
        if ring.running {
            let worker = self.spec(queue).worker;
            let memory = self.memory.snapshot();
            self.crew
                .command(worker, Command::Call(queue, notifier), &memory)
                .map_err(fault)?;
        }
        Ok(())
    }

    fn try_set_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let (queue, ring) = self.ring(index)?;
        ring.enabled = enable;
        self.refresh(queue)
    }

    fn try_set_log(&mut self, log: &VhostUserLog, file: File) -> Result<()> {
        let log = PageLog::new(file, log.mmap_offset, log.mmap_size, &self.connection)
            .map_err(Error::ReqHandlerError)?;
        self.log = Some(Arc::new(log));
        self.apply_log()
    }

    /// The range of a configuration access that lies within the device's structure, if all of it does.
    fn config_range(&self, offset: u32, size: usize) -> Option<u32> {
        let end = u64::from(offset) + size as u64;
        (end <= u64::from(self.device.config_size())).then_some(offset)
    }
}

fn notifier(file: Option<&File>) -> Result<Box<dyn Notifier>> {
    let Some(file) = file else {
        return Ok(Box::new(Silent));
    };
    let file = file.try_clone().map_err(Error::ReqHandlerError)?;
    Ok(Box::new(Call::new(file).map_err(Error::ReqHandlerError)?))
}

fn unsupported<T>() -> Result<T> {
    Err(Error::InvalidOperation("not offered"))
}

impl<D: Device> VhostUserBackendReqHandlerMut for Handler<D> {
    fn set_owner(&mut self) -> Result<()> {
        let taken = std::mem::replace(&mut self.owned, true);
        let result = if taken {
            Err(Error::InvalidOperation("the device has an owner already"))
        } else {
            Ok(())
        };
        self.refusable(result)
    }

    fn reset_owner(&mut self) -> Result<()> {
        // Deprecated; a back-end may take it as a request to disable all rings.
        self.owned = false;
        self.count_reset();
        self.stop_all()
    }

    fn reset_device(&mut self) -> Result<()> {
        self.stop_all()?;
        self.count_reset();
        self.start_over()?;
        self.negotiated = false;
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(offered_features(self.device.as_ref()))
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        let result = self.try_set_features(features);
        self.refusable(result)
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::LOG_SHMFD)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        let offered = self.get_protocol_features()?.bits();
        #[cfg(feature = "xen")]
        let offered = offered | VhostUserProtocolFeatures::XEN_MMAP.bits();
        let unknown = features & !offered;
        let result = if unknown == 0 {
            self.protocol_features = features;
            Ok(())
        } else {
            Err(fault(format_args!(
                "protocol features {unknown:#x} were not offered"
            )))
        };
        self.refusable(result)
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.queues.len() as u64)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let result = self.memory.replace(regions, files).map_err(fault);
        self.refusable(result)?;
        self.publish_memory()?;
        Ok(None)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_SLOTS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        let result = self.memory.add(**region, file).map_err(fault);
        self.refusable(result)?;
        self.publish_memory()?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let result = self.memory.remove(region).map_err(fault);
        self.refusable(result)?;
        self.publish_memory()
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let result = self.try_set_num(index, num);
        self.refusable(result)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _: u64,
    ) -> Result<()> {
        let result = self.try_set_addr(index, (descriptor, available, used));
        self.refusable(result)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let result = self.try_set_base(index, base);
        self.refusable(result)
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let (queue, ring) = self.ring(index)?;
        if ring.running {
            self.stop(queue)?;
        }
        let ring = self.ring(index)?.1;
        // The ring is stopped until the next kick descriptor arrives.
        ring.kick = None;
        ring.call = None;
        Ok(VhostUserVringState::new(index, u32::from(ring.base)))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let result = self.try_set_kick(index, file);
        self.refusable(result)
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let result = self.try_set_call(index, file);
        self.refusable(result)
    }

    fn set_vring_err(&mut self, index: u8, _: Option<File>) -> Result<()> {
        // Accepted, and never signalled: no frontend listens to it.
        let result = self.ring(index.into()).map(|_| ());
        self.refusable(result)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let result = self.try_set_enable(index, enable);
        self.refusable(result)
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        // The vhost crate bounds the size by 4096 bytes. Bytes past the structure read as zero: frontends ask for round
        // sizes.
        let mut out = vec![0; size as usize];
        let inside = self.device.config_size().saturating_sub(offset);
        let length = out.len().min(inside as usize);
        if let Some(out) = out.get_mut(..length) {
            self.device.read_config(offset, out);
        }
        Ok(out)
    }

    fn set_config(&mut self, offset: u32, data: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        let result = match self.config_range(offset, data.len()) {
            Some(offset) => self.device.write_config(offset, data).map_err(fault),
            None => Err(fault(format_args!(
                "configuration write of {} bytes at {offset} is outside the structure",
                data.len()
            ))),
        };
        self.refusable(result)
    }

    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> Result<()> {
        self.try_set_log(log, file)
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        unsupported()
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        unsupported()
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        unsupported()
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        unsupported()
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        unsupported()
    }

    fn check_device_state(&mut self) -> Result<()> {
        unsupported()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        unsupported()
    }
}
