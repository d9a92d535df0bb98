//! What something costs that the daemon does: the flows with it and without, in turn part by part, in so many pairs.

use std::time::Duration;

use vhost_device_testkit::bench::Quartiles;
use vhost_device_testkit::failure::Result;
use vhost_device_testkit::table::Table;

use crate::{BY_DEFAULT, Flow, PARTS, Way, to_guest, to_host};

/// Size of the writes.
const SIZE: usize = 4096;

/// What confinement costs.
pub fn confinement(pairs: u64, time: Duration) -> Result<()> {
    let unconfined = Way {
        name: "unconfined",
        arguments: &["--sandbox", "none", "--seccomp", "none"],
        ..BY_DEFAULT
    };
    compare(pairs, time, unconfined)
}

/// What counting costs; `uncounted` is the path of a daemon that does not.
pub fn counting(pairs: u64, time: Duration, uncounted: &str) -> Result<()> {
    let uncounted = Way {
        name: "uncounted",
        daemon: uncounted,
        ..BY_DEFAULT
    };
    compare(pairs, time, uncounted)
}

fn compare(pairs: u64, time: Duration, without: Way<'_>) -> Result<()> {
    let mut table = Table::new(&[
        "flow",
        "compared",
        "MB/s, ratio",
        "quartiles",
        "CPU us/MiB, ratio",
        "quartiles",
    ]);
    let rows: [(&str, Direction, Way<'_>); 3] = [
        ("to the host", to_host, without),
        ("to the guest", to_guest, without),
        // how far two that do the same are apart
        ("to the host", to_host, BY_DEFAULT),
    ];
    for (name, direction, without) in rows {
        let (mut rates, mut costs) = (Vec::new(), Vec::new());
        for _ in 0..pairs {
            let [with, without] = pair(direction, [BY_DEFAULT, without], time / PARTS)?;
            rates.push(with.rate() / without.rate());
            costs.push(with.cost() / without.cost());
        }
        let [rate, cost] = [rates, costs].map(Quartiles::of);
        table.row([
            format!("vhost-device-vsock, {name}, writes of {SIZE}"),
            format!("{} : {}", BY_DEFAULT.name, without.name),
            format!("{:.4}", rate.median),
            rate.spread(),
            format!("{:.4}", cost.median),
            cost.spread(),
        ]);
    }
    table.print();
    Ok(())
}

/// A flow by a daemon that is run in this way, for this time, in writes of this size.
type Direction = fn(Way<'_>, Duration, usize) -> Result<Flow>;

fn pair(direction: Direction, [with, without]: [Way<'_>; 2], time: Duration) -> Result<[Flow; 2]> {
    let mut pair = [Flow::default(), Flow::default()];
    for _ in 0..PARTS / 2 {
        pair[0] += direction(with, time, SIZE)?;
        pair[1] += direction(without, time, SIZE)?;
        pair[1] += direction(without, time, SIZE)?;
        pair[0] += direction(with, time, SIZE)?;
    }
    Ok(pair)
}
