//! Guest memory: shared memfd regions, placed in the guest's address space with holes between them.
//!
//! Every access goes through atomics of the accessed width, because the device at the other end of the mapping
//! reads and writes the same bytes at the same time: no plain Rust reference into guest memory exists.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::sys;

/// Size and unit of a page: alignment of regions and unit of the dirty log.
pub const PAGE: u64 = 4096;

/// Where one region lies. All numbers are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Guest physical address of the first byte.
    pub guest: u64,
    /// The frontend's virtual address of the first byte, as told to the device (never dereferenced by anyone).
    pub user: u64,
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// Length.
    pub len: u64,
}

/// Frontend addresses start here, far from every guest address, so that mixing up the two never works by luck.
const USER_BASE: u64 = 0x7e00_0000_0000;

impl Place {
    /// A region of `len` bytes at guest address `guest`, from offset 0 of its file.
    pub fn new(guest: u64, len: u64) -> Self {
        Self {
            guest,
            user: USER_BASE + guest,
            offset: 0,
            len,
        }
    }

    /// The same region beginning at this offset of its file.
    #[must_use]
    pub fn at_offset(self, offset: u64) -> Self {
        Self { offset, ..self }
    }

    /// The usual layout of the tests: 8 MiB low, a hole, 2 MiB above 4 GiB that begin in the middle of their file.
    pub fn usual() -> Vec<Self> {
        vec![
            Self::new(0x10_0000, 8 << 20),
            Self::new(0x1_0000_0000, 2 << 20).at_offset(16 * PAGE),
        ]
    }
}

/// One mapped region.
#[derive(Debug)]
pub struct Region {
    place: Place,
    file: File,
    base: NonNull<u8>,
    cursor: AtomicU64,
}

// SAFETY: the mapping lives as long as the region, and all access to it goes through atomics.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// A fresh region on a memfd of its own.
    ///
    /// # Errors
    /// As memfd_create(2) and mmap(2).
    pub fn new(place: Place) -> io::Result<Self> {
        let file = sys::memfd("testkit-guest", place.offset + place.len)?;
        Self::on(file, place)
    }

    /// A region on an existing file; what the file holds stays.
    ///
    /// # Errors
    /// As mmap(2).
    pub fn on(file: File, place: Place) -> io::Result<Self> {
        let len = usize::try_from(place.len).map_err(io::Error::other)?;
        let offset = i64::try_from(place.offset).map_err(io::Error::other)?;
        // SAFETY: a new shared mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at null"))?;
        Ok(Self {
            place,
            file,
            base,
            cursor: AtomicU64::new(0),
        })
    }

    /// Where the region lies.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The file behind it.
    pub fn file(&self) -> &File {
        &self.file
    }

    fn contains(&self, guest: u64, len: u64) -> bool {
        guest >= self.place.guest
            && guest
                .checked_add(len)
                .is_some_and(|end| end <= self.place.guest + self.place.len)
    }

    fn pointer(&self, guest: u64) -> NonNull<u8> {
        let offset = (guest - self.place.guest) as usize;
        // SAFETY: the caller has checked that the address is inside the mapping.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by this region and nothing points into it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.place.len as usize) };
    }
}

/// The whole of the guest's memory.
///
/// Access outside of every region, across a hole, or misaligned is a mistake of the test and panics.
#[derive(Debug)]
pub struct Memory {
    regions: Vec<Region>,
}

impl Memory {
    /// Fresh memory with regions at these places.
    ///
    /// # Errors
    /// As [`Region::new`].
    pub fn new(places: &[Place]) -> io::Result<Self> {
        let regions = places
            .iter()
            .map(|place| Region::new(*place))
            .collect::<io::Result<_>>()?;
        Ok(Self { regions })
    }

    /// The same bytes mapped anew, with each region's frontend address moved by `user_shift`.
    ///
    /// # Errors
    /// As [`Region::on`].
    pub fn remapped(&self, user_shift: u64) -> io::Result<Self> {
        let regions = self
            .regions
            .iter()
            .map(|old| {
                let place = Place {
                    user: old.place.user + user_shift,
                    ..old.place
                };
                let new = Region::on(old.file.try_clone()?, place)?;
                new.cursor
                    .store(old.cursor.load(Ordering::Relaxed), Ordering::Relaxed);
                Ok(new)
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { regions })
    }

    /// The same regions, mapped anew, and one more.
    ///
    /// # Errors
    /// As [`Region::on`].
    pub fn with(&self, more: Region) -> io::Result<Self> {
        let mut grown = self.remapped(0)?;
        grown.regions.push(more);
        Ok(grown)
    }

    /// Whether all of these bytes lie in one region.
    pub fn contains(&self, guest: u64, len: u64) -> bool {
        self.regions
            .iter()
            .any(|region| region.contains(guest, len))
    }

    /// The regions in the order in which they are told to the device.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Takes `len` bytes from region `region`, at a multiple of `align`; they are never given back one by one, see
    /// [`Memory::rewind`].
    ///
    /// # Panics
    /// When the region is used up.
    pub fn take_from(&self, region: usize, len: u64, align: u64) -> u64 {
        let region = &self.regions[region];
        let begin = region
            .cursor
            .load(Ordering::Relaxed)
            .next_multiple_of(align.max(1));
        assert!(
            begin + len <= region.place.len,
            "test guest memory used up: {len} bytes wanted, {} in the region",
            region.place.len
        );
        region.cursor.store(begin + len, Ordering::Relaxed);
        region.place.guest + begin
    }

    /// Takes from the first region, as [`Memory::take_from`].
    pub fn take(&self, len: u64, align: u64) -> u64 {
        self.take_from(0, len, align)
    }

    /// What has been taken so far, to come back to with [`Memory::rewind`].
    pub fn mark(&self) -> Vec<u64> {
        self.regions
            .iter()
            .map(|region| region.cursor.load(Ordering::Relaxed))
            .collect()
    }

    /// Gives back everything taken since the mark. Nothing may be outstanding in it.
    pub fn rewind(&self, mark: &[u64]) {
        for (region, cursor) in self.regions.iter().zip(mark) {
            region.cursor.store(*cursor, Ordering::Relaxed);
        }
    }

    /// The first guest address behind region `region`: not mapped, unless another region begins there.
    pub fn end_of(&self, region: usize) -> u64 {
        let place = self.regions[region].place;
        place.guest + place.len
    }

    /// The frontend's address of a guest address, as ring addresses are told to the device.
    ///
    /// # Panics
    /// Outside of every region.
    pub fn user_address(&self, guest: u64) -> u64 {
        let place = self.region(guest, 1).place;
        guest - place.guest + place.user
    }

    fn region(&self, guest: u64, len: u64) -> &Region {
        self.regions
            .iter()
            .find(|region| region.contains(guest, len))
            .unwrap_or_else(|| panic!("guest address {guest:#x}+{len:#x} is in no region"))
    }

    fn cell<T>(&self, guest: u64) -> &T {
        let pointer = self
            .region(guest, size_of::<T>() as u64)
            .pointer(guest)
            .cast::<T>();
        assert!(pointer.is_aligned(), "misaligned access at {guest:#x}");
        // SAFETY: only called with atomic types (private function, callers below), for which every bit pattern is
        // valid; the address is inside the mapping and aligned; the mapping lives as long as `self`.
        unsafe { pointer.as_ref() }
    }

    /// The byte at a guest address.
    pub fn u8(&self, guest: u64) -> &AtomicU8 {
        self.cell(guest)
    }

    /// The 16-bit word at a guest address, in memory order (rings are little-endian: convert).
    pub fn u16(&self, guest: u64) -> &AtomicU16 {
        self.cell(guest)
    }

    /// The 32-bit word at a guest address.
    pub fn u32(&self, guest: u64) -> &AtomicU32 {
        self.cell(guest)
    }

    /// The 64-bit word at a guest address.
    pub fn u64(&self, guest: u64) -> &AtomicU64 {
        self.cell(guest)
    }

    /// The bytes of an area, and those of them that are whole aligned words as such.
    fn cells(&self, guest: u64, len: usize) -> (&[AtomicU8], &[AtomicU64], &[AtomicU8]) {
        let pointer = self.region(guest, len as u64).pointer(guest).cast();
        // SAFETY: the area is inside of the mapping, which lives as long as `self`; a byte has no alignment, and every bit
        // pattern is valid for it and for a word, which `align_to` aligns. Others access them while we do: both are atomic.
        unsafe { std::slice::from_raw_parts(pointer.as_ptr(), len).align_to() }
    }

    /// Copies bytes out of guest memory.
    pub fn read(&self, guest: u64, out: &mut [u8]) {
        let (head, words, tail) = self.cells(guest, out.len());
        let (first, rest) = out.split_at_mut(head.len());
        let (middle, last) = rest.split_at_mut(size_of_val(words));
        for (byte, cell) in first.iter_mut().zip(head).chain(last.iter_mut().zip(tail)) {
            *byte = cell.load(Ordering::Relaxed);
        }
        for (bytes, cell) in middle.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = cell.load(Ordering::Relaxed).to_ne_bytes();
        }
    }

    /// Copies bytes into guest memory.
    pub fn write(&self, guest: u64, data: &[u8]) {
        let (head, words, tail) = self.cells(guest, data.len());
        let (first, rest) = data.split_at(head.len());
        let (middle, last) = rest.split_at(size_of_val(words));
        for (byte, cell) in first.iter().zip(head).chain(last.iter().zip(tail)) {
            cell.store(*byte, Ordering::Relaxed);
        }
        for (bytes, cell) in middle.as_chunks().0.iter().zip(words) {
            cell.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
    }

    /// Sets `len` bytes to one value.
    pub fn fill(&self, guest: u64, len: u64, value: u8) {
        self.write(guest, &vec![value; len as usize]);
    }

    /// `len` bytes as a vector.
    pub fn bytes(&self, guest: u64, len: u64) -> Vec<u8> {
        let mut out = vec![0; len as usize];
        self.read(guest, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_written_at_any_alignment_come_back() {
        let memory = Memory::new(&Place::usual()).unwrap();
        let data: Vec<u8> = (0..100).collect();
        for shift in 0..9 {
            let at = memory.take(128, 8) + shift;
            memory.write(at, &data);
            assert_eq!(memory.bytes(at, 100), data);
        }
    }

    #[test]
    fn a_region_shows_its_file_from_its_offset() {
        use std::os::unix::fs::FileExt;
        let memory = Memory::new(&Place::usual()).unwrap();
        let place = memory.regions()[1].place();
        memory.write(place.guest + 5, b"hello");
        let mut seen = [0; 5];
        memory.regions()[1]
            .file()
            .read_exact_at(&mut seen, place.offset + 5)
            .unwrap();
        assert_eq!(&seen, b"hello");
    }

    #[test]
    fn user_addresses_are_never_guest_addresses() {
        let memory = Memory::new(&Place::usual()).unwrap();
        let guest = memory.take_from(1, 16, 16);
        assert_eq!(memory.user_address(guest), guest + USER_BASE);
        let moved = memory.remapped(0x1000_0000).unwrap();
        assert_eq!(moved.user_address(guest), guest + USER_BASE + 0x1000_0000);
        memory.write(guest, b"same bytes");
        assert_eq!(moved.bytes(guest, 10), b"same bytes");
    }

    #[test]
    fn taking_aligns_and_rewinding_gives_back() {
        let memory = Memory::new(&Place::usual()).unwrap();
        let mark = memory.mark();
        memory.take(1, 1);
        assert_eq!(memory.take(16, 4096) % 4096, 0);
        let first = memory.regions()[0].place().guest;
        memory.rewind(&mark);
        assert_eq!(memory.take(1, 1), first);
    }

    #[test]
    #[should_panic(expected = "in no region")]
    fn a_hole_is_not_memory() {
        let memory = Memory::new(&Place::usual()).unwrap();
        memory.read(memory.end_of(0) - 2, &mut [0; 4]);
    }
}
