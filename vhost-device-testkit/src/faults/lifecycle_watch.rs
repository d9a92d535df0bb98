//! What a daemon tells whoever runs it: its counters (L22), what its configuration is worth (L23), that it lives (L24), and
//! whether it would start (L25).

use std::fs;
use std::io::Write;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::conformance::Outcome;
use crate::counters::counter;
use crate::failure::{At, Result};
use crate::process::{Launch, TempDir, run};
use crate::stand::{Stand, launch};
use crate::subject::Subject;
use crate::{ensure, fail};

/// Longest wait for text of the daemon.
const TEXT_TIMEOUT: Duration = Duration::from_secs(5);
/// Readers of counters that never read; more than a daemon has places for.
const LAZY_READERS: usize = 20;

/// L22: the control socket tells what happened, whoever else connects to it, and SIGUSR1 logs the same.
pub fn counters(subject: &dyn Subject) -> Result<Outcome> {
    let launch = launch(subject)?;
    let control = launch.dir().join("control");
    let launch = launch.arguments(["--control-path".into(), control.clone().into_os_string()]);
    let stand = Stand::start_by(subject, launch)?;
    ensure!(
        counter(&control, "vhost_device_connected")? == 0,
        "a frontend is counted, none is there"
    );
    let before = counter(&control, "vhost_device_requests_total")?;
    let mut session = stand.session()?;
    for _ in 0..10 {
        stand.probe(&mut session)?;
    }
    ensure!(
        counter(&control, "vhost_device_connected")? == 1,
        "the frontend is not counted"
    );
    let requests = counter(&control, "vhost_device_requests_total")? - before;
    ensure!(
        requests >= 10,
        "{requests} requests are counted, 10 were made"
    );
    let lazy = (0..LAZY_READERS)
        .map(|_| UnixStream::connect(&control))
        .collect::<std::io::Result<Vec<_>>>()?;
    let mut talkative = UnixStream::connect(&control)?;
    let _ = talkative.write_all(&[b'x'; 4096]);
    stand
        .probe(&mut session)
        .at("with readers that do not read")?;
    counter(&control, "vhost_device_frontends_total")?;
    drop((lazy, talkative));
    stand.daemon.signal(libc::SIGUSR1)?;
    logged(&stand, "frontends served")?;
    stand.probe(&mut session).at("after SIGUSR1")?;
    drop(session);
    stand.close()?;
    ensure!(!control.exists(), "the control socket was left behind");
    Ok(Outcome::Pass)
}

fn logged(stand: &Stand<'_>, words: &str) -> Result<()> {
    let deadline = Instant::now() + TEXT_TIMEOUT;
    while !stand.daemon.log().contains(words) {
        if Instant::now() > deadline {
            fail!("the log does not say {words:?}: {}", stand.daemon.log());
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// L23: options from a file count as those of the command line, and can be checked without serving.
pub fn configuration(subject: &dyn Subject) -> Result<Outcome> {
    let prepared = launch(subject)?;
    let file = prepared.dir().join("config.toml");
    let control = prepared.dir().join("control");
    let text = |rest: &str| format!("control-path = {control:?}\nlog_level = \"debug\"\n{rest}");
    fs::write(&file, text(""))?;
    let option = ["--config".into(), file.clone().into_os_string()];
    let stand = Stand::start_by(subject, prepared.arguments(option.clone()))?;
    counter(&control, "vhost_device_connected").at("a socket that only the file names")?;
    stand.close()?;
    for (rest, status, words) in [
        ("", 0, "fine"),
        ("no-such-option = 1", 2, "config.toml: "),
        ("poll-us = 'often'", 2, "config.toml: "),
        ("poll-us =", 2, "config.toml: line 3"),
    ] {
        let checked = launch(subject)?.arguments(option.clone());
        fs::create_dir_all(file.parent().unwrap_or(&file))?;
        fs::write(&file, text(rest))?;
        let (ended, output, log) = run(checked.arguments(["--check-config"]))?;
        let said = format!("{output}{log}");
        ensure!(
            ended.code() == Some(status),
            "{rest:?} ended with {ended}: {said}"
        );
        ensure!(
            said.contains(words) && said.lines().count() == 1,
            "{rest:?}: {said}"
        );
    }
    Ok(Outcome::Pass)
}

/// Signs of life that are waited for.
const SIGNS: usize = 3;
/// The time between two of them.
const SIGN_INTERVAL: Duration = Duration::from_millis(50);
/// What a manager is told by a daemon that is well.
const SIGN: &[u8] = b"WATCHDOG=1";

/// L24: a service manager that wants signs of life gets them, also while a frontend is served; one that wants them of
/// another process gets none.
pub fn signs_of_life(subject: &dyn Subject) -> Result<Outcome> {
    let silence = (2 * SIGN_INTERVAL).as_micros().to_string();
    let (manager, prepared) = managed(launch(subject)?)?;
    let prepared = prepared.environment("WATCHDOG_USEC", silence.clone());
    let stand = Stand::start_by(subject, prepared)?;
    signs(&manager, SIGNS).at("signs of an idle daemon")?;
    let mut session = stand.session()?;
    for _ in 0..SIGNS {
        stand.probe(&mut session)?;
        signs(&manager, 1).at("signs of a daemon that serves")?;
    }
    drop(session);
    stand.close()?;

    let (manager, other) = managed(launch(subject)?)?;
    let other = other
        .environment("WATCHDOG_USEC", silence)
        .environment("WATCHDOG_PID", "1");
    let stand = Stand::start_by(subject, other)?;
    sleep(SIGN_INTERVAL * 4);
    stand.close()?;
    manager.set_nonblocking(true)?;
    let mut message = [0; 64];
    while let Ok(length) = manager.recv(&mut message) {
        ensure!(
            message.get(..length) != Some(SIGN),
            "a sign of life that nobody asked for"
        );
    }
    Ok(Outcome::Pass)
}

/// A daemon that tells a service manager, which is us.
fn managed(launch: Launch) -> Result<(UnixDatagram, Launch)> {
    let path = launch.dir().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(TEXT_TIMEOUT))?;
    Ok((manager, launch.environment("NOTIFY_SOCKET", path)))
}

/// Waits for so many signs of life, whatever else is told meanwhile.
fn signs(manager: &UnixDatagram, count: usize) -> Result<()> {
    let mut seen = 0;
    let mut message = [0; 64];
    while seen < count {
        let length = manager.recv(&mut message).at("wait for a sign of life")?;
        seen += usize::from(message.get(..length) == Some(SIGN));
    }
    Ok(())
}

/// L25: a check tells what a start would meet, line by line, disturbs nobody and leaves nothing behind.
pub fn check(subject: &dyn Subject) -> Result<Outcome> {
    let folder = TempDir::new()?;
    let names = || -> Result<usize> { Ok(fs::read_dir(folder.path())?.count()) };
    let before = names()?;
    let checked = |socket: &str, more: &[&str]| -> Result<(Option<i32>, String)> {
        let path = folder.path().join(socket).into_os_string();
        let launch = launch(subject)?.arguments(["--check".into(), "--socket-path".into(), path]);
        let (status, output, log) = run(launch.arguments(more.iter().copied()))?;
        ensure!(log.is_empty(), "stderr has {log:?}");
        Ok((status.code(), output))
    };
    let (code, text) = checked("s", &[])?;
    ensure!(
        code == Some(0),
        "{code:?} for a daemon that would start: {text}"
    );
    ensure!(
        text.lines().count() >= 4
            && text
                .lines()
                .all(|line| line.starts_with("ok ") || line.starts_with("note ")),
        "not one finding a line: {text}"
    );
    ensure!(names()? == before, "the check left something behind");

    let live = UnixListener::bind(folder.path().join("live"))?;
    live.set_nonblocking(true)?;
    for (socket, more, words) in [
        ("live", &[][..], "is in use"),
        ("no/s", &[][..], "there is no folder"),
        ("s", &["--socket-group", "no-such-group"][..], "no group"),
    ] {
        let (code, text) = checked(socket, more)?;
        ensure!(
            code == Some(3)
                && text
                    .lines()
                    .any(|line| line.starts_with("missing ") && line.contains(words)),
            "{socket} {more:?}: {code:?} {text}"
        );
    }
    ensure!(live.accept().is_err(), "the check disturbed who listens");
    Ok(Outcome::Pass)
}
