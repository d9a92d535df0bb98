#![no_main]

use std::sync::Arc;

use vhost_device_fuzz::device;
use vhost_device_gpio::{ChipSpec, Gpio, SimSpec};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Outputs that are sensed by inputs: a guest can make its own interrupts.
    let chip = ChipSpec::Sim(SimSpec {
        lines: 8,
        names: vec!["reset".to_owned(), String::new(), "led".to_owned()],
        wires: vec![(0, 1), (2, 3)],
        ..SimSpec::default()
    });
    let gpio = Gpio::open(&chip).expect("the simulation opens nothing");
    device::run(&Arc::new(gpio), data);
});
