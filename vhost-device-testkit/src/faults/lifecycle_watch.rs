//! What a daemon tells whoever runs it: its counters (L22), and what its configuration is worth (L23).

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::conformance::Outcome;
use crate::failure::{At, Result};
use crate::process::run;
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
        value(&control, "vhost_device_connected")? == 0,
        "a frontend is counted, none is there"
    );
    let before = value(&control, "vhost_device_requests_total")?;
    let mut session = stand.session()?;
    for _ in 0..10 {
        stand.probe(&mut session)?;
    }
    ensure!(
        value(&control, "vhost_device_connected")? == 1,
        "the frontend is not counted"
    );
    let requests = value(&control, "vhost_device_requests_total")? - before;
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
    value(&control, "vhost_device_frontends_total")?;
    drop((lazy, talkative));
    stand.daemon.signal(libc::SIGUSR1)?;
    logged(&stand, "frontends served")?;
    stand.probe(&mut session).at("after SIGUSR1")?;
    drop(session);
    stand.close()?;
    ensure!(!control.exists(), "the control socket was left behind");
    Ok(Outcome::Pass)
}

/// The sum of all values of one name in what the control socket says, which has to be complete.
fn value(control: &Path, name: &str) -> Result<u64> {
    let mut stream = UnixStream::connect(control)?;
    stream.set_read_timeout(Some(TEXT_TIMEOUT))?;
    let mut text = String::new();
    stream.read_to_string(&mut text).at("read the counters")?;
    ensure!(
        text.ends_with("# EOF\n"),
        "the counters have no end: {text}"
    );
    let values: Vec<u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'))
        .filter_map(|rest| rest.rsplit_once("} ")?.1.parse().ok())
        .collect();
    ensure!(!values.is_empty(), "there is no {name} in: {text}");
    Ok(values.iter().sum())
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
    value(&control, "vhost_device_connected").at("a socket that only the file names")?;
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
