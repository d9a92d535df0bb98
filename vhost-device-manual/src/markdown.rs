//! Options as a table in Markdown.

use clap::{Arg, Command};

use crate::text;

/// The options under a heading, one row each.
pub(crate) fn table(command: &Command, heading: &str) -> String {
    let rows: String = text::options(command, heading).map(row).collect();
    format!("| option | meaning |\n|---|---|\n{rows}")
}

fn row(option: &Arg) -> String {
    let spelling = text::names(option).join(", ") + &text::value(option).unwrap_or_default();
    let mut meaning = text::paragraphs(option);
    if let Some(values) = text::values(option) {
        let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
        meaning.push(format!("[{}]", values.join(", ")));
    }
    if let Some(default) = text::default(option) {
        meaning.push(format!("[default: `{default}`]"));
    }
    format!("| `{}` | {} |\n", cell(&spelling), cell(&meaning.join(" ")))
}

/// What may stand in a cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use clap::{ArgAction, Command};

    use super::*;

    #[test]
    fn a_row_has_all_names_the_text_the_values_and_the_default() {
        let mut command = Command::new("x")
            .arg(
                Arg::new("path")
                    .short('p')
                    .long("path")
                    .visible_alias("file")
                    .alias("old")
                    .value_name("NAME|ID")
                    .help("short")
                    .long_help("first\n\nsecond")
                    .help_heading("Here"),
            )
            .arg(
                Arg::new("form")
                    .long("form")
                    .value_name("FORM")
                    .value_parser(["a", "b"])
                    .default_value("a")
                    .help("The form.")
                    .help_heading("Here"),
            )
            .arg(
                Arg::new("flag")
                    .long("flag")
                    .action(ArgAction::SetTrue)
                    .help("A flag.")
                    .help_heading("Here"),
            )
            .arg(
                Arg::new("hidden")
                    .long("hidden")
                    .hide(true)
                    .help_heading("Here"),
            )
            .arg(Arg::new("there").long("there").help_heading("There"));
        command.build();
        assert_eq!(
            table(&command, "Here"),
            "| option | meaning |\n|---|---|\n\
             | `-p, --path, --file NAME\\|ID` | first second |\n\
             | `--form FORM` | The form. [`a`, `b`] [default: `a`] |\n\
             | `--flag` | A flag. |\n"
        );
    }
}
