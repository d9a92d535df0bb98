//! Namespaces of its own: another user, other mounts, another host name, another network, other processes, other
//! System V objects.
//!
//! | namespace | taken | why |
//! |---|---|---|
//! | user | unless the profile keeps a capability that the process has: it would count for nothing | an ordinary user's process may enter the others; root's loses every power over the host |
//! | mount | yes | the file system is empty but for the named places |
//! | ipc, uts | yes | shared memory and message queues of others, and the host's name, are out of reach |
//! | network | unless the profile keeps it | no interface, no abstract socket of others |
//! | pid | unless a service manager knows the daemon by its number | no other process can be named, let alone signalled. It takes effect for children only: see `supervisor.rs`. Under a manager the process that it started has to stay the daemon: it is told of readiness, and signs of life, by that one alone. |
//! | cgroup, time | no | nothing is gained |

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::supervisor;

/// The namespaces that can be had one by one, once there is a user namespace or a privilege.
const OTHERS: [(CloneFlags, &str); 4] = [
    (CloneFlags::CLONE_NEWIPC, "ipc"),
    (CloneFlags::CLONE_NEWUTS, "uts"),
    (CloneFlags::CLONE_NEWNET, NETWORK),
    (CloneFlags::CLONE_NEWPID, PID),
];

const NETWORK: &str = "net";
/// The name of the namespace that the process's next child will be in.
pub const PID: &str = "pid";

/// Which namespaces are wanted, of those that not every daemon enters.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Another user. Without it the others are there for privileged processes only.
    pub user: bool,
    /// A network with nothing in it.
    pub network: bool,
    /// Process numbers that begin with this process's next child, which it has to have: until then it can make no threads.
    pub pid: bool,
}

/// The namespaces that the process is in now.
#[derive(Debug)]
pub struct Entered {
    /// Their names; user and mount first.
    pub names: Vec<&'static str>,
    /// Why others could not be entered.
    pub refused: Vec<String>,
}

impl Wanted {
    fn includes(self, name: &str) -> bool {
        match name {
            NETWORK => self.network,
            PID => self.pid,
            _ => true,
        }
    }
}

/// Enters new namespaces. The process must have one thread.
///
/// # Errors
/// If there can be no mount namespace, without which the others are of little use; nothing has changed then.
pub fn enter(wanted: Wanted) -> io::Result<Entered> {
    let mut entered = foundation(wanted.user)?;
    for (flag, name) in OTHERS {
        if !wanted.includes(name) {
            continue;
        }
        match take(flag, name) {
            Ok(()) => entered.names.push(name),
            Err(error) => entered.refused.push(format!("{name}: {}", error.desc())),
        }
    }
    Ok(entered)
}

fn take(flag: CloneFlags, name: &str) -> nix::Result<()> {
    if name == PID {
        supervisor::is_possible()?;
    }
    unshare(flag)
}

/// A user and a mount namespace; without the former if it is not wanted, or where only privileges get the latter.
fn foundation(user: bool) -> io::Result<Entered> {
    if !user {
        unshare(CloneFlags::CLONE_NEWNS)?;
        return Ok(Entered {
            names: vec!["mount"],
            refused: Vec::new(),
        });
    }
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
