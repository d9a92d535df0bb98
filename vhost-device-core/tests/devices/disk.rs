//! Level three, a [`Worker`] with a completion engine: two queues of reads and writes on one io_uring, straight between
//! guest memory and a file.
//!
//! Request: `le32` operation, 4 bytes reserved, `le64` offset, then the data of a write. Answer: the data of a read, and
//! at the very end a [`Status`].

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use vhost_device_core::{
    Device, GuestFault, HostError, Interest, Io, QueueIndex, QueueSpec, Ready, Request, Segments,
    Setup, Ticket, Token, Worker,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub const READ: u32 = 0;
pub const WRITE: u32 = 1;

pub const STATUS_OK: u8 = 0;
/// The host failed, or was given up when the queue stopped.
pub const STATUS_IO_ERROR: u8 = 1;
pub const STATUS_UNSUPPORTED: u8 = 2;

/// How long a stopping queue waits for the host before it cancels what is left.
pub const GRACE: Duration = Duration::from_millis(100);

/// Requests with the host at once, both queues together.
pub const DEPTH: usize = 64;

const QUEUES: usize = 2;
const DONE: Token = Token(1);
/// Marks the completion of a cancellation; slots count from 0.
const CANCELLED: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Header {
    pub operation: U32,
    pub reserved: U32,
    pub offset: U64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Status {
    pub code: u8,
    pub reserved: [u8; 3],
    /// Bytes read or written.
    pub bytes: U32,
}

pub const STATUS_BYTES: u64 = size_of::<Status>() as u64;

pub struct Disk {
    file: OwnedFd,
}

impl Disk {
    /// A device on a file, or on anything else that can be read or written.
    pub fn new(file: impl Into<OwnedFd>) -> Self {
        Self { file: file.into() }
    }
}

impl Device for Disk {
    type Worker = DiskWorker;

    fn queues(&self) -> Vec<QueueSpec> {
        vec![QueueSpec::new(); QUEUES]
    }

    fn worker(self: &Arc<Self>, _: u16, setup: &mut Setup<'_>) -> Result<DiskWorker, HostError> {
        let engine = Engine::new(Arc::clone(self))
            .map_err(|source| HostError::new("set up io_uring", source))?;
        setup
            .reactor()
            .watch(engine.done.as_fd(), Interest::READABLE, DONE)
            .map_err(|source| HostError::new("watch io_uring", source))?;
        Ok(DiskWorker { engine })
    }
}

/// The device's side of virtio: takes requests, hands them to the engine, and completes what the engine is done with.
pub struct DiskWorker {
    engine: Engine,
}

impl Worker for DiskWorker {
    fn kick(&mut self, queue: QueueIndex, io: &mut Io<'_>) {
        self.take(queue, io);
        self.engine.submit();
    }

    fn event(&mut self, _: Token, _: Ready, io: &mut Io<'_>) {
        self.engine.acknowledge();
        self.complete(io);
        // Slots are free again: requests may have been left in the rings for want of one.
        for queue in 0..QUEUES {
            self.take(QueueIndex(queue as u16), io);
        }
        self.engine.submit();
    }

    fn quiesce(&mut self, queue: QueueIndex, io: &mut Io<'_>) {
        self.engine.drain(queue.position());
        self.complete(io);
    }
}

impl DiskWorker {
    fn take(&mut self, queue: QueueIndex, io: &mut Io<'_>) {
        let mut batch = io.queue(queue);
        while self.engine.has_room()
            && let Some(mut request) = batch.next()
        {
            match decode(&mut request) {
                Ok(Some(transfer)) => {
                    let (ticket, segments) = request.detach();
                    self.engine.push(queue, transfer, ticket, segments);
                }
                // Answered by its status.
                Ok(None) => request.finish(),
                Err(fault) => request.fail(fault),
            }
        }
    }

    fn complete(&mut self, io: &mut Io<'_>) {
        self.engine.reap();
        for queue in 0..QUEUES {
            let mut batch = io.queue(QueueIndex(queue as u16));
            for (pending, result) in self.engine.finished[queue].drain(..) {
                let Pending {
                    ticket,
                    mut segments,
                    read,
                    ..
                } = pending;
                let bytes = u32::try_from(result).unwrap_or(0);
                if read {
                    segments.advance_written(bytes.into());
                }
                let status = Status {
                    code: if result < 0 {
                        STATUS_IO_ERROR
                    } else {
                        STATUS_OK
                    },
                    reserved: [0; 3],
                    bytes: bytes.into(),
                };
                // Its room was reserved when the request was taken.
                let _ = segments.write_tail(status.as_bytes());
                batch.complete(ticket, segments.written());
                batch.recycle(segments);
            }
        }
    }
}

/// Where to read or write.
struct Transfer {
    read: bool,
    offset: u64,
}

/// Reads a header. `None`: the request has been answered.
fn decode(request: &mut Request<'_>) -> Result<Option<Transfer>, GuestFault> {
    request.reserve_tail(STATUS_BYTES)?;
    let header: Header = request.read()?;
    let read = match header.operation.get() {
        READ => true,
        WRITE => false,
        _ => {
            let status = [STATUS_UNSUPPORTED, 0, 0, 0, 0, 0, 0, 0];
            request.write_tail(&status)?;
            return Ok(None);
        }
    };
    let offset = header.offset.get();
    Ok(Some(Transfer { read, offset }))
}

/// A request with the host.
struct Pending {
    ticket: Ticket,
    segments: Segments,
    /// Point into `segments`, which keeps that memory mapped.
    vectors: Vec<libc::iovec>,
    read: bool,
}

/// The host's side: io_uring and what is with it.
struct Engine {
    ring: IoUring,
    /// An eventfd that io_uring rings.
    done: File,
    disk: Arc<Disk>,
    pending: Vec<Option<Pending>>,
    free: Vec<usize>,
    outstanding: [usize; QUEUES],
    /// By queue: what the host is done with and the driver does not know yet, with its result.
    finished: [Vec<(Pending, i32)>; QUEUES],
}

// SAFETY: only the vectors keep this from being automatic. They point into guest memory that `segments` keeps mapped, and
// are read by the kernel alone.
unsafe impl Send for Engine {}

impl Engine {
    fn new(disk: Arc<Disk>) -> io::Result<Self> {
        // Twice the depth: one cancellation may be queued for each request.
        let ring = IoUring::new(2 * DEPTH as u32)?;
        let done = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?.into_raw_fd();
        // SAFETY: it is open, and nobody else owns it.
        let done = unsafe { File::from_raw_fd(done) };
        ring.submitter().register_eventfd(done.as_raw_fd())?;
        Ok(Self {
            ring,
            done,
            disk,
            pending: (0..DEPTH).map(|_| None).collect(),
            free: (0..DEPTH).collect(),
            outstanding: [0; QUEUES],
            finished: Default::default(),
        })
    }

    fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    fn acknowledge(&self) {
        // Empty after a wake that was for completions already reaped.
        let _ = (&self.done).read(&mut [0; 8]);
    }

    /// Hands a request to the host. There must be room.
    fn push(&mut self, queue: QueueIndex, transfer: Transfer, ticket: Ticket, segments: Segments) {
        let Some(slot) = self.free.pop() else { return };
        let vectors = if transfer.read {
            vectors(segments.writable_pieces())
        } else {
            vectors(segments.readable_pieces())
        };
        let pending = Pending {
            ticket,
            segments,
            vectors,
            read: transfer.read,
        };
        let entry = entry(self.disk.file.as_raw_fd(), &pending, transfer.offset);
        self.outstanding[queue.position()] += 1;
        self.pending[slot] = Some(pending);
        self.enqueue(&entry.user_data(slot as u64));
    }

    fn enqueue(&mut self, entry: &squeue::Entry) {
        // SAFETY: the buffers and vectors of the entry belong to a `Pending`, which leaves `pending` only when the kernel
        // has completed it; a cancellation has none.
        let pushed = unsafe { self.ring.submission().push(entry) };
        // There is an entry for each request and for its cancellation.
        debug_assert!(pushed.is_ok());
    }

    fn submit(&self) {
        // What was not taken now is taken by the next call; the kernel has no other way to refuse here.
        let _ = self.ring.submit();
    }

    /// Collects what the host has finished.
    fn reap(&mut self) {
        for completion in self.ring.completion() {
            if completion.user_data() == CANCELLED {
                continue;
            }
            let slot = completion.user_data() as usize;
            if let Some(pending) = self.pending[slot].take() {
                let queue = pending.ticket.queue().position();
                self.free.push(slot);
                self.outstanding[queue] -= 1;
                self.finished[queue].push((pending, completion.result()));
            }
        }
    }

    /// Returns when nothing of `queue` is with the host any more.
    fn drain(&mut self, queue: usize) {
        let deadline = Instant::now() + GRACE;
        let mut cancelled = false;
        self.reap();
        while self.outstanding[queue] > 0 {
            if !cancelled && Instant::now() >= deadline {
                self.cancel(queue);
                cancelled = true;
            }
            let step = Timespec::from(GRACE / 10);
            let wait = SubmitArgs::new().timespec(&step);
            // Times out where nothing was completed meanwhile. After the cancellation this waits as long as the kernel
            // takes: to return earlier would leave it writing to memory that is not ours any more.
            let _ = self.ring.submitter().submit_with_args(1, &wait);
            self.reap();
        }
    }

    fn cancel(&mut self, queue: usize) {
        for slot in 0..DEPTH {
            let ours = self.pending[slot]
                .as_ref()
                .is_some_and(|pending| pending.ticket.queue().position() == queue);
            if ours {
                let entry = opcode::AsyncCancel::new(slot as u64).build();
                self.enqueue(&entry.user_data(CANCELLED));
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A connection can end without a word. Guest memory must outlive what the kernel does with it all the same.
        for queue in 0..QUEUES {
            self.drain(queue);
        }
    }
}

fn vectors<'m>(pieces: impl Iterator<Item = vm_memory::VolatileSlice<'m>>) -> Vec<libc::iovec> {
    pieces
        .map(|piece| libc::iovec {
            iov_base: piece.ptr_guard_mut().as_ptr().cast(),
            iov_len: piece.len(),
        })
        .collect()
}

fn entry(file: RawFd, pending: &Pending, offset: u64) -> squeue::Entry {
    let (vectors, count) = (pending.vectors.as_ptr(), pending.vectors.len() as u32);
    if pending.read {
        let read = opcode::Readv::new(Fd(file), vectors, count);
        read.offset(offset).build()
    } else {
        let write = opcode::Writev::new(Fd(file), vectors, count);
        write.offset(offset).build()
    }
}
