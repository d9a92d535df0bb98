//! The GPIO device on a simulated chip: reads of a line, and what armed interrupts cost while nothing happens.

use vhost_device_testkit::bench::{Load, Waiting, drive, round_trips};
use vhost_device_testkit::ensure;
use vhost_device_testkit::failure::Result;
use vhost_device_testkit::framing::Framing;
use vhost_device_testkit::session::{Request, Session};

use super::pairs::Typical;
use super::{
    Bench, ROUND_TRIPS, idle_table, load_row, load_table, round_trip_row, round_trip_table,
};

const NAME: &str = "vhost-device-gpio";
/// Lines whose interrupts are armed while the device idles.
const ARMED: u16 = 64;

const SET_DIRECTION: u16 = 3;
const GET_VALUE: u16 = 4;
const SET_VALUE: u16 = 5;
const SET_IRQ_TYPE: u16 = 6;
const OUT: u32 = 1;
const IN: u32 = 2;
const BOTH_EDGES: u32 = 3;

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
        load: "read a line",
        arguments: &["-l", "s8"],
        depth: 16,
        queues: 2,
        before: Some(message(SET_DIRECTION, 0, IN)),
        request: message(GET_VALUE, 0, 0),
    }
}

fn message(kind: u16, line: u16, value: u32) -> Request {
    let mut readable = Vec::new();
    readable.extend(kind.to_le_bytes());
    readable.extend(line.to_le_bytes());
    readable.extend(value.to_le_bytes());
    Request {
        queue: 0,
        readable,
        writable: 2,
    }
}

fn ask(session: &mut Session, request: &Request) -> Result<()> {
    let pending = session.submit(request, &Framing::whole())?;
    let answer = session.finish(request.queue, &pending)?;
    ensure!(
        answer.written().first() == Some(&0),
        "a request was refused"
    );
    Ok(())
}

fn throughput(bench: &Bench) -> Result<()> {
    let mut table = load_table("request");
    let mut daemon = bench.start(NAME, &["-l", "s8"])?;
    for (name, kind) in [("read a line", GET_VALUE), ("set an output", SET_VALUE)] {
        for depth in [1, 16] {
            let mut session = bench.connect(&daemon, 2)?;
            let direction = if kind == SET_VALUE { OUT } else { IN };
            ask(&mut session, &message(SET_DIRECTION, 0, direction))?;
            let load = Load::new(&message(kind, 0, 1), depth, bench.duration);
            let figures = drive(&mut session, &daemon, 0, &load)?;
            load_row(&mut table, name, depth, 1, &figures);
        }
    }
    table.print();
    daemon.finish()
}

fn latency(bench: &Bench) -> Result<()> {
    let mut table = round_trip_table("round trips, depth 1, the driver sleeps")?;
    // an access that takes a microsecond moves the queues to a thread of their own, as for a chip of the host
    for (name, chip) in [
        ("read a line", "s8"),
        ("read a line, queues on their own thread", "s8,delay=1"),
    ] {
        let mut daemon = bench.start(NAME, &["-l", chip])?;
        let mut session = bench.connect(&daemon, 2)?;
        let request = message(GET_VALUE, 0, 0);
        let spread = round_trips(&mut session, 0, &request, ROUND_TRIPS, Waiting::Sleeping)?;
        round_trip_row(&mut table, name, &spread);
        drop(session);
        daemon.finish()?;
    }
    table.print();
    Ok(())
}

fn idleness(bench: &Bench) -> Result<()> {
    let mut table = idle_table();
    let lines = format!("s{ARMED}");
    for armed in [0, ARMED] {
        let mut daemon = bench.start(NAME, &["-l", &lines])?;
        let mut session = bench.connect(&daemon, 2)?;
        for line in 0..armed {
            ask(&mut session, &message(SET_DIRECTION, line, IN))?;
            ask(&mut session, &message(SET_IRQ_TYPE, line, BOTH_EDGES))?;
            let buffer = Request {
                queue: 1,
                readable: line.to_le_bytes().to_vec(),
                writable: 1,
            };
            session.submit(&buffer, &Framing::whole())?;
        }
        bench.idle_row(&mut table, &format!("{armed} armed interrupts"), &daemon)?;
        drop(session);
        daemon.finish()?;
    }
    table.print();
    Ok(())
}
