//! Level two, host events into receive buffers: everything a device must survive.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use vhost_device_testkit::failure::Result;
use vhost_device_testkit::framing::{Answer, Framing};
use vhost_device_testkit::process::{Daemon, Launch};
use vhost_device_testkit::session::{Options, Request, Session};
use vhost_device_testkit::subject::Subject;
use vhost_device_testkit::{conformance, ensure, fail, sys};

use crate::levels;

const EVENT: [u8; 64] = [0xe5; 64];
const TRANSMIT: usize = 1;

/// The host's ends of the streams, by the daemon's directory.
static HOSTS: LazyLock<Mutex<HashMap<PathBuf, Vec<Arc<UnixStream>>>>> =
    LazyLock::new(Mutex::default);

struct Stream;

/// Listens where the daemon will connect to when it starts.
fn host(dir: &Path) -> PathBuf {
    let path = dir.join("host");
    // A second daemon in the same directory connects to a listener of its own.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("the directory is ours");
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        // One connection for each of the daemon's sockets.
        while let Ok((stream, _)) = listener.accept() {
            let mut hosts = HOSTS.lock().expect("no test panics here");
            hosts.entry(dir.clone()).or_default().push(Arc::new(stream));
        }
    });
    path
}

/// The host's ends of a daemon's streams.
fn hosts_of(daemon: &Daemon) -> Result<Vec<Arc<UnixStream>>> {
    let connected = sys::wait_for(Duration::from_secs(5), || {
        let hosts = HOSTS.lock().expect("no test panics here");
        hosts.get(daemon.dir()).cloned()
    });
    match connected {
        Some(hosts) => Ok(hosts),
        None => fail!("the device did not connect to its host"),
    }
}

impl Subject for Stream {
    fn name(&self) -> &'static str {
        "levels"
    }

    fn binary(&self) -> PathBuf {
        levels()
    }

    fn arguments(&self, dir: &Path) -> Vec<String> {
        let host = host(dir).to_string_lossy().into_owned();
        vec!["stream".into(), "--host".into(), host]
    }

    fn queues(&self) -> usize {
        2
    }

    fn probe(&self) -> Request {
        Request {
            queue: 0,
            readable: Vec::new(),
            writable: EVENT.len() as u32,
        }
    }

    fn judge(&self, _: &Request, answer: &Answer) -> Result<()> {
        ensure!(
            answer.used_len > 0 && answer.written().iter().all(|byte| *byte == EVENT[0]),
            "not what the host sent: {:02x?}",
            answer.written()
        );
        Ok(())
    }

    fn stimulate(&self, daemon: &Daemon) -> Result<()> {
        for host in hosts_of(daemon)? {
            host.set_write_timeout(Some(Duration::from_millis(5)))?;
            match host.as_ref().write(&EVENT) {
                // A device that was given no buffers does not read; what waits already is as good.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => drop(result?),
            }
        }
        Ok(())
    }

    fn is_event_driven(&self) -> bool {
        true
    }
}

conformance!(Stream);

#[test]
fn what_the_driver_sends_arrives_in_order_also_when_the_host_reads_late() -> Result<()> {
    let launch = Launch::new(Stream.binary())?;
    let arguments = Stream.arguments(launch.dir());
    let mut daemon = launch.arguments(arguments).start()?;
    let mut session = Session::open(daemon.socket(), &Options::usual(2))?;
    let sent: Vec<u8> = (0..400_000u32).map(|n| (n / 7) as u8).collect();
    let mut pending = Vec::new();
    for piece in sent.chunks(4000) {
        let request = Request {
            queue: TRANSMIT,
            readable: piece.to_vec(),
            writable: 0,
        };
        pending.push(session.submit(&request, &Framing::whole())?);
    }
    let mut received = vec![0; sent.len()];
    let hosts = hosts_of(&daemon)?;
    let mut host: &UnixStream = hosts.first().expect("there is one");
    host.read_exact(&mut received)?;
    ensure!(received == sent, "the bytes changed on their way");
    session.finish_all(TRANSMIT, &pending)?;
    daemon.finish()
}
