//! A mistake on the command line as one line: what is wrong, where, and what to do.

use crate::exit::StartError;

/// Folds clap's report of several paragraphs into one line: the error itself, and its tips as the hint.
pub(super) fn one_line(error: &clap::Error) -> StartError {
    StartError::usage(message(error)).with_hint(hint(error))
}

/// What is wrong.
pub(super) fn message(error: &clap::Error) -> String {
    let (_, others) = paragraphs(error);
    let message = others.join(" ");
    message
        .strip_prefix("error: ")
        .unwrap_or(&message)
        .to_owned()
}

/// What to do about it.
pub(super) fn hint(error: &clap::Error) -> String {
    let (tips, _) = paragraphs(error);
    let tip = tips.last().map(|tip| format!("{tip}; "));
    format!("{}--help lists the options", tip.unwrap_or_default())
}

/// The tips, and the other paragraphs but for the usage.
fn paragraphs(error: &clap::Error) -> (Vec<String>, Vec<String>) {
    let report = error.render().to_string();
    let (mut tips, mut others) = (Vec::new(), Vec::new());
    for paragraph in report.split("\n\n") {
        let paragraph = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        if paragraph.starts_with("Usage:") || paragraph.starts_with("For more information") {
            break;
        }
        match paragraph.strip_prefix("tip: ") {
            Some(tip) => tips.push(tip.to_owned()),
            None => others.push(paragraph),
        }
    }
    (tips, others)
}
