//! Privileges: none are left, and none come back.

use std::io;

use nix::sys::prctl;

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

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

/// Empties all five capability sets of the calling thread.
///
/// # Errors
/// From the operating system; it never refuses to give capabilities up.
pub fn give_up() -> io::Result<()> {
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
    let header = Header {
        version: VERSION,
        pid: 0,
    };
    let sets = [Sets::default(); 2];
    // SAFETY: the structures have the layout that this version asks for, and are only read.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
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
