//! The system calls that every daemon makes while it serves. `cargo xtask syscalls` holds this table against what is seen.

use super::profile::{Call, Sysno};
use crate::engine::is_precise;

#[cfg(target_arch = "x86_64")]
mod waiting {
    use super::Sysno;

    pub const COARSELY: Sysno = Sysno::epoll_wait;
    pub const DESCRIPTORS: Sysno = Sysno::poll;
}

/// Younger architectures have the general forms only.
#[cfg(not(target_arch = "x86_64"))]
mod waiting {
    use super::Sysno;

    pub const COARSELY: Sysno = Sysno::epoll_pwait;
    pub const DESCRIPTORS: Sysno = Sysno::ppoll;
}

/// engine/wait.rs: whichever the kernel has.
fn wait_for_events() -> Sysno {
    match is_precise() {
        true => Sysno::epoll_pwait2,
        false => waiting::COARSELY,
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

/// Memory that is given back; and the guards of threads' stacks in younger C libraries (MADV_GUARD_INSTALL and _REMOVE, which
/// the libc crate does not have for all targets).
const ADVICE: &[u64] = &[libc::MADV_DONTNEED as u64, libc::MADV_FREE as u64, 102, 103];

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
        waiting::DESCRIPTORS.into(),
        Sysno::epoll_create1.into(),
        Sysno::epoll_ctl.into(),
        Sysno::eventfd2.into(),
        Sysno::read.into(),
        Sysno::write.into(),
        Call::new(Sysno::fcntl).one_of(1, DESCRIPTOR_COMMANDS),
        // guest memory, our own memory: nothing that can be run
        Call::new(Sysno::mmap).bits(2, EXECUTABLE, 0),
        Call::new(Sysno::mprotect).bits(2, EXECUTABLE, 0),
        Sysno::munmap.into(),
        Sysno::brk.into(),
        Call::new(Sysno::madvise).one_of(2, ADVICE),
        // how long a memory file is; whether the socket's name is still ours
        Sysno::statx.into(),
        Sysno::unlinkat.into(),
        // threads, of which each connection has some
        Call::new(Sysno::clone).bits(0, THREAD | NEW_NAMESPACES, THREAD),
        Call::new(Sysno::prctl).one_of(0, &[libc::PR_SET_NAME as u64]),
        Sysno::rseq.into(),
        Sysno::rt_sigprocmask.into(),
    ]
}

/// What any process does that waits, ends, is interrupted, or asks for the time, a random number or its name. Nothing of it
/// reaches beyond the process.
pub fn flow() -> Vec<Call> {
    vec![
        Sysno::exit.into(),
        Sysno::exit_group.into(),
        // its threads wait for each other
        Sysno::futex.into(),
        // back from the handler of SIGBUS
        Sysno::rt_sigreturn.into(),
        // the kernel's own way to go on waiting after SIGSTOP and SIGCONT
        Sysno::restart_syscall.into(),
        // no system call where the kernel's shared page has a clock
        Sysno::clock_gettime.into(),
        // which thread a message is about
        Sysno::gettid.into(),
        // seeds of hash tables, one for each thread
        Sysno::getrandom.into(),
    ]
}

/// Calls that libraries can do without, and do, when told that there is no such call: the C library and the standard
/// library; the `vhost` crate, which then refuses a socket that only a device with a use for it would get (getsockopt).
/// What can only be filtered by what a pointer points to (clone3) becomes what can be filtered by arguments (clone).
pub const DECLINED: &[Sysno] = &[
    Sysno::clone3,
    Sysno::getsockopt,
    Sysno::mremap,
    Sysno::openat,
    Sysno::sched_getaffinity,
    Sysno::set_robust_list,
    Sysno::sigaltstack,
    // the backtrace of a panic, which is shorter then
    Sysno::getcwd,
    #[cfg(target_arch = "x86_64")]
    Sysno::readlink,
    #[cfg(not(target_arch = "x86_64"))]
    Sysno::readlinkat,
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
        numbers.extend(flow().iter().map(Call::number));
        numbers.extend(DECLINED);
        let count = numbers.len();
        numbers.sort();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
    }
}
