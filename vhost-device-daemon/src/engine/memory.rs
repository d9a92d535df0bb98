//! The memory table of one connection: mapping, checking, translating, and taking memory away from a stuck thread.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use thiserror::Error;
use vhost::vhost_user::message::VhostUserMemoryRegion;
use vhost_device_core::{DirtyLog, Memory};
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MmapRegion};

use super::dirty::LogSwitch;
use super::sigbus::{Guard, map_zeroes};

/// Most regions that one frontend may map, as GET_MAX_MEM_SLOTS reports.
pub const MAX_SLOTS: usize = 128;

/// Why a memory table is refused. The old one stays in force.
#[derive(Debug, Error)]
pub enum MemoryFault {
    /// The descriptor cannot be mapped for the whole region.
    #[error("cannot map the region at {0:#x}: {1}")]
    Map(u64, String),
    /// Regions overlap, or wrap around.
    #[error("regions do not fit together: {0}")]
    Table(String),
    /// More regions than [`MAX_SLOTS`].
    #[error("more than {MAX_SLOTS} regions")]
    Slots,
    /// No such region to remove.
    #[error("there is no region at {0:#x} of {1:#x} bytes")]
    Unknown(u64, u64),
}

/// One mapped region.
struct Region {
    // Before the mapping: it is deregistered first.
    _guard: Guard,
    spec: VhostUserMemoryRegion,
    file: Arc<File>,
    map: Arc<GuestRegionMmap>,
}

impl Region {
    fn new(
        spec: VhostUserMemoryRegion,
        file: Arc<File>,
        connection: &Arc<OwnedFd>,
    ) -> Result<Self, MemoryFault> {
        let guest = spec.guest_phys_addr;
        let fail = |error: String| MemoryFault::Map(guest, error);
        check_length(&file, spec.mmap_offset, spec.memory_size)
            .map_err(|error| fail(error.to_string()))?;
        let own = file.try_clone().map_err(|error| fail(error.to_string()))?;
        let map: MmapRegion = spec
            .mmap_region(own)
            .map_err(|error| fail(error.to_string()))?;
        let guard = Guard::new(map.as_ptr() as usize, map.size(), connection)
            .map_err(|error| fail(error.to_string()))?;
        let map = GuestRegionMmap::new(map, GuestAddress(guest))
            .ok_or_else(|| fail("it wraps around".into()))?;
        Ok(Self {
            _guard: guard,
            spec,
            file,
            map: Arc::new(map),
        })
    }

    /// Replaces the mapping's content, for whoever still uses it, by zeroes that nobody else sees.
    fn revoke(&self) {
        // SAFETY: this is a mapping of ours; the table has been replaced, so that only a thread that was given up can
        // still use it, and that thread's results must go nowhere.
        if !unsafe { map_zeroes(self.map.as_ptr() as usize, self.map.size()) } {
            log::error!("cannot take guest memory away from a stuck thread");
        }
    }
}

/// What REM_MEM_REG names a region by: guest address, user address, size.
fn identity(spec: &VhostUserMemoryRegion) -> (u64, u64, u64) {
    (spec.guest_phys_addr, spec.user_addr, spec.memory_size)
}

/// Refuses a file that ends before the mapping does: touching what is not there would raise SIGBUS.
///
/// # Errors
/// Also if the file's length cannot be told.
pub fn check_length(file: &File, offset: u64, size: u64) -> io::Result<()> {
    let status = file.metadata()?;
    let end = offset.saturating_add(size);
    if status.is_file() && status.len() < end {
        let length = status.len();
        let why = format!("the file has {length} bytes, the mapping ends at {end}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(())
}

/// The regions of one connection, and the log in force.
pub struct MemoryTable {
    regions: Vec<Arc<Region>>,
    log: Arc<LogSwitch>,
    snapshot: Arc<Memory>,
    connection: Arc<OwnedFd>,
}

impl MemoryTable {
    /// No memory yet. `connection` is shut down if its memory turns out to be truncated.
    pub fn new(connection: Arc<OwnedFd>) -> Self {
        Self {
            regions: Vec::new(),
            log: Arc::default(),
            snapshot: Arc::default(),
            connection,
        }
    }

    /// The memory as it is now.
    pub fn snapshot(&self) -> Arc<Memory> {
        Arc::clone(&self.snapshot)
    }

    /// Maps a whole new table.
    ///
    /// # Errors
    /// [`MemoryFault`]; the old table stays in force.
    pub fn replace(
        &mut self,
        specs: &[VhostUserMemoryRegion],
        files: Vec<File>,
    ) -> Result<(), MemoryFault> {
        let regions = specs
            .iter()
            .zip(files)
            .map(|(spec, file)| self.map(*spec, Arc::new(file)))
            .collect::<Result<Vec<_>, _>>()?;
        self.install(regions)
    }

    /// Adds one region.
    ///
    /// # Errors
    /// [`MemoryFault`]; the old table stays in force.
    pub fn add(&mut self, spec: VhostUserMemoryRegion, file: File) -> Result<(), MemoryFault> {
        if self.regions.len() >= MAX_SLOTS {
            return Err(MemoryFault::Slots);
        }
        let mut regions = self.regions.clone();
        regions.push(self.map(spec, Arc::new(file))?);
        self.install(regions)
    }

    /// Removes the region with the guest address, user address and size of `spec`.
    ///
    /// # Errors
    /// [`MemoryFault::Unknown`] if there is none.
    pub fn remove(&mut self, spec: &VhostUserMemoryRegion) -> Result<(), MemoryFault> {
        let same = |region: &Arc<Region>| identity(&region.spec) == identity(spec);
        let mut regions = self.regions.clone();
        let position = regions
            .iter()
            .position(same)
            .ok_or(MemoryFault::Unknown(spec.guest_phys_addr, spec.memory_size))?;
        regions.remove(position);
        self.install(regions)
    }

    /// Sets the log that writes are recorded in, those of requests in flight included.
    pub fn set_log(&mut self, log: Option<Arc<dyn DirtyLog>>) {
        self.log.set(log);
    }

    /// The guest address of a frontend's address.
    pub fn guest_address(&self, user: u64) -> Option<u64> {
        self.regions.iter().find_map(|region| {
            let offset = user.checked_sub(region.spec.user_addr)?;
            (offset < region.spec.memory_size)
                .then(|| region.spec.guest_phys_addr.checked_add(offset))?
        })
    }

    /// Maps everything anew and replaces the old mappings by zeroes: whoever still holds the old memory can neither see
    /// nor change the guest's any more, in user space or in a system call. Call `then` between the two steps to move the
    /// threads that are well over to the new memory.
    ///
    /// # Errors
    /// [`MemoryFault`] if the files cannot be mapped again; the old mappings are revoked all the same.
    pub fn revoke(&mut self, then: impl FnOnce(Arc<Memory>)) -> Result<(), MemoryFault> {
        let old = self.regions.clone();
        let renewed = old
            .iter()
            .map(|region| self.map(region.spec, Arc::clone(&region.file)))
            .collect::<Result<Vec<_>, _>>()
            .and_then(|regions| self.install(regions));
        then(self.snapshot());
        for region in &old {
            region.revoke();
        }
        renewed
    }

    fn map(
        &self,
        spec: VhostUserMemoryRegion,
        file: Arc<File>,
    ) -> Result<Arc<Region>, MemoryFault> {
        Region::new(spec, file, &self.connection).map(Arc::new)
    }

    fn install(&mut self, regions: Vec<Arc<Region>>) -> Result<(), MemoryFault> {
        let mut maps: Vec<_> = regions
            .iter()
            .map(|region| Arc::clone(&region.map))
            .collect();
        maps.sort_by_key(|map| map.start_addr());
        let map = if maps.is_empty() {
            GuestMemoryMmap::new()
        } else {
            GuestMemoryMmap::from_arc_regions(maps)
                .map_err(|error| MemoryFault::Table(error.to_string()))?
        };
        let keep = Arc::new(regions.clone());
        self.snapshot = Arc::new(Memory::with_log(map, Some(self.log.clone())).keeping(keep));
        self.regions = regions;
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::fd::FromRawFd;
    use std::os::unix::net::UnixStream;

    use vm_memory::{Bytes, GuestMemoryBackend};

    use super::*;

    pub fn memfd(size: u64) -> File {
        // SAFETY: the name is a C string; the result is checked and owned by nobody else.
        let file = unsafe {
            let fd = libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC);
            assert!(fd >= 0);
            File::from_raw_fd(fd)
        };
        file.set_len(size).unwrap();
        file
    }

    fn table() -> MemoryTable {
        let (end, _) = UnixStream::pair().unwrap();
        MemoryTable::new(Arc::new(end.into()))
    }

    #[cfg(not(feature = "xen"))]
    fn spec(guest: u64, size: u64, user: u64) -> VhostUserMemoryRegion {
        VhostUserMemoryRegion::new(guest, size, user, 0)
    }

    #[cfg(feature = "xen")]
    fn spec(guest: u64, size: u64, user: u64) -> VhostUserMemoryRegion {
        VhostUserMemoryRegion::with_xen(guest, size, user, 0, 0, 0)
    }

    #[test]
    fn a_refused_table_leaves_the_old_one_in_force() {
        let mut table = table();
        table
            .replace(&[spec(0x1000, 0x1000, 0x7000)], vec![memfd(0x1000)])
            .unwrap();
        let too_short = table.replace(&[spec(0, 0x2000, 0)], vec![memfd(0x1000)]);
        assert!(matches!(too_short, Err(MemoryFault::Map(0, _))));
        let overlap = table.add(spec(0x1800, 0x1000, 0x9000), memfd(0x1000));
        assert!(matches!(overlap, Err(MemoryFault::Table(_))));
        let unknown = table.remove(&spec(0x1000, 0x800, 0x7000));
        assert!(matches!(unknown, Err(MemoryFault::Unknown(..))));
        assert_eq!(table.guest_address(0x7abc), Some(0x1abc));
        assert_eq!(table.guest_address(0x8000), None);
        assert_eq!(table.snapshot().map().num_regions(), 1);
    }

    /// The bug: a buffer held since before the log was set was written without a mark, and lost by a migration.
    #[test]
    fn what_a_request_in_flight_writes_is_recorded_in_a_log_set_later() {
        #[derive(Default)]
        struct Marks(std::sync::Mutex<Vec<(u64, u64)>>);
        impl DirtyLog for Marks {
            fn mark(&self, address: u64, len: u64) {
                self.0.lock().unwrap().push((address, len));
            }
        }
        let mut table = table();
        table
            .replace(&[spec(0, 0x1000, 0)], vec![memfd(0x1000)])
            .unwrap();
        let held = table.snapshot();
        held.mark(1, 1);
        let marks = Arc::new(Marks::default());
        table.set_log(Some(marks.clone()));
        held.mark(2, 3);
        table.set_log(None);
        held.mark(4, 5);
        assert_eq!(*marks.0.lock().unwrap(), [(2, 3)]);
    }

    #[test]
    fn whoever_holds_revoked_memory_sees_zeroes_and_changes_nothing() {
        let mut table = table();
        table
            .replace(&[spec(0, 0x1000, 0)], vec![memfd(0x1000)])
            .unwrap();
        let old = table.snapshot();
        old.map().write_obj(7u32, GuestAddress(0)).unwrap();
        let mut renewed = None;
        table.revoke(|memory| renewed = Some(memory)).unwrap();
        let renewed = renewed.unwrap();
        assert_eq!(old.map().read_obj::<u32>(GuestAddress(0)).unwrap(), 0);
        old.map().write_obj(9u32, GuestAddress(0)).unwrap();
        assert_eq!(renewed.map().read_obj::<u32>(GuestAddress(0)).unwrap(), 7);
    }
}
