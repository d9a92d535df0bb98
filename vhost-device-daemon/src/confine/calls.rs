//! The system calls that every daemon makes while it serves. `cargo xtask syscalls` holds this table against what is seen.

use super::profile::{Call, Sysno};
use crate::engine::is_precise;

#[cfg(target_arch = "x86_64")]
const COARSE_WAIT: Sysno = Sysno::epoll_wait;
/// Younger architectures have the general form only.
#[cfg(not(target_arch = "x86_64"))]
const COARSE_WAIT: Sysno = Sysno::epoll_pwait;

/// engine/wait.rs: whichever the kernel has.
fn wait_for_events() -> Sysno {
    match is_precise() {
        true => Sysno::epoll_pwait2,
        false => COARSE_WAIT,
    }
}

/// What makes a thread of this process, and neither a process nor a namespace.
const THREAD: u64 = (libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u64;
const NEW_NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// F_GETFD is what the standard library checks closed descriptors with in debug builds.
const DESCRIPTOR_COMMANDS: &[u64] = &[
    libc::F_GETFD as u64,
    libc::F_GETFL as u64,
    libc::F_SETFL as u64,
    libc::F_DUPFD_CLOEXEC as u64,
];

const EXECUTABLE: u64 = libc::PROT_EXEC as u64;

/// The serving set.
pub fn serving() -> Vec<Call> {
    vec![
        // frontends: connections, messages, their end
        Sysno::accept4.into(),
        Sysno::recvmsg.into(),
        Sysno::sendmsg.into(),
        Sysno::shutdown.into(),
        Sysno::close.into(),
        // events
        wait_for_events().into(),
        Sysno::epoll_create1.into(),
        Sysno::epoll_ctl.into(),
        Sysno::read.into(),
        Sysno::write.into(),
        Call::new(Sysno::fcntl).one_of(1, DESCRIPTOR_COMMANDS),
        // guest memory, our own memory: nothing that can be run
        Call::new(Sysno::mmap).bits(2, EXECUTABLE, 0),
        Call::new(Sysno::mprotect).bits(2, EXECUTABLE, 0),
        Sysno::munmap.into(),
        // how long a memory file is; whether the socket's name is still ours
        Sysno::statx.into(),
        Sysno::unlinkat.into(),
        // threads, of which each connection has some: how they begin, wait for each other, and end
        Call::new(Sysno::clone).bits(0, THREAD | NEW_NAMESPACES, THREAD),
        Call::new(Sysno::prctl).one_of(0, &[libc::PR_SET_NAME as u64]),
        Sysno::rseq.into(),
        Sysno::futex.into(),
        Sysno::exit.into(),
        // the end; the way back from the handler of SIGBUS
        Sysno::exit_group.into(),
        Sysno::rt_sigreturn.into(),
        // no system call where the kernel's shared page has a clock
        Sysno::clock_gettime.into(),
    ]
}

/// Calls that are answered, and not made: those that libraries can do without, and do, when told that there is no such call; or
/// when told whatever else it is that they understand.
///
/// The C library and the standard library ignore the answer, or find another way. The `vhost` crate refuses a socket that only a
/// device with a use for it would get (getsockopt). What can only be filtered by what a pointer points to (clone3) becomes what can be
/// filtered by arguments (clone).
pub const DECLINED: &[(Sysno, i32)] = &[
    (Sysno::clone3, libc::ENOSYS),
    (Sysno::getsockopt, libc::ENOSYS),
    (Sysno::mremap, libc::ENOSYS),
    (Sysno::openat, libc::ENOSYS),
    (Sysno::sched_getaffinity, libc::ENOSYS),
    (Sysno::set_robust_list, libc::ENOSYS),
    (Sysno::sigaltstack, libc::ENOSYS),
    // Memory of the heap that is not needed any more, and of a thread that has ended: the process keeps it for the next. The guard
    // of a thread's stack is then made by mprotect.
    (Sysno::madvise, libc::ENOSYS),
    // Signals are blocked while a thread is made. It inherits the mask of its maker, which is the same; handlers there are none but
    // of faults.
    (Sysno::rt_sigprocmask, libc::ENOSYS),
    // How the kernel goes on with a futex's timeout after SIGSTOP and SIGCONT. Whoever waits looks whether it is time, and waits on.
    (Sysno::restart_syscall, libc::ENOSYS),
    // Of a panic: the number of its thread, which has a name as well, and the names of files in its backtrace.
    (Sysno::gettid, libc::ENOSYS),
    (Sysno::getcwd, libc::ENOSYS),
    #[cfg(target_arch = "x86_64")]
    (Sysno::readlink, libc::ENOSYS),
    #[cfg(not(target_arch = "x86_64"))]
    (Sysno::readlinkat, libc::ENOSYS),
    // The end of the heap, 0: less than what was asked for, by which this call tells that there is no more. The heap goes on
    // elsewhere. Any error number would be taken for an address, and for more than enough.
    (Sysno::brk, 0),
];

/// The calls of the `vm-memory` crate's Xen mappings, on a descriptor that the frontend sends.
#[cfg(feature = "xen")]
pub fn xen() -> Vec<Call> {
    /// IOCTL_PRIVCMD_MMAPBATCH_V2, IOCTL_GNTDEV_MAP_GRANT_REF, IOCTL_GNTDEV_UNMAP_GRANT_REF.
    const REQUESTS: &[u64] = &[0x0020_5004, 0x0018_4700, 0x0010_4701];
    vec![Call::new(Sysno::ioctl).one_of(1, REQUESTS)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise of the design: a table that a person can read.
    #[test]
    fn the_serving_set_has_at_most_24_calls_each_of_them_once() {
        let mut numbers: Vec<_> = serving().iter().map(Call::number).collect();
        assert!(numbers.len() <= 24, "{}", numbers.len());
        numbers.extend(DECLINED.iter().map(|(number, _)| number));
        let count = numbers.len();
        numbers.sort();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
    }
}
