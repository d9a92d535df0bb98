//! What something costs that daemons do whatever the device is: each daemon runs twice, side by side, with it and without. The
//! machine's speed drifts, so both are measured in turn, and what counts is the ratio of neighbours.

mod side;

use std::path::PathBuf;

use vhost_device_testkit::bench::{Figures, Quartiles};
use vhost_device_testkit::failure::Result;
use vhost_device_testkit::session::Request;

use self::side::Side;
use super::table::Table;
use super::{Bench, gpio, i2c, rng, scmi, vsock};

/// Parts of a measurement. How well driver and daemon are in step is luck, and stays as it is for a while; the side that
/// comes first changes with each.
const PARTS: u32 = 8;

/// A load that stands for a device.
#[derive(Debug)]
pub struct Typical {
    /// The binary.
    pub daemon: &'static str,
    /// What is asked of the device.
    pub load: &'static str,
    /// Requests in flight.
    pub depth: usize,
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
    /// Whether it is a build that counts, as all that are shipped.
    is_counted: bool,
    /// Whether somebody reads the counters every second.
    is_read: bool,
}

impl Way {
    /// Builds the daemon of a load.
    fn build(self, bench: &Bench, typical: &Typical) -> Result<PathBuf> {
        match self.is_counted {
            true => bench.build(typical.daemon),
            false => bench.build_uncounted(typical.daemon),
        }
    }
}

const BY_DEFAULT: Way = Way {
    name: "by default",
    arguments: &[],
    is_counted: true,
    is_read: false,
};

const UNCONFINED: Way = Way {
    name: "unconfined",
    arguments: &["--sandbox", "none", "--seccomp", "none"],
    ..BY_DEFAULT
};

const UNCOUNTED: Way = Way {
    name: "uncounted",
    is_counted: false,
    ..BY_DEFAULT
};

const READ: Way = Way {
    name: "counters read",
    is_read: true,
    ..BY_DEFAULT
};

/// What confinement costs, from so many pairs of measurements for each device.
pub fn confinement(bench: &Bench, pairs: u16) -> Result<()> {
    let ways = [BY_DEFAULT, UNCONFINED];
    let rows = [
        (rng::typical(), ways),
        (gpio::typical(), ways),
        (i2c::typical(), ways),
        (scmi::typical(), ways),
    ];
    compare(bench, pairs, &rows)?;
    println!();
    vsock::confinement(bench, pairs)
}

/// What counting costs, and that somebody reads the counters, from so many pairs.
pub fn metrics(bench: &Bench, pairs: u16) -> Result<()> {
    // a batch costs more than a request: with one in flight each is a batch
    let alone = Typical {
        depth: 1,
        ..gpio::typical()
    };
    let rows = [
        (rng::typical(), [BY_DEFAULT, UNCOUNTED]),
        (gpio::typical(), [BY_DEFAULT, UNCOUNTED]),
        (alone, [BY_DEFAULT, UNCOUNTED]),
        // reading is the same whatever the device
        (gpio::typical(), [READ, BY_DEFAULT]),
    ];
    compare(bench, pairs, &rows)?;
    println!();
    vsock::counting(bench, pairs)
}

fn compare(bench: &Bench, pairs: u16, rows: &[(Typical, [Way; 2])]) -> Result<()> {
    let mut table = Table::new(&[
        "load",
        "depth",
        "compared",
        "requests/s",
        "ratio",
        "quartiles",
        "CPU us/request",
        "ratio",
        "quartiles",
    ]);
    // how far two that do the same are apart
    let alike = (gpio::typical(), [BY_DEFAULT; 2]);
    for (typical, ways) in rows.iter().chain([&alike]) {
        let figures = measure(bench, pairs, typical, *ways)?;
        row(&mut table, typical, *ways, &figures);
    }
    table.print();
    Ok(())
}

fn row(table: &mut Table, typical: &Typical, ways: [Way; 2], pairs: &[[Figures; 2]]) {
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
        format!("{}, {}", typical.daemon, typical.load),
        typical.depth.to_string(),
        ways.map(|way| way.name).join(" : "),
        rates,
        rate,
        rate_spread,
        costs,
        cost,
        cost_spread,
    ]);
}

/// Runs a daemon in both ways and measures them in turn, part by part. Where a daemon's memory lies is luck as well, which is worth
/// a percent or two: each pair has its own.
fn measure(
    bench: &Bench,
    pairs: u16,
    typical: &Typical,
    ways: [Way; 2],
) -> Result<Vec<[Figures; 2]>> {
    let binaries = [
        ways[0].build(bench, typical)?,
        ways[1].build(bench, typical)?,
    ];
    let mut measured = Vec::new();
    for number in 0..u32::from(pairs) {
        let mut with = Side::start(&binaries[0], typical, ways[0])?;
        let mut without = Side::start(&binaries[1], typical, ways[1])?;
        let mut pair = [Figures::default(), Figures::default()];
        for part in 0..PARTS {
            if (number + part) % 2 == 0 {
                pair[0] += with.measure(bench, typical)?;
                pair[1] += without.measure(bench, typical)?;
            } else {
                pair[1] += without.measure(bench, typical)?;
                pair[0] += with.measure(bench, typical)?;
            }
        }
        with.finish()?;
        without.finish()?;
        measured.push(pair);
    }
    Ok(measured)
}
