//! Pieces of guest memory as one vector for the kernel.

use std::marker::PhantomData;

use vm_memory::VolatileSlice;
use vm_memory::volatile_memory::PtrGuardMut;

/// Most pieces of one transfer.
pub const MAX_PIECES: usize = 256;

/// Pieces for one scatter or gather operation. They stay mapped as long as this exists.
pub struct Vectors<'m> {
    vectors: Vec<libc::iovec>,
    // With Xen a guard keeps its piece mapped.
    guards: Vec<PtrGuardMut>,
    bytes: usize,
    memory: PhantomData<VolatileSlice<'m>>,
}

impl<'m> Vectors<'m> {
    /// No pieces. `room` may come from an earlier use, so that none is allocated.
    pub fn new(room: Room) -> Self {
        Self {
            vectors: room.vectors,
            guards: room.guards,
            bytes: 0,
            memory: PhantomData,
        }
    }

    /// Adds a piece; false if there are too many.
    pub fn push(&mut self, piece: &VolatileSlice<'m>) -> bool {
        if self.vectors.len() >= MAX_PIECES {
            return false;
        }
        let guard = piece.ptr_guard_mut();
        self.vectors.push(libc::iovec {
            iov_base: guard.as_ptr().cast(),
            iov_len: piece.len(),
        });
        self.guards.push(guard);
        self.bytes += piece.len();
        true
    }

    /// Bytes of all pieces.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// For the system call.
    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::iovec {
        self.vectors.as_mut_ptr()
    }

    /// How many pieces there are.
    pub(super) fn count(&self) -> usize {
        self.vectors.len()
    }

    /// Lets go of the pieces and gives the room back for the next use.
    pub fn into_room(mut self) -> Room {
        self.vectors.clear();
        self.guards.clear();
        Room {
            vectors: self.vectors,
            guards: self.guards,
        }
    }
}

/// Room for [`Vectors`], empty between two uses.
#[derive(Default)]
pub struct Room {
    vectors: Vec<libc::iovec>,
    guards: Vec<PtrGuardMut>,
}

// SAFETY: both lists are empty: `Vectors::into_room` clears them, and nothing else makes a `Room` but `default`. So there
// are no pointers in it.
unsafe impl Send for Room {}
