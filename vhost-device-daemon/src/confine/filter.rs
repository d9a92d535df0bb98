//! Stage 6: no system calls but those of the tables.
//!
//! One filter lists what is allowed; the others, one for each answer, have the kernel answer what libraries can do without. Where
//! several have an opinion, the kernel takes the strictest one. Calls that are allowed whatever their arguments cost nothing: the
//! kernel remembers them in a bitmap.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::ManuallyDrop;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, apply_filter_all_threads,
};

use super::calls;
use super::profile::{Call, Profile, Sysno, Test};
use super::trap;
use crate::cli::Seccomp;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The tables of one daemon.
pub struct Tables {
    serving: Vec<Call>,
    device: Vec<Call>,
    /// With the error number that is answered.
    declined: Vec<(Sysno, i32)>,
}

impl Tables {
    /// What every daemon needs, and what this device needs beyond that.
    pub fn new(profile: &Profile) -> Self {
        let mut tables = Self {
            serving: calls::serving(),
            device: profile.calls.clone(),
            declined: Vec::new(),
        };
        #[cfg(feature = "xen")]
        tables.serving.extend(calls::xen());
        let is_allowed = |number: &Sysno| tables.allowed().any(|call| call.number() == *number);
        let declined = calls::DECLINED.iter();
        tables.declined = declined
            .filter(|(number, _)| !is_allowed(number))
            .copied()
            .collect();
        tables
    }

    fn allowed(&self) -> impl Iterator<Item = &Call> {
        self.serving.iter().chain(&self.device)
    }

    /// How many different calls are allowed.
    pub fn count(&self) -> usize {
        rules(self.allowed()).map_or(0, |rules| rules.len())
    }

    /// Writes the tables to the log. `cargo xtask syscalls` reads them there.
    pub fn log(&self) {
        for (group, calls) in [("serving", &self.serving), ("of the device", &self.device)] {
            log::debug!("calls {group}: {}", names(calls.iter().map(Call::number)));
        }
        let declined = self.declined.iter().map(|(number, _)| *number);
        log::debug!("calls declined: {}", names(declined));
    }

    /// Applies the filters to all threads, for good.
    ///
    /// # Errors
    /// Why there is no filter, as a clause.
    pub fn enforce(&self, action: Seccomp) -> Result<(), String> {
        let refuse = match action {
            Seccomp::None => return Ok(()),
            Seccomp::Log => SeccompAction::Log,
            Seccomp::Kill => {
                trap::install().map_err(|error| error.to_string())?;
                SeccompAction::Trap
            }
        };
        let mut filters = self.answering()?;
        // Declined calls pass here, or the refusal would win over the other filters' answers.
        let mut rules = rules(self.allowed())?;
        rules.extend(self.declined.iter().map(|(number, _)| any(*number)));
        filters.push(program(rules, refuse, SeccompAction::Allow)?);
        for filter in &filters {
            apply_filter_all_threads(filter).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// A filter for each answer to declined calls.
    fn answering(&self) -> Result<Vec<BpfProgram>, String> {
        let mut answers: BTreeMap<i32, Rules> = BTreeMap::new();
        for (number, error) in &self.declined {
            answers.entry(*error).or_default().extend([any(*number)]);
        }
        let filter = |(error, rules)| {
            program(
                rules,
                SeccompAction::Allow,
                SeccompAction::Errno(error as u32),
            )
        };
        answers.into_iter().map(filter).collect()
    }
}

/// Leaves the only thread of this process these calls. Any other ends it at once: nobody is there to tell of it.
///
/// # Errors
/// Why there is no filter, as a clause.
pub fn restrict(calls: &[Call], action: Seccomp) -> Result<(), String> {
    let refuse = match action {
        Seccomp::None => return Ok(()),
        Seccomp::Log => SeccompAction::Log,
        Seccomp::Kill => SeccompAction::KillProcess,
    };
    let program = program(rules(calls)?, refuse, SeccompAction::Allow)?;
    // Never given back: that could take another call.
    let program = ManuallyDrop::new(program);
    apply_filter(&program).map_err(|error| error.to_string())
}

fn rules<'a>(calls: impl IntoIterator<Item = &'a Call>) -> Result<Rules, String> {
    let mut rules = Rules::new();
    let mut unconditional = Vec::new();
    for call in calls {
        let number = id(call.number());
        if call.tests().is_empty() {
            unconditional.push(number);
        }
        rules.entry(number).or_default().extend(conditions(call)?);
    }
    for number in unconditional {
        rules.insert(number, Vec::new());
    }
    Ok(rules)
}

/// In alphabetical order, each once.
fn names(numbers: impl Iterator<Item = Sysno>) -> String {
    let names: BTreeSet<_> = numbers.map(|number| number.name()).collect();
    names.into_iter().collect::<Vec<_>>().join(" ")
}

/// The rule for a call with any arguments.
fn any(number: Sysno) -> (i64, Vec<SeccompRule>) {
    (id(number), Vec::new())
}

fn id(number: Sysno) -> i64 {
    number.id().into()
}

/// One rule for each combination of values; all conditions of a rule must hold.
fn conditions(call: &Call) -> Result<Vec<SeccompRule>, String> {
    let mut combinations = vec![Vec::new()];
    for test in call.tests() {
        let choices = match test {
            Test::OneOf { argument, values } => values
                .iter()
                .map(|value| condition(*argument, SeccompCmpOp::Eq, *value))
                .collect::<Result<Vec<_>, _>>()?,
            Test::Bits {
                argument,
                mask,
                value,
            } => vec![condition(*argument, SeccompCmpOp::MaskedEq(*mask), *value)?],
        };
        let extend = |base: &Vec<SeccompCondition>| {
            let base = base.clone();
            choices
                .iter()
                .map(move |choice| [&base[..], std::slice::from_ref(choice)].concat())
                .collect::<Vec<_>>()
        };
        combinations = combinations.iter().flat_map(extend).collect();
    }
    combinations
        .into_iter()
        .filter(|conditions| !conditions.is_empty())
        .map(|conditions| SeccompRule::new(conditions).map_err(|error| error.to_string()))
        .collect()
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, String> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .map_err(|error| error.to_string())
}

fn program(
    rules: Rules,
    mismatch: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, String> {
    let target = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    SeccompFilter::new(rules, mismatch, matching, target)
        .and_then(BpfProgram::try_from)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_values_is_a_rule() {
        let call = Call::new(Sysno::socket)
            .one_of(0, &[1, 40])
            .bits(1, 0xf, 1)
            .one_of(2, &[0, 6]);
        assert_eq!(conditions(&call).unwrap().len(), 4);
        assert!(conditions(&Sysno::read.into()).unwrap().is_empty());
    }

    #[test]
    fn entries_for_one_call_add_up_and_the_widest_wins() {
        let profile = Profile::new()
            .call(Call::new(Sysno::fcntl).one_of(1, &[7]))
            .call(Call::new(Sysno::ioctl).one_of(1, &[1, 2]))
            .call(Call::new(Sysno::ioctl).one_of(1, &[3]))
            .call(Call::new(Sysno::mmap));
        let rules = rules(Tables::new(&profile).allowed()).unwrap();
        assert_eq!(rules[&id(Sysno::fcntl)].len(), 5);
        assert_eq!(rules[&id(Sysno::ioctl)].len(), 3);
        assert!(rules[&id(Sysno::mmap)].is_empty());
        assert!(!rules.contains_key(&id(Sysno::execve)));
    }

    #[test]
    fn what_a_device_asks_for_is_not_declined() {
        let tables = Tables::new(&Profile::new().call(Sysno::openat));
        let is_declined = |number| {
            tables
                .declined
                .iter()
                .any(|(declined, _)| *declined == number)
        };
        assert!(!is_declined(Sysno::openat) && is_declined(Sysno::clone3));
        let allowed = names(tables.allowed().map(Call::number));
        assert!(allowed.contains(" openat prctl "), "{allowed}");
    }
}
