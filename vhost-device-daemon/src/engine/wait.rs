//! Waiting for events with a timeout that is no longer than it has to be.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::time::Duration;

use vmm_sys_util::epoll::{Epoll, EpollEvent};

/// Whether the kernel takes timeouts in nanoseconds (`epoll_pwait2`, Linux 5.11); if not, they are rounded up to milliseconds.
///
/// It is asked once, before there is a filter of system calls, which has the one or the other in its table.
pub fn is_precise() -> bool {
    static PRECISE: OnceLock<bool> = OnceLock::new();
    *PRECISE.get_or_init(|| {
        // No descriptor is an epoll instance's: the question is only which error that is.
        let answer = pwait2(-1, &mut [EpollEvent::default()], Some(Duration::ZERO));
        answer.is_err_and(|error| error.raw_os_error() != Some(libc::ENOSYS))
    })
}

/// Waits for events, no longer than `timeout`. Returns how many of `events` were filled.
pub fn for_events(
    epoll: &Epoll,
    events: &mut [EpollEvent],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    match is_precise() {
        true => pwait2(epoll.as_raw_fd(), events, timeout),
        false => wait(epoll, events, timeout),
    }
}

fn wait(epoll: &Epoll, events: &mut [EpollEvent], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = timeout.map_or(-1, |timeout| {
        i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
    });
    epoll.wait(timeout, events)
}

/// The system call, which not every C library has a function for.
fn pwait2(epoll: i32, events: &mut [EpollEvent], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `EpollEvent` is the kernel's structure, and there is room for as many as are said; the timeout is valid or
    // null; no signal mask is given.
    let count = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll,
            events.as_mut_ptr(),
            i32::try_from(events.len()).unwrap_or(i32::MAX),
            timeout,
            std::ptr::null::<libc::sigset_t>(),
            0usize,
        )
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use vmm_sys_util::epoll::{ControlOperation, EventSet};
    use vmm_sys_util::eventfd::EventFd;

    use super::*;

    /// A way to wait.
    type Way = fn(&Epoll, &mut [EpollEvent], Option<Duration>) -> io::Result<usize>;

    const WAYS: [Way; 2] = [
        |epoll, events, timeout| pwait2(epoll.as_raw_fd(), events, timeout),
        wait,
    ];

    #[test]
    fn both_ways_tell_the_same_events() {
        let epoll = Epoll::new().unwrap();
        let source = EventFd::new(0).unwrap();
        let interest = EpollEvent::new(EventSet::IN, 7);
        epoll
            .ctl(ControlOperation::Add, source.as_raw_fd(), interest)
            .unwrap();
        let mut events = [EpollEvent::default(); 2];
        for way in WAYS {
            assert_eq!(way(&epoll, &mut events, Some(Duration::ZERO)).unwrap(), 0);
        }
        source.write(1).unwrap();
        for way in WAYS {
            assert_eq!(way(&epoll, &mut events, None).unwrap(), 1);
            assert_eq!((events[0].data(), events[0].event_set()), (7, EventSet::IN));
            events[0] = EpollEvent::default();
        }
    }

    #[test]
    fn no_way_ends_before_its_time() {
        let epoll = Epoll::new().unwrap();
        for way in WAYS {
            for micros in [1, 999, 1001, 3000] {
                let (time, start) = (Duration::from_micros(micros), Instant::now());
                let mut events = [EpollEvent::default()];
                assert_eq!(way(&epoll, &mut events, Some(time)).unwrap(), 0);
                assert!(start.elapsed() >= time, "{micros}");
            }
        }
    }
}
