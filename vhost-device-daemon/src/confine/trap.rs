//! The end of a process that makes a forbidden system call: one line that names the call, and exit code 5.

use std::io;

use super::profile::Sysno;
use crate::exit::Exit;

/// Has forbidden calls told and the process ended.
///
/// From here on a bad memory access ends the process at once: the runtime's own handler, which looks for stack overflows,
/// would make a forbidden call, and hide what happened.
///
/// # Errors
/// From the operating system.
pub fn install() -> io::Result<()> {
    handle(libc::SIGSYS, told as *const () as usize, libc::SA_SIGINFO)?;
    handle(libc::SIGSEGV, libc::SIG_DFL, 0)
}

fn handle(signal: libc::c_int, handler: usize, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: an all-zero sigaction is valid; the fields that matter are set below.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the action is initialised, and the handler is the default or uses only async-signal-safe operations.
    let result = unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What the kernel fills in for SIGSYS (`struct siginfo`, member `_sigsys`).
#[repr(C)]
struct Refused {
    signal: libc::c_int,
    error: libc::c_int,
    code: libc::c_int,
    address: *const libc::c_void,
    call: libc::c_int,
    architecture: libc::c_uint,
}

/// `si_code` of a signal that a filter raised, and not somebody with kill(2).
const SYS_SECCOMP: libc::c_int = 1;

extern "C" fn told(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo for SIGSYS, of which this is the layout.
    let refused = unsafe { &*info.cast::<Refused>() };
    // Logging allocates nothing, takes no lock and does not wait, so it may interrupt anything.
    match refused.code {
        SYS_SECCOMP => log::error!(
            "system call {} ({}) is not in this daemon's table: ending",
            refused.call,
            name(refused.call)
        ),
        _ => log::error!("SIGSYS: ending"),
    }
    // SAFETY: ends the process without running anything of it.
    unsafe { libc::_exit(Exit::Sandbox as libc::c_int) };
}

fn name(call: libc::c_int) -> &'static str {
    let number = usize::try_from(call).ok().and_then(Sysno::new);
    number.map_or("unknown", |number| number.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_named() {
        assert_eq!(name(Sysno::execve.id()), "execve");
        assert_eq!(name(-1), "unknown");
        assert_eq!(name(99_999), "unknown");
    }

    #[test]
    fn the_layout_is_the_kernels() {
        assert!(size_of::<Refused>() <= size_of::<libc::siginfo_t>());
        assert_eq!(std::mem::offset_of!(Refused, call), 24);
    }
}
