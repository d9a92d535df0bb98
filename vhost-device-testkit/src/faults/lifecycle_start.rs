//! How a daemon starts: L1 to L9.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use crate::conformance::Outcome;
use crate::control::Control;
use crate::failure::{At, Result};
use crate::framing::Framing;
use crate::json::{self, Value};
use crate::process::{Daemon, Launch, listens, run};
use crate::session::{Options, Session};
use crate::stand::{Stand, launch};
use crate::subject::Subject;
use crate::{ensure, sys};

/// Connects to a socket of this daemon and makes one correct request.
pub(super) fn serves(subject: &dyn Subject, daemon: &Daemon, path: &Path) -> Result<()> {
    serves_over(subject, daemon, Control::connect(path).at("connect")?)
}

fn serves_over(subject: &dyn Subject, daemon: &Daemon, control: Control) -> Result<()> {
    let request = subject.probe();
    let mut session = Session::over(control, &Options::usual(subject.queues()))?;
    let pending = session.submit(&request, &Framing::whole())?;
    subject.stimulate(daemon)?;
    let answer = session.finish(request.queue, &pending)?;
    subject.judge(&request, &answer)
}

/// L1: the capability document is JSON, complete, and nothing else happens.
pub fn prints_capabilities(subject: &dyn Subject) -> Result<Outcome> {
    let plain = launch(subject)?;
    let socket = plain.dir().join("s");
    let alone = Launch::new(subject.binary())?.arguments(["--print-capabilities"]);
    let beside = plain
        .arguments(["--print-capabilities", "--socket-path"])
        .arguments([socket.clone()]);
    for (what, launch) in [("alone", alone), ("beside other options", beside)] {
        let (status, output, log) = run(launch)?;
        ensure!(status.code() == Some(0), "{what}: {status}: {log}");
        ensure!(log.is_empty(), "{what}: it wrote to stderr: {log}");
        let document = json::parse(&output).at("the capability document")?;
        ensure!(
            document.member("type") == Some(&Value::Text(subject.name().to_owned())),
            "{what}: the type in {output} is not {:?}",
            subject.name()
        );
    }
    ensure!(
        !socket.exists(),
        "a socket was made for --print-capabilities"
    );
    Ok(Outcome::Pass)
}

/// L2: help and version on stdout, mistakes as one line on stderr with exit code 2.
pub fn options_and_mistakes(subject: &dyn Subject) -> Result<Outcome> {
    for option in ["--help", "--version"] {
        let (status, output, log) = run(Launch::new(subject.binary())?.arguments([option]))?;
        ensure!(status.code() == Some(0), "{option}: {status}");
        ensure!(
            !output.is_empty() && log.is_empty(),
            "{option} does not write to stdout alone"
        );
    }
    let wrong: [&[&str]; 5] = [
        &[],
        &["--no-such-option"],
        &["--socket-path"],
        &["--socket-path", "/tmp/x", "--socket-count", "many"],
        &["--socket-path", "/tmp/x", "--socket-mode", "rw"],
    ];
    for arguments in wrong {
        let (status, output, log) = run(Launch::new(subject.binary())?.arguments(arguments))?;
        ensure!(
            status.code() == Some(2),
            "{arguments:?} ended with {status} instead of exit code 2"
        );
        ensure!(output.is_empty(), "{arguments:?} wrote to stdout: {output}");
        one_line(&log).at(format!("{arguments:?}"))?;
    }
    Ok(Outcome::Pass)
}

fn one_line(log: &str) -> Result<()> {
    ensure!(
        log.lines().count() == 1,
        "stderr is not one line but: {log:?}"
    );
    Ok(())
}

/// L3: an inherited descriptor that listens, and one that is connected.
pub fn inherited_descriptor(subject: &dyn Subject) -> Result<Outcome> {
    let launch_listening = launch(subject)?;
    let path = launch_listening.dir().join("s");
    let listener = UnixListener::bind(&path)?;
    let mut daemon = launch_listening
        .inherit(listener, 7)
        .arguments(["--fd", "7"])
        .spawn()?;
    for round in 0..3 {
        serves(subject, &daemon, &path).at(format!("listening descriptor, client {round}"))?;
    }
    daemon.finish().at("listening descriptor")?;
    ensure!(path.exists(), "a socket that was handed down was removed");
    let (ours, theirs) = UnixStream::pair()?;
    let mut daemon = launch(subject)?
        .inherit(theirs, 7)
        .arguments(["--fd", "7"])
        .spawn()?;
    serves_over(subject, &daemon, Control::over(ours)?).at("connected descriptor")?;
    daemon
        .wait_end(Duration::from_secs(2))
        .at("the frontend on the connected descriptor has left")?
        .clean()?;
    daemon.trust();
    unusable_descriptors(subject)?;
    Ok(Outcome::Pass)
}

fn unusable_descriptors(subject: &dyn Subject) -> Result<()> {
    let kinds: [(&str, File); 2] = [
        ("a file", File::open("/dev/null")?),
        ("a pipe", sys::pipe()?.0),
    ];
    for (what, file) in kinds {
        let (status, _, log) = run(launch(subject)?.inherit(file, 7).arguments(["--fd", "7"]))?;
        refused(status.code(), &log).at(format!("--fd on {what}"))?;
    }
    let (status, _, log) = run(launch(subject)?.arguments(["--fd", "99"]))?;
    refused(status.code(), &log).at("--fd on a closed descriptor")
}

/// Some exit code of the project's, and one line.
fn refused(code: Option<i32>, log: &str) -> Result<()> {
    ensure!(
        matches!(code, Some(2..=5)),
        "ended with exit code {code:?} instead of one from 2 to 5: {log}"
    );
    one_line(log)
}

/// L4: descriptors of a service manager.
pub fn socket_activation(subject: &dyn Subject) -> Result<Outcome> {
    let launch = launch(subject)?;
    let path = launch.dir().join("s");
    let listener = UnixListener::bind(&path)?;
    let mut daemon = launch.inherit(listener, 3).activated().spawn()?;
    for round in 0..3 {
        serves(subject, &daemon, &path).at(format!("client {round}"))?;
    }
    daemon.finish()?;
    ensure!(path.exists(), "a socket that was handed down was removed");
    Ok(Outcome::Pass)
}

/// L5: several sockets.
pub fn several_sockets(subject: &dyn Subject) -> Result<Outcome> {
    if !subject.has_twins() {
        return Ok(Outcome::NotApplicable("no two devices are alike"));
    }
    let launch = launch(subject)?;
    let base = launch.dir().join("many");
    let mut daemon = launch
        .arguments(["--socket-count", "2", "--socket-path"])
        .arguments([base.clone()])
        .spawn()?;
    let paths = [base.with_file_name("many0"), base.with_file_name("many1")];
    for path in &paths {
        daemon.wait_listening(path)?;
    }
    ensure!(
        !base.exists(),
        "with --socket-count the path itself is no socket"
    );
    // Both at the same time: one frontend must not keep the other device from serving.
    let held = Session::open(&paths[0], &Options::usual(subject.queues()))?;
    serves(subject, &daemon, &paths[1]).at("second socket")?;
    drop(held);
    serves(subject, &daemon, &paths[0]).at("first socket")?;
    daemon.finish()?;
    ensure!(
        paths.iter().all(|path| !path.exists()),
        "a socket is left behind"
    );
    Ok(Outcome::Pass)
}

/// L6: what is already at the path: a live socket, a dead one, a file.
pub fn path_in_use(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let taken =
        launch(subject)?.arguments(["--socket-path".into(), stand.daemon.socket().to_owned()]);
    let (status, _, log) = run(taken)?;
    refused(status.code(), &log).at("a live socket at the path")?;
    stand
        .serves_next()
        .at("the daemon whose path was asked for")?;
    stand.close()?;

    let dead = launch(subject)?;
    drop(UnixListener::bind(dead.dir().join("s"))?);
    let mut daemon = dead.start().at("a dead socket at the path")?;
    serves(subject, &daemon, daemon.socket()).at("a dead socket at the path")?;
    daemon.finish()?;

    let file = launch(subject)?;
    let path = file.dir().join("s");
    fs::write(&path, "precious")?;
    let keep = file.keep();
    let (status, _, log) = run(file.arguments(["--socket-path".into(), path.clone()]))?;
    refused(status.code(), &log).at("a file at the path")?;
    ensure!(
        fs::read(&path).ok().as_deref() == Some(b"precious"),
        "the file at the path was touched"
    );
    drop(keep);
    Ok(Outcome::Pass)
}

/// L7: readiness is told when the socket listens, not before.
pub fn tells_readiness(subject: &dyn Subject) -> Result<Outcome> {
    let launch = launch(subject)?;
    let notify = launch.dir().join("notify");
    let manager = UnixDatagram::bind(&notify)?;
    manager.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut daemon = launch.environment("NOTIFY_SOCKET", notify).start()?;
    let mut state = [0; 1024];
    let len = manager.recv(&mut state).at("wait for READY=1")?;
    let text = String::from_utf8_lossy(&state[..len]).into_owned();
    ensure!(
        text.lines().any(|line| line == "READY=1"),
        "the first notification is {text:?}"
    );
    ensure!(
        listens(daemon.socket())?,
        "told ready before the socket listens"
    );
    serves(subject, &daemon, daemon.socket())?;
    daemon.finish()?;
    Ok(Outcome::Pass)
}

/// L8: the mode of the socket, and the name with an index that existing scripts use.
pub fn socket_mode_and_alias(subject: &dyn Subject) -> Result<Outcome> {
    for mode in [0o600, 0o660, 0o666] {
        let launch = launch(subject)?.arguments(["--socket-mode", &format!("{mode:o}")]);
        let mut daemon = launch.start()?;
        let metadata = fs::metadata(daemon.socket())?;
        ensure!(metadata.file_type().is_socket(), "the path is no socket");
        let seen = metadata.permissions().mode() & 0o777;
        ensure!(seen == mode, "mode is {seen:o} instead of {mode:o}");
        daemon.finish()?;
    }
    let mut daemon = launch(subject)?.start()?;
    let alias = daemon.socket().with_file_name("s0");
    ensure!(
        alias.exists() == subject.has_index_alias(),
        "the path with an appended 0 exists: {}",
        alias.exists()
    );
    if subject.has_index_alias() {
        serves(subject, &daemon, &alias).at("through the path with an appended 0")?;
    }
    daemon.finish()?;
    ensure!(
        alias.symlink_metadata().is_err(),
        "the path with an appended 0 is left behind"
    );
    Ok(Outcome::Pass)
}

/// L9: exits after the first frontend, if so asked.
pub fn once(subject: &dyn Subject) -> Result<Outcome> {
    let mut daemon = launch(subject)?.arguments(["--once"]).start()?;
    serves(subject, &daemon, daemon.socket())?;
    daemon
        .wait_end(Duration::from_secs(2))
        .at("the only frontend has left")?
        .clean()?;
    ensure!(!daemon.socket().exists(), "the socket is left behind");
    daemon.trust();
    Ok(Outcome::Pass)
}
