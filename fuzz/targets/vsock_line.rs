#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vhost_device_fuzz::vsock::line(data));
