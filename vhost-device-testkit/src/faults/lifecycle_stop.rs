//! How a daemon ends, and what it leaves in the file system: L10 to L13.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use crate::conformance::Outcome;
use crate::ensure;
use crate::failure::{At, Result};
use crate::faults::lifecycle_start::serves;
use crate::faults::watch::PathWatch;
use crate::process::Daemon;
use crate::session::{Options, Session};
use crate::stand::{Stand, launch};
use crate::subject::Subject;

/// From the signal to the exit of an idle daemon.
const LIMIT: Duration = Duration::from_millis(200);

/// L10: SIGTERM and SIGINT end an idle daemon at once, and its sockets are gone.
pub fn signal_when_idle(subject: &dyn Subject) -> Result<Outcome> {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        quick(signal, || Ok((launch(subject)?.start()?, None)))?;
        quick(signal, || {
            let daemon = launch(subject)?.start()?;
            serves(subject, &daemon, daemon.socket())?;
            Ok((daemon, None))
        })
        .at("after a session")?;
    }
    Ok(Outcome::Pass)
}

/// L11: the same with a frontend connected, which sees the end of its connection.
pub fn signal_when_connected(subject: &dyn Subject) -> Result<Outcome> {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        quick(signal, || {
            let daemon = launch(subject)?.start()?;
            let session = Session::open(daemon.socket(), &Options::usual(subject.queues()))?;
            Ok((daemon, Some(session)))
        })?;
    }
    Ok(Outcome::Pass)
}

/// The machine may be busy: the best of three attempts has to be within the limit.
fn quick(signal: i32, start: impl Fn() -> Result<(Daemon, Option<Session>)>) -> Result<()> {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let (mut daemon, session) = start()?;
        let keep = daemon.keep();
        daemon.signal(signal)?;
        let ending = daemon
            .wait_end(Duration::from_secs(5))
            .at(format!("after signal {signal}"))?
            .clean()?;
        best = best.min(ending.took);
        if let Some(session) = session {
            session
                .control
                .wait_closed(Duration::from_secs(1))
                .at("the frontend's end")?;
        }
        let left: Vec<_> = ["s", "s0"]
            .iter()
            .filter(|name| keep.path().join(name).symlink_metadata().is_ok())
            .collect();
        ensure!(left.is_empty(), "left behind: {left:?}");
        daemon.trust();
    }
    ensure!(
        best <= LIMIT,
        "signal {signal} ends it after {best:?} at best, not {LIMIT:?}"
    );
    Ok(())
}

/// L12: at exit a daemon removes its own socket, and nothing that has taken its place.
pub fn foreign_socket_stays(subject: &dyn Subject) -> Result<Outcome> {
    let mut daemon = launch(subject)?.start()?;
    let keep = daemon.keep();
    let path = daemon.socket().to_owned();
    fs::remove_file(&path)?;
    let other = UnixListener::bind(&path)?;
    daemon.terminate()?.clean()?;
    ensure!(path.exists(), "another's socket was removed");
    drop(other);
    daemon.trust();

    let mut daemon = launch(subject)?.start()?;
    let keep_file = daemon.keep();
    let path = daemon.socket().to_owned();
    fs::remove_file(&path)?;
    fs::write(&path, "precious")?;
    daemon.terminate()?.clean()?;
    ensure!(
        fs::read(&path).ok().as_deref() == Some(b"precious"),
        "a file in the socket's place was touched"
    );
    daemon.trust();

    let mut daemon = launch(subject)?.start()?;
    fs::remove_file(daemon.socket())?;
    daemon
        .terminate()
        .at("socket removed by someone else")?
        .clean()?;
    daemon.trust();
    drop((keep, keep_file));
    Ok(Outcome::Pass)
}

/// L13: between one frontend and the next the socket is there all the time.
pub fn socket_never_absent(subject: &dyn Subject) -> Result<Outcome> {
    let stand = Stand::start(subject)?;
    let watch = PathWatch::start(stand.daemon.socket());
    for round in 0..200 {
        stand.serves_next().at(format!("session {round}"))?;
    }
    watch.never_absent()?;
    stand.close()?;
    Ok(Outcome::Pass)
}
