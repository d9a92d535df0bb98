//! Privileges: none are left but those that a profile names, and none come back.

use std::io;

use nix::sys::prctl;

use super::profile::Capability;

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP and SECBIT_NO_CAP_AMBIENT_RAISE, and the locks of these and of SECBIT_KEEP_CAPS.
const SECUREBITS: libc::c_ulong = 0b1110_1111;

/// `struct __user_cap_header_struct`
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`, of which version 3 has two.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// No program that this process might run can have more rights than it has itself.
pub fn never_gain() -> io::Result<()> {
    Ok(prctl::set_no_new_privs()?)
}

impl Sets {
    /// Both halves of sets that have these, permitted and effective.
    fn of(capabilities: &[Capability]) -> [Self; 2] {
        let mut sets = [Self::default(); 2];
        for capability in capabilities {
            let number = *capability as u32;
            let [low, high] = &mut sets;
            let half = if number < u32::BITS { low } else { high };
            half.permitted |= 1 << (number % u32::BITS);
        }
        sets.map(|half| Self {
            effective: half.permitted,
            ..half
        })
    }
}

impl Header {
    /// Of the calling thread.
    const OWN: Self = Self {
        version: VERSION,
        pid: 0,
    };
}

/// Whether the calling thread may have this capability in force.
///
/// # Errors
/// From the operating system.
pub fn has(capability: Capability) -> io::Result<bool> {
    let mut header = Header::OWN;
    let mut sets = [Sets::default(); 2];
    // SAFETY: the structures have the layout that this version asks for, and are there to be written to.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, &raw mut sets) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let asked = Sets::of(&[capability]);
    let mut halves = sets.iter().zip(&asked);
    Ok(halves.all(|(own, asked)| own.permitted & asked.permitted == asked.permitted))
}

/// Leaves the calling thread these capabilities, which it must have, permitted and effective, and nothing in the other three sets.
///
/// # Errors
/// From the operating system; it never refuses to give capabilities up.
pub fn give_up_all_but(kept: &[Capability]) -> io::Result<()> {
    lock_securebits();
    empty_bounding_set();
    // SAFETY: takes numbers only.
    unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong,
            0 as libc::c_ulong,
            0 as libc::c_ulong,
            0 as libc::c_ulong,
        );
    }
    let header = Header::OWN;
    let sets = Sets::of(kept);
    // SAFETY: the structures have the layout that this version asks for, and are only read.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Being root gives no capabilities any more, and none can be made ambient. Whoever may not say so has no privileges either
/// that could come back.
fn lock_securebits() {
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0) };
}

/// Whoever may not touch the set has no privileges that it could bound.
fn empty_bounding_set() {
    for capability in 0..libc::c_ulong::from(u64::BITS) {
        // SAFETY: takes numbers only.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if result < 0 {
            // The kernel knows no further ones, or refuses each of them.
            return;
        }
    }
}

/// Other processes of the same user cannot look into this one, and it leaves no core.
pub fn hide() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_one_bit_of_one_half() {
        let [low, high] = Sets::of(&[Capability::WakeAlarm, Capability::SysTime]);
        assert_eq!((low.permitted, low.effective), (1 << 25, 1 << 25));
        assert_eq!((high.permitted, high.effective), (1 << 3, 1 << 3));
        assert_eq!(low.inheritable | high.inheritable, 0);
    }
}
