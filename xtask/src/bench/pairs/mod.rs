//! What something costs that daemons do whatever the device is: each daemon runs twice, side by side, with it and without. The
//! machine's speed drifts, so both are measured in turn, and what counts is the ratio of neighbours.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use vhost_device_testkit::bench::{Figures, Load, Quartiles, drive};
use vhost_device_testkit::ensure;
use vhost_device_testkit::failure::{At, Failure, Result};
use vhost_device_testkit::framing::Framing;
use vhost_device_testkit::process::Daemon;
use vhost_device_testkit::session::Request;

use super::table::Table;
use super::{Bench, gpio, i2c, rng, scmi, vsock};

/// Parts of a measurement. How well driver and daemon are in step is luck, and stays as it is for a while; the side that
/// comes first changes with each.
const PARTS: u32 = 8;

/// Requests in flight.
const DEPTH: usize = 16;

/// Between two looks at the counters, and the most that one may take.
const SECOND: Duration = Duration::from_secs(1);

/// A load that stands for a device.
#[derive(Debug)]
pub struct Typical {
    /// The binary.
    pub daemon: &'static str,
    /// What is asked of the device.
    pub load: &'static str,
    /// The daemon's arguments.
    pub arguments: &'static [&'static str],
    /// The device's queues.
    pub queues: usize,
    /// What has to be asked once, before.
    pub before: Option<Request>,
    /// What is asked again and again, on the first queue.
    pub request: Request,
}

/// One of the two that are compared.
#[derive(Clone, Copy, Debug)]
struct Way {
    name: &'static str,
    arguments: &'static [&'static str],
    /// Whether somebody reads the counters every second.
    is_read: bool,
}

const BY_DEFAULT: Way = Way {
    name: "by default",
    arguments: &[],
    is_read: false,
};

const UNCONFINED: Way = Way {
    name: "unconfined",
    arguments: &["--sandbox", "none", "--seccomp", "none"],
    is_read: false,
};

const READ: Way = Way {
    name: "counters read",
    arguments: &[],
    is_read: true,
};

/// What confinement costs, from so many pairs of measurements for each device.
pub fn confinement(bench: &Bench, pairs: u16) -> Result<()> {
    compare(bench, pairs, [BY_DEFAULT, UNCONFINED])?;
    println!();
    vsock::confinement(bench, pairs)
}

/// What it costs that somebody reads the counters, from so many pairs.
pub fn metrics(bench: &Bench, pairs: u16) -> Result<()> {
    compare(bench, pairs, [READ, BY_DEFAULT])
}

fn compare(bench: &Bench, pairs: u16, ways: [Way; 2]) -> Result<()> {
    let [with, without] = ways;
    let mut table = Table::new(&[
        &format!("{} : {}", with.name, without.name),
        "load, depth 16",
        "requests/s",
        "ratio",
        "quartiles",
        "CPU us/request",
        "ratio",
        "quartiles",
    ]);
    for typical in [
        rng::typical(),
        gpio::typical(),
        i2c::typical(),
        scmi::typical(),
    ] {
        let figures = measure(bench, pairs, &typical, ways)?;
        row(&mut table, typical.daemon, typical.load, &figures);
    }
    // how far two that do the same are apart
    let typical = gpio::typical();
    let figures = measure(bench, pairs, &typical, [without; 2])?;
    let name = format!("{0} : {0}, gpio", without.name);
    row(&mut table, &name, typical.load, &figures);
    table.print();
    Ok(())
}

fn row(table: &mut Table, name: &str, load: &str, pairs: &[[Figures; 2]]) {
    let column = |figure: fn(&Figures) -> f64, digits: usize| {
        let [with, without] = [0, 1].map(|side| {
            let one = pairs.iter().map(|pair| figure(&pair[side]));
            Quartiles::of(one.collect()).median
        });
        let ratios = pairs
            .iter()
            .map(|[with, without]| figure(with) / figure(without));
        let ratio = Quartiles::of(ratios.collect());
        [
            format!("{with:.digits$} : {without:.digits$}"),
            format!("{:.4}", ratio.median),
            ratio.spread(),
        ]
    };
    let [rates, rate, rate_spread] = column(Figures::rate, 0);
    let [costs, cost, cost_spread] = column(Figures::cost, 3);
    table.row([
        name.to_owned(),
        load.to_owned(),
        rates,
        rate,
        rate_spread,
        costs,
        cost,
        cost_spread,
    ]);
}

/// Runs a daemon in both ways and measures them in turn, part by part.
fn measure(
    bench: &Bench,
    pairs: u16,
    typical: &Typical,
    ways: [Way; 2],
) -> Result<Vec<[Figures; 2]>> {
    let mut with = Side::start(bench, typical, ways[0])?;
    let mut without = Side::start(bench, typical, ways[1])?;
    let mut measured = Vec::new();
    for _ in 0..pairs {
        let mut pair = [Figures::default(), Figures::default()];
        for part in 0..PARTS {
            if part % 2 == 0 {
                pair[0] += with.measure(bench, typical)?;
                pair[1] += without.measure(bench, typical)?;
            } else {
                pair[1] += without.measure(bench, typical)?;
                pair[0] += with.measure(bench, typical)?;
            }
        }
        measured.push(pair);
    }
    with.daemon.finish()?;
    without.daemon.finish()?;
    Ok(measured)
}

/// A daemon that runs in one of the ways.
struct Side {
    daemon: Daemon,
    /// Where its counters are read.
    counters: Option<PathBuf>,
    /// How long it has been loaded since they were read.
    unread: Duration,
}

impl Side {
    fn start(bench: &Bench, typical: &Typical, way: Way) -> Result<Self> {
        let mut launch = bench.launch(typical.daemon)?;
        launch = launch.arguments(typical.arguments.iter().chain(way.arguments).copied());
        let counters = way.is_read.then(|| launch.dir().join("counters"));
        if let Some(path) = &counters {
            launch = launch.arguments(["--control-path".as_ref(), path.as_os_str()]);
        }
        Ok(Self {
            daemon: launch.start()?,
            counters,
            unread: SECOND,
        })
    }

    /// Loads the daemon over a connection of its own, for a part of the time.
    fn measure(&mut self, bench: &Bench, typical: &Typical) -> Result<Figures> {
        let mut session = bench.connect(&self.daemon, typical.queues)?;
        if let Some(before) = &typical.before {
            let pending = session.submit(before, &Framing::whole())?;
            session.finish(before.queue, &pending)?;
        }
        let load = Load::new(&typical.request, DEPTH, bench.duration / PARTS);
        let Some(path) = self.counters_if_due(load.duration) else {
            return drive(&mut session, &self.daemon, 0, &load);
        };
        thread::scope(|scope| {
            let (stop, stopped) = channel();
            let reader = scope.spawn(move || read_every_second(&path, &stopped));
            let figures = drive(&mut session, &self.daemon, 0, &load);
            drop(stop);
            let read = reader
                .join()
                .map_err(|_| Failure::new("the reader panicked"))?;
            read.at("read the counters")?;
            figures
        })
    }

    /// Where the counters are to be read while the daemon is loaded for this time.
    fn counters_if_due(&mut self, load: Duration) -> Option<PathBuf> {
        let is_due = self.unread >= SECOND;
        self.unread = if is_due { load } else { self.unread + load };
        self.counters.clone().filter(|_| is_due)
    }
}

/// Reads counters now and every second, until the other end of `stopped` is gone.
fn read_every_second(path: &Path, stopped: &Receiver<()>) -> Result<()> {
    loop {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(SECOND))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(text.ends_with("# EOF\n"), "the counters were cut off");
        if stopped.recv_timeout(SECOND) != Err(RecvTimeoutError::Timeout) {
            return Ok(());
        }
    }
}
