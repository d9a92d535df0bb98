//! The manual page.

use std::io;

use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};
use vhost_device_daemon::{Exit, cli};

use crate::text;

/// When the text below was last changed.
const DATE: &str = "2026-11-22";

/// What an exit code means.
const EXITS: [(Exit, &str); 6] = [
    (Exit::Done, "The daemon did what it was asked to do."),
    (Exit::Usage, "The options make no sense."),
    (
        Exit::Missing,
        "A resource of the host is missing, taken by somebody else, or fails.",
    ),
    (
        Exit::Permission,
        "A resource of the host exists, but this process may not use it.",
    ),
    (
        Exit::Sandbox,
        "The process could not confine itself as it was told to.",
    ),
    (Exit::Internal, "A defect of the daemon itself."),
];

/// The page in the form that man(1) reads.
pub(crate) fn render(command: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .section("1")
        .date(DATE)
        .manual("vhost-device")
        .source(format!(
            "{} {}",
            command.get_name(),
            command.get_version().unwrap_or_default()
        ));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    for heading in [cli::DEVICE_OPTIONS, cli::COMMON_OPTIONS] {
        options(command, heading).to_writer(&mut page)?;
    }
    others(command.get_name()).to_writer(&mut page)?;
    Ok(page)
}

/// The options under a heading, each with its names, its text in paragraphs, its values and its default.
fn options(command: &Command, heading: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [heading.to_uppercase().as_str()]);
    for option in text::options(command, heading) {
        roff.control("TP", []);
        roff.text([
            bold(text::names(option).join(", ")),
            italic(text::value(option).unwrap_or_default()),
        ]);
        for (number, paragraph) in paragraphs(option).into_iter().enumerate() {
            if number > 0 {
                roff.control("IP", []);
            }
            roff.text([roman(paragraph)]);
        }
    }
    roff
}

fn paragraphs(option: &Arg) -> Vec<String> {
    let mut all = text::paragraphs(option);
    if let Some(values) = text::values(option) {
        all.push(format!("One of {}.", values.join(", ")));
    }
    if let Some(default) = text::default(option) {
        all.push(format!("The default is {default}."));
    }
    all
}

/// What is the same for all daemons but no option.
fn others(name: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (exit, meaning) in EXITS {
        roff.control("TP", []);
        roff.text([bold((exit as u8).to_string())]);
        roff.text([roman(meaning)]);
    }
    roff.control("SH", ["SIGNALS"]);
    roff.control("TP", []);
    roff.text([bold("SIGTERM"), roman(", "), bold("SIGINT")]);
    roff.text([roman(
        "Finish what is being served, remove the socket, and exit with status 0. Another SIGINT does not wait for that: it ends the \
         daemon at once.",
    )]);
    roff.control("TP", []);
    roff.text([bold("SIGUSR1")]);
    roff.text([roman("Log the counters.")]);
    roff.control("SH", ["PROCESSES"]);
    roff.text([roman(
        "Where it may have a pid namespace of its own, the daemon is the child of the process that was started, which passes \
         signals on to it and ends as it ends. Under a service manager there is one process.",
    )]);
    roff.control("SH", ["ENVIRONMENT"]);
    for (variable, meaning) in [
        (
            "RUST_LOG",
            "How much is logged, as in info or debug; --log-level counts more.",
        ),
        (
            "LISTEN_FDS, LISTEN_PID",
            "Sockets handed over by the service manager.",
        ),
        (
            "NOTIFY_SOCKET",
            "Where the service manager is told that the daemon is ready.",
        ),
    ] {
        roff.control("TP", []);
        roff.text([bold(variable)]);
        roff.text([roman(meaning)]);
    }
    roff.control("SH", ["EXAMPLES"]);
    roff.text([roman("Serve one virtual machine on a socket:")]);
    roff.control("PP", []);
    roff.control("RS", ["4"]);
    roff.control("nf", []);
    roff.text([roman(format!("{name} --socket-path /run/{name}.sock ..."))]);
    roff.control("fi", []);
    roff.control("RE", []);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        bold("qemu-system-x86_64"),
        roman("(1), "),
        bold("systemd.socket"),
        roman("(5)"),
    ]);
    roff
}

#[cfg(test)]
mod tests {
    use clap::builder::PossibleValuesParser;

    use super::*;

    #[test]
    fn a_page_has_the_options_under_their_headings_and_what_all_daemons_share() {
        let mut command = Command::new("vhost-device-x")
            .version("1.2")
            .about("Serves x")
            .arg(
                Arg::new("form")
                    .long("form")
                    .value_name("FORM")
                    .value_parser(PossibleValuesParser::new(["a", "b"]))
                    .default_value("a")
                    .help("The form.")
                    .long_help("The form.\n\nAt length.")
                    .help_heading(cli::DEVICE_OPTIONS),
            )
            .arg(
                Arg::new("path")
                    .long("path")
                    .help_heading(cli::COMMON_OPTIONS),
            );
        command.build();
        let page = String::from_utf8(render(&command).unwrap()).unwrap();
        let (_, options) = page.split_once(".SH \"DEVICE OPTIONS\"\n").unwrap();
        let places: Vec<_> = [
            "\\-\\-form",
            "At length.",
            "One of a, b.",
            "The default is a.",
            "COMMON OPTIONS",
            "\\-\\-path",
            "EXIT STATUS",
            "SIGTERM",
            "SIGUSR1",
            "PROCESSES",
            "RUST_LOG",
            "SEE ALSO",
        ]
        .into_iter()
        .map(|text| {
            options
                .find(text)
                .unwrap_or_else(|| panic!("{text} is not in {page}"))
        })
        .collect();
        assert!(places.is_sorted(), "{places:?}: {page}");
    }
}
