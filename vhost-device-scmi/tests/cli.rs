//! The command line: what existing scripts write works, and mistakes are explained in one line.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::process::{Command, Output};

use common::*;
use vhost_device_testkit::process::TempDir;

fn run(arguments: &[&str]) -> Output {
    let dir = TempDir::new().unwrap();
    Command::new(env!("CARGO_BIN_EXE_vhost-device-scmi"))
        .arg("-s")
        .arg(dir.path().join("s"))
        .args(arguments)
        .output()
        .unwrap()
}

fn refused(entry: &str, code: i32, words: &[&str]) {
    let output = run(&["-d", entry]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{entry}: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

#[test]
fn mistakes_are_usage_errors_that_say_what_is_wrong() {
    for (entry, words) in [
        ("", &["no kind"][..]),
        ("toaster,name=x", &["toaster", "--help-devices"]),
        ("fake", &["fake needs name"]),
        ("fake,name=", &["1 to 63 characters"]),
        ("fake,name=\u{e4}", &["ASCII"]),
        ("fake,name=x,name=y", &["name is given twice"]),
        ("fake,name", &["KEY=VALUE"]),
        ("fake,name=x,colour=red", &["fake has no colour"]),
        ("sim,value=1", &["sim needs name"]),
        ("sim,name=x,value=high", &["high", "sine:"]),
        ("sim,name=x,value=1+2", &["a name for each curve"]),
        ("sim,name=x,axes=a+b,value=1", &["a name for each curve"]),
        ("sim,name=x,value=1,step=5", &["does not go with"]),
        ("sim,name=x,type=hope", &["hope", "quantity"]),
        ("sim,name=x,scale=16", &["-16 to 15"]),
        ("sim,name=x,trips=9", &["0 to 8"]),
        ("sim,name=x,intervals=0", &["an hour"]),
        ("sim,name=x,min=3,max=2", &["in this order"]),
        ("sim,name=x,delay=60001", &["a minute"]),
        ("file", &["file needs path"]),
        ("iio,path=/x", &["iio needs channel"]),
        ("hwmon,chip=x", &["hwmon needs channel"]),
        ("clock,name=x", &["clock needs rates"]),
        ("clock,rates=1", &["clock needs name"]),
        ("clock,name=x,rates=1+fast", &["a list of hertz"]),
        ("clock,name=x,rates=2:1:1", &["LOW:HIGH:STEP"]),
        ("clock,name=x,rates=1:2:0", &["LOW:HIGH:STEP"]),
        (
            "clock,name=x,rates=1,rate=2",
            &["none of the clock's rates"],
        ),
        ("clock,name=x,rates=1,state=maybe", &["on nor off"]),
        (
            "clock,name=x,rates=1,allow=all",
            &["state, rate and parent"],
        ),
        ("clock,name=x,rates=1,parents=y", &["a parent y"]),
        ("power,name=x,fixed=maybe", &["yes nor no"]),
        ("perf,name=x", &["perf needs levels"]),
        ("perf,name=x,levels=0", &["KILOHERTZ"]),
        ("perf,name=x,levels=1,sustained=2", &["none of the levels"]),
        ("cpufreq", &["cpufreq needs policy"]),
        ("reset", &["reset needs name"]),
        ("voltage,name=x,levels=1.5", &["microvolts"]),
    ] {
        refused(entry, 2, words);
    }
    for (arguments, word) in [
        (["--system-power", "maybe"], "refuse, accept or tell=FILE"),
        (["--host-timeout", "0"], "1..=60000"),
        (["--protocols", "fire"], "fire"),
    ] {
        let output = run(&arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn what_is_not_there_is_named() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().display().to_string();
    std::fs::create_dir_all(dir.path().join("class/hwmon/hwmon0")).unwrap();
    std::fs::write(dir.path().join("class/hwmon/hwmon0/name"), "acpitz\n").unwrap();
    std::fs::write(dir.path().join("empty"), "").unwrap();
    refused(
        "iio,path=/no/such/device,channel=in_temp",
        3,
        &["/no/such/device"],
    );
    refused(
        &format!("iio,path={path},channel=in_temp"),
        3,
        &["no channel in_temp"],
    );
    refused("file,path=/no/such/file", 3, &["/no/such/file"]);
    refused(
        "file,path=/dev/null",
        3,
        &["/dev/null", "neither a file nor a pipe"],
    );
    refused(&format!("sim,name=x,values={path}/empty"), 2, &["is empty"]);
    let sysfs = ["--sysfs", path.as_str(), "-d"];
    for (entry, words) in [
        (
            "hwmon,chip=coretemp,channel=temp1",
            &["coretemp", "acpitz"][..],
        ),
        ("hwmon,chip=acpitz,channel=temp1", &["temp1_input"]),
        ("cpufreq,policy=0", &["policy0"]),
    ] {
        let output = run(&[&sysfs[..], &[entry]].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
}

#[test]
fn the_kinds_are_described_without_a_socket() {
    let output = Command::new(env!("CARGO_BIN_EXE_vhost-device-scmi"))
        .arg("--help-devices")
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for kind in [
        "sim", "file", "iio", "hwmon", "fake", "clock", "power", "perf", "cpufreq", "reset",
        "voltage",
    ] {
        assert!(
            text.lines()
                .any(|line| line.starts_with(&format!("  {kind} "))),
            "{kind}"
        );
    }
}

/// As in the README of the daemon of this name that there was before.
#[test]
fn existing_command_lines_work() {
    let dir = TempDir::new().unwrap();
    let device = dir.path().join("iio:device0");
    std::fs::create_dir(&device).unwrap();
    for axis in ["x", "y", "z"] {
        std::fs::write(device.join(format!("in_accel_{axis}_raw")), "5\n").unwrap();
    }
    let daemon = start(&[
        "--device",
        "fake,name=foo",
        "-d",
        &format!("iio,path={},channel=in_accel", device.display()),
    ]);
    let mut agent = Agent::new(&daemon);
    assert_eq!(agent.words(SENSOR, 1, &[])[0], 2);
    assert_eq!([agent.reading(0), agent.reading(1)], [0, 5]);
}

#[test]
fn sensors_and_domains_can_be_in_a_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("scmi.toml");
    let text = r#"
        system-power = "accept"
        protocols = ["sensor", "clock", "system"]

        [[device]]
        kind = "sim"
        name = "room"
        value = 21.5
        intervals = [100, 10]

        [[device]]
        kind = "clock"
        name = "uart"
        rates = [1843200, 24000000]

        [[device]]
        kind = "reset"
        name = "hidden"
    "#;
    std::fs::write(&path, text).unwrap();
    let daemon = start(&["--config", &path.display().to_string()]);
    let mut agent = Agent::new(&daemon);
    assert_eq!(agent.words(BASE, 6, &[0]), [3, 0x15_1412]);
    assert_eq!(agent.reading(0), 21_500);
    assert_eq!(
        agent.words(CLOCK, 4, &[0, 0]),
        [2, 1_843_200, 0, 24_000_000, 0]
    );
    agent.tell(SYSTEM, 3, &[0, 0]);
}
