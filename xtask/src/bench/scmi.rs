//! The SCMI device on simulated sensors: readings, what discovery costs, and what notifications that are on cost.

use vhost_device_testkit::bench::{Load, Waiting, drive, round_trips};
use vhost_device_testkit::ensure;
use vhost_device_testkit::failure::Result;
use vhost_device_testkit::framing::Framing;
use vhost_device_testkit::session::{Request, Session};

use super::pairs::Typical;
use super::{
    Bench, ROUND_TRIPS, idle_table, load_row, load_table, round_trip_row, round_trip_table,
};

const NAME: &str = "vhost-device-scmi";

const SENSOR: u32 = 0x15;
const DESCRIPTION_GET: u32 = 3;
const READING_GET: u32 = 6;
const CONTINUOUS_UPDATE_NOTIFY: u32 = 0xb;
/// Room for payloads that Linux has.
const ROOM: u32 = 128;

const CONSTANT: &str = "sim,name=room,value=21.5";
const CURVE: &str = "sim,name=room,value=sine:21:5:60";
const AXES: &str = "sim,name=motion,type=acceleration,value=0.5+-0.25+9.81";

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
        load: "read a constant",
        arguments: &["-d", CONSTANT],
        depth: 16,
        queues: 2,
        before: None,
        request: command(READING_GET, &[0, 0]),
    }
}

/// A command of the sensor protocol.
fn command(message: u32, parameters: &[u32]) -> Request {
    let mut readable = (message | SENSOR << 10).to_le_bytes().to_vec();
    readable.extend(parameters.iter().flat_map(|word| word.to_le_bytes()));
    Request {
        queue: 0,
        readable,
        writable: 8 + ROOM,
    }
}

fn ask(session: &mut Session, request: &Request) -> Result<()> {
    let pending = session.submit(request, &Framing::whole())?;
    let answer = session.finish(request.queue, &pending)?;
    let status = answer.written().get(4..8);
    ensure!(status == Some(&[0; 4]), "a command was refused: {status:?}");
    Ok(())
}

fn throughput(bench: &Bench) -> Result<()> {
    let mut table = load_table("message");
    let reading = command(READING_GET, &[0, 0]);
    let description = command(DESCRIPTION_GET, &[0]);
    for (name, sensor, request) in [
        ("read a constant", CONSTANT, &reading),
        ("read a sine", CURVE, &reading),
        ("read three axes", AXES, &reading),
        ("describe a sensor", CONSTANT, &description),
    ] {
        let mut daemon = bench.start(NAME, &["-d", sensor])?;
        for depth in [1, 16] {
            let mut session = bench.connect(&daemon, 2)?;
            ask(&mut session, request)?;
            let load = Load::new(request, depth, bench.duration);
            let figures = drive(&mut session, &daemon, 0, &load)?;
            load_row(&mut table, name, depth, 1, &figures);
        }
        daemon.finish()?;
    }
    table.print();
    Ok(())
}

fn latency(bench: &Bench) -> Result<()> {
    let mut table = round_trip_table("round trips, depth 1, the driver sleeps")?;
    let request = command(READING_GET, &[0, 0]);
    let mut daemon = bench.start(NAME, &["-d", CONSTANT])?;
    let mut session = bench.connect(&daemon, 2)?;
    let spread = round_trips(&mut session, 0, &request, ROUND_TRIPS, Waiting::Sleeping)?;
    round_trip_row(&mut table, "read a simulated sensor", &spread);
    drop(session);
    daemon.finish()?;
    table.print();
    Ok(())
}

fn idleness(bench: &Bench) -> Result<()> {
    let mut table = idle_table();
    for (name, is_told) in [
        ("64 sensors", false),
        ("64 sensors, one told of each second", true),
    ] {
        let entries: Vec<String> = (0..64)
            .map(|number| format!("sim,name=s{number},value=21.5"))
            .collect();
        let arguments: Vec<&str> = entries.iter().flat_map(|one| ["-d", one]).collect();
        let mut daemon = bench.start(NAME, &arguments)?;
        let mut session = bench.connect(&daemon, 2)?;
        if is_told {
            ask(&mut session, &command(CONTINUOUS_UPDATE_NOTIFY, &[0, 1]))?;
        }
        bench.idle_row(&mut table, name, &daemon)?;
        drop(session);
        daemon.finish()?;
    }
    table.print();
    Ok(())
}
