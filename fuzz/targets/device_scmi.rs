#![no_main]

use std::sync::Arc;

use vhost_device_fuzz::device;
use vhost_device_scmi::{Config, Entry, Scmi, SystemPower};

/// Something for each protocol, and each way to answer: at once, later, in several messages.
const ENTRIES: [&str; 8] = [
    "sim,name=room,value=square:20:40:0.000002,intervals=10+1",
    "sim,name=motion,type=acceleration,value=count+count+count,delay=0",
    "clock,name=bus,rates=1+2+3,parents=pll,delay=0",
    "clock,name=pll,rates=100:200:10,allow=state,delay=0",
    "power,name=a-domain-with-a-long-name,delay=0",
    "perf,name=cpu,levels=1+2+3",
    "reset,name=usb,delay=0",
    "voltage,name=core,levels=-1+1,delay=0",
];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let entries = ENTRIES.map(|text| text.parse::<Entry>().expect("the entries are right"));
    let config = Config {
        entries: entries.into(),
        system_power: SystemPower::Accept,
        ..Config::default()
    };
    let scmi = Scmi::open(&config).expect("the simulation opens nothing");
    device::run(&Arc::new(scmi), data);
});
