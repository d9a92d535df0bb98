//! The kernel's own simulated chips (gpio-sim) served to a driver, and what the host's own tools say meanwhile.
//!
//! Not among the tests that run everywhere: `cargo xtask test --only hardware` runs these in a machine that has gpio-sim.
#![cfg(feature = "libgpiod")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::*;
use vhost_device_testkit::process::Daemon;

const CONFIG: &str = "/sys/kernel/config/gpio-sim";

/// A chip of gpio-sim; gone when dropped.
struct Chip {
    folder: PathBuf,
    /// gpiochipN.
    name: String,
    lines: PathBuf,
}

impl Chip {
    fn new(label: &str, lines: u16, names: &[(u16, &str)]) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = Path::new(CONFIG).join(format!("chip{number}"));
        let bank = folder.join("bank");
        fs::create_dir_all(&bank).expect("gpio-sim is needed");
        fs::write(bank.join("num_lines"), lines.to_string()).unwrap();
        fs::write(bank.join("label"), label).unwrap();
        for (line, name) in names {
            let line = bank.join(format!("line{line}"));
            fs::create_dir(&line).unwrap();
            fs::write(line.join("name"), name).unwrap();
        }
        fs::write(folder.join("live"), "1").unwrap();
        let name = read(&bank.join("chip_name"));
        let lines = Path::new("/sys/devices/platform")
            .join(read(&folder.join("dev_name")))
            .join(&name);
        Self {
            folder,
            name,
            lines,
        }
    }

    fn node(&self) -> String {
        format!("/dev/{}", self.name)
    }

    fn number(&self) -> &str {
        self.name.trim_start_matches("gpiochip")
    }

    fn line(&self, line: u16) -> PathBuf {
        self.lines.join(format!("sim_gpio{line}"))
    }

    /// What the world outside does to a line.
    fn pull(&self, line: u16, value: u8) {
        let pull = ["pull-down", "pull-up"][usize::from(value)];
        fs::write(self.line(line).join("pull"), pull).unwrap();
    }

    /// The level of a line, as the simulator has it.
    fn level(&self, line: u16) -> u8 {
        read(&self.line(line).join("value")).parse().unwrap()
    }

    /// A line as the host's gpioinfo shows it.
    fn info(&self, line: u16) -> String {
        let text = output("gpioinfo", &["-c", &self.name, &line.to_string()]);
        text.trim().to_owned()
    }

    /// A free line's value as the host's gpioget shows it.
    fn get(&self, line: u16) -> u8 {
        let line = line.to_string();
        let text = output(
            "gpioget",
            &["--as-is", "--numeric", "-c", &self.name, &line],
        );
        text.trim().parse().unwrap()
    }

    fn unplug(&self) {
        fs::write(self.folder.join("live"), "0").unwrap();
    }

    /// A daemon for this chip.
    fn serve(&self) -> Daemon {
        start(&["-l", self.number()])
    }
}

impl Drop for Chip {
    fn drop(&mut self) {
        let bank = self.folder.join("bank");
        let _ = fs::write(self.folder.join("live"), "0");
        for entry in fs::read_dir(&bank).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(&bank);
        let _ = fs::remove_dir(&self.folder);
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap().trim().to_owned()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Waits for something that the kernel does in its own time.
fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !is() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends a tool of the host.
struct Tool(Child);

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_chip_is_found_by_number_node_name_and_label() {
    let names = [(0, "MMC-CD"), (5, "Red LED Vdd")];
    let chip = Chip::new("pinctrl@fe200000:0", 6, &names);
    let _other = Chip::new("other", 3, &[]);
    let node = chip.node();
    let specs = [
        ["-l", chip.number()],
        ["-l", &node],
        ["-l", &chip.name],
        ["--chip", "pinctrl@fe200000:0"],
    ];
    for spec in specs {
        let daemon = start(&spec);
        let mut driver = Driver::new(&daemon);
        let block = b"MMC-CD\0\0\0\0\0Red LED Vdd\0";
        let config = driver.session.control.config(0, 8).unwrap();
        assert_eq!(config, [6, 0, 0, 0, block.len() as u8, 0, 0, 0], "{spec:?}");
        let mut request = message(GET_LINE_NAMES, 0, 0);
        request.writable = block.len() as u32 + 1;
        assert_eq!(driver.answer(&request), [&[OK][..], block].concat());
    }
}

#[test]
fn two_chips_with_one_label_are_told_apart_by_the_user() {
    let _chips = [Chip::new("twin", 2, &[]), Chip::new("twin", 2, &[])];
    let output = Command::new(env!("CARGO_BIN_EXE_vhost-device-gpio"))
        .args(["-s", "/dev/shm/twins", "-l", "twin"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("more than one chip"), "{text}");
}

#[test]
fn values_are_those_that_the_hosts_tools_show() {
    let chip = Chip::new("values", 4, &[]);
    let daemon = chip.serve();
    let mut driver = Driver::new(&daemon);
    for value in [1, 0, 1, 0] {
        chip.pull(1, value);
        assert_eq!(chip.get(1), value);
        assert_eq!(driver.value(1), value, "not active");
        driver.tell(SET_DIRECTION, 1, IN);
        assert_eq!(driver.value(1), value, "an input");
        driver.tell(SET_DIRECTION, 1, NONE);
        driver.tell(SET_VALUE, 2, value.into());
        driver.tell(SET_DIRECTION, 2, OUT);
        assert_eq!(chip.level(2), value);
        assert_eq!(driver.value(2), value, "an output");
        driver.tell(SET_VALUE, 2, 1 - u32::from(value));
        assert_eq!(chip.level(2), 1 - value);
        driver.tell(SET_DIRECTION, 2, NONE);
    }
}

#[test]
fn lines_are_held_while_they_are_active_and_no_longer() {
    let chip = Chip::new("held", 4, &[]);
    let daemon = chip.serve();
    let info = chip.info(1);
    assert!(
        info.contains("input") && !info.contains("consumer"),
        "{info}"
    );
    let mut driver = Driver::new(&daemon);
    assert_eq!(driver.ask(GET_DIRECTION, 1, 0), (OK, IN as u8));
    driver.value(1);
    assert!(!chip.info(1).contains("consumer"), "only looked at");
    driver.tell(SET_DIRECTION, 1, OUT);
    let info = chip.info(1);
    assert!(
        info.contains("output") && info.contains("vhost-device-gpio"),
        "{info}"
    );
    driver.tell(SET_DIRECTION, 1, NONE);
    assert!(!chip.info(1).contains("consumer"));
    driver.tell(SET_DIRECTION, 1, OUT);
    driver.tell(SET_IRQ_TYPE, 2, RISING);
    drop(driver);
    for line in [1, 2] {
        eventually("the line is let go", || {
            !chip.info(line).contains("consumer")
        });
    }
}

#[test]
fn a_guest_sees_and_touches_only_the_lines_on_its_list() {
    let names = [(3, "three"), (5, "five"), (6, "six"), (1, "secret")];
    let chip = Chip::new("listed", 10, &names);
    let list = format!("{}[5,3,6-7]", chip.name);
    let daemon = start(&["-l", &list]);
    let mut driver = Driver::new(&daemon);
    let block = b"five\0three\0six\0\0";
    let config = driver.session.control.config(0, 8).unwrap();
    assert_eq!(config, [4, 0, 0, 0, block.len() as u8, 0, 0, 0]);
    let mut request = message(GET_LINE_NAMES, 0, 0);
    request.writable = 64;
    assert_eq!(driver.answer(&request), [&[OK][..], block].concat());
    for (guest, host) in [(0, 5), (1, 3), (2, 6), (3, 7)] {
        for value in [1, 0] {
            chip.pull(host, value);
            assert_eq!(driver.value(guest), value, "line {guest}");
        }
        driver.tell(SET_VALUE, guest, 1);
        driver.tell(SET_DIRECTION, guest, OUT);
        assert_eq!(chip.level(host), 1);
    }
    for line in 4..10 {
        for kind in GET_DIRECTION..=SET_IRQ_TYPE {
            driver.refused(kind, line, 1);
        }
    }
    for host in [0, 1, 2, 4, 8, 9] {
        assert!(!chip.info(host).contains("consumer"), "line {host}");
        assert_eq!(chip.level(host), 0);
    }
    let beyond = format!("{}[10]", chip.name);
    let output = Command::new(env!("CARGO_BIN_EXE_vhost-device-gpio"))
        .args(["-s", "/dev/shm/beyond", "-l", &beyond])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_line_that_somebody_else_holds_is_refused_until_it_is_free() {
    let chip = Chip::new("busy", 4, &[]);
    let daemon = chip.serve();
    let mut driver = Driver::new(&daemon);
    let holder = Command::new("gpioset")
        .args(["-c", &chip.name, "1=1"])
        .spawn()
        .map(Tool)
        .unwrap();
    eventually("gpioset holds the line", || {
        chip.info(1).contains("gpioset")
    });
    assert_eq!(driver.ask(GET_DIRECTION, 1, 0), (OK, OUT as u8));
    driver.refused(SET_DIRECTION, 1, IN);
    driver.refused(SET_DIRECTION, 1, OUT);
    driver.refused(GET_VALUE, 1, 0);
    driver.refused(SET_IRQ_TYPE, 1, BOTH);
    assert_eq!(driver.value(2), 0, "other lines work");
    drop(holder);
    eventually("the line is free", || !chip.info(1).contains("consumer"));
    driver.tell(SET_DIRECTION, 1, IN);
    driver.value(1);
}

#[test]
fn edges_and_levels_interrupt_and_disarming_removes_edge_detection() {
    let chip = Chip::new("edges", 4, &[]);
    let daemon = chip.serve();
    let mut driver = Driver::new(&daemon);
    for (trigger, edges, on_rising, on_falling) in [
        (RISING, "edges=rising", true, false),
        (FALLING, "edges=falling", false, true),
        (BOTH, "edges=both", true, true),
    ] {
        for (disarm, activate) in [
            (SET_IRQ_TYPE, true),
            (SET_DIRECTION, true),
            (SET_IRQ_TYPE, false),
        ] {
            if activate {
                driver.tell(SET_DIRECTION, 1, IN);
            }
            driver.tell(SET_IRQ_TYPE, 1, trigger);
            assert!(chip.info(1).contains(edges), "{}", chip.info(1));
            let mut buffer = driver.unmask(1);
            for (value, interrupts) in [(1, on_rising), (0, on_falling)] {
                chip.pull(1, value);
                if interrupts {
                    assert_eq!(driver.event(&buffer), VALID);
                    buffer = driver.unmask(1);
                }
                assert_eq!(driver.value(1), value, "reading waits for nothing");
            }
            driver.no_event();
            driver.tell(disarm, 1, NONE);
            assert_eq!(driver.event(&buffer), INVALID);
            assert!(!chip.info(1).contains("edges="), "{}", chip.info(1));
            chip.pull(1, 1);
            chip.pull(1, 0);
            driver.tell(SET_DIRECTION, 1, NONE);
        }
    }
    for (trigger, active) in [(HIGH, 1), (LOW, 0)] {
        chip.pull(1, 1 - active);
        driver.tell(SET_DIRECTION, 1, IN);
        driver.tell(SET_IRQ_TYPE, 1, trigger);
        let buffer = driver.unmask(1);
        driver.no_event();
        chip.pull(1, active);
        assert_eq!(driver.event(&buffer), VALID);
        let buffer = driver.unmask(1);
        assert_eq!(driver.event(&buffer), VALID, "it lasts");
        chip.pull(1, 1 - active);
        let buffer = driver.unmask(1);
        driver.no_event();
        driver.tell(SET_IRQ_TYPE, 1, NONE);
        assert_eq!(driver.event(&buffer), INVALID);
    }
}

#[test]
fn edges_that_come_while_masked_are_delivered_once() {
    let chip = Chip::new("latched", 2, &[]);
    let daemon = chip.serve();
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_DIRECTION, 0, IN);
    driver.tell(SET_IRQ_TYPE, 0, BOTH);
    for round in 0..200u32 {
        chip.pull(0, (1 - round % 2) as u8);
    }
    let buffer = driver.unmask(0);
    assert_eq!(driver.event(&buffer), VALID);
    // the worker has seen all of them by now, or will have soon
    std::thread::sleep(Duration::from_millis(50));
    let mut buffer = driver.unmask(0);
    if driver.session.rings[EVENTS]
        .wait(Duration::from_millis(50))
        .is_ok()
    {
        buffer = driver.unmask(0);
    }
    driver.no_event();
    chip.pull(0, 1);
    assert_eq!(driver.event(&buffer), VALID);
}

#[test]
fn sixty_four_armed_interrupts_need_neither_threads_nor_polling() {
    let chip = Chip::new("many", 64, &[]);
    let daemon = chip.serve();
    let mut driver = Driver::new(&daemon);
    let before = daemon.stats().unwrap();
    let buffers: Vec<_> = (0..64)
        .map(|line| {
            driver.tell(SET_DIRECTION, line, IN);
            driver.tell(SET_IRQ_TYPE, line, BOTH);
            driver.unmask(line)
        })
        .collect();
    std::thread::sleep(Duration::from_millis(100));
    let armed = daemon.stats().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let after = daemon.stats().unwrap();
    assert_eq!(armed.threads, before.threads);
    assert_eq!(after.voluntary, armed.voluntary, "wake-ups");
    for (line, buffer) in buffers.iter().enumerate() {
        chip.pull(line as u16, 1);
        assert_eq!(driver.event(buffer), VALID);
    }
    for line in 0..64 {
        driver.tell(SET_DIRECTION, line, NONE);
    }
    eventually("all descriptors are closed", || {
        daemon.stats().unwrap().descriptors == before.descriptors
    });
}

#[test]
fn a_chip_that_disappears_gives_errors_and_no_load() {
    let chip = Chip::new("leaving", 4, &[]);
    let mut daemon = chip.serve();
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_DIRECTION, 0, OUT);
    driver.tell(SET_DIRECTION, 1, IN);
    driver.tell(SET_IRQ_TYPE, 1, BOTH);
    let buffer = driver.unmask(1);
    chip.unplug();
    driver.refused(GET_VALUE, 1, 0);
    driver.refused(GET_VALUE, 2, 0);
    driver.refused(SET_VALUE, 0, 1);
    driver.refused(SET_DIRECTION, 2, IN);
    driver.refused(GET_DIRECTION, 3, 0);
    driver.refused(SET_IRQ_TYPE, 2, BOTH);
    let busy = daemon.run_time().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let busy = daemon.run_time().unwrap() - busy;
    assert!(busy < Duration::from_millis(20), "{busy:?} of idleness");
    driver.tell(SET_IRQ_TYPE, 1, NONE);
    assert_eq!(driver.event(&buffer), INVALID);
    driver.tell(SET_DIRECTION, 0, NONE);
    drop(driver);
    let mut driver = Driver::new(&daemon);
    driver.refused(GET_VALUE, 1, 0);
    drop(driver);
    daemon.check_alive().unwrap();
    daemon.finish().unwrap();
}
