//! Socket activation: sockets that the service manager opened and passed on, in the protocol of
//! `sd_listen_fds(3)`: descriptors 3, 4, ... `LISTEN_FDS` tells how many, `LISTEN_PID` tells for which process.

use std::env;
use std::fs;
use std::os::fd::RawFd;

use crate::cli::MAX_SOCKETS;
use crate::exit::StartError;

/// The first inherited descriptor; 0 to 2 are the standard streams.
const FIRST: RawFd = 3;

const VARIABLES: [&str; 4] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
];

/// How many sockets the service manager passed to this process; none is `None`.
///
/// # Errors
/// The variables are meant for this process but make no sense.
pub fn offered() -> Result<Option<usize>, StartError> {
    let variable = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    interpret(
        variable("LISTEN_PID").as_deref(),
        variable("LISTEN_FDS").as_deref(),
        std::process::id(),
    )
}

/// The numbers of `count` passed descriptors.
pub(crate) fn descriptors(count: usize) -> impl Iterator<Item = RawFd> {
    (FIRST..).take(count)
}

/// Removes the variables, so that no child process takes the descriptors for its own.
///
/// Does so only while the process has a single thread, which is the case before the daemon starts any; `LISTEN_PID`
/// protects children in every other case.
pub(crate) fn forget() {
    let single_threaded = fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1);
    if single_threaded {
        for variable in VARIABLES {
            // SAFETY: the only thread of the process is here, so nobody reads the environment meanwhile.
            unsafe { env::remove_var(variable) };
        }
    }
}

fn interpret(
    pid: Option<&str>,
    count: Option<&str>,
    own_pid: u32,
) -> Result<Option<usize>, StartError> {
    let (Some(pid), Some(count)) = (pid, count) else {
        return Ok(None);
    };
    if pid.parse() != Ok(own_pid) {
        return Ok(None);
    }
    match count.parse::<usize>() {
        Ok(0) => Ok(None),
        Ok(count) if count <= MAX_SOCKETS => Ok(Some(count)),
        Ok(count) => Err(StartError::usage(format!(
            "the service manager passed {count} sockets, at most {MAX_SOCKETS} are served (LISTEN_FDS)"
        ))),
        Err(_) => Err(StartError::usage(format!(
            "LISTEN_FDS is '{count}', which is not a number of sockets"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn only_variables_for_this_process_count() {
        let cases = [
            (None, None, None),
            (Some("42"), None, None),
            (None, Some("1"), None),
            (Some("41"), Some("1"), None),
            (Some("forty"), Some("1"), None),
            (Some("42"), Some("0"), None),
            (Some("42"), Some("1"), Some(1)),
            (Some("42"), Some("3"), Some(3)),
        ];
        for (pid, count, expected) in cases {
            assert_eq!(
                interpret(pid, count, 42).unwrap(),
                expected,
                "{pid:?} {count:?}"
            );
        }
    }

    #[test]
    fn a_count_that_makes_no_sense_is_an_error_of_usage() {
        for count in ["", "-1", "one", "100000", "99999999999999999999"] {
            let error = interpret(Some("42"), Some(count), 42).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage, "{count}");
        }
    }

    #[test]
    fn descriptors_follow_the_standard_streams() {
        assert_eq!(descriptors(3).collect::<Vec<_>>(), [3, 4, 5]);
    }
}
