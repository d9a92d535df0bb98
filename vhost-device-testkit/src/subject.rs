//! The device under test, as far as the catalogue has to know it.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::failure::Result;
use crate::framing::Answer;
use crate::process::Daemon;
use crate::session::Request;

/// A host resource that hangs.
#[derive(Debug)]
pub struct StuckHost {
    /// The daemon's arguments, besides the socket.
    pub arguments: Vec<String>,
    /// The ends of the resource that have to stay open meanwhile.
    pub held: Vec<File>,
}

/// One device. The catalogue knows of a device only what is said here.
///
/// A device that answers requests describes one in [`Subject::probe`] and judges answers in [`Subject::judge`]. A device
/// that fills receive buffers with events of its host describes a buffer there, and makes its host emit one
/// event in [`Subject::stimulate`]. Where a device has no such thing the default says so, and the cases that need it
/// are counted as not applicable.
pub trait Subject: Sync {
    /// The device's short name, such as `rng`.
    fn name(&self) -> &'static str;

    /// The daemon's binary: `env!("CARGO_BIN_EXE_vhost-device-...")`.
    fn binary(&self) -> PathBuf;

    /// Arguments besides the socket, with which the daemon runs on simulated hardware. `dir` is the daemon's
    /// own directory.
    fn arguments(&self, dir: &Path) -> Vec<String>;

    /// Number of queues.
    fn queues(&self) -> usize {
        1
    }

    /// The bytes of the device's configuration structure, exactly; empty without one.
    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The parts of the configuration that the driver may write.
    fn writable_config(&self) -> Vec<Range<u32>> {
        Vec::new()
    }

    /// A correct request.
    fn probe(&self) -> Request;

    /// A correct request whose parts are 1,024 bytes long together, to be framed as 1,024 descriptors.
    fn long_probe(&self) -> Option<Request> {
        None
    }

    /// Whether this answer is right for this well-framed request, which may carry an odd header.
    ///
    /// # Errors
    /// What is wrong with it.
    fn judge(&self, request: &Request, answer: &Answer) -> Result<()>;

    /// Whether this answer tells the guest that its request failed; used length 0 always does.
    fn is_failure(&self, _request: &Request, _answer: &Answer) -> bool {
        false
    }

    /// The least number of writable bytes that a request needs, header and status included.
    fn least_writable(&self) -> u32 {
        1
    }

    /// The fields of the readable header, as ranges of bytes; empty when requests carry no header.
    fn header_fields(&self) -> Vec<Range<usize>> {
        Vec::new()
    }

    /// Whether two fresh daemons give the same answers to the same requests.
    fn is_repeatable(&self) -> bool {
        true
    }

    /// Makes the host emit one event, for a device whose probe is a receive buffer.
    ///
    /// # Errors
    /// When the simulated host cannot be reached.
    fn stimulate(&self, _daemon: &Daemon) -> Result<()> {
        Ok(())
    }

    /// Whether [`Subject::stimulate`] is what answers a probe: the device fills receive buffers.
    fn is_event_driven(&self) -> bool {
        false
    }

    /// A request that is valid on one of the device's queues, put on another one, where it must fail.
    fn wrong_queue(&self) -> Option<Request> {
        None
    }

    /// Arguments with which the probe is accepted and never answered, because the host resource hangs.
    ///
    /// # Errors
    /// When the hanging resource cannot be made.
    fn stuck_host(&self, _dir: &Path) -> Result<Option<StuckHost>> {
        Ok(None)
    }

    /// Most threads of an idle daemon with a frontend connected.
    fn idle_threads(&self) -> usize {
        2
    }

    /// Whether a daemon with `--socket-count 2` has two devices made from the same options.
    fn has_twins(&self) -> bool {
        true
    }

    /// Whether the daemon also leaves its socket path with an appended `0`.
    fn has_index_alias(&self) -> bool {
        false
    }
}
