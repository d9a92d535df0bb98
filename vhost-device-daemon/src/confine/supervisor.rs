//! A process for the sake of the pid namespace, which takes effect for children only: the process splits. The child, number 1 of the
//! new namespace, goes on as the daemon. The parent, whose number is known to whoever started it, only watches over it:
//!
//! | what happens | what the parent does |
//! |---|---|
//! | the child ends | ends in the same way: with its exit code, or by the signal that killed it |
//! | a signal that the daemon handles | passes it on; after the first request to end, SIGINT has its default action |
//! | SIGTSTP | stops both, and goes on with both |
//! | any other signal | what the signal does to any process. If it is the parent's end, the kernel kills the child. |
//!
//! Number 1 is not ended by signals sent with kill(2), SIGKILL apart: signals go to the parent. What the processor or the filter of
//! system calls raises ends number 1 as it does any process. The child is a process group of its own, so that a terminal's signals go to
//! the parent only, and once. It is of the parent's session: where the kernel's scheduler has sessions share the processors
//! (autogroup), another one would have the daemon wait for its turn longer.
//!
//! The parent is confined as the daemon is, has no descriptors and six system calls, and sleeps.

use std::io::{self, PipeReader, PipeWriter, Read, Write};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, setpgid};

use super::filter;
use super::privileges;
use super::profile::{Call, Sysno};
use crate::cli::Seccomp;
use crate::exit::Exit;
use crate::signals;

/// The highest descriptor there could be.
const LAST: libc::c_uint = libc::c_uint::MAX;

/// Whether this kernel can close all descriptors at once, without which the parent would keep what is the daemon's.
///
/// # Errors
/// It cannot.
pub fn is_possible() -> nix::Result<()> {
    close_from(LAST)
}

/// Goes on in a child. Returns there only. The process must have one thread.
///
/// # Errors
/// There can be no other process; or, in the child, the parent is gone already.
pub fn split(seccomp: Seccomp) -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    let usual = SigSet::thread_get_mask()?;
    let supervisor = Supervisor::prepare(&usual)?;
    // SAFETY: there is no other thread that could be in the middle of something.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(writer);
            supervisor.watch(child, reader, seccomp)
        }
        ForkResult::Child => {
            drop(reader);
            usual.thread_set_mask()?;
            tie_to_parent(writer)
        }
    }
}

/// Has the kernel kill this process when its parent ends, and a terminal's signals go to the parent only.
fn tie_to_parent(mut parent: PipeWriter) -> io::Result<()> {
    const ITSELF: Pid = Pid::from_raw(0);
    setpgid(ITSELF, ITSELF)?;
    // To the terminal this is in the background now. One that stops who writes from there (stty tostop) gets the log all the same.
    // SAFETY: to ignore a signal runs nothing of ours.
    unsafe { signal(Signal::SIGTTOU, SigHandler::SigIgn) }?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // Nobody reads from the pipe any more if the parent ended before. Its number would not tell: outside of the namespace it has none.
    parent.write_all(&[0])
}

/// The parent, which waits for signals.
struct Supervisor {
    own: Pid,
    awaited: SigSet,
}

impl Supervisor {
    /// Has signals wait until they are asked for, those to come included. `usual` are the blocked ones: what the daemon handles is
    /// among them, if this process is to become one.
    fn prepare(usual: &SigSet) -> io::Result<Self> {
        let handled = signals::HANDLED.into_iter();
        let mut awaited: SigSet = handled.filter(|one| usual.contains(*one)).collect();
        awaited.extend([Signal::SIGCHLD, Signal::SIGTSTP]);
        awaited.thread_block()?;
        // Where it is ignored, as it may be from before exec, no child can be waited for.
        // SAFETY: the default action runs nothing of ours.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
        Ok(Self {
            own: getpid(),
            awaited,
        })
    }

    /// Watches over the child to its end. Nothing of the daemon's is dropped here: it is the child's.
    fn watch(mut self, child: Pid, mut tied: PipeReader, seccomp: Seccomp) -> ! {
        // One byte when the child is tied to this process, and none if it has ended.
        let _ = tied.read(&mut [0]);
        std::mem::forget(tied);
        self.confine(child, seccomp);
        loop {
            match self.awaited.wait() {
                Ok(Signal::SIGCHLD) => self.follow(child),
                Ok(Signal::SIGTSTP) => self.pause(child),
                Ok(signal) => self.pass_on(child, signal),
                Err(_) => end(Exit::Internal as i32),
            }
        }
    }

    /// What the daemon has not taken away from both yet.
    fn confine(&self, child: Pid, seccomp: Seccomp) {
        if privileges::give_up_all_but(&[]).is_err() || close_from(0).is_err() {
            end(Exit::Sandbox as i32);
        }
        let to = |process: Pid| {
            Call::new(Sysno::kill).bits(0, u32::MAX.into(), process.as_raw() as u32 as u64)
        };
        let calls = [
            Sysno::rt_sigtimedwait.into(),
            Sysno::rt_sigprocmask.into(),
            Sysno::rt_sigaction.into(),
            Sysno::wait4.into(),
            to(child),
            to(self.own),
            Sysno::exit_group.into(),
        ];
        // Where there are no filters the daemon finds it as well, and tells.
        let _ = filter::restrict(&calls, seccomp);
    }

    /// Stops both, and goes on when somebody has this process go on.
    fn pause(&self, child: Pid) {
        let _ = kill(child, Signal::SIGSTOP);
        let _ = kill(self.own, Signal::SIGSTOP);
        let _ = kill(child, Signal::SIGCONT);
    }

    fn pass_on(&mut self, child: Pid, signal: Signal) {
        // It may have ended just now, which is told by another signal.
        let _ = kill(child, signal);
        if signal != signals::REPORT {
            // Whoever presses Ctrl-C a second time does not want to wait.
            self.awaited.remove(Signal::SIGINT);
            let _ = SigSet::from(Signal::SIGINT).thread_unblock();
        }
    }

    /// Ends as the child has ended, if it has.
    fn follow(&self, child: Pid) {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => end(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => self.die_by(signal),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => end(Exit::Internal as i32),
        }
    }

    fn die_by(&self, number: Signal) -> ! {
        // SAFETY: the default action runs nothing of ours.
        let _ = unsafe { signal(number, SigHandler::SigDfl) };
        let _ = SigSet::from(number).thread_unblock();
        let _ = kill(self.own, number);
        // As a shell tells it, if the signal did not.
        end(128 + number as i32)
    }
}

/// Closes all descriptors from `first` on, whoever owns them.
fn close_from(first: libc::c_uint) -> nix::Result<()> {
    // SAFETY: takes numbers only. The owners are in the memory of a process that does not use them any more.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, LAST, 0) };
    Errno::result(result).map(drop)
}

/// Ends the process without running anything of the daemon's: its sockets' names, for example, are not this process's to remove.
fn end(code: i32) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(code) }
}
