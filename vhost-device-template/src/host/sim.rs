//! A simulated host, for tests and machines without the real one.

use std::io;
use std::thread;
use std::time::Duration;

use super::Translator;

/// Translates each byte to itself, and takes its time.
#[derive(Clone, Copy, Debug)]
pub struct Sim {
    delay: Duration,
}

impl Sim {
    /// A host that takes `delay` for each request.
    pub fn new(delay: Duration) -> Self {
        Self { delay }
    }
}

impl Translator for Sim {
    fn translate(&self, _: &mut [u8]) -> io::Result<()> {
        if self.may_block() {
            thread::sleep(self.delay);
        }
        Ok(())
    }

    fn may_block(&self) -> bool {
        !self.delay.is_zero()
    }
}
