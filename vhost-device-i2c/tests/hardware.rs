//! Adapters of the kernel served to a driver, and what the host's own tools say meanwhile: one that knows SMBus calls only
//! (i2c-stub), one that carries out whole transfers (the adapter of a guest, with our simulated chips behind it), and one
//! with 10-bit addresses (the kernel's bit-banging algorithm, on wires that lead to a target in a module of ours).
//!
//! Not among the tests that run everywhere: `cargo xtask test --only hardware` runs these in a machine that has all of them.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Driver, ERROR, M_RD, OK, and_next, daemon, read, request, write};

const DEVICES: &str = "/sys/bus/i2c/devices";

/// The name that i2c-stub gives its adapter, and the chips that it is told to have.
const STUB: &str = "SMBus stub driver";
const CHIP: u8 = 0x50;
const OTHER_CHIP: u8 = 0x51;
/// Nobody is there.
const NOBODY: u8 = 0x34;

/// The name of the adapter with 10-bit addresses, and where its target is.
const TEN_BIT: &str = "ten bit";
const FAR_CHIP: u16 = 0x2a5;

/// What was on that adapter's wires: S is a start, P a stop, and a byte was acknowledged (+) or not (-).
const WIRE: &str = "/sys/module/i2c_ten_bit/parameters/wire";

/// The adapter of i2c-stub.
fn stub() -> u32 {
    let chips = format!("chip_addr={CHIP},{OTHER_CHIP}");
    adapter_of("i2c-stub", &chips, STUB)
}

/// The adapter with 10-bit addresses.
fn ten_bit() -> u32 {
    adapter_of("i2c-ten-bit", &format!("address={FAR_CHIP}"), TEN_BIT)
}

/// The adapter with this name, whose module is loaded by the first test that needs it.
fn adapter_of(module: &str, parameter: &str, adapter: &str) -> u32 {
    if number(|name| name == adapter).is_none() {
        let modules = std::env::var("MODULES").unwrap();
        let module = Path::new(&modules).join(format!("{module}.ko"));
        run("busybox", &["insmod", module.to_str().unwrap(), parameter]);
    }
    number(|name| name == adapter).unwrap()
}

/// The machine's virtio adapter, with its name.
fn virtio() -> (u32, String) {
    let is_virtio = |name: &str| name.starts_with("i2c_virtio");
    let number = number(is_virtio).unwrap();
    let name = fs::read_to_string(format!("{DEVICES}/i2c-{number}/name")).unwrap();
    (number, name.trim_end().to_owned())
}

fn number(is_it: impl Fn(&str) -> bool) -> Option<u32> {
    fs::read_dir(DEVICES).unwrap().find_map(|entry| {
        let entry = entry.unwrap();
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        let number = entry.file_name().to_str()?.strip_prefix("i2c-")?.parse();
        is_it(name.trim_end()).then(|| number.ok())?
    })
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A register as the host's i2cget shows it, in this mode.
fn get(bus: u32, address: u8, register: u8, mode: &str) -> String {
    let [bus, address, register] = [bus, address.into(), register.into()].map(|n| n.to_string());
    run("i2cget", &["-f", "-y", &bus, &address, &register, mode])
}

/// Sets a register with the host's i2cset.
fn set(bus: u32, address: u8, register: u8, value: u16, mode: &str) {
    let [bus, address, register, value] =
        [bus, address.into(), register.into(), value.into()].map(|n: u32| n.to_string());
    run(
        "i2cset",
        &["-f", "-y", &bus, &address, &register, &value, mode],
    );
}

/// What an ordinary program of the host gets from the target with a 10-bit address: it writes bytes, and then reads some.
/// The host's I2C tools know no such addresses.
fn exchange(bus: u32, address: u16, bytes: &[u8], room: usize) -> String {
    const PROGRAM: &str = r#"
        my ($path, $address, $bytes, $room) = @ARGV;
        my ($slave, $tenbit) = (0x0703, 0x0704);
        open(my $file, "+<", $path) or die $!;
        ioctl($file, $tenbit, 1) or die $!;
        ioctl($file, $slave, $address + 0) or die $!;
        syswrite($file, pack("H*", $bytes)) or die $!;
        defined(sysread($file, my $read, $room)) or die $! if $room;
        print unpack("H*", $read) if $room;
    "#;
    let [address, room] = [address.into(), room].map(|number| number.to_string());
    let path = format!("/dev/i2c-{bus}");
    run(
        "perl",
        &["-e", PROGRAM, &path, &address, &hex(bytes), &room],
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What was on the wires since the last call.
fn wire() -> String {
    let seen = fs::read_to_string(WIRE).unwrap();
    fs::write(WIRE, "\n").unwrap();
    seen.trim_end().to_owned()
}

/// A driver of the host's kernel at an address; gone when dropped.
struct Holder {
    bus: u32,
    address: u8,
}

impl Holder {
    fn new(bus: u32, address: u8) -> Self {
        let path = format!("{DEVICES}/i2c-{bus}/new_device");
        fs::write(path, format!("dummy {address:#x}")).unwrap();
        Self { bus, address }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let path = format!("{DEVICES}/i2c-{}/delete_device", self.bus);
        fs::write(path, format!("{:#x}", self.address)).unwrap();
    }
}

#[test]
fn smbus_values_are_those_that_the_hosts_tools_show() {
    let bus = stub();
    let daemon = daemon(&format!("{bus}:{CHIP}"), &[]);
    let mut driver = Driver::new(&daemon);
    assert_eq!(driver.statuses(&[write(CHIP, &[0x10, 0xab])]), [OK]);
    assert_eq!(get(bus, CHIP, 0x10, "b"), "0xab");
    set(bus, CHIP, 0x11, 0xcd, "b");
    assert_eq!(driver.register(CHIP, 0x11, 1), [0xcd]);
    assert_eq!(driver.statuses(&[write(CHIP, &[0x20, 0x34, 0x12])]), [OK]);
    assert_eq!(get(bus, CHIP, 0x20, "w"), "0x1234");
    set(bus, CHIP, 0x22, 0x5678, "w");
    assert_eq!(driver.register(CHIP, 0x22, 2), [0x78, 0x56]);
    // blocks of up to 32 bytes behind a register's number
    let block: Vec<u8> = (0x40..0x61).collect();
    assert_eq!(driver.statuses(&[write(CHIP, &block)]), [OK]);
    assert_eq!(get(bus, CHIP, 0x5f, "b"), "0x60");
    assert_eq!(driver.register(CHIP, 0x40, 32), block[1..]);
    // one byte without a register's number: where the pointer is
    assert_eq!(driver.statuses(&[write(CHIP, &[0x11])]), [OK]);
    assert_eq!(driver.batch(&[read(CHIP, 1)]), [(vec![0xcd], OK)]);
}

#[test]
fn what_no_smbus_call_can_do_fails_and_nothing_else_does() {
    let bus = stub();
    let daemon = daemon(&format!("{bus}:{CHIP}"), &[]);
    let mut driver = Driver::new(&daemon);
    set(bus, CHIP, 0x30, 0x77, "b");
    let long = [0x30; 34];
    for requests in [
        vec![read(CHIP, 2)],
        vec![write(CHIP, &long)],
        vec![and_next(write(CHIP, &[0x30])), read(CHIP, 33)],
        vec![and_next(write(CHIP, &[0x30, 1])), write(CHIP, &[0x30, 2])],
    ] {
        let failed = vec![ERROR; requests.len()];
        assert_eq!(driver.statuses(&requests), failed, "{requests:?}");
        assert_eq!(driver.register(CHIP, 0x30, 1), [0x77]);
    }
}

#[test]
fn zero_length_requests_are_quick_commands() {
    let bus = stub();
    let daemon = daemon(&format!("{bus}:{CHIP}:{NOBODY}"), &[]);
    let mut driver = Driver::new(&daemon);
    for address in 0..0x80 {
        let expected = if address == CHIP { OK } else { ERROR };
        assert_eq!(
            driver.statuses(&[write(address, &[])]),
            [expected],
            "{address:#x}"
        );
    }
}

/// The other chip is on the bus, but not on the list.
#[test]
fn a_chip_that_is_not_listed_is_out_of_reach_in_every_message() {
    let bus = stub();
    set(bus, OTHER_CHIP, 1, 0x11, "b");
    let daemon = daemon(&format!("{bus}:{CHIP}"), &[]);
    let mut driver = Driver::new(&daemon);
    let attempt = write(OTHER_CHIP, &[1, 0x99]);
    let batch = [read(CHIP, 1), attempt.clone(), read(CHIP, 1)];
    assert_eq!(driver.statuses(&batch), [OK, ERROR, OK]);
    assert_eq!(
        driver.statuses(&[and_next(write(CHIP, &[1])), attempt]),
        [ERROR; 2]
    );
    assert_eq!(get(bus, OTHER_CHIP, 1, "b"), "0x11");
}

#[test]
fn an_adapter_is_found_by_its_name() {
    stub();
    let (_, virtio) = virtio();
    let daemon = daemon(&format!("{STUB}:{CHIP},{virtio}:0x20"), &[]);
    let mut driver = Driver::new(&daemon);
    assert_eq!(
        driver.statuses(&[write(CHIP, &[]), write(0x20, &[])]),
        [OK, OK]
    );
}

#[test]
fn an_address_that_a_driver_holds_needs_force() {
    for (bus, address) in [(stub(), OTHER_CHIP), (virtio().0, 0x50)] {
        let holder = Holder::new(bus, address);
        let list = format!("{bus}:{address}");
        let output = Command::new(env!("CARGO_BIN_EXE_vhost-device-i2c"))
            .args(["-s", "/dev/shm/held", "-l", &list])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(
            text.contains("in use by a driver") && text.contains("--force"),
            "{text}"
        );
        let forced = daemon(&list, &["--force"]);
        let mut driver = Driver::new(&forced);
        assert_eq!(driver.statuses(&[write(address, &[0])]), [OK]);
        drop(holder);
    }
}

#[test]
fn an_address_that_a_driver_takes_later_is_left_alone() {
    for (bus, address) in [(stub(), OTHER_CHIP), (virtio().0, 0x50)] {
        let daemon = daemon(&format!("{bus}:{address}"), &[]);
        let mut driver = Driver::new(&daemon);
        let request = [write(address, &[0])];
        assert_eq!(driver.statuses(&request), [OK]);
        let holder = Holder::new(bus, address);
        assert_eq!(driver.statuses(&request), [ERROR]);
        drop(holder);
        assert_eq!(driver.statuses(&request), [OK]);
    }
}

#[test]
fn whole_transfers_show_what_the_hosts_tools_show() {
    let (bus, _) = virtio();
    let daemon = daemon(&format!("{bus}:0x20:0x48:0x50"), &[]);
    let mut driver = Driver::new(&daemon);
    assert_eq!(driver.statuses(&[write(0x20, &[0x10, 0xab, 0xcd])]), [OK]);
    assert_eq!(get(bus, 0x20, 0x11, "b"), "0xcd");
    set(bus, 0x20, 0x12, 0x3456, "w");
    assert_eq!(driver.register(0x20, 0x10, 4), [0xab, 0xcd, 0x56, 0x34]);
    assert_eq!(driver.register(0x48, 0, 2), [0x15, 0x80]);
    let shown = run(
        "i2ctransfer",
        &["-y", &bus.to_string(), "w1@0x48", "0", "r2"],
    );
    assert_eq!(shown, "0x15 0x80");
    // as long as the kernel takes them, and as many
    let answers = driver.batch(&[and_next(write(0x20, &[0x10])), read(0x20, 8192)]);
    assert_eq!(answers[1].0.len(), 8192);
    assert_eq!(answers[1].0[256..260], [0xab, 0xcd, 0x56, 0x34]);
    let mut group = vec![and_next(write(0x20, &[0x10]))];
    group.extend(vec![and_next(read(0x20, 1)); 40]);
    group.push(read(0x20, 1));
    let answers = driver.batch(&group);
    let bytes: Vec<u8> = answers[1..5].iter().map(|(data, _)| data[0]).collect();
    assert_eq!(bytes, [0xab, 0xcd, 0x56, 0x34]);
}

/// The machine's own adapter refuses a transfer as a whole if somebody in it is out of reach. So what happens to the write
/// before tells whether both messages came to it as one transfer.
#[test]
fn a_group_is_one_transfer_on_the_adapter_and_single_requests_are_not() {
    let (bus, _) = virtio();
    let daemon = daemon(&format!("{bus}:0x20:{NOBODY}"), &[]);
    let mut driver = Driver::new(&daemon);
    set(bus, 0x20, 0x60, 0x11, "b");
    let group = [and_next(write(0x20, &[0x60, 0x22])), read(NOBODY, 1)];
    assert_eq!(driver.statuses(&group), [ERROR, ERROR]);
    assert_eq!(get(bus, 0x20, 0x60, "b"), "0x11");
    let single = [write(0x20, &[0x60, 0x22]), read(NOBODY, 1)];
    assert_eq!(driver.statuses(&single), [OK, ERROR]);
    assert_eq!(get(bus, 0x20, 0x60, "b"), "0x22");
}

/// The field of a request: 11110, A9 and A8 below A7 to A0 (VIRTIO 1.3, section 5.13.6.1).
#[test]
fn a_ten_bit_address_is_on_the_wires_as_the_driver_wrote_it() {
    const FIELD: u16 = 0xa5f4;
    let bus = ten_bit();
    let daemon = daemon(&format!("{bus}:{FAR_CHIP}"), &[]);
    let mut driver = Driver::new(&daemon);
    wire();
    let registers = request(FIELD, 0, &[0x10, 0xab, 0xcd], 0);
    assert_eq!(driver.statuses(&[registers]), [OK]);
    let seen = wire();
    assert_eq!(seen, "S f4+ a5+ 10+ ab+ cd+ P");
    assert_eq!(exchange(bus, FAR_CHIP, &[0x10], 2), "abcd");
    wire();
    exchange(bus, FAR_CHIP, &[0x10, 0xab, 0xcd], 0);
    assert_eq!(wire(), seen, "of the host's own program");

    exchange(bus, FAR_CHIP, &[0x20, 0x12, 0x34, 0x56], 0);
    wire();
    let number = and_next(request(FIELD, 0, &[0x20], 0));
    let group = [number, request(FIELD, M_RD, &[], 3)];
    let answers = driver.batch(&group);
    assert_eq!(answers, [(vec![], OK), (vec![0x12, 0x34, 0x56], OK)]);
    let seen = wire();
    assert_eq!(
        seen, "S f4+ a5+ 20+ S f4+ a5+ S f5+ 12+ 34+ 56- P",
        "one transfer"
    );
}

#[test]
fn all_ten_bits_count_and_those_of_others_are_refused() {
    let bus = ten_bit();
    let daemon = daemon(&format!("{bus}:0x2a4:0x1a5:t0x25:0x25"), &[]);
    let mut driver = Driver::new(&daemon);
    wire();
    // the last two are 7-bit 0x25 and the target itself, which is not on the list
    for (field, seen) in [
        (0xa4f4, "S f4+ a4- P"),
        (0xa5f2, "S f2-"),
        (0x25f0, "S f0-"),
        (0x004a, "S 4a-"),
        (0xa5f4, ""),
    ] {
        assert_eq!(driver.statuses(&[request(field, 0, &[1], 0)]), [ERROR]);
        let wire = wire();
        // the adapter tries a first byte again that nobody acknowledges
        assert!(wire.starts_with(seen), "{field:#06x}: {wire}");
        assert!(!wire.contains("a5") && wire.is_empty() == seen.is_empty());
    }
}

#[test]
fn ten_bit_addresses_need_an_adapter_that_has_them() {
    let (bus, _) = virtio();
    let output = Command::new(env!("CARGO_BIN_EXE_vhost-device-i2c"))
        .args(["-s", "/dev/shm/ten", "-l", &format!("{bus}:0x150")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("no 10-bit addresses"), "{text}");
}
