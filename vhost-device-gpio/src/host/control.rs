//! The outside of a simulated chip: a unix socket on which lines are set and watched while a guest uses them.
//!
//! Text, a command a line, each answered by one line, `ok` with what was asked for or `error` with the reason:
//!
//! | command | answer |
//! |---|---|
//! | `lines` | `ok 8` |
//! | `get LINE` | `ok 1`: the value the line has now |
//! | `set LINE 0` or `1` | `ok`: as an input that no wire drives, the line has this value |
//! | `info LINE` | `ok in 0 rising NAME`: direction, value, detected edges, name if there is one |
//! | `watch` | `ok`, and from now on `event LINE VALUE` for each change |
//! | `unplug`, `plug` | `ok`: the chip is gone, the chip is back |
//!
//! A line is given by number or by name.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use vhost_device_core::pause;

use super::error;
use super::sim::Bank;
use crate::line::Line;

/// Most clients at a time.
const MAX_CLIENTS: usize = 16;

/// Longest command.
const MAX_COMMAND: u64 = 256;

/// How long a watcher may take to accept news. It is forgotten then: whoever changed the line waits for it.
const PATIENCE: Duration = Duration::from_millis(10);

/// After a failed accept: descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Most descriptors that all of this takes: the clients' own, and for each of them a watcher's.
#[cfg_attr(
    not(feature = "daemon"),
    allow(dead_code, reason = "the daemon's sandbox")
)]
pub const DESCRIPTORS: u64 = 2 * MAX_CLIENTS as u64 + 4;

/// The socket, removed when dropped.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    /// Held open: the process may have another root folder when it ends.
    folder: File,
    name: CString,
}

impl Control {
    /// Listens at `path`.
    ///
    /// # Errors
    /// From the operating system. A socket that somebody listens on, or anything but a socket, is not replaced.
    pub fn open(path: &Path) -> io::Result<Self> {
        let name = path.file_name().unwrap_or_default();
        let name = CString::new(name.as_bytes())?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        Ok(Self {
            listener: bind(path)?,
            folder: File::open(folder)?,
            name,
        })
    }

    /// Serves clients on threads of their own.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn begin(&self, bank: &Arc<Bank>) -> io::Result<()> {
        let listener = self.listener.try_clone()?;
        let bank = Arc::downgrade(bank);
        std::thread::Builder::new()
            .name("sim-control".into())
            .stack_size(STACK)
            .spawn(move || accept(&listener, &bank))?;
        Ok(())
    }
}

/// The threads do little.
const STACK: usize = 128 * 1024;

impl Drop for Control {
    fn drop(&mut self) {
        // SAFETY: the folder is open, and the name ends with a zero. Somebody may have removed it already.
        let _ = unsafe { libc::unlinkat(self.folder.as_raw_fd(), self.name.as_ptr(), 0) };
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_dead(path) => {
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        other => other,
    }
}

/// Whether a path is a socket that an earlier process has left behind.
fn is_dead(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).as_ref().is_err_and(refused)
}

fn accept(listener: &UnixListener, bank: &Weak<Bank>) {
    let clients = Arc::new(AtomicUsize::new(0));
    let mut number = 0;
    for stream in listener.incoming() {
        let Ok(stream) = stream.and_then(plain) else {
            pause(PAUSE);
            continue;
        };
        let Some(bank) = bank.upgrade() else {
            return;
        };
        number += 1;
        if clients.fetch_add(1, Ordering::Relaxed) >= MAX_CLIENTS {
            clients.fetch_sub(1, Ordering::Relaxed);
            let _ = (&stream).write_all(b"error too many clients\n");
            continue;
        }
        let leave = Leave(Arc::clone(&clients));
        let client = Client {
            number,
            stream,
            bank,
        };
        // Without a thread the client is hung up on, and the count goes down again.
        let _ = std::thread::Builder::new()
            .name("sim-client".into())
            .stack_size(STACK)
            .spawn(move || {
                let _leave = leave;
                client.serve();
            });
    }
}

/// A connection as a file: read and written by the calls that files have, which each daemon makes anyway.
fn plain(stream: UnixStream) -> io::Result<File> {
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(OwnedFd::from(stream).into())
}

/// Counts a client out.
struct Leave(Arc<AtomicUsize>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection.
struct Client {
    number: u64,
    stream: File,
    bank: Arc<Bank>,
}

impl Client {
    fn serve(self) {
        // A client that leaves in between is no matter.
        let _ = self.try_serve();
        self.bank.unwatch(self.number);
    }

    fn try_serve(&self) -> io::Result<()> {
        let mut input = BufReader::new(&self.stream);
        let mut line = String::new();
        loop {
            line.clear();
            let length = (&mut input).take(MAX_COMMAND).read_line(&mut line)?;
            if length == 0 {
                return Ok(());
            }
            if !line.ends_with('\n') && length as u64 == MAX_COMMAND {
                return self.say("error the command is too long");
            }
            let answer = match Command::read(&line, &self.bank) {
                Ok(Command::Watch) => {
                    let watcher = Watcher::new(self.number, &self.stream)?;
                    self.bank.watch(watcher, || self.say("ok"))?;
                    continue;
                }
                Ok(command) => command.execute(&self.bank),
                Err(reason) => Err(reason.to_owned()),
            };
            match answer {
                Ok(text) if text.is_empty() => self.say("ok")?,
                Ok(text) => self.say(&format!("ok {text}"))?,
                Err(reason) => self.say(&format!("error {reason}"))?,
            }
        }
    }

    fn say(&self, text: &str) -> io::Result<()> {
        (&self.stream).write_all(format!("{text}\n").as_bytes())
    }
}

/// A client that is told of changes.
#[derive(Debug)]
pub struct Watcher {
    client: u64,
    stream: File,
}

impl Watcher {
    fn new(client: u64, stream: &File) -> io::Result<Self> {
        Ok(Self {
            client,
            stream: stream.try_clone()?,
        })
    }

    /// Which client it is.
    pub fn client(&self) -> u64 {
        self.client
    }

    /// Tells of a change. False if the client does not listen any more.
    pub fn tell(&mut self, line: Line, value: bool) -> bool {
        let text = format!("event {line} {}\n", u8::from(value));
        let told = self.stream.write_all(text.as_bytes()).is_ok();
        if !told {
            // Half a line may be on its way: nothing that follows would make sense.
            // SAFETY: no pointers are passed.
            let _ = unsafe { libc::shutdown(self.stream.as_raw_fd(), libc::SHUT_RDWR) };
        }
        told
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Lines,
    Get(Line),
    Set(Line, bool),
    Info(Line),
    Watch,
    Unplug(bool),
}

impl Command {
    fn read(text: &str, bank: &Bank) -> Result<Self, &'static str> {
        let line = |text| find(text, bank).ok_or("there is no such line");
        let words: Vec<&str> = text.split_whitespace().collect();
        Ok(match words.as_slice() {
            ["lines"] => Self::Lines,
            ["get", which] => Self::Get(line(which)?),
            ["set", which, "0"] => Self::Set(line(which)?, false),
            ["set", which, "1"] => Self::Set(line(which)?, true),
            ["info", which] => Self::Info(line(which)?),
            ["watch"] => Self::Watch,
            ["unplug"] => Self::Unplug(true),
            ["plug"] => Self::Unplug(false),
            _ => {
                return Err(
                    "the commands are lines, get LINE, set LINE 0|1, info LINE, watch, unplug, plug",
                );
            }
        })
    }

    fn execute(self, bank: &Bank) -> Result<String, String> {
        let done = match self {
            Self::Lines => Ok(bank.count().to_string()),
            Self::Get(line) => bank.value(line).map(|value| u8::from(value).to_string()),
            Self::Set(line, value) => bank.pull(line, value).map(|()| String::new()),
            Self::Info(line) => describe(bank, line),
            Self::Watch => Err(error(libc::EINVAL)),
            Self::Unplug(unplugged) => {
                bank.unplug(unplugged);
                Ok(String::new())
            }
        };
        done.map_err(|error| error.to_string())
    }
}

fn find(text: &str, bank: &Bank) -> Option<Line> {
    let position = match text.parse::<usize>() {
        Ok(number) if number < bank.count() => number,
        _ => bank.names().iter().position(|name| name == text)?,
    };
    u16::try_from(position).ok().map(Line)
}

fn describe(bank: &Bank, line: Line) -> io::Result<String> {
    let direction = if bank.is_output(line)? { "out" } else { "in" };
    let value = u8::from(bank.value(line)?);
    let edges = bank.detected(line)?;
    let edges = match (edges.rising, edges.falling) {
        (false, false) => "none",
        (true, false) => "rising",
        (false, true) => "falling",
        (true, true) => "both",
    };
    let name = bank.names().get(line.position());
    let name = name.filter(|name| !name.is_empty());
    Ok(match name {
        Some(name) => format!("{direction} {value} {edges} {name}"),
        None => format!("{direction} {value} {edges}"),
    })
}
