//! The host's programs around a socket device: they answer the guest, and look into it when it asks for that.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket};

use super::{Programs, patient};
use crate::process::bounded;

/// The daemon's arguments: see [`super::super::Job`] for the placeholder.
pub const ARGUMENTS: &str = "--uds-path {folder}/vm.vsock";

const SOCKET: &str = "vm.vsock";

/// Reads to the end and sends it all back.
const ANSWERS: u32 = 1000;
/// Takes an order in a line, carries it out and tells how it went.
const INSPECTS: u32 = 1001;
/// Reads a little of what comes and dies.
const DIES: u32 = 1002;
/// Sends each message back with its length in front.
const COUNTS: u32 = 1003;

/// Streams that an inspection opens at the same time.
const ABREAST: u8 = 20;
const LENGTH: usize = 100_000;

/// Starts all of them.
pub fn start(folder: &Path) -> Result<Programs> {
    let path = folder.join(SOCKET);
    let mut programs = Programs::default();
    programs.serve(super::listen(&port(&path, ANSWERS))?, answer)?;
    programs.serve(super::listen(&port(&path, DIES))?, die)?;
    programs.serve(messages(&port(&path, COUNTS))?, count)?;
    programs.serve(super::listen(&port(&path, INSPECTS))?, move |stream| {
        inspect(stream, &path)
    })?;
    Ok(programs)
}

fn port(path: &Path, port: u32) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(format!("_{port}"));
    path.into()
}

/// Listens for messages (SOCK_SEQPACKET) at a path; a read or write of its streams is a message.
fn messages(path: &Path) -> Result<UnixListener> {
    let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
    bind(&listener, &SocketAddrUnix::new(path)?)?;
    listen(&listener, 16)?;
    Ok(listener.into())
}

fn answer(mut stream: UnixStream) -> Result<()> {
    let mut question = Vec::new();
    stream.read_to_end(&mut question)?;
    stream.write_all(&question)?;
    Ok(())
}

fn die(mut stream: UnixStream) -> Result<()> {
    stream.read_exact(&mut [0; 1000])?;
    Ok(())
}

fn count(mut stream: UnixStream) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let mut message = format!("{length}:").into_bytes();
        message.extend(buffer.iter().take(length));
        stream.write_all(&message)?;
    }
}

fn inspect(stream: UnixStream, path: &Path) -> Result<()> {
    let mut order = String::new();
    BufReader::new(&stream).read_line(&mut order)?;
    let words: Vec<&str> = order.split_whitespace().collect();
    let result = match words.as_slice() {
        ["streams", port] => streams(path, port),
        ["messages", port] => dialogue(path, port),
        ["socat", port] => by_socat(path, port),
        ["handed-over", port] => handed_over(path, port),
        _ => Err(anyhow!("not understood: {order}")),
    };
    let report = match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    writeln!(&stream, "{report}")?;
    Ok(())
}

/// Connects to a port of the guest, as a program does that speaks this style.
fn dial(path: &Path, port: &str) -> Result<UnixStream> {
    let mut stream = patient(UnixStream::connect(path)?)?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let line = greeting(&mut stream)?;
    ensure!(line.starts_with("OK "), "{line:?} came instead of OK");
    Ok(stream)
}

/// The answer's line and not a byte more: what follows it is for whoever gets the stream.
fn greeting(stream: &mut UnixStream) -> Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\n") {
        stream.read_exact(&mut byte).context("no OK")?;
        line.extend(byte);
    }
    Ok(String::from_utf8(line)?)
}

/// Many streams at once, each with bytes of its own, to a port that sends all of them back.
fn streams(path: &Path, port: &str) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..ABREAST)
            .map(|number| scope.spawn(move || there_and_back(path, port, number)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })
}

fn there_and_back(path: &Path, port: &str, number: u8) -> Result<()> {
    let stream = dial(path, port)?;
    let bytes: Vec<u8> = (0..LENGTH).map(|at| (at / 7) as u8 ^ number).collect();
    let seen = thread::scope(|scope| -> Result<Vec<u8>> {
        let writer = scope.spawn(|| -> Result<()> {
            (&stream).write_all(&bytes)?;
            stream.shutdown(Shutdown::Write)?;
            Ok(())
        });
        let mut seen = Vec::new();
        (&stream).read_to_end(&mut seen)?;
        writer
            .join()
            .unwrap_or_else(|_| bail!("a thread panicked"))?;
        Ok(seen)
    })?;
    ensure!(
        seen == bytes,
        "stream {number}: {} of {LENGTH} bytes came back",
        seen.len()
    );
    Ok(())
}

/// Messages, one after the other, to a port that sends them back.
fn dialogue(path: &Path, port: &str) -> Result<()> {
    let mut path = OsString::from(path);
    path.push(".seqpacket");
    let descriptor = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
    connect(&descriptor, &SocketAddrUnix::new(PathBuf::from(path))?)?;
    let mut stream = patient(descriptor.into())?;
    let mut buffer = vec![0; 64 << 10];
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let length = stream.read(&mut buffer)?;
    let answer = buffer.get(..length).unwrap_or_default();
    ensure!(answer.starts_with(b"OK "), "{answer:?} came instead of OK");
    for length in [1usize, 1000, 8000] {
        let message = vec![length as u8; length];
        stream.write_all(&message)?;
        let seen = stream.read(&mut buffer)?;
        ensure!(
            buffer.get(..seen) == Some(&message[..]),
            "{seen} bytes came back of a message of {length}"
        );
    }
    Ok(())
}

/// A program that everybody has, with the line typed by hand.
fn by_socat(path: &Path, port: &str) -> Result<()> {
    let mut child = bounded("socat", super::PATIENCE)
        .args(["-t", "30", "-"])
        .arg(format!("UNIX-CONNECT:{}", path.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start socat")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(format!("CONNECT {port}\nfrom socat\n").as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    let (greeting, rest) = text.split_once('\n').unwrap_or_default();
    ensure!(
        greeting.starts_with("OK ") && rest == "from socat\n",
        "socat wrote {text:?}"
    );
    Ok(())
}

/// As a proxy for ssh does: one program says the line and hands the stream over to another one.
fn handed_over(path: &Path, port: &str) -> Result<()> {
    let mut stream = dial(path, port)?;
    let descriptor = OwnedFd::from(stream.try_clone()?);
    let status = Command::new("echo")
        .arg("from another program")
        .stdout(Stdio::from(descriptor))
        .status()?;
    ensure!(status.success(), "{status}");
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text == "from another program\n", "{text:?} came back");
    Ok(())
}
