//! `--check`: whether a daemon would start, one line for each finding and what to do about it.
//!
//! It goes through the stages of a start and stops short of listening: the sockets' places are looked at, the devices are
//! opened and closed again, and the process confines itself as it would to serve. So what is said is what would happen, and
//! nothing is left behind. The exit code is that of a start that meets the worst finding.

mod places;

use std::fmt;
use std::io::{self, Write as _};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Gid, Group, getegid, geteuid, getgroups};
use vhost_device_core::Device;

use crate::app::App;
use crate::cli::{CommonArgs, Sandbox};
use crate::confine::{self, Profile, Started};
use crate::exit::{Exit, StartError};
use crate::notify;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// As it should be.
    Fine(String),
    /// Not a reason not to start, but worth knowing.
    Note(String),
    /// A reason not to start.
    Obstacle(StartError),
}

impl Finding {
    /// The exit code of a start that meets this.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Fine(_) | Self::Note(_) => Exit::Done,
            Self::Obstacle(error) => error.exit(),
        }
    }
}

/// One line: a word that says how bad it is, and the text.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fine(text) => write!(f, "ok       {text}"),
            Self::Note(text) => write!(f, "note     {text}"),
            Self::Obstacle(error) => write!(f, "{:<8} {error}", word(error.exit())),
        }
    }
}

fn word(exit: Exit) -> &'static str {
    match exit {
        Exit::Done => "ok",
        Exit::Usage => "usage",
        Exit::Missing => "missing",
        Exit::Permission => "denied",
        Exit::Sandbox => "sandbox",
        Exit::Internal => "defect",
    }
}

impl From<Result<String, StartError>> for Finding {
    fn from(result: Result<String, StartError>) -> Self {
        result.map_or_else(Self::Obstacle, Self::Fine)
    }
}

/// Prints all findings on stdout and returns the exit code.
pub(crate) fn run<A: App>(common: &CommonArgs, args: A::Args) -> Exit {
    let mut report = Report::default();
    let plan = match common.validate_given() {
        Ok(plan) => plan,
        Err(error) => {
            report.tell(Finding::Obstacle(error));
            return report.worst;
        }
    };
    report.tell_all(places::look(common, plan.as_ref()));
    let count = match &plan {
        Some(plan) => plan.count(),
        None => common.socket_count.unwrap_or(1).into(),
    };
    let started = Started {
        sockets: count,
        // Nothing but a service manager starts a daemon whose sockets are not named.
        managed: plan.is_none() || notify::prepare(),
        ..Started::default()
    };
    let profile = A::profile(&args);
    report.tell_all(A::check(args, count));
    report.tell(descriptors(count, &profile));
    if report.worst == Exit::Permission {
        report.tell(identity());
    }
    // Last, because it cannot be undone.
    report.tell(confinement(common, &profile, started));
    report.worst
}

/// What has been told so far.
#[derive(Debug)]
struct Report {
    worst: Exit,
}

impl Default for Report {
    fn default() -> Self {
        Self { worst: Exit::Done }
    }
}

impl Report {
    fn tell_all(&mut self, findings: impl IntoIterator<Item = Finding>) {
        findings.into_iter().for_each(|finding| self.tell(finding));
    }

    fn tell(&mut self, finding: Finding) {
        // A stdout that takes nothing changes nothing: the exit code still tells.
        let _ = writeln!(io::stdout(), "{finding}");
        self.worst = worse(self.worst, finding.exit());
    }
}

/// The worse of two exit codes, in the order of the contract: a start ends with the first obstacle it meets, and who has
/// removed the lesser one may still fail over the greater.
fn worse(one: Exit, other: Exit) -> Exit {
    if (other as u8) > (one as u8) {
        other
    } else {
        one
    }
}

/// Opens the devices and closes them again.
pub(crate) fn open<A: App>(args: A::Args, sockets: usize) -> Vec<Finding> {
    let opened = A::open(args, sockets).map(|devices| match devices.as_slice() {
        [one] => format!("the device can be opened; it has {}", queues(one)),
        several => format!("{} devices can be opened", several.len()),
    });
    vec![opened.into()]
}

fn queues(device: &impl Device) -> String {
    match device.queues().len() {
        1 => "one queue".to_owned(),
        count => format!("{count} queues"),
    }
}

/// Whether as many descriptors may be open as the frontends can make the daemon open.
fn descriptors(sockets: usize, profile: &Profile) -> Finding {
    let wanted = confine::descriptors(sockets, profile);
    let frontends = match sockets {
        1 => "one frontend takes".to_owned(),
        count => format!("{count} frontends take"),
    };
    let told = |what: &str| format!("{what}; {frontends} at most {wanted}");
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= wanted => {
            Finding::Fine(told(&format!("{hard} descriptors may be open")))
        }
        Ok((_, hard)) => Finding::Note(told(&format!(
            "only {hard} descriptors may be open (raise LimitNOFILE= of the service, or `ulimit -Hn`)"
        ))),
        Err(error) => Finding::Note(told(&format!(
            "the limit of open descriptors is unknown: {error}"
        ))),
    }
}

/// Who may not do what the findings before say.
fn identity() -> Finding {
    let name = |group: &Gid| match Group::from_gid(*group) {
        Ok(Some(known)) => known.name,
        _ => group.to_string(),
    };
    let own = getegid();
    let others = getgroups().unwrap_or_default();
    let others = others.iter().filter(|group| **group != own);
    let groups: Vec<String> = std::iter::once(&own).chain(others).map(name).collect();
    Finding::Note(format!(
        "that is what user {} may not do, with the groups {}",
        geteuid(),
        groups.join(" ")
    ))
}

/// Confines this process as for serving, and tells what the kernel gave.
fn confinement(common: &CommonArgs, profile: &Profile, started: Started<'_>) -> Finding {
    if common.sandbox == Some(Sandbox::None) {
        let text = "the process would not be confined (leave --sandbox none out)";
        return Finding::Note(text.to_owned());
    }
    match confine::try_out(common, profile, started) {
        Err(error) => Finding::Obstacle(error),
        Ok(obtained) if obtained.is_complete() => {
            Finding::Fine(format!("the process can be confined: {obtained}"))
        }
        // What was refused is part of the text.
        Ok(obtained) => Finding::Note(format!("the process can be confined in part: {obtained}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_that_begins_with_how_bad_it_is() {
        let missing = StartError::missing("there is no\nbus").with_hint("load the driver");
        let rows = [
            (Finding::Fine("a".into()), "ok       a", Exit::Done),
            (Finding::Note("b (c)".into()), "note     b (c)", Exit::Done),
            (
                Finding::Obstacle(missing),
                "missing  there is no\\nbus (load the driver)",
                Exit::Missing,
            ),
            (
                Finding::Obstacle(StartError::new(Exit::Permission, "x")),
                "denied   x",
                Exit::Permission,
            ),
        ];
        for (finding, line, exit) in rows {
            assert_eq!(finding.to_string(), line);
            assert_eq!(finding.exit(), exit, "{line}");
        }
    }

    #[test]
    fn the_worst_finding_decides() {
        let exits = [Exit::Done, Exit::Permission, Exit::Missing, Exit::Done];
        assert_eq!(exits.into_iter().fold(Exit::Done, worse), Exit::Permission);
    }

    #[test]
    fn a_limit_of_descriptors_is_never_an_obstacle() {
        let none = Profile::new();
        let huge = Profile::new().descriptors(u64::MAX);
        assert!(matches!(descriptors(1, &huge), Finding::Note(_)));
        assert_eq!(descriptors(1, &none).exit(), Exit::Done);
    }
}
