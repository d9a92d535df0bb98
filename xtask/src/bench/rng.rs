//! The entropy device against the machine's own getrandom.

use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_gettime};
use vhost_device_testkit::bench::{
    Figures, Load, Waiting, drive, eventfd_round_trips, idle, round_trips,
};
use vhost_device_testkit::ensure;
use vhost_device_testkit::failure::Result;
use vhost_device_testkit::process::Daemon;
use vhost_device_testkit::session::Request;

use super::Bench;
use super::table::Table;

const NAME: &str = "vhost-device-rng";
const ROUND_TRIPS: usize = 20_000;

/// Size of the requests, requests in flight.
const LOADS: [(u32, usize); 5] = [(64, 1), (64, 64), (4096, 16), (4096, 64), (65536, 16)];

/// Prints all figures.
pub fn run(bench: &Bench) -> Result<()> {
    throughput(bench)?;
    println!();
    latency(bench)?;
    println!();
    idleness(bench)
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
    let daemon = bench.start(NAME, &[])?;
    for (bytes, depth) in LOADS {
        // A connection of its own for each load: the driver's descriptors are laid out once.
        let mut session = bench.connect(&daemon, 1)?;
        let load = Load::new(&request(bytes), depth, bench.duration);
        // The machine's speed drifts: measured before and after.
        let before = machine(bytes, bench.duration / 2)?;
        let figures = drive(&mut session, &daemon, 0, &load)?;
        let after = machine(bytes, bench.duration / 2)?;
        let peer = peer(bench, &load)?;
        let rate = before.rate.midpoint(after.rate);
        let cost = before.cost.midpoint(after.cost);
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
    finish(daemon)
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
    let mut table = Table::new(&["round trips, 64 bytes, depth 1", "p50 us", "p99 us"]);
    let mut row = |name: &str, p50: Duration, p99: Duration| {
        let us = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6);
        table.row([name.to_owned(), us(p50), us(p99)]);
    };
    let floor = eventfd_round_trips(ROUND_TRIPS)?;
    row(
        "two eventfd wake-ups (the machine)",
        floor.percentile(50),
        floor.percentile(99),
    );
    for (name, arguments) in [
        ("driver sleeps", &[][..]),
        ("driver sleeps, --poll-us 50", &["--poll-us", "50"][..]),
    ] {
        let daemon = bench.start(NAME, arguments)?;
        let mut session = bench.connect(&daemon, 1)?;
        let spread = round_trips(
            &mut session,
            0,
            &request(64),
            ROUND_TRIPS,
            Waiting::Sleeping,
        )?;
        row(name, spread.percentile(50), spread.percentile(99));
        drop(session);
        finish(daemon)?;
    }
    table.print();
    Ok(())
}

fn idleness(bench: &Bench) -> Result<()> {
    let mut table = Table::new(&["idle", "wake-ups/s", "threads", "RSS MiB"]);
    let daemon = bench.start(NAME, &[])?;
    let mut session = bench.connect(&daemon, 1)?;
    round_trips(&mut session, 0, &request(64), 1, Waiting::Sleeping)?;
    let figures = idle(&daemon, bench.duration)?;
    table.row([
        "one frontend, no requests".to_owned(),
        format!("{:.1}", figures.wakeups),
        figures.threads.to_string(),
        format!("{:.2}", figures.resident_kib as f64 / 1024.0),
    ]);
    table.print();
    drop(session);
    finish(daemon)
}

/// What getrandom does by itself.
struct Machine {
    /// Bytes a second.
    rate: f64,
    /// Microseconds of processor time for each request.
    cost: f64,
}

/// Measures getrandom in requests of this size, on one processor.
fn machine(bytes: u32, duration: Duration) -> Result<Machine> {
    let mut buffer = vec![0u8; bytes as usize];
    let (start, start_cpu) = (Instant::now(), cpu_time());
    let mut requests = 0u32;
    while start.elapsed() < duration {
        for _ in 0..16 {
            let filled = getrandom(&mut buffer[..], GetRandomFlags::empty())?;
            ensure!(filled == buffer.len(), "getrandom was interrupted");
            requests += 1;
        }
    }
    Ok(Machine {
        rate: f64::from(requests) * f64::from(bytes) / start.elapsed().as_secs_f64(),
        cost: (cpu_time() - start_cpu) / f64::from(requests),
    })
}

/// Microseconds that this thread has run.
fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn finish(mut daemon: Daemon) -> Result<()> {
    daemon.terminate()?.clean()?;
    daemon.trust();
    Ok(())
}
