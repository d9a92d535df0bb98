//! A mistake on the command line as one line: what is wrong, where, and what to do.

use crate::exit::StartError;

/// Folds clap's report of several paragraphs into one line: the error itself, and its tips as the hint.
pub(super) fn one_line(error: &clap::Error) -> StartError {
    let report = error.render().to_string();
    let mut message = String::new();
    let mut hint = String::new();
    for paragraph in report.split("\n\n") {
        let paragraph = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        if paragraph.starts_with("Usage:") || paragraph.starts_with("For more information") {
            break;
        }
        match paragraph.strip_prefix("tip: ") {
            Some(tip) => hint = format!("{tip}; "),
            None if message.is_empty() => message = paragraph,
            None => message = format!("{message} {paragraph}"),
        }
    }
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    StartError::usage(message).with_hint(format!("{hint}--help lists the options"))
}
