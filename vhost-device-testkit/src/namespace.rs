//! Processes and their pid namespaces, as the kernel shows them.

use std::fs;

use crate::sys::Pid;

/// The child of a process that is the first process of a pid namespace below this one, if there is one.
pub fn first_of(parent: Pid) -> Option<Pid> {
    children(parent).into_iter().find(|child| is_first(*child))
}

/// The children that a process's main thread made.
fn children(parent: Pid) -> Vec<Pid> {
    match fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")) {
        Ok(list) => numbers(&list).collect(),
        // The kernel may be built without that list.
        Err(_) => searched(parent),
    }
}

fn searched(parent: Pid) -> Vec<Pid> {
    let is_child = |process: &Pid| field(*process, "PPid:").first() == Some(&parent);
    all().into_iter().filter(is_child).collect()
}

fn all() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Whether it has a number in another namespace than ours, and is number 1 there.
fn is_first(process: Pid) -> bool {
    matches!(field(process, "NSpid:")[..], [_, .., 1])
}

/// The numbers in a line of a process's status; none of a process that is gone.
fn field(process: Pid, name: &str) -> Vec<Pid> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    numbers(line.unwrap_or_default()).collect()
}

fn numbers(text: &str) -> impl Iterator<Item = Pid> {
    text.split_whitespace()
        .filter_map(|number| number.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::sys;

    #[test]
    fn the_first_process_of_a_namespace_is_found_below_its_parent() {
        let mut parent = Command::new("unshare")
            .args(["--map-root-user", "--pid", "--fork", "--kill-child"])
            .args(["sleep", "60"])
            .spawn()
            .unwrap();
        let process = parent.id() as Pid;
        let first = sys::wait_for(Duration::from_secs(5), || first_of(process)).unwrap();
        assert_eq!(searched(process), [first]);
        assert_eq!(children(process), [first]);
        assert_eq!(first_of(first), None);
        parent.kill().unwrap();
        parent.wait().unwrap();
    }

    #[test]
    fn a_child_in_our_own_namespace_is_not_taken_for_one() {
        let own = std::process::id() as Pid;
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = child.id() as Pid;
        assert!(searched(own).contains(&process));
        assert!(!is_first(process));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
