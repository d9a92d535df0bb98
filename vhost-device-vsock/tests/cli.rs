//! The command line: what existing scripts write works, and mistakes are explained in one line.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};

use vhost_device_testkit::failure::Result;
use vhost_device_testkit::process::{Daemon, Launch};

#[path = "support/mod.rs"]
mod support;

use support::guest::Guest;
use support::host::{Host, accept, launch, path_of, read};

/// What an existing command line does: `DIR` in it is a fresh directory.
fn started(line: &str, sockets: &[&str]) -> Result<Daemon> {
    let launch = launch()?;
    let dir = launch.dir().to_path_buf();
    let words = line.replace("DIR", &dir.to_string_lossy());
    started_by(launch.arguments(words.split_whitespace()), &dir, sockets)
}

fn started_by(launch: Launch, dir: &Path, sockets: &[&str]) -> Result<Daemon> {
    let mut daemon = launch.spawn()?;
    for socket in sockets {
        daemon.wait_listening(&dir.join(socket))?;
    }
    Ok(daemon)
}

/// A guest with this context id at this socket reaches its host by this path.
fn serves(daemon: &Daemon, socket: &str, cid: u64, uds: &str) -> Result<()> {
    let dir = daemon.dir();
    let mut guest = Guest::open(&dir.join(socket), cid)?;
    let listener = UnixListener::bind(path_of(&dir.join(uds), 99))?;
    let id = guest.connect(99)?;
    let mut program = accept(&listener)?;
    guest.write(id, b"hello")?;
    assert_eq!(read(&mut program, 5)?, b"hello");
    guest.close(id)?;
    UnixStream::connect(dir.join(uds))?;
    Ok(())
}

#[test]
fn command_lines_of_one_guest_work() -> Result<()> {
    for line in [
        "--guest-cid=4 --uds-path=DIR/vm4.vsock --socket=DIR/vhost4.socket",
        "--guest-cid=4 --uds-path=DIR/vm4.vsock --socket=DIR/vhost4.socket --tx-buffer-size=65536 --queue-size=1024 --groups=default",
        "--guest-cid 4 --uds-path DIR/vm4.vsock --socket-path DIR/vhost4.socket",
        "--vm guest-cid=4,uds-path=DIR/vm4.vsock,socket=DIR/vhost4.socket",
        "--vm guest_cid=4,uds_path=DIR/vm4.vsock,socket=DIR/vhost4.socket,tx_buffer_size=65536,queue_size=1024,groups=group1+groupA",
    ] {
        let mut daemon = started(line, &["vhost4.socket"])?;
        serves(&daemon, "vhost4.socket", 4, "vm4.vsock")?;
        daemon.finish()?;
    }
    Ok(())
}

#[test]
fn the_context_id_is_3_unless_another_is_given() -> Result<()> {
    let mut daemon = started("--uds-path=DIR/v --socket=DIR/s", &["s"])?;
    serves(&daemon, "s", 3, "v")?;
    daemon.finish()
}

#[test]
fn command_lines_of_two_guests_work() -> Result<()> {
    let mut daemon = started(
        "--vm guest-cid=3,socket=DIR/vhost3.socket,uds-path=DIR/vm3.vsock \
         --vm guest-cid=4,socket=DIR/vhost4.socket,uds-path=DIR/vm4.vsock,tx-buffer-size=32768",
        &["vhost3.socket", "vhost4.socket"],
    )?;
    serves(&daemon, "vhost3.socket", 3, "vm3.vsock")?;
    serves(&daemon, "vhost4.socket", 4, "vm4.vsock")?;
    daemon.finish()
}

const YAML: &str = "\
vms:
    - guest_cid: 3
      socket: DIR/vhost3.socket
      uds_path: DIR/vm3.sock
      tx_buffer_size: 65536
      queue_size: 1024
      groups: group1+groupA
    - guest_cid: 4
      socket: DIR/vhost4.socket
      uds_path: DIR/vm4.sock
      tx_buffer_size: 65536
      queue_size: 1024
      groups: group2+groupB
";

const TOML: &str = "\
[[vms]]
guest-cid = 3
socket = \"DIR/vhost3.socket\"
uds-path = \"DIR/vm3.sock\"
groups = [\"group1\", \"groupA\"]

[[vms]]
guest-cid = 4
socket = \"DIR/vhost4.socket\"
uds-path = \"DIR/vm4.sock\"
tx-buffer-size = 524288
";

#[test]
fn files_of_two_guests_work() -> Result<()> {
    // by the name of the option, too
    let singular = TOML.replace("[[vms]]", "[[vm]]");
    for (name, text) in [
        ("config.yaml", YAML),
        ("config.yml", YAML),
        ("config.toml", TOML),
        ("option.toml", &singular),
    ] {
        let launch = launch()?;
        let dir = launch.dir().to_path_buf();
        let file = dir.join(name);
        fs::write(&file, text.replace("DIR", &dir.to_string_lossy()))?;
        let launch = launch.arguments([format!("--config={}", file.display())]);
        let mut daemon = started_by(launch, &dir, &["vhost3.socket", "vhost4.socket"])?;
        serves(&daemon, "vhost3.socket", 3, "vm3.sock")?;
        serves(&daemon, "vhost4.socket", 4, "vm4.sock")?;
        daemon.finish()?;
    }
    Ok(())
}

fn run(line: &str) -> Output {
    let dir = vhost_device_testkit::process::TempDir::new().unwrap();
    let words = line.replace("DIR", &dir.path().to_string_lossy());
    // a mistake that is not seen would leave a daemon behind
    Command::new("timeout")
        .args(["10", env!("CARGO_BIN_EXE_vhost-device-vsock")])
        .args(words.split_whitespace())
        .output()
        .unwrap()
}

#[test]
fn mistakes_are_explained_in_one_line() {
    for (line, code, words) in [
        ("--socket=DIR/s --guest-cid=4", 2, "uds-path"),
        ("--socket=DIR/s --guest-cid=2 --uds-path=DIR/v", 2, "2"),
        (
            "--socket=DIR/s --guest-cid=4294967295 --uds-path=DIR/v",
            2,
            "4294967295",
        ),
        (
            "--socket=DIR/s --guest-cid=4 --uds-path=DIR/v --forward-cid=1",
            2,
            "forward-cid",
        ),
        ("--socket=DIR/s --uds-path=DIR/v --queue-size=100", 2, "100"),
        (
            "--socket=DIR/s --uds-path=DIR/v --tx-buffer-size=0",
            2,
            "tx-buffer-size",
        ),
        (
            "--socket=DIR/s --uds-path=DIR/v --forward-listen=1+x",
            2,
            "forward-listen",
        ),
        (
            "--vm guest-cid=4,socket=DIR/s,uds-path=DIR/v,speed=9",
            2,
            "speed",
        ),
        ("--vm guest-cid=4,uds-path=DIR/v,socket", 2, "socket"),
        (
            "--vm guest-cid=4,socket=DIR/s,uds-path=DIR/v --vm guest-cid=4,socket=DIR/t,uds-path=DIR/w",
            2,
            "4",
        ),
        (
            "--vm guest-cid=4,socket=DIR/s,uds-path=DIR/v --guest-cid=5",
            2,
            "guest-cid",
        ),
        ("--config=DIR/none.yaml", 3, "none.yaml"),
        ("--socket=DIR/s --uds-path=DIR/no/such/v", 3, "no/such"),
    ] {
        let output = run(line);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}: {text}");
        assert_eq!(text.lines().count(), 1, "{line}: {text}");
        assert!(text.contains(words), "{line}: {text}");
    }
}

#[test]
fn the_path_is_taken_from_the_dead_only_and_removed_at_the_end() -> Result<()> {
    let live = launch()?;
    let path = live.dir().join("v");
    let _listener = UnixListener::bind(&path)?;
    let arguments = ["--uds-path".into(), path.clone().into_os_string()];
    let line = live.arguments(arguments.clone());
    let socket = line.dir().join("s").into_os_string();
    let (status, _, text) =
        vhost_device_testkit::process::run(line.arguments(["--socket".into(), socket]))?;
    assert_eq!(status.code(), Some(3), "{text}");

    let dead = launch()?;
    let path = dead.dir().join("v");
    drop(UnixListener::bind(&path)?);
    let arguments = ["--uds-path".into(), path.clone().into_os_string()];
    let mut daemon = dead.arguments(arguments).start()?;
    UnixStream::connect(&path)?;
    daemon.finish()?;
    assert!(!path.exists());

    let file = launch()?;
    let path = file.dir().join("v");
    fs::write(&path, "precious")?;
    let arguments = ["--uds-path".into(), path.clone().into_os_string()];
    let socket = file.dir().join("s").into_os_string();
    let line = file
        .arguments(arguments)
        .arguments(["--socket".into(), socket]);
    let kept = line.keep();
    let (status, _, text) = vhost_device_testkit::process::run(line)?;
    assert_eq!(status.code(), Some(3), "{text}");
    assert_eq!(fs::read_to_string(&path)?, "precious");
    drop(kept);
    Ok(())
}

#[test]
fn the_path_is_there_before_and_between_frontends() -> Result<()> {
    let host = Host::start()?;
    UnixStream::connect(host.path())?;
    drop(host.guest()?);
    UnixStream::connect(host.path())?;
    Ok(())
}

#[test]
fn queues_larger_than_asked_for_are_refused() -> Result<()> {
    use support::link::Buffers;
    use vhost_device_testkit::session::Options;
    let host = Host::start_with(&["--queue-size", "128"])?;
    let usual = Options::usual(3);
    assert!(
        host.guest_with(&usual.clone(), &Buffers::of(10, 3776))
            .is_err()
    );
    let mut guest = host.guest_with(&usual.with_queue_size(128), &Buffers::of(10, 3776))?;
    let listener = host.listen(99)?;
    host.called(&mut guest, &listener)?;
    Ok(())
}
