//! What is counted of a device with several queues.

use std::path::Path;

use vhost_device_testkit::counters::counter;
use vhost_device_testkit::ensure;
use vhost_device_testkit::failure::{At, Result};
use vhost_device_testkit::framing::Framing;
use vhost_device_testkit::message::{feature, request};
use vhost_device_testkit::process::Launch;
use vhost_device_testkit::session::{Options, Request, Session};
use vhost_device_testkit::sys;

use crate::levels;

const QUEUES: usize = 2;

/// One request on each queue, so that none begins anew by itself.
fn exchange(session: &mut Session) -> Result<()> {
    for queue in 0..QUEUES {
        let request = Request {
            queue,
            readable: vec![0],
            writable: 1,
        };
        let pending = session.submit(&request, &Framing::whole())?;
        session.finish(queue, &pending)?;
    }
    Ok(())
}

fn stop(session: &Session) -> Result<()> {
    (0..QUEUES).try_for_each(|queue| session.stop_ring(queue).map(drop))
}

/// Sets all queues up as a driver that has just been loaded does, then enables them, in the order of QEMU.
fn begin_anew(session: &mut Session) -> Result<()> {
    for queue in 0..QUEUES {
        session.rings[queue].reset();
        session.start_ring(queue)?;
    }
    (0..QUEUES).try_for_each(|queue| session.enable(queue, true))
}

#[test]
fn a_reset_counts_once_however_many_queues_begin_anew() -> Result<()> {
    let launch = Launch::new(levels())?;
    let (pipe, control) = (launch.dir().join("pipe"), launch.dir().join("control"));
    let _gate = sys::fifo(&pipe)?;
    let mut daemon = launch
        .arguments([Path::new("gate"), Path::new("--host"), &pipe])
        .arguments([Path::new("--control-path"), &control])
        .start()?;
    let resets = |expected: u64| {
        let seen = counter(&control, "vhost_device_resets_total")?;
        ensure!(
            seen == expected,
            "{seen} resets are counted, not {expected}"
        );
        Ok(())
    };
    let mut session = Session::open(daemon.socket(), &Options::usual(QUEUES))?;
    ensure!(
        session.features & feature::PROTOCOL_FEATURES != 0,
        "queues are never disabled"
    );
    exchange(&mut session)?;
    resets(0).at("a device that was not reset")?;

    for queue in 0..QUEUES {
        session.enable(queue, false)?;
    }
    stop(&session)?;
    begin_anew(&mut session)?;
    resets(1).at("a reset that nothing told")?;
    exchange(&mut session)?;

    stop(&session)?;
    session.control.tell(request::RESET_DEVICE, &[], &[])?;
    session.control.set_features(session.features)?;
    begin_anew(&mut session)?;
    resets(2).at("RESET_DEVICE")?;
    exchange(&mut session)?;

    drop(session);
    daemon.finish()
}
