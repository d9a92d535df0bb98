#![no_main]

use std::sync::Arc;
use std::time::Duration;

use vhost_device_fuzz::device;
use vhost_device_i2c::{Config, I2c};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let buses = "sim:0x50=24c02:0x51=24c32:0x48=lm75@21.5:0x20=regs";
    let config = Config {
        buses: buses.parse().expect("a list of simulated chips"),
        force: false,
        timeout: Duration::from_millis(1),
    };
    let i2c = I2c::open(&config).expect("the simulation opens nothing");
    device::run(&Arc::new(i2c), data);
});
