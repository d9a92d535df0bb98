//! `cargo xtask bench vsock`: the socket device against a plain unix stream socket between the same programs.
//!
//! The guest is this process, which drives the rings; the host's programs are processes of their own, the same for the
//! plain socket and for the device.

use std::env;
use std::fs;
use std::io::{IoSliceMut, Read, Write};
use std::ops::AddAssign;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use vhost_device_testkit::bench::{Spread, eventfd_round_trips, idle};
use vhost_device_testkit::failure::{At, Result};
use vhost_device_testkit::memory::Place;
use vhost_device_testkit::process::{Daemon, Launch, TempDir};
use vhost_device_testkit::session::Options;
use vhost_device_testkit::stats::Stats;
use vhost_device_testkit::table::Table;
use vhost_device_testkit::{ensure, fail, sys};

use self::program::{Program, Role};
use self::support::guest::{Guest, Id, State};
use self::support::link::{Buffers, LONGEST, PATIENCE, TX};
use self::support::packet::{HEADER, HOST, RW, STREAM};

mod pairs;
mod program;
#[path = "../../tests/support/mod.rs"]
mod support;

const CID: u64 = 3;
const PORT: u32 = 1234;

/// Sizes of the writes.
const SIZES: [usize; 3] = [64 << 10, 4096, 64];

/// A Linux guest's receive buffers: one descriptor for a header and 4 KiB.
const RECEIVE: u32 = HEADER as u32 + 4096;

/// Packets to the device between two kicks.
const BATCH: usize = 16;

/// Connections that are opened and closed at a time.
const ABREAST: usize = 32;

/// Idle connections.
const IDLE: usize = 1000;

/// Round trips made for a row of percentiles.
const ROUND_TRIPS: usize = 20_000;

/// Parts that everything is measured in, in turn, with processes of its own each: where they run is luck.
const PARTS: u32 = 16;

/// Length of each measurement in seconds, unless another is given.
const SECONDS: u64 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [program::VERB, role, size] => program::serve(role, size),
        ["--seconds", seconds, "--confinement", pairs, ..] => {
            number(seconds).and_then(|seconds| pairs::confinement(number(pairs)?, time(seconds)))
        }
        ["--seconds", seconds, "--counting", pairs, uncounted, ..] => number(seconds)
            .and_then(|seconds| pairs::counting(number(pairs)?, time(seconds), uncounted)),
        ["--seconds", seconds, ..] => number(seconds).and_then(|seconds| run(time(seconds))),
        _ => run(time(SECONDS)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> Result<u64> {
    text.parse().at(format!("{text:?}"))
}

fn time(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Prints all figures, each measured for this time.
fn run(time: Duration) -> Result<()> {
    println!(
        "load average: {}",
        fs::read_to_string("/proc/loadavg")?.trim()
    );
    throughput(time)?;
    println!();
    latency()?;
    println!();
    churn(time)?;
    println!();
    idleness(time)
}

/// How the daemon is run.
#[derive(Clone, Copy)]
struct Way<'a> {
    name: &'a str,
    /// The binary.
    daemon: &'a str,
    arguments: &'a [&'a str],
}

const BY_DEFAULT: Way<'static> = Way {
    name: "by default",
    daemon: env!("CARGO_BIN_EXE_vhost-device-vsock"),
    arguments: &[],
};

/// The daemon, a program's listener at [`PORT`], and the guest.
struct Rig {
    guest: Guest,
    listener: UnixListener,
    daemon: Daemon,
    /// Where the sockets of the host's programs are.
    _folder: TempDir,
}

impl Rig {
    fn new(way: Way<'_>) -> Result<Self> {
        let folder = TempDir::new()?;
        let path = folder.path().join("v");
        let text = path.to_string_lossy();
        let line = [&["--uds-path", &text], way.arguments].concat();
        let daemon = Launch::new(way.daemon.into())?.arguments(line).start()?;
        let listener = UnixListener::bind(format!("{text}_{PORT}"))?;
        let options = Options {
            places: vec![Place::new(0x10_0000, 24 << 20)],
            ..Options::usual(3)
        };
        let buffers = Buffers::of(256, RECEIVE);
        let mut guest = Guest::with(daemon.socket(), CID, &options, &buffers)?;
        guest.link.copies = false;
        Ok(Self {
            guest,
            listener,
            daemon,
            _folder: folder,
        })
    }

    fn called(&mut self) -> Result<(UnixStream, Id)> {
        let id = self.guest.connect(PORT)?;
        Ok((self.listener.accept()?.0, id))
    }

    fn finish(mut self) -> Result<()> {
        drop(self.guest);
        self.daemon.finish()
    }
}

/// What went through, how fast, and what was spent on it by the daemon, or by this process without one.
#[derive(Default)]
struct Flow {
    bytes: u64,
    elapsed: Duration,
    cpu: Duration,
    packets: u64,
}

impl Flow {
    /// Lets `step` count bytes and packets for this time. Returns what it counted, and what the daemon spent on it.
    fn measure(
        rig: &mut Rig,
        time: Duration,
        mut step: impl FnMut(&mut Guest, &mut Self) -> Result<()>,
    ) -> Result<Self> {
        let mut flow = Self::default();
        let before = rig.daemon.stats()?;
        let start = Instant::now();
        while start.elapsed() < time {
            for _ in 0..64 {
                step(&mut rig.guest, &mut flow)?;
            }
        }
        rig.guest.link.all_sent()?;
        flow.elapsed = start.elapsed();
        flow.cpu = rig.daemon.stats()?.run_time.saturating_sub(before.run_time);
        Ok(flow)
    }

    fn rate(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds of processor time for each MiB.
    fn cost(&self) -> f64 {
        self.cpu.as_secs_f64() * MICROS_PER_MIB / self.bytes.max(1) as f64
    }

    fn row(&self, table: &mut Table, name: &str, size: usize, plain: &Plain) {
        let mb = |rate: f64| format!("{:.0}", rate / 1e6);
        let micros = self.cpu.as_secs_f64() * 1e6 / self.packets.max(1) as f64;
        let (whole, scattered) = (plain.whole.rate(), plain.pages.rate());
        table.row([
            format!("{name}, writes of {size}"),
            mb(self.rate()),
            mb(whole),
            format!("{:.2}", self.rate() / whole),
            format!("{:.2}", self.rate() / scattered),
            format!("{:.0}", self.bytes as f64 / self.packets.max(1) as f64),
            format!("{micros:.2}"),
            format!("{:.0}", self.cost()),
            format!("{:.0}", plain.pages.cost()),
        ]);
    }
}

impl AddAssign for Flow {
    fn add_assign(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.elapsed += more.elapsed;
        self.cpu += more.cpu;
        self.packets += more.packets;
    }
}

fn throughput(time: Duration) -> Result<()> {
    let mut table = Table::new(&[
        "streams",
        "MB/s",
        "plain socket",
        "ratio",
        "of readv over 16 pages",
        "bytes/packet",
        "CPU us/packet",
        "us/MiB",
        "plain readv",
    ]);
    for size in SIZES {
        let (mut there, mut back) = (Flow::default(), Flow::default());
        let mut plain = Plain::default();
        // the machine's speed drifts, and where programs run is luck: all are measured in turn
        for _ in 0..PARTS {
            plain.measure(size, time / PARTS)?;
            there += to_host(BY_DEFAULT, time / PARTS, size)?;
            back += to_guest(BY_DEFAULT, time / PARTS, size)?;
        }
        there.row(&mut table, "to the host", size, &plain);
        back.row(&mut table, "to the guest", size, &plain);
    }
    table.print();
    Ok(())
}

const MICROS_PER_MIB: f64 = 1e6 * 1048576.0;

/// A stream socket between two processes, and what its reader spends.
#[derive(Default)]
struct Plain {
    /// Read in one piece of 64 KiB.
    whole: Flow,
    /// Read by `readv` into 16 pages.
    pages: Flow,
}

impl Plain {
    /// Each for half of this time.
    fn measure(&mut self, size: usize, time: Duration) -> Result<()> {
        let mut buffer = vec![0; LONGEST];
        self.whole += drain(size, time / 2, |stream| stream.read(&mut buffer))?;
        let mut pages = vec![[0; 4096]; 16];
        self.pages += drain(size, time / 2, |stream| {
            let mut slices: Vec<_> = pages.iter_mut().map(|page| IoSliceMut::new(page)).collect();
            stream.read_vectored(&mut slices)
        })?;
        Ok(())
    }
}

fn drain(
    size: usize,
    duration: Duration,
    mut read: impl FnMut(&mut UnixStream) -> std::io::Result<usize>,
) -> Result<Flow> {
    let (mut stream, end) = UnixStream::pair()?;
    let program = Program::start(Role::Source, size, end)?;
    let (start, spent) = (Instant::now(), own_time()?);
    let mut flow = Flow::default();
    while start.elapsed() < duration {
        for _ in 0..64 {
            flow.bytes += read(&mut stream)? as u64;
        }
    }
    flow.elapsed = start.elapsed();
    flow.cpu = own_time()? - spent;
    drop(stream);
    program.end()?;
    Ok(flow)
}

/// Processor time of this process so far.
fn own_time() -> Result<Duration> {
    Ok(Stats::of_tasks(std::process::id() as sys::Pid)?.run_time)
}

/// The guest sends packets of this size as fast as credit and ring allow; a program reads.
fn to_host(way: Way<'_>, time: Duration, size: usize) -> Result<Flow> {
    let mut rig = Rig::new(way)?;
    rig.guest
        .link
        .make_places(if size > 4096 { 32 } else { 120 }, size);
    let (stream, id) = rig.called()?;
    let program = Program::start(Role::Sink, LONGEST, stream)?;
    let flow = Flow::measure(&mut rig, time, |guest, flow| {
        send_batch(guest, id, size, flow)
    })?;
    rig.guest.close(id)?;
    program.end()?;
    rig.finish()?;
    Ok(flow)
}

/// As many packets as there is room for, at most [`BATCH`], and one kick, as Linux's sender does.
fn send_batch(guest: &mut Guest, id: Id, size: usize, flow: &mut Flow) -> Result<()> {
    guest.credit(id, size as u32)?;
    let mut header = guest.header(id, RW);
    header.len = size as u32;
    let room = guest.connection(id)?.credit() as usize / size;
    let mut sent = 0;
    while sent < room.min(BATCH) && guest.link.has_slot()? {
        guest.link.post(&header)?;
        sent += 1;
    }
    guest.link.kick()?;
    if sent == 0 {
        // all places are taken: the device has to give one back
        let ring = &mut guest.link.session.rings[TX];
        ring.arm();
        if ring.used_index() == ring.next_used() && sys::readable(&ring.call, PATIENCE)? {
            ring.call.read()?;
        }
    }
    let bytes = (sent * size) as u64;
    let connection = guest.connection(id)?;
    connection.tx_cnt = connection.tx_cnt.wrapping_add(bytes as u32);
    flow.bytes += bytes;
    flow.packets += sent as u64;
    Ok(())
}

/// A program writes; the guest takes what comes.
fn to_guest(way: Way<'_>, time: Duration, size: usize) -> Result<Flow> {
    let mut rig = Rig::new(way)?;
    let (stream, id) = rig.called()?;
    let program = Program::start(Role::Source, size, stream)?;
    let flow = Flow::measure(&mut rig, time, |guest, flow| {
        flow.packets += guest.pump()? as u64;
        let unread = guest.connection(id)?.unread;
        if unread == 0 {
            guest.sleep(PATIENCE)?;
        }
        guest.consume(id, unread)?;
        flow.bytes += u64::from(unread);
        Ok(())
    })?;
    rig.guest.close(id)?;
    program.end()?;
    rig.finish()?;
    Ok(flow)
}

fn latency() -> Result<()> {
    let ways: [(&str, &[&str], bool); 3] = [
        ("guest sleeps", &[], false),
        ("guest sleeps, --poll-us 50", &["--poll-us", "50"], false),
        ("guest polls, --poll-us 50", &["--poll-us", "50"], true),
    ];
    let mut floor = Spread::default();
    let mut spreads = ways.map(|_| Spread::default());
    // as with streams
    for _ in 0..PARTS {
        let count = ROUND_TRIPS / PARTS as usize;
        floor.add(eventfd_round_trips(count)?);
        for ((_, arguments, polls), spread) in ways.iter().zip(&mut spreads) {
            spread.add(echoes(arguments, *polls, count)?);
        }
    }
    let mut table = Table::new(&["round trips, 64 bytes", "p50 us", "p99 us"]);
    let mut row = |name: &str, spread: &Spread, many: u32| {
        let us = |percent| (spread.percentile(percent) * many).as_secs_f64() * 1e6;
        table.row([
            name.to_owned(),
            format!("{:.1}", us(50)),
            format!("{:.1}", us(99)),
        ]);
    };
    row("one eventfd ping-pong", &floor, 1);
    row("two of them", &floor, 2);
    for ((name, ..), spread) in ways.iter().zip(&spreads) {
        row(name, spread, 1);
    }
    table.print();
    Ok(())
}

/// A program sends back what the guest sends, through a daemon with these arguments.
fn echoes(arguments: &[&str], polls: bool, count: usize) -> Result<Spread> {
    let mut rig = Rig::new(Way {
        arguments,
        ..BY_DEFAULT
    })?;
    let (stream, id) = rig.called()?;
    let program = Program::start(Role::Echo, 64, stream)?;
    let spread = round_trips(&mut rig.guest, id, polls, count)?;
    rig.guest.close(id)?;
    program.end()?;
    rig.finish()?;
    Ok(spread)
}

fn round_trips(guest: &mut Guest, id: Id, polls: bool, count: usize) -> Result<Spread> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        guest.write(id, &[1; 64])?;
        let mut left = 64u32;
        while left > 0 {
            guest.pump()?;
            let unread = guest.connection(id)?.unread;
            if unread == 0 && !polls {
                guest.sleep(PATIENCE)?;
            }
            ensure!(unread <= left, "{unread} bytes came back");
            guest.consume(id, unread)?;
            left -= unread;
        }
        times.push(start.elapsed());
    }
    Ok(Spread::new(times))
}

/// The guest opens and closes connections to a program that waits for the end of each.
fn churn(time: Duration) -> Result<()> {
    let mut rig = Rig::new(BY_DEFAULT)?;
    let listener = rig.listener.try_clone()?;
    // it ends with the listener's last connection, which has something to say
    let program = thread::spawn(move || -> std::io::Result<()> {
        loop {
            let (mut stream, _) = listener.accept()?;
            let mut word = [0; 1];
            if stream.read(&mut word)? > 0 {
                return Ok(());
            }
        }
    });
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < time {
        let ids = (0..ABREAST)
            .map(|_| rig.guest.begin(HOST, PORT, STREAM))
            .collect::<Result<Vec<_>>>()?;
        for id in &ids {
            let state = rig.guest.settled(*id)?;
            ensure!(state == State::Established, "a connection was refused");
            rig.guest.shut_down(*id, 3)?;
        }
        for id in &ids {
            rig.guest.ended(*id)?;
            rig.guest.connections.remove(id);
        }
        count += ABREAST;
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    let id = rig.guest.connect(PORT)?;
    rig.guest.write(id, b"!")?;
    match program.join() {
        Ok(ended) => ended.at("the program that accepts")?,
        Err(_) => fail!("the program that accepts panicked"),
    }
    println!("connections opened and closed a second, {ABREAST} abreast: {rate:.0}");
    rig.finish()
}

fn idleness(time: Duration) -> Result<()> {
    let mut table = Table::new(&["idle", "wake-ups/s", "threads", "own memory KiB", "more"]);
    let mut rig = Rig::new(BY_DEFAULT)?;
    let (mut stream, id) = rig.called()?;
    carry(&mut rig.guest, &mut stream, id)?;
    let mut streams = vec![stream];
    let alone = rig.daemon.stats()?.anonymous_kib;
    for connections in [1, IDLE] {
        while streams.len() < connections {
            let (mut stream, id) = rig.called()?;
            carry(&mut rig.guest, &mut stream, id)?;
            streams.push(stream);
        }
        let figures = idle(&rig.daemon, time)?;
        let own = rig.daemon.stats()?.anonymous_kib;
        table.row([
            format!("{connections} connections"),
            format!("{:.1}", figures.wakeups),
            figures.threads.to_string(),
            own.to_string(),
            own.saturating_sub(alone).to_string(),
        ]);
    }
    table.print();
    drop(streams);
    rig.finish()
}

/// Some bytes both ways, so that whatever is made on use was made.
fn carry(guest: &mut Guest, stream: &mut UnixStream, id: Id) -> Result<()> {
    guest.write(id, &[1; 1000])?;
    let mut bytes = [0; 1000];
    stream.read_exact(&mut bytes)?;
    stream.write_all(&bytes)?;
    guest.wait("the bytes", |guest| {
        (guest.connections.get(&id)?.unread == 1000).then_some(())
    })?;
    guest.consume(id, 1000)
}
