#![no_main]

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use vhost_device_fuzz::device;
use vhost_device_rng::{Config, Limit, Rng, Source};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // The first byte says how much there is in a millisecond; most have no limit.
    let limit = data
        .first()
        .and_then(|byte| NonZeroU64::new(u64::from(byte & 0x0f) * 100))
        .map(|bytes| Limit {
            bytes,
            period: Duration::from_millis(1),
        });
    let config = Config {
        source: Source::Sim(7),
        limit,
    };
    let rng = Rng::open(&config).expect("the simulation opens nothing");
    device::run(&Arc::new(rng), data);
});
