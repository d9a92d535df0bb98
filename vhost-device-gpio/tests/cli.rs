//! The command line: what existing scripts write works, and mistakes are explained in one line.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::os::unix::net::UnixListener;
use std::process::{Command, Output};

use common::*;
use vhost_device_testkit::process::TempDir;

fn run(arguments: &[&str]) -> Output {
    let dir = TempDir::new().unwrap();
    Command::new(env!("CARGO_BIN_EXE_vhost-device-gpio"))
        .arg("-s")
        .arg(dir.path().join("s"))
        .args(arguments)
        .output()
        .unwrap()
}

fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = run(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

#[test]
fn mistakes_in_the_list_are_usage_errors() {
    refused(&[], 2, &["--device-list"]);
    refused(&["-l", "s4:s4"], 2, &["--socket-count 2"]);
    refused(&["-c", "2", "-l", "0"], 2, &["--socket-count 1"]);
    refused(
        &["-c", "2", "--chip", "s4,control=c"],
        2,
        &["--socket-count 1"],
    );
    refused(&["-l", ""], 2, &["no chip is given"]);
    refused(&["-l", "s0"], 2, &["1 to 1024"]);
    refused(&["-l", "0[3"], 2, &["[3,5-9]"]);
    refused(&["-l", "s4", "--chip", "s4"], 2, &["--chip"]);
    refused(&["--chip", "s4,wire=0-9"], 2, &["wire"]);
}

#[test]
fn missing_chips_are_named() {
    refused(&["-l", "2000000"], 3, &["gpiochip2000000"]);
    refused(&["-l", "no-such-chip"], 3, &["no-such-chip"]);
    refused(&["--chip", "pinctrl:0[1]"], 3, &["pinctrl:0"]);
    refused(&["-l", "/dev/null"], 3, &["/dev/null"]);
}

#[test]
fn the_control_socket_is_taken_from_the_dead_only_and_removed_at_the_end() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("control");
    let chip = format!("s4,control={}", path.display());
    let listener = UnixListener::bind(&path).unwrap();
    refused(&["--chip", &chip], 3, &["control", "in use"]);
    drop(listener);
    let mut daemon = start(&["--chip", &chip]);
    assert_eq!(Outside::connect(&path).ask("lines"), "ok 4");
    daemon.terminate().unwrap().clean().unwrap();
    daemon.trust();
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    refused(&["--chip", &chip], 3, &["control", "in use"]);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn the_outside_is_told_what_it_did_wrong() {
    let (_daemon, mut outside) = start_sim("s4,names=led");
    assert_eq!(outside.ask("lines"), "ok 4");
    for line in ["4", "-1", "65536", "button", "99999999999999999999"] {
        let answer = outside.ask(&format!("get {line}"));
        assert_eq!(answer, "error there is no such line");
    }
    for command in ["", "get", "set 0", "set 0 2", "watch 1", "lines 1", "Lines"] {
        assert!(outside.ask(command).starts_with("error the commands are"));
    }
    assert_eq!(outside.ask("set led 1"), "ok");
    assert_eq!(outside.ask("get led"), "ok 1");
    let long = "x".repeat(1000);
    assert_eq!(outside.ask(&long), "error the command is too long");
}

#[test]
fn a_watcher_that_does_not_listen_is_forgotten() {
    let (daemon, mut outside) = start_sim("s2");
    let mut lazy = outside.another();
    assert_eq!(lazy.ask("watch"), "ok");
    let mut driver = Driver::new(&daemon);
    driver.tell(SET_DIRECTION, 0, OUT);
    let begin = std::time::Instant::now();
    for round in 0..40_000 {
        driver.tell(SET_VALUE, 0, round % 2);
    }
    assert_eq!(outside.ask("get 0"), "ok 1");
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
}
