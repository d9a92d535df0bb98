#![no_main]

use std::sync::Arc;

use vhost_device_fuzz::device::{self, echo::Echo};

libfuzzer_sys::fuzz_target!(|data: &[u8]| device::run(&Arc::new(Echo::default()), data));
