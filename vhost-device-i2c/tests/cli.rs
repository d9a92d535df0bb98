//! The command line: what existing scripts write works, and mistakes are explained in one line.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::process::{Command, Output};

use vhost_device_testkit::process::TempDir;

mod common;

fn run(arguments: &[&str]) -> Output {
    let dir = TempDir::new().unwrap();
    Command::new(env!("CARGO_BIN_EXE_vhost-device-i2c"))
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
    refused(&["-l", "6"], 2, &["names no target"]);
    refused(&["-l", "6:1024"], 2, &["1024"]);
    refused(
        &["-l", "sim0:0x50=24c02:0x50=regs"],
        2,
        &["0x50 is there twice"],
    );
    refused(&["-l", "sim0:0x50=flash"], 2, &["flash", "24c02"]);
    refused(
        &["-l", "sim0:4=regs", "-l", "sim0:4=regs"],
        2,
        &["2 device lists for 1 sockets"],
    );
    refused(
        &["-l", "sim0:4=regs", "--bus-timeout", "9"],
        2,
        &["bus-timeout"],
    );
}

#[test]
fn missing_resources_are_named() {
    refused(&["-l", "2000000:32"], 3, &["/dev/i2c-2000000", "i2c-dev"]);
    refused(&["-l", "no such adapter:32"], 3, &["no such adapter"]);
    refused(
        &["-l", "sim0:4=24c02@/nonexistent/e"],
        3,
        &["/nonexistent/e"],
    );
    refused(
        &["-l", "sim0:4=lm75@/nonexistent/t"],
        3,
        &["/nonexistent/t"],
    );
}

#[test]
fn each_socket_can_have_a_list_of_its_own() {
    use vhost_device_testkit::process::Launch;
    use vhost_device_testkit::session::{Options, Session};
    let launch = Launch::new(env!("CARGO_BIN_EXE_vhost-device-i2c").into()).unwrap();
    let socket = launch.dir().join("v");
    let arguments = [
        "-c",
        "2",
        "-l",
        "sim0:0x20=regs",
        "-l",
        "sim0:0x21=regs",
        "-s",
    ];
    let mut daemon = launch
        .arguments(arguments)
        .arguments([socket.clone()])
        .spawn()
        .unwrap();
    for (number, own) in [(0, 0x20), (1, 0x21)] {
        let path = socket.with_file_name(format!("v{number}"));
        daemon.wait_listening(&path).unwrap();
        let session = Session::open(&path, &Options::usual(1)).unwrap();
        let mut driver = common::Driver { session };
        for address in [0x20, 0x21] {
            let expected = if address == own {
                common::OK
            } else {
                common::ERROR
            };
            assert_eq!(driver.statuses(&[common::read(address, 1)]), [expected]);
        }
    }
    daemon.trust();
}
