//! The real thing: something that translates bytes.

mod sim;
mod table;

use std::io;

pub use sim::Sim;
pub use table::Table;

/// Translates bytes.
pub trait Translator: Send + Sync {
    /// Replaces each byte by its translation.
    ///
    /// # Errors
    /// If the host could not do it; `bytes` are then of no use.
    fn translate(&self, bytes: &mut [u8]) -> io::Result<()>;

    /// Whether a translation may take longer than about a millisecond.
    fn may_block(&self) -> bool;
}
