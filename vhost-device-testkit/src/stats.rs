//! What the kernel says about a process: descriptors, threads, memory, time and context switches.

use std::fs;
use std::io;
use std::time::Duration;

use crate::sys::Pid;

/// A snapshot of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Resident memory in KiB, guest memory included.
    pub resident_kib: u64,
    /// Resident memory of its own (anonymous) in KiB, guest memory not included.
    pub anonymous_kib: u64,
    /// Largest size of the address space so far, in KiB.
    pub peak_virtual_kib: u64,
    /// Mappings of memory that this kit has handed over.
    pub guest_mappings: usize,
    /// Time on a processor, of all threads that are alive.
    pub run_time: Duration,
    /// Times that one of its threads went to sleep: the wake-ups.
    pub voluntary: u64,
    /// Times that one of its threads was pushed off its processor.
    pub involuntary: u64,
}

impl Stats {
    /// Looks at the process now.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(pid: Pid) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mut stats = Self {
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))
                .map_err(explain)?
                .count(),
            threads: field(&status, "Threads:") as usize,
            resident_kib: field(&status, "VmRSS:"),
            anonymous_kib: field(&status, "RssAnon:"),
            peak_virtual_kib: field(&status, "VmPeak:"),
            guest_mappings: guest_mappings(pid)?,
            ..Self::default()
        };
        stats.add_tasks(pid)?;
        Ok(stats)
    }

    /// Only time and context switches, which is cheaper.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of_tasks(pid: Pid) -> io::Result<Self> {
        let mut stats = Self::default();
        stats.add_tasks(pid)?;
        Ok(stats)
    }

    fn add_tasks(&mut self, pid: Pid) -> io::Result<()> {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path();
            // A thread may end between the listing and the look at it.
            let (Ok(status), Ok(times)) = (
                fs::read_to_string(path.join("status")),
                fs::read_to_string(path.join("schedstat")),
            ) else {
                continue;
            };
            self.voluntary += field(&status, "voluntary_ctxt_switches:");
            self.involuntary += field(&status, "nonvoluntary_ctxt_switches:");
            let nanos = times.split_whitespace().next().unwrap_or("0");
            self.run_time += Duration::from_nanos(nanos.parse().unwrap_or(0));
        }
        Ok(())
    }
}

/// A confined daemon shows what it has open to root only.
fn explain(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => io::Error::new(
            error.kind(),
            format!("{error}; run the tests as root, or by `unshare --map-root-user`"),
        ),
        _ => error,
    }
}

fn field(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|value| value.parse().ok())
        .unwrap_or(0)
}

fn guest_mappings(pid: Pid) -> io::Result<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    Ok(maps
        .lines()
        .filter(|line| line.contains("/memfd:testkit"))
        .count())
}

/// A limit of virtual memory that leaves this process `room` bytes above what it uses now.
///
/// # Errors
/// When the process is gone.
pub fn address_space(pid: Pid, room: u64) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(field(&status, "VmSize:") * 1024 + room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Memory, Place};

    fn own() -> Stats {
        Stats::of(std::process::id() as Pid).unwrap()
    }

    #[test]
    fn our_own_process_has_threads_memory_and_descriptors() {
        let stats = own();
        assert!(stats.descriptors >= 3);
        assert!(stats.threads >= 1);
        assert!(stats.resident_kib > 100 && stats.anonymous_kib > 0);
        assert!(stats.run_time > Duration::ZERO);
    }

    #[test]
    fn guest_memory_is_told_apart_by_its_name() {
        let before = own().guest_mappings;
        let memory = Memory::new(&Place::usual()).unwrap();
        // Other tests map memory at the same time, so only the lower bound is certain.
        assert!(own().guest_mappings >= 2, "{before}");
        drop(memory);
    }
}
