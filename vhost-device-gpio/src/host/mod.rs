//! The real thing: a chip with lines.

#[allow(
    unsafe_code,
    reason = "std cannot remove a file from a folder that it has open"
)]
mod control;
#[cfg(feature = "libgpiod")]
#[allow(
    unsafe_code,
    reason = "borrows the descriptor of a line request, which the bindings give as a number only"
)]
pub mod linux;
pub mod sim;

use std::io;

use vhost_device_core::{Reactor, Ready, Token};

use crate::line::{Direction, Edge, Edges, Line};

#[cfg_attr(
    not(feature = "daemon"),
    allow(unused_imports, reason = "the daemon's sandbox")
)]
pub use control::DESCRIPTORS as CONTROL_DESCRIPTORS;

/// One connection's use of a chip. What it took hold of it lets go when it is dropped.
///
/// Errors are the operating system's, also where the chip is simulated. `Send`, because it moves to the thread that
/// serves the queues.
pub trait Chip: Send {
    /// The direction of a line as the host reports it.
    ///
    /// # Errors
    /// If the chip is gone.
    fn direction(&mut self, line: Line) -> io::Result<Direction>;

    /// Makes a line an input; edges are not detected.
    ///
    /// # Errors
    /// If the line is taken by somebody else, cannot be an input, or the chip is gone.
    fn set_input(&mut self, line: Line) -> io::Result<()>;

    /// Makes a line an output with this value.
    ///
    /// # Errors
    /// If the line is taken by somebody else, cannot be an output, or the chip is gone.
    fn set_output(&mut self, line: Line, value: bool) -> io::Result<()>;

    /// Lets a line go, with all that was set up for it.
    fn release(&mut self, line: Line, reactor: &mut dyn Reactor);

    /// The value of a line, whoever drives it. Never waits for an edge.
    ///
    /// # Errors
    /// If the line is taken by somebody else, or the chip is gone.
    fn value(&mut self, line: Line) -> io::Result<bool>;

    /// Sets the value of an output.
    ///
    /// # Errors
    /// If the line is no output, or the chip is gone.
    fn set_value(&mut self, line: Line, value: bool) -> io::Result<()>;

    /// Detects these edges from now on, and no others; a line that is not active becomes an input.
    ///
    /// # Errors
    /// If the line is taken by somebody else, the chip cannot detect edges, or it is gone.
    fn detect(&mut self, line: Line, edges: Edges, reactor: &mut dyn Reactor) -> io::Result<()>;

    /// Tells which edges were seen when `token`, registered by [`detect`](Self::detect) or when this was made, is ready.
    fn events(
        &mut self,
        token: Token,
        ready: Ready,
        reactor: &mut dyn Reactor,
        seen: &mut dyn FnMut(Line, Edge),
    );
}

/// An error as the operating system gives it.
fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}
