//! The entropy device against the machine's own getrandom.

use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_gettime};
use vhost_device_testkit::bench::{Figures, Load, Waiting, drive, round_trips};
use vhost_device_testkit::ensure;
use vhost_device_testkit::failure::Result;
use vhost_device_testkit::process::Daemon;
use vhost_device_testkit::session::Request;

use super::pairs::Typical;
use super::table::Table;
use super::{Bench, ROUND_TRIPS, idle_table, round_trip_row, round_trip_table};

const NAME: &str = "vhost-device-rng";
/// Size of the requests, requests in flight.
const LOADS: [(u32, usize); 5] = [(64, 1), (64, 64), (4096, 16), (4096, 64), (65536, 16)];

/// Parts that a load is driven in.
const PARTS: u32 = 8;

/// Prints all figures.
pub fn run(bench: &Bench) -> Result<()> {
    throughput(bench)?;
    println!();
    latency(bench)?;
    println!();
    idleness(bench)
}

/// What daemons are compared by.
pub fn typical() -> Typical {
    Typical {
        daemon: NAME,
        load: "4096 bytes",
        arguments: &[],
        depth: 16,
        queues: 1,
        before: None,
        request: request(4096),
    }
}

fn request(bytes: u32) -> Request {
    Request {
        queue: 0,
        readable: Vec::new(),
        writable: bytes,
    }
}

fn throughput(bench: &Bench) -> Result<()> {
    let mut table = Table::new(&[
        "requests",
        "depth",
        "requests/s",
        "MB/s",
        "getrandom MB/s",
        "ratio",
        "CPU us/request",
        "of getrandom",
        "requests/kick",
        "times the peer",
    ]);
    let mut daemon = bench.start(NAME, &[])?;
    for (bytes, depth) in LOADS {
        let load = Load::new(&request(bytes), depth, bench.duration);
        let (figures, machine) = in_turn(bench, &daemon, &load, bytes)?;
        let peer = peer(bench, &load)?;
        let (rate, cost) = (machine.rate(), machine.cost());
        table.row([
            format!("{bytes} bytes"),
            depth.to_string(),
            format!("{:.0}", figures.rate()),
            format!("{:.0}", figures.byte_rate() / 1e6),
            format!("{:.0}", rate / 1e6),
            format!("{:.2}", figures.byte_rate() / rate),
            format!("{:.2}", figures.cost()),
            format!("{:.2}", figures.cost() / cost),
            format!("{:.1}", figures.requests_per_kick()),
            format!("{:.2}", figures.rate() / peer.rate()),
        ]);
    }
    table.print();
    daemon.finish()
}

/// The load in parts, each between two measurements of the machine, whose speed drifts.
fn in_turn(bench: &Bench, daemon: &Daemon, load: &Load, bytes: u32) -> Result<(Figures, Machine)> {
    let part = load.duration / PARTS;
    let (mut figures, mut machine) = (Figures::default(), Machine::default());
    let load = Load {
        duration: part,
        ..load.clone()
    };
    for _ in 0..PARTS {
        machine.measure(bytes, load.requests.len(), part / 2)?;
        // A connection of its own for each load: the driver's descriptors are laid out once.
        let mut session = bench.connect(daemon, 1)?;
        figures += drive(&mut session, daemon, 0, &load)?;
        machine.measure(bytes, load.requests.len(), part / 2)?;
    }
    Ok((figures, machine))
}

/// The same load on the same device with the engine of vhost-user-backend.
fn peer(bench: &Bench, load: &Load) -> Result<Figures> {
    let mut daemon = bench.start_peer("peer_rng")?;
    let mut session = bench.connect(&daemon, 1)?;
    let figures = drive(&mut session, &daemon, 0, load)?;
    daemon.trust();
    Ok(figures)
}

fn latency(bench: &Bench) -> Result<()> {
    let mut table = round_trip_table("round trips, 64 bytes, depth 1")?;
    for (name, arguments) in [
        ("driver sleeps", &[][..]),
        ("driver sleeps, --poll-us 50", &["--poll-us", "50"][..]),
    ] {
        let mut daemon = bench.start(NAME, arguments)?;
        let mut session = bench.connect(&daemon, 1)?;
        let spread = round_trips(
            &mut session,
            0,
            &request(64),
            ROUND_TRIPS,
            Waiting::Sleeping,
        )?;
        round_trip_row(&mut table, name, &spread);
        drop(session);
        daemon.finish()?;
    }
    table.print();
    Ok(())
}

fn idleness(bench: &Bench) -> Result<()> {
    let mut table = idle_table();
    let mut daemon = bench.start(NAME, &[])?;
    let mut session = bench.connect(&daemon, 1)?;
    round_trips(&mut session, 0, &request(64), 1, Waiting::Sleeping)?;
    bench.idle_row(&mut table, "one frontend, no requests", &daemon)?;
    table.print();
    drop(session);
    daemon.finish()
}

/// What getrandom does by itself.
#[derive(Default)]
struct Machine {
    requests: f64,
    bytes: f64,
    elapsed: Duration,
    /// Microseconds of processor time.
    cpu: f64,
}

impl Machine {
    /// Measures getrandom in requests of this size, on one processor, into as many buffers in turn as there are requests in
    /// flight: memory that is not in the cache takes longer to fill, here as there.
    fn measure(&mut self, bytes: u32, depth: usize, duration: Duration) -> Result<()> {
        let mut buffers = vec![vec![0u8; bytes as usize]; depth];
        let (start, start_cpu) = (Instant::now(), cpu_time());
        while start.elapsed() < duration {
            for buffer in &mut buffers {
                let filled = getrandom(&mut buffer[..], GetRandomFlags::empty())?;
                ensure!(filled == buffer.len(), "getrandom was interrupted");
            }
            self.requests += depth as f64;
            self.bytes += depth as f64 * f64::from(bytes);
        }
        self.elapsed += start.elapsed();
        self.cpu += cpu_time() - start_cpu;
        Ok(())
    }

    /// Bytes a second.
    fn rate(&self) -> f64 {
        self.bytes / self.elapsed.as_secs_f64()
    }

    /// Microseconds of processor time for each request.
    fn cost(&self) -> f64 {
        self.cpu / self.requests
    }
}

/// Microseconds that this thread has run.
fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
