//! `cargo xtask test`: everything that must hold before a change is taken, in one command.

mod cargo_steps;
mod conformance;
mod documents;
mod generated;
pub mod guests;
mod hardware;
mod manuals;
mod shipped;
pub mod tally;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

use self::tally::Tally;
use crate::progress::{Progress, seconds};
use crate::workspace::Workspace;

/// Run every check: format, lints, tests, documentation, xen, guests
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run this step only; may be given several times
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Name the steps and end
    #[arg(long)]
    list: bool,
}

/// One kind of check.
struct Step {
    name: &'static str,
    about: &'static str,
    run: fn(&Workspace) -> Result<Tally>,
}

const STEPS: &[Step] = &[
    Step {
        name: "format",
        about: "cargo fmt --check",
        run: cargo_steps::format,
    },
    Step {
        name: "clippy",
        about: "lints of all targets, warnings denied",
        run: cargo_steps::clippy,
    },
    Step {
        name: "xen",
        about: "lints with the feature xen of every crate",
        run: cargo_steps::xen,
    },
    Step {
        name: "tests",
        about: "unit, conformance and documentation tests",
        run: cargo_steps::tests,
    },
    Step {
        name: "rustdoc",
        about: "the API documentation without a warning",
        run: cargo_steps::rustdoc,
    },
    Step {
        name: "documents",
        about: "commands in the documents are what the programs take",
        run: documents::run,
    },
    Step {
        name: "manuals",
        about: "manual pages, completions and option tables",
        run: manuals::run,
    },
    Step {
        name: "shipped",
        about: "packages, units and examples: installed, started, removed",
        run: shipped::run,
    },
    Step {
        name: "generated",
        about: "a device made by new-device builds and conforms",
        run: generated::run,
    },
    Step {
        name: "guests",
        about: "every device in real guests, User Mode Linux and QEMU",
        run: guests::run,
    },
    Step {
        name: "hardware",
        about: "daemons and the kernel's own simulated hardware",
        run: hardware::run,
    },
];

/// Runs the verb. Every step is run, whatever became of those before it.
pub fn run(args: &Args) -> Result<ExitCode> {
    if args.list {
        for step in STEPS {
            println!("{:<10} {}", step.name, step.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let steps = chosen(&args.only)?;
    let workspace = Workspace::load()?;
    let start = Instant::now();
    let mut total = Tally::default();
    for (number, step) in steps.iter().enumerate() {
        let label = format!(
            "[{}/{}] {}: {}",
            number + 1,
            steps.len(),
            step.name,
            step.about
        );
        total.add(perform(step, &label, &workspace));
    }
    Ok(summary(&total, start))
}

fn chosen(only: &[String]) -> Result<Vec<&'static Step>> {
    if let Some(unknown) = only
        .iter()
        .find(|name| STEPS.iter().all(|step| step.name != **name))
    {
        bail!("no step is called {unknown}; --list names them");
    }
    Ok(STEPS
        .iter()
        .filter(|step| only.is_empty() || only.iter().any(|name| name == step.name))
        .collect())
}

fn perform(step: &Step, label: &str, workspace: &Workspace) -> Tally {
    let progress = Progress::start(label);
    // a step that cannot be carried out has failed
    let mut tally = (step.run)(workspace)
        .unwrap_or_else(|error| Tally::failure(&format!("{}: {error:#}", step.name)));
    if tally.is_empty() {
        tally.fail(&format!("{}: nothing was tested", step.name));
    }
    progress.done(&tally.counts());
    for failure in &tally.failures {
        eprintln!("FAILED {failure}");
    }
    tally
}

/// Prints the notes, the failures again (they may have scrolled away) and the closing count.
fn summary(total: &Tally, start: Instant) -> ExitCode {
    println!();
    for note in &total.notes {
        println!("{note}");
    }
    for failure in &total.failures {
        let first = failure.lines().next().unwrap_or_default();
        println!("FAILED {first}");
    }
    println!("all steps took {}", seconds(start.elapsed()));
    // the last line, alone, in this form: continuous integration reads it
    println!("{}", total.counts());
    if total.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_can_be_chosen_by_name() {
        assert_eq!(chosen(&[]).unwrap().len(), STEPS.len());
        let one = chosen(&["xen".to_owned()]).unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].name, "xen");
        assert!(chosen(&["nothing".to_owned()]).is_err());
    }

    #[test]
    fn a_step_that_tests_nothing_or_breaks_off_has_failed() {
        let workspace = Workspace {
            root: "/".into(),
            target: "/".into(),
            packages: Vec::new(),
        };
        let run = |run| {
            perform(
                &Step {
                    name: "s",
                    about: "",
                    run,
                },
                "s",
                &workspace,
            )
        };
        assert!(!run(|_| Ok(Tally::default())).is_success());
        assert!(!run(|_| bail!("no cargo")).is_success());
        assert!(run(|_| Ok(Tally::success())).is_success());
    }
}
