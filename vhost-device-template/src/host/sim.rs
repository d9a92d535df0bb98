//! A simulated host, for tests and machines without the real one.

use std::io;
use std::time::Duration;

use vhost_device_core::pause;

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
            pause(self.delay);
        }
        Ok(())
    }

    fn may_block(&self) -> bool {
        !self.delay.is_zero()
    }
}
