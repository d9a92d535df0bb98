//! What strace wrote about one daemon.

use std::collections::{BTreeMap, BTreeSet};

use super::Names;

/// How a daemon's log introduces its tables, behind which are the group, a colon and the names.
const TABLE: &str = " calls ";
/// The module whose log it is.
const MODULE: &str = "vhost_device_daemon::confine::filter:";

/// A daemon's tables, and what it called once its filter was in force.
#[derive(Debug, Default)]
pub struct Trace {
    /// Names by group.
    pub tables: BTreeMap<String, Names>,
    /// Names.
    pub called: Names,
}

impl Trace {
    /// Reads a trace; `None` of a process that came to no filter, or told no tables.
    pub fn read(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().collect();
        let filter = lines
            .iter()
            .rposition(|line| call(line) == Some("seccomp"))?;
        let (before, after) = lines.split_at(filter + 1);
        let tables: BTreeMap<_, _> = before.iter().filter_map(|line| table(line)).collect();
        if tables.is_empty() {
            return None;
        }
        let mut threads = BTreeSet::from([thread(lines.get(filter)?)?]);
        let mut called = Names::new();
        for line in after {
            if !thread(line).is_some_and(|thread| threads.contains(thread)) {
                continue;
            }
            threads.extend(new_thread(line));
            called.extend(call(line).map(str::to_owned));
        }
        Some(Self { tables, called })
    }
}

/// Whether the tracer has seen the process's end.
pub fn is_complete(text: &str) -> bool {
    text.lines()
        .next_back()
        .is_some_and(|line| line.contains("+++ "))
}

/// Which thread a line is about.
fn thread(line: &str) -> Option<&str> {
    line.split(' ').next()
}

/// The thread that a line tells to be new.
fn new_thread(line: &str) -> Option<&str> {
    let is_clone =
        call(line).is_some_and(|name| name.starts_with("clone")) || line.contains("<... clone");
    let (_, result) = line.rsplit_once(" = ")?;
    (is_clone && result.bytes().all(|byte| byte.is_ascii_digit())).then_some(result)
}

/// The name of the call that a line begins: `PID NAME(...`.
fn call(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(' ')?;
    let (name, _) = rest.trim_start().split_once('(')?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (!name.is_empty() && name.bytes().all(is_name)).then_some(name)
}

/// The group and the names that a line of the daemon's log tells.
fn table(line: &str) -> Option<(String, Names)> {
    let (_, text) = line.split_once(MODULE)?;
    let (group, names) = text.strip_prefix(TABLE)?.split_once(": ")?;
    let end = names.find(['\\', '"']).unwrap_or(names.len());
    let names = names.get(..end)?.split_whitespace();
    Some((group.to_owned(), names.map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"10 execve("/d", ["/d"], 0x7ff /* 35 vars */) = 0
10 write(3, "2026-11-22T15:00:00.000Z DEBUG vhost_device_daemon::confine::filter: calls serving: read write\n", 85) = 85
10 write(3, "2026-11-22T15:00:00.000Z DEBUG vhost_device_daemon::confine::filter: calls of the device: \n", 85) = 85
10 seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, {len=9}) = 0
10 prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) = 0
10 seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, {len=90}) = 0
10 read(4, <unfinished ...>
10 clone(child_stack=0x7f, flags=CLONE_VM|CLONE_THREAD, tls=0x7f) = 11
9 wait4(10, 0x7f, 0, NULL) = 10
11 write(1, "x(y)", 4) = 4
10 <... read resumed>"", 1) = 0
11 --- SIGSYS {si_signo=SIGSYS, si_syscall=__NR_socket} ---
11 +++ exited with 5 +++
"#;

    #[test]
    fn calls_of_the_filtered_process_count_from_the_last_filter_on() {
        let trace = Trace::read(TEXT).unwrap();
        assert_eq!(Vec::from_iter(trace.called), ["clone", "read", "write"]);
        let serving = trace.tables["serving"].iter();
        assert_eq!(Vec::from_iter(serving), ["read", "write"]);
        assert!(trace.tables["of the device"].is_empty());
        assert!(is_complete(TEXT));
    }

    #[test]
    fn a_process_without_a_filter_is_no_daemon() {
        assert!(Trace::read("10 execve(\"/d\") = 0\n10 +++ exited with 0 +++\n").is_none());
    }
}
