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
    daemon.finish().unwrap();
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    refused(&["--chip", &chip], 3, &["control", "in use"]);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}
