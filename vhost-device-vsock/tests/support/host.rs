//! The host's programs: what they find at the socket's path, and the daemon between them and the guest.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use vhost_device_testkit::failure::{At, Failure, Result};
use vhost_device_testkit::process::{Daemon, Launch};
use vhost_device_testkit::{ensure, sys};

use super::guest::{Guest, Id};
use super::link::{Buffers, PATIENCE};
use super::packet::STREAM;
use vhost_device_testkit::session::Options;

/// The context id of the guest, unless a test has several.
pub const GUEST: u64 = 3;

/// A port that listens, on whichever side.
pub const PORT: u32 = 1234;

/// A daemon with one guest's device and a unix socket for programs of the host.
///
/// At the end it is asked to end, and must end well: a killed one would say nothing of what went wrong in it.
pub struct Host {
    pub daemon: Daemon,
    path: PathBuf,
}

impl Host {
    /// With defaults.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// With more arguments.
    pub fn start_with(arguments: &[&str]) -> Result<Self> {
        let launch = launch()?;
        let path = launch.dir().join("vm.vsock");
        let cid = GUEST.to_string();
        let daemon = launch
            .arguments(["--guest-cid", &cid, "--uds-path"])
            .arguments([OsString::from(&path)])
            .arguments(arguments)
            .start()?;
        Ok(Self { daemon, path })
    }

    /// The path that host programs connect to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path that is connected to for a port of the host.
    pub fn path_of(&self, port: u32) -> PathBuf {
        path_of(&self.path, port)
    }

    /// The guest, connected.
    pub fn guest(&self) -> Result<Guest> {
        Guest::open(self.daemon.socket(), GUEST)
    }

    /// The guest, with other options or buffers.
    pub fn guest_with(&self, options: &Options, buffers: &Buffers) -> Result<Guest> {
        Guest::with(self.daemon.socket(), GUEST, options, buffers)
    }

    /// A program that listens on a port.
    pub fn listen(&self, port: u32) -> Result<UnixListener> {
        Ok(UnixListener::bind(self.path_of(port))?)
    }

    /// A program that listens on a port for messages.
    pub fn listen_for_messages(&self, port: u32) -> Result<UnixListener> {
        listen_for_messages(&self.path_of(port))
    }

    /// A program that connected to the path and said nothing yet.
    pub fn connect(&self) -> Result<UnixStream> {
        patient(sys::connect(&self.path, PATIENCE)?)
    }

    /// A program that asks for a port of the guest; what it is told comes later.
    pub fn ask(&self, port: u32) -> Result<UnixStream> {
        let mut stream = self.connect()?;
        stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
        Ok(stream)
    }

    /// Both ends of a stream from a program of the host to a port of the guest.
    pub fn reach(&self, guest: &mut Guest, port: u32) -> Result<(UnixStream, Id)> {
        guest.listen(port, STREAM);
        let mut stream = self.ask(port)?;
        let id = guest.accept()?;
        ensure!(id.port == port, "port {} was asked for", id.port);
        read_ok(&mut stream)?;
        Ok((stream, id))
    }

    /// Both ends of a stream from the guest to a program of the host that listens.
    pub fn called(&self, guest: &mut Guest, listener: &UnixListener) -> Result<(UnixStream, Id)> {
        let id = guest.connect(port_of(listener)?)?;
        Ok((accept(listener)?, id))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // a test that failed already has more to say; the log is shown then
        if !std::thread::panicking() {
            let ended = self.daemon.finish();
            assert!(ended.is_ok(), "{ended:?}");
        }
    }
}

/// The daemon, not yet started.
pub fn launch() -> Result<Launch> {
    Ok(Launch::new(
        env!("CARGO_BIN_EXE_vhost-device-vsock").into(),
    )?)
}

/// The path that is connected to for a port of the host.
pub fn path_of(path: &Path, port: u32) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(format!("_{port}"));
    path.into()
}

/// The path that is connected to for messages.
pub fn messages_path(path: &Path) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(".seqpacket");
    path.into()
}

fn port_of(listener: &UnixListener) -> Result<u32> {
    let address = listener.local_addr()?;
    let path = address.as_pathname().and_then(Path::to_str);
    path.and_then(|path| path.rsplit_once('_'))
        .and_then(|(_, port)| port.parse().ok())
        .ok_or_else(|| Failure::new("a listener without a port"))
}

/// The next program that connected.
pub fn accept(listener: &UnixListener) -> Result<UnixStream> {
    ensure!(
        sys::readable(listener, PATIENCE)?,
        "nobody connected to the host's program"
    );
    patient(listener.accept()?.0)
}

/// Nobody connects for a while.
pub fn nobody(listener: &UnixListener, time: Duration) -> Result<()> {
    ensure!(!sys::readable(listener, time)?, "somebody connected");
    Ok(())
}

/// A stream whose reads and writes fail rather than wait for ever.
pub fn patient(stream: UnixStream) -> Result<UnixStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads the answer to CONNECT and not a byte more; the port in it.
pub fn read_ok(stream: &mut UnixStream) -> Result<u32> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        let length = stream.read(&mut byte).at("the answer to CONNECT")?;
        ensure!(length == 1, "{line:?} came instead of OK");
        line.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&line);
    text.strip_prefix("OK ")
        .and_then(|port| port.trim_end().parse().ok())
        .ok_or_else(|| Failure::new(format!("{text:?} came instead of OK")))
}

/// Reads this many bytes.
pub fn read(stream: &mut UnixStream, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).at("read from the device")?;
    Ok(bytes)
}

/// Reads until the end.
pub fn read_to_end(stream: &mut UnixStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).at("read to the end")?;
    Ok(bytes)
}

/// Waits until the device closes the stream, with nothing in it. A reset counts as well.
pub fn closed(stream: &mut UnixStream) -> Result<()> {
    match stream.read(&mut [0; 64]) {
        Ok(0) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        Ok(length) => Err(Failure::new(format!("{length} bytes instead of the end"))),
        Err(error) => Err(error).at("wait for the end"),
    }
}

/// The next line.
pub fn line(stream: &UnixStream) -> Result<String> {
    let mut text = String::new();
    BufReader::with_capacity(1, stream).read_line(&mut text)?;
    Ok(text)
}

/// A listener for SOCK_SEQPACKET at a path. Reads and writes of its streams are messages.
pub fn listen_for_messages(path: &Path) -> Result<UnixListener> {
    listen_with(path, Type::SEQPACKET, 64)
}

/// A listener of this type with a queue of this length.
pub fn listen_with(path: &Path, kind: Type, backlog: i32) -> Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// A SOCK_SEQPACKET connection. Reads and writes are messages.
pub fn connect_for_messages(path: &Path) -> Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    patient(socket.into())
}

/// The next message.
pub fn message(stream: &mut UnixStream) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 1 << 20];
    let length = stream.read(&mut bytes).at("a message")?;
    bytes.truncate(length);
    Ok(bytes)
}
