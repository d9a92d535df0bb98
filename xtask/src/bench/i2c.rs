//! The I2C adapter on a simulated bus.

use vhost_device_testkit::bench::{Load, Waiting, drive, round_trips};
use vhost_device_testkit::failure::Result;
use vhost_device_testkit::session::Request;

use super::pairs::Typical;
use super::{Bench, idle_table, load_row, load_table};

const NAME: &str = "vhost-device-i2c";
const ARGUMENTS: &[&str] = &["--device-list", "sim0:0x20=regs:0x48=lm75:0x50=24c02"];

const REGISTERS: u16 = 0x20;
const SENSOR: u16 = 0x48;
const MEMORY: u16 = 0x50;

/// Requests that are in flight at the same time.
const DEPTHS: [usize; 2] = [1, 16];

/// Flags of a request.
const FAIL_NEXT: u32 = 1;
const READ: u32 = 2;

/// Prints all figures.
pub fn run(bench: &Bench) -> Result<()> {
    throughput(bench)?;
    println!();
    idleness(bench)
}

/// What daemons are compared by.
pub fn typical() -> Typical {
    Typical {
        daemon: NAME,
        load: "read 2 bytes of a sensor",
        arguments: ARGUMENTS,
        depth: 16,
        queues: 1,
        before: None,
        request: request(SENSOR, READ, &[], 2),
    }
}

/// One transfer, as the requests of its messages.
fn transfers() -> [(&'static str, Vec<Request>); 4] {
    let register = || request(REGISTERS, FAIL_NEXT, &[0x10], 0);
    [
        (
            "read 2 bytes of a sensor",
            vec![request(SENSOR, READ, &[], 2)],
        ),
        (
            "write a register",
            vec![request(REGISTERS, 0, &[0x10, 1], 0)],
        ),
        (
            "write and read, one group",
            vec![register(), request(REGISTERS, READ, &[], 1)],
        ),
        (
            "read 256 bytes of a memory",
            vec![request(MEMORY, READ, &[], 256)],
        ),
    ]
}

fn request(address: u16, flags: u32, data: &[u8], room: u32) -> Request {
    let mut readable = u32::from(address << 1).to_le_bytes().to_vec();
    readable.extend(flags.to_le_bytes());
    readable.extend(data);
    Request {
        queue: 0,
        readable,
        writable: room + 1,
    }
}

fn throughput(bench: &Bench) -> Result<()> {
    let mut table = load_table("transfer");
    let mut daemon = bench.start(NAME, ARGUMENTS)?;
    for (name, requests) in transfers() {
        for depth in DEPTHS {
            let mut session = bench.connect(&daemon, 1)?;
            let load = Load {
                requests: vec![requests.clone(); depth].concat(),
                waiting: Waiting::Polling,
                duration: bench.duration,
            };
            let figures = drive(&mut session, &daemon, 0, &load)?;
            load_row(&mut table, name, depth, requests.len(), &figures);
        }
    }
    table.print();
    daemon.finish()
}

fn idleness(bench: &Bench) -> Result<()> {
    let mut table = idle_table();
    let mut daemon = bench.start(NAME, ARGUMENTS)?;
    let mut session = bench.connect(&daemon, 1)?;
    let probe = request(SENSOR, READ, &[], 2);
    round_trips(&mut session, 0, &probe, 1, Waiting::Sleeping)?;
    bench.idle_row(&mut table, "one frontend, no requests", &daemon)?;
    table.print();
    drop(session);
    daemon.finish()
}
