use super::*;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use vhost_device_core::Interest;

use crate::engine::Glance;

fn logger(format: LogFormat, sink: Sink) -> Logger {
    let (filter, _) = filter(None, None);
    Logger::new(filter, format, "vhost-device-test", sink)
}

fn write_log(logger: &Logger, message: &str) {
    logger.log(
        &Record::builder()
            .level(Level::Warn)
            .target("vhost_device_test::engine")
            .args(format_args!("{message}"))
            .build(),
    );
}

/// What arrives at the other end once the logger is gone.
fn received(mut reader: impl Read, logger: Logger) -> Vec<String> {
    drop(logger);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_level_option_wins_over_the_variable_and_libraries_are_quieter() {
    use LevelFilter::{Debug, Error, Info, Off, Trace, Warn};
    // option, variable, level for our modules, level for libraries
    let cases = [
        (None, None, Info, Warn),
        (Some(Off), None, Off, Off),
        (Some(Error), None, Error, Error),
        (Some(Debug), None, Debug, Warn),
        (Some(Debug), Some("error"), Debug, Warn),
        (None, Some("debug"), Debug, Debug),
        (
            None,
            Some("vhost_device_core=trace,vhost::=debug"),
            Off,
            Debug,
        ),
        (None, Some("off,vhost_device_daemon=trace"), Trace, Off),
        (None, Some("no such=syntax=here"), Info, Warn),
    ];
    let enabled = |filter: &Filter, target, level: LevelFilter| {
        level.to_level().is_none_or(|level| {
            filter.enabled(&Metadata::builder().target(target).level(level).build())
        })
    };
    let above = |level: LevelFilter| LevelFilter::iter().find(|l| *l > level);
    for (option, variable, ours, libraries) in cases {
        let (filter, _) = filter(option, variable);
        for (target, level) in [
            ("vhost_device_daemon::engine", ours),
            ("vhost::vhost_user", libraries),
        ] {
            let case = format!("{option:?} {variable:?} {target} {level}");
            assert!(enabled(&filter, target, level), "{case}");
            assert!(
                above(level).is_none_or(|l| !enabled(&filter, target, l)),
                "{case}"
            );
        }
    }
}

#[test]
fn a_variable_that_is_not_understood_is_reported() {
    assert!(filter(None, Some("a=b=c")).1.is_some());
    assert!(filter(None, Some("debug")).1.is_none());
    assert!(filter(Some(LevelFilter::Info), Some("a=b=c")).1.is_none());
}

#[test]
fn a_text_line_has_time_level_module_and_message() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let logger = logger(LogFormat::Text, Sink::to(ours.into()).unwrap());
    write_log(&logger, "queue 0 stopped");
    let lines = received(theirs, logger);
    let (time, rest) = lines[0].split_once(' ').unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    assert_eq!(rest, "WARN  vhost_device_test::engine: queue 0 stopped");
    assert_eq!(lines.len(), 1);
}

#[test]
fn a_json_line_has_the_same_and_the_program() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let logger = logger(LogFormat::Json, Sink::to(ours.into()).unwrap());
    write_log(&logger, "a \"b\"\n");
    let lines = received(theirs, logger);
    assert!(lines[0].starts_with("{\"time\":\"20"), "{}", lines[0]);
    let (_, rest) = lines[0].split_once("Z\",").unwrap();
    assert_eq!(
        rest,
        "\"level\":\"warn\",\"program\":\"vhost-device-test\",\
         \"target\":\"vhost_device_test::engine\",\"message\":\"a \\\"b\\\"\\n\"}"
    );
}

#[test]
fn a_message_cannot_forge_a_line_or_control_the_terminal() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let logger = logger(LogFormat::Text, Sink::to(ours.into()).unwrap());
    write_log(&logger, "a\n2026 ERROR fake\r\u{1b}[2J\u{9b}");
    let lines = received(theirs, logger);
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].ends_with("a\\n2026 ERROR fake\\r\\u{1b}[2J\\u{9b}"),
        "{}",
        lines[0]
    );
}

#[test]
fn a_long_message_is_cut_to_one_whole_line() {
    let header = Header {
        time: std::time::UNIX_EPOCH,
        level: Level::Error,
        program: "p",
        target: "t",
    };
    for unit in ["x", "\n", "\u{9b}", "\"", "\u{1f980}"] {
        for length in (3900..4200).chain([100_000]) {
            let message = unit.repeat(length / unit.len());
            let text = Line::compose(LogFormat::Text, &header, format_args!("{message}"));
            let json = Line::compose(LogFormat::Json, &header, format_args!("{message}"));
            for line in [&text, &json] {
                let line = str::from_utf8(line.bytes()).unwrap();
                assert!(line.len() <= 4096 && line.ends_with('\n'));
                assert_eq!(line.lines().count(), 1);
            }
            let json = str::from_utf8(json.bytes()).unwrap();
            let message = json.split_once("\"message\":\"").unwrap().1;
            let message = message.strip_suffix("\"}\n").unwrap();
            let escapes = message.strip_suffix(" [cut]").unwrap_or(message);
            assert!(whole_escapes(escapes), "{escapes}");
        }
    }
}

/// Whether every backslash begins an escape that is complete.
fn whole_escapes(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let length = if rest[at + 1..].starts_with('u') {
            6
        } else {
            2
        };
        if rest.len() < at + length {
            return false;
        }
        rest = &rest[at + length..];
    }
    true
}

/// The writing end of each kind of stderr that can be full, and its reader.
fn kinds() -> Vec<(&'static str, Sink, Box<dyn Read>)> {
    let (pipe_reader, pipe) = std::io::pipe().unwrap();
    let (looked_reader, looked) = std::io::pipe().unwrap();
    let room = Glance::at(&looked, Interest::WRITABLE).unwrap();
    let (socket, socket_reader) = UnixStream::pair().unwrap();
    vec![
        (
            "pipe",
            Sink::to(pipe.into()).unwrap(),
            Box::new(pipe_reader),
        ),
        (
            "pipe that cannot be opened again",
            Sink::Looked(room, looked.into()),
            Box::new(looked_reader),
        ),
        (
            "socket",
            Sink::to(socket.into()).unwrap(),
            Box::new(socket_reader),
        ),
    ]
}

#[test]
fn a_reader_that_does_not_read_never_blocks_and_is_told_what_it_missed() {
    for (kind, sink, mut reader) in kinds() {
        let logger = logger(LogFormat::Text, sink);
        // Far more than any of them buffers; a blocking write would hang the test here.
        for number in 0..50_000 {
            write_log(&logger, &format!("{number:080}"));
        }
        let dropped = logger.dropped.load(Ordering::Relaxed);
        assert!(dropped > 0 && dropped < 50_000, "{kind}: {dropped}");

        let mut chunk = [0; 32 * 1024];
        let mut text = String::new();
        let count = reader.read(&mut chunk).unwrap();
        text.push_str(str::from_utf8(&chunk[..count]).unwrap());
        write_log(&logger, "room again");
        drop(logger);
        reader.read_to_string(&mut text).unwrap();

        let lines: Vec<_> = text.lines().collect();
        let (last, lines) = lines.split_last().unwrap();
        let (notice, lines) = lines.split_last().unwrap();
        assert!(last.ends_with(": room again"), "{kind}: {last}");
        assert!(
            notice.ends_with(&format!(
                ": {dropped} log lines were dropped because stderr took no more"
            )),
            "{kind}: {notice}"
        );
        assert_eq!(lines.len() as u64, 50_000 - dropped, "{kind}");
        for (number, line) in lines.iter().enumerate() {
            assert!(line.ends_with(&format!(": {number:080}")), "{kind}: {line}");
        }
    }
}

#[test]
fn a_reader_that_is_gone_is_no_error() {
    for (kind, sink, reader) in kinds() {
        drop(reader);
        let logger = logger(LogFormat::Text, sink);
        for _ in 0..100 {
            write_log(&logger, "nobody reads this");
        }
        assert_eq!(logger.dropped.load(Ordering::Relaxed), 100, "{kind}");
    }
}

#[test]
fn the_flags_of_a_shared_stderr_stay_as_they_are() {
    let (_reader, pipe) = std::io::pipe().unwrap();
    let shared: OwnedFd = pipe.into();
    let sink = Sink::to(shared.try_clone().unwrap()).unwrap();
    assert!(matches!(sink, Sink::Reopened(_)), "{sink:?}");
    write_log(&logger(LogFormat::Text, sink), "hello");
    let flags = OFlag::from_bits_retain(fcntl(shared.as_fd(), FcntlArg::F_GETFL).unwrap());
    assert!(!flags.contains(OFlag::O_NONBLOCK));
}

#[test]
fn a_file_is_written_where_its_descriptor_stands() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"before\n").unwrap();
    let logger = logger(
        LogFormat::Text,
        Sink::to(file.try_clone().unwrap().into()).unwrap(),
    );
    write_log(&logger, "after");
    std::io::Seek::rewind(&mut file).unwrap();
    let lines = received(file, logger);
    assert_eq!(lines[0], "before");
    assert!(lines[1].ends_with(": after"), "{lines:?}");
}

#[test]
fn a_torn_line_is_ended_before_the_next_one() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let logger = logger(
        LogFormat::Text,
        Sink::to(ours.try_clone().unwrap().into()).unwrap(),
    );
    (&ours).write_all(b"half a li").unwrap();
    logger.torn.store(true, Ordering::Relaxed);
    logger.dropped.store(1, Ordering::Relaxed);
    write_log(&logger, "next");
    drop(ours);
    let lines = received(theirs, logger);
    assert_eq!(lines[0], "half a li");
    assert!(lines[1].contains(": 1 log lines were dropped"), "{lines:?}");
    assert!(lines[2].ends_with(": next"), "{lines:?}");
}
