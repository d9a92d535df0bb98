//! Namespaces of its own: another user, other mounts, another host name, another network, other System V objects.
//!
//! | namespace | taken | why |
//! |---|---|---|
//! | user | yes | an ordinary user's process may enter the others; root's loses every power over the host |
//! | mount | yes | the file system is empty but for the named places |
//! | ipc, uts | yes | shared memory and message queues of others, and the host's name, are out of reach |
//! | network | unless the profile keeps it | no interface, no abstract socket of others |
//! | pid | no | it takes effect for children only: the daemon would have to be one, with a parent that waits for it, whose number the service manager knows, and which would have to pass signals, states and readiness on. What it would hide cannot be reached anyway: the filter has no kill(2) or ptrace(2), Landlock keeps signals inside, and there is no /proc. |
//! | cgroup, time | no | nothing is gained |

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// The namespaces that can be had one by one, once there is a user namespace or a privilege.
const OTHERS: [(CloneFlags, &str); 3] = [
    (CloneFlags::CLONE_NEWIPC, "ipc"),
    (CloneFlags::CLONE_NEWUTS, "uts"),
    (CloneFlags::CLONE_NEWNET, NETWORK),
];

const NETWORK: &str = "net";

/// The namespaces that the process is in now.
#[derive(Debug)]
pub struct Entered {
    /// Their names; user and mount first.
    pub names: Vec<&'static str>,
    /// Why others could not be entered.
    pub refused: Vec<String>,
}

/// Enters new namespaces. The process must have one thread.
///
/// # Errors
/// If there can be no mount namespace, without which the others are of little use; nothing has changed then.
pub fn enter(keep_network: bool) -> io::Result<Entered> {
    let mut entered = foundation()?;
    for (flag, name) in OTHERS {
        if keep_network && name == NETWORK {
            continue;
        }
        match unshare(flag) {
            Ok(()) => entered.names.push(name),
            Err(error) => entered.refused.push(format!("{name}: {}", error.desc())),
        }
    }
    Ok(entered)
}

/// A user and a mount namespace; without the former where only privileges get the latter.
fn foundation() -> io::Result<Entered> {
    // Read before: afterwards they are nobody's until they are mapped.
    let (user, group) = (geteuid(), getegid());
    let mount = CloneFlags::CLONE_NEWNS;
    let mut refused = Vec::new();
    match unshare(CloneFlags::CLONE_NEWUSER | mount) {
        Ok(()) => {
            if let Err(error) = map(user.as_raw(), group.as_raw()) {
                refused.push(format!("the user's number: {error}"));
            }
            Ok(Entered {
                names: vec!["user", "mount"],
                refused,
            })
        }
        Err(error) => {
            unshare(mount).map_err(|_| io::Error::from(error))?;
            refused.push(format!("user: {}", error.desc()));
            Ok(Entered {
                names: vec!["mount"],
                refused,
            })
        }
    }
}

/// Gives the user and the group the numbers inside that they have outside; there are no others.
fn map(user: u32, group: u32) -> io::Result<()> {
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    // Who may not set groups inside may map one.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}
