//! What strace wrote about one daemon.

use std::collections::BTreeMap;

use super::Names;

/// How a daemon's log introduces its tables, behind which are the group, a colon and the names.
const TABLE: &str = " calls ";
/// The module whose log it is.
const MODULE: &str = "vhost_device_daemon::confine::filter:";
/// How many groups there are. A daemon whose log nobody reads tells less.
const GROUPS: usize = 3;

/// How a daemon's filter is told from the one of the process that watches over it.
const ALL_THREADS: &str = "_TSYNC";

/// A daemon's tables, and what it called once its filter was in force.
#[derive(Debug, Default)]
pub struct Trace {
    /// Names by group.
    pub tables: BTreeMap<String, Names>,
    /// Names.
    pub called: Names,
}

impl Trace {
    /// Reads a trace; `None` of a process that came to no filter, or did not tell its tables.
    pub fn read(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().collect();
        let filter = lines
            .iter()
            .rposition(|line| call(line) == Some("seccomp") && line.contains(ALL_THREADS))?;
        let told = lines.iter().take(filter);
        let tables: BTreeMap<_, _> = told.filter_map(|line| table(line)).collect();
        if tables.len() < GROUPS {
            return None;
        }
        let mut threads = Threads::default();
        let mut filtered = None;
        let mut called = Names::new();
        for (number, line) in lines.into_iter().enumerate() {
            let process = threads.process_of(line);
            if number == filter {
                filtered = process;
            } else if number > filter && process == filtered {
                called.extend(call(line).map(str::to_owned));
            }
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

/// Which threads belong together. A process may fork to find out what it could do.
#[derive(Default)]
struct Threads<'a> {
    /// The first thread of the process that a thread belongs to; of itself, if it is not there.
    processes: BTreeMap<&'a str, &'a str>,
    /// Threads that are about to make another, and whether that is one of the same process.
    making: BTreeMap<&'a str, bool>,
}

impl<'a> Threads<'a> {
    /// The process that a line is about. Lines are given in their order.
    fn process_of(&mut self, line: &'a str) -> Option<&'a str> {
        let (thread, _) = line.split_once(' ')?;
        let process = self.processes.get(thread).copied().unwrap_or(thread);
        if call(line).is_some_and(|name| name.starts_with("clone")) {
            self.making.insert(thread, line.contains("CLONE_THREAD"));
        }
        if line.contains("clone")
            && let Some(made) = made(line)
            && self.making.remove(thread) == Some(true)
        {
            self.processes.insert(made, process);
        }
        Some(process)
    }
}

/// The thread that a call of this line made, by the number that lines begin with: a namespace has its own.
fn made(line: &str) -> Option<&str> {
    let (_, result) = line.rsplit_once(" = ")?;
    let number = match result.split_once(" /* ") {
        Some((_, outside)) => outside.strip_suffix(" in strace's PID NS */")?,
        None => result,
    };
    number
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(number)
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
10 write(3, "2026-11-22T15:00:00.000Z DEBUG vhost_device_daemon::confine::filter: calls declined: clone3\n", 85) = 85
10 clone3({flags=CLONE_VM|CLONE_THREAD, <unfinished ...>
12 recvfrom(4,  <unfinished ...>
10 <... clone3 resumed> => {parent_tid=[12]}, 88) = 12
10 clone(child_stack=NULL, flags=SIGCHLD) = 20
10 seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, {len=9}) = 0
10 prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) = 0
10 seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, {len=90}) = 0
9 seccomp(SECCOMP_SET_MODE_FILTER, 0, {len=44}) = 0
9 rt_sigtimedwait([TERM CHLD],  <unfinished ...>
10 read(4, <unfinished ...>
20 getpid() = 20
10 clone(child_stack=0x7f, flags=CLONE_VM|CLONE_THREAD, tls=0x7f) = 3 /* 11 in strace's PID NS */
11 write(1, "x(y)", 4) = 4
12 sendto(4, "x", 1, 0, NULL, 0) = 1
10 <... read resumed>"", 1) = 0
11 --- SIGSYS {si_signo=SIGSYS, si_syscall=__NR_socket} ---
11 +++ exited with 5 +++
"#;

    #[test]
    fn calls_of_all_threads_of_the_filtered_process_count_from_the_last_filter_on() {
        let trace = Trace::read(TEXT).unwrap();
        let called = Vec::from_iter(trace.called);
        assert_eq!(called, ["clone", "read", "sendto", "write"]);
        let serving = trace.tables["serving"].iter();
        assert_eq!(Vec::from_iter(serving), ["read", "write"]);
        assert!(trace.tables["of the device"].is_empty());
        assert!(is_complete(TEXT));
    }

    #[test]
    fn a_process_without_a_filter_or_without_all_tables_is_not_judged() {
        assert!(Trace::read("10 execve(\"/d\") = 0\n10 +++ exited with 0 +++\n").is_none());
        let silent: Vec<_> = TEXT
            .lines()
            .filter(|line| !line.contains("declined"))
            .collect();
        assert!(Trace::read(&silent.join("\n")).is_none());
    }
}
