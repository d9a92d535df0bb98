//! What there is to say about an option, in no form yet.

use clap::builder::ValueRange;
use clap::{Arg, Command};

/// The options under a heading that are shown to people.
pub(crate) fn options<'a>(command: &'a Command, heading: &str) -> impl Iterator<Item = &'a Arg> {
    command
        .get_arguments()
        .filter(move |option| !option.is_hide_set() && option.get_help_heading() == Some(heading))
}

/// `-s`, `--socket-path`, and the aliases that are shown.
pub(crate) fn names(option: &Arg) -> Vec<String> {
    let short = option.get_short().map(|letter| format!("-{letter}"));
    let aliases = option.get_visible_aliases().unwrap_or_default();
    let long = option.get_long().into_iter().chain(aliases);
    short
        .into_iter()
        .chain(long.map(|name| format!("--{name}")))
        .collect()
}

/// ` PATH`, with the blank that goes before it.
pub(crate) fn value(option: &Arg) -> Option<String> {
    let names = takes_values(option).then(|| option.get_value_names())??;
    Some(format!(" {}", names.join(" ")))
}

/// The long help, or else the short one.
pub(crate) fn paragraphs(option: &Arg) -> Vec<String> {
    let help = option.get_long_help().or(option.get_help());
    let text = help.map(ToString::to_string).unwrap_or_default();
    text.split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|paragraph| !paragraph.is_empty())
        .collect()
}

/// The values, if there are only so many.
pub(crate) fn values(option: &Arg) -> Option<Vec<String>> {
    let names: Vec<_> = option
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| value.get_name().to_owned())
        .collect();
    (takes_values(option) && !names.is_empty()).then_some(names)
}

/// The value that counts if the option is not given.
pub(crate) fn default(option: &Arg) -> Option<String> {
    let values = option.get_default_values();
    let texts: Vec<_> = values.iter().map(|value| value.to_string_lossy()).collect();
    (takes_values(option) && !texts.is_empty()).then(|| texts.join(" "))
}

fn takes_values(option: &Arg) -> bool {
    option
        .get_num_args()
        .is_some_and(|count: ValueRange| count.takes_values())
}
