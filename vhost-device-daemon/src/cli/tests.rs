use super::*;

/// The options of the rng device, as an example of a device with short options of its own.
#[derive(Args, Debug)]
struct Rng {
    /// Take bytes from FILE.
    #[arg(short = 'f', long, value_name = "FILE")]
    rng_source: Option<PathBuf>,
    /// Length of a period in milliseconds.
    #[arg(short, long, default_value_t = 60_000)]
    period: u64,
    /// Bytes in a period.
    #[arg(short, long)]
    max_bytes: Option<u64>,
}

fn interpreted(line: &str) -> Result<Parsed<Rng>, Stop> {
    let argv = std::iter::once("vhost-device-rng").chain(line.split_whitespace());
    interpret(
        "vhost-device-rng",
        "1.2.3",
        "Randomness for guests",
        argv.map(OsString::from),
        |_| Vec::new(),
    )
}

fn accepted(line: &str) -> (CommonArgs, Rng) {
    match interpreted(line) {
        Ok(Parsed::Serve { common, device }) => (common, device),
        other => panic!("{line}: {other:?}"),
    }
}

fn refused(line: &str) -> String {
    match interpreted(line) {
        Err(Stop::Refused(error)) => {
            assert_eq!(error.exit(), Exit::Usage, "{line}");
            error.to_string()
        }
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_is_consistent() {
    Cli::<Rng>::command().debug_assert();
}

#[test]
fn public_command_lines_run_unchanged() {
    let path = |path: &str| PathBuf::from(path);
    let indexed = |paths: &[&str]| SocketPlan::Indexed(paths.iter().map(|p| path(p)).collect());
    let cases = [
        ("-s /tmp/x.sock", SocketPlan::Path(path("/tmp/x.sock"))),
        ("-s/tmp/x.sock", SocketPlan::Path(path("/tmp/x.sock"))),
        (
            "--socket-path /tmp/x.sock",
            SocketPlan::Path(path("/tmp/x.sock")),
        ),
        ("--socket=x.sock", SocketPlan::Path(path("x.sock"))),
        (
            "--socket-path=/tmp/rng.sock -c 1 -m 512 -p 1000",
            indexed(&["/tmp/rng.sock0"]),
        ),
        (
            "-s /tmp/x.sock --socket-count=2",
            indexed(&["/tmp/x.sock0", "/tmp/x.sock1"]),
        ),
        ("-s x -c 2 -f /dev/urandom", indexed(&["x0", "x1"])),
        ("--fd 3", SocketPlan::Descriptor(3)),
        ("--fd=17 --socket-count 1", SocketPlan::Descriptor(17)),
        ("--socket-fd 4 --once", SocketPlan::Descriptor(4)),
    ];
    for (line, plan) in cases {
        assert_eq!(accepted(line).0.validate().unwrap(), plan, "{line}");
    }
}

#[test]
fn device_options_arrive_beside_the_common_ones() {
    let (common, device) =
        accepted("--socket-path=/tmp/rng.sock -c 1 -m 512 -p 1000 -f /dev/urandom");
    assert_eq!(common.socket_count, Some(1));
    assert_eq!(device.max_bytes, Some(512));
    assert_eq!(device.period, 1000);
    assert_eq!(device.rng_source, Some(PathBuf::from("/dev/urandom")));
}

#[test]
fn defaults_are_those_of_the_contract() {
    let (common, _) = accepted("-s x");
    assert_eq!(common.poll(), Duration::ZERO);
    assert_eq!(common.log_level, None);
    assert_eq!(common.log_format, LogFormat::Text);
    assert!(!common.once);
    assert_eq!((common.socket_mode, common.socket_group), (None, None));
}

#[test]
fn values_are_read_as_documented() {
    assert_eq!(
        accepted("-s x --poll-us 1000").0.poll(),
        Duration::from_millis(1)
    );
    assert_eq!(
        accepted("-s x --log-level DEBUG").0.log_level,
        Some(LogLevel::Debug)
    );
    assert_eq!(
        accepted("-s x --log-level off").0.log_level,
        Some(LogLevel::Off)
    );
    assert_eq!(
        accepted("-s x --log-format json").0.log_format,
        LogFormat::Json
    );
    assert_eq!(
        accepted("-s x --socket-group kvm")
            .0
            .socket_group
            .as_deref(),
        Some("kvm")
    );
    for mode in ["660", "0660", "0o660"] {
        let line = format!("-s x --socket-mode {mode}");
        assert_eq!(accepted(&line).0.socket_mode, Some(0o660), "{mode}");
    }
}

#[test]
fn mistakes_are_explained_in_one_line() {
    let long = format!("-s /tmp/{}", "x".repeat(103));
    let long_with_index = format!("-c 1 -s /tmp/{}", "x".repeat(102));
    let cases = [
        (
            "",
            "no socket to listen on (give --socket-path PATH or --fd N, or start",
        ),
        (
            "-s",
            "a value is required for '--socket-path <PATH>' but none was supplied (",
        ),
        (
            "-s x --sokcet-mode 0600",
            "unexpected argument '--sokcet-mode' found (a similar argument exists: '--socket-mode'; --help",
        ),
        (
            "-s x stray",
            "unexpected argument 'stray' found (--help lists the options)",
        ),
        (
            "-s x -s y",
            "the argument '--socket-path <PATH>' cannot be used multiple times (",
        ),
        ("-s x --fd 3", "--socket-path and --fd exclude each other ("),
        (
            "--fd 2",
            "invalid value '2' for '--fd <N>': 2 is not in 3..",
        ),
        ("--fd -1", "unexpected argument '-1' found"),
        (
            "--fd stdin",
            "invalid value 'stdin' for '--fd <N>': invalid digit",
        ),
        (
            "--fd 3 -c 2",
            "--socket-count 2 does not fit the number of inherited sockets, which is 1 (",
        ),
        (
            "--fd 3 --socket-mode 600",
            "--socket-mode needs --socket-path (",
        ),
        (
            "--fd 3 --socket-group kvm",
            "--socket-group needs --socket-path (",
        ),
        (
            "-s x -c 0",
            "invalid value '0' for '--socket-count <N>': 0 is not in 1..=256 (",
        ),
        (
            "-s x -c 257",
            "invalid value '257' for '--socket-count <N>': 257 is not in 1..=256 (",
        ),
        (
            "-s x --socket-mode 888",
            "invalid value '888' for '--socket-mode <OCTAL>': expected an octal mode from 0 to 0777",
        ),
        (
            "-s x --socket-mode +7",
            "invalid value '+7' for '--socket-mode <OCTAL>': expected an octal mode",
        ),
        (
            "-s x --socket-mode 1777",
            "invalid value '1777' for '--socket-mode <OCTAL>': expected an octal mode",
        ),
        (
            "-s x --poll-us 1001",
            "invalid value '1001' for '--poll-us <N>': 1001 is not in 0..=1000 (",
        ),
        (
            "-s x --log-level loud",
            "invalid value 'loud' for '--log-level <LEVEL>' [possible values: off, error, warn, info, debug, trace] (",
        ),
        (
            "-s x --log-format xml",
            "invalid value 'xml' for '--log-format <FORMAT>' [possible values: text, json] (",
        ),
        (
            "-s x -p soon",
            "invalid value 'soon' for '--period <PERIOD>': invalid digit found in string (",
        ),
        ("-s /", "--socket-path '/' does not name a file"),
        (
            "-s /tmp/dir/",
            "--socket-path '/tmp/dir/' does not name a file",
        ),
        ("-s ..", "--socket-path '..' does not name a file"),
        (
            &long,
            "has 108 bytes, a unix socket's path holds 107 (use a shorter directory, or --fd)",
        ),
        (
            &long_with_index,
            "has 108 bytes, a unix socket's path holds 107 (",
        ),
    ];
    for (line, expected) in cases {
        let message = refused(line);
        assert!(message.contains(expected), "{line}: {message}");
        assert!(!message.contains('\n'), "{line}: {message}");
    }
}

#[test]
fn an_empty_path_is_refused() {
    let argv = ["vhost-device-rng", "-s", ""].map(OsString::from);
    let Err(Stop::Refused(error)) =
        interpret::<Rng>("vhost-device-rng", "1", "", argv, |_| Vec::new())
    else {
        panic!("accepted");
    };
    let error = error.to_string();
    assert!(
        error.starts_with("a value is required for '--socket-path <PATH>'"),
        "{error}"
    );
}

#[test]
fn the_longest_possible_path_is_accepted() {
    accepted(&format!("-s /tmp/{}", "x".repeat(102)));
    accepted(&format!("-c 10 -s /tmp/{}", "x".repeat(101)));
}

#[test]
fn sockets_of_the_service_manager_are_taken_alone() {
    let plan = |line: &str, offered| {
        let argv = std::iter::once("x").chain(line.split_whitespace());
        let cli = Cli::<Rng>::try_parse_from(argv).unwrap();
        cli.common.plan(Some(offered))
    };
    assert_eq!(plan("", 3).unwrap(), SocketPlan::Activated(3));
    assert_eq!(plan("-c 3", 3).unwrap().count(), 3);
    for line in ["-s x", "--fd 3", "--fd 3 -s x", "-c 2", "--socket-mode 600"] {
        assert_eq!(plan(line, 3).unwrap_err().exit(), Exit::Usage, "{line}");
    }
}

#[test]
fn capabilities_win_over_everything_else() {
    for line in [
        "--print-capabilities",
        "--print-capabilities -s x",
        "--fd 9 --print-capabilities",
        "--no-such-option --print-capabilities --poll-us nine",
        "-s --print-capabilities",
        "--version --print-capabilities",
        "-- --print-capabilities",
    ] {
        assert!(
            matches!(interpreted(line), Ok(Parsed::PrintCapabilities)),
            "{line}"
        );
    }
}

#[test]
fn help_and_version_are_answers_not_errors() {
    let text = |line| match interpreted(line) {
        Err(Stop::Answered(text)) => text,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(text("--version"), "vhost-device-rng 1.2.3\n");
    assert_eq!(text("-V"), "vhost-device-rng 1.2.3\n");
    for help in [text("--help"), text("-h")] {
        assert!(help.starts_with("Randomness for guests\n"), "{help}");
        assert!(help.contains("Usage: vhost-device-rng [OPTIONS]"), "{help}");
        let device = help.find("Device options:").unwrap();
        let common = help.find("Common options:").unwrap();
        let position = |option: &str| help.find(option).unwrap();
        assert!(
            (device..common).contains(&position("--rng-source")),
            "{help}"
        );
        for option in [
            "--socket-path",
            "--socket",
            "--fd",
            "--socket-fd",
            "--socket-count",
            "--socket-mode",
            "--socket-group",
            "--once",
            "--print-capabilities",
            "--poll-us",
            "--log-level",
            "--log-format",
        ] {
            assert!(position(option) > common, "{option}: {help}");
        }
    }
}

fn with_file(text: &str, line: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rng.toml");
    std::fs::write(&path, text).unwrap();
    let line = format!("--config {} {line}", path.display());
    (folder, line)
}

#[test]
fn a_file_gives_what_the_command_line_leaves_out() {
    let (_folder, line) = with_file("socket-path = 'x'\nperiod = 5\nmax-bytes = 7", "-p 6");
    let (common, device) = accepted(&line);
    assert_eq!(common.socket_path, Some(PathBuf::from("x")));
    assert_eq!((device.period, device.max_bytes), (6, Some(7)));
}

#[test]
fn a_mistake_in_a_file_names_it_and_one_on_the_command_line_does_not() {
    let (_folder, line) = with_file("period = 'soon'", "-s x");
    let error = refused(&line);
    assert!(
        error.contains("/rng.toml: invalid value 'soon' for '--period"),
        "{error}"
    );
    let (_folder, line) = with_file("period = 5", "-s x --max-bytes many");
    let error = refused(&line);
    assert!(error.starts_with("invalid value 'many'"), "{error}");
    let (_folder, line) = with_file("period = 5", "");
    assert!(refused(&line).starts_with("no socket"));
}

#[test]
fn a_configuration_can_be_checked_without_a_socket_and_without_serving() {
    let fine = "vhost-device-rng: the options are fine\n";
    for (text, line) in [
        ("period = 5", "--check-config"),
        ("", "--check-config -s x"),
    ] {
        let (_folder, line) = with_file(text, line);
        match interpreted(&line) {
            Err(Stop::Answered(answer)) => assert_eq!(answer, fine),
            other => panic!("{line}: {other:?}"),
        }
    }
    let (_folder, line) = with_file("period = 0.5", "--check-config");
    assert!(refused(&line).contains("rng.toml"));
    let (_folder, line) = with_file("fd = 3", "--check-config -s x");
    assert!(refused(&line).contains("exclude each other"));
}

#[test]
fn sockets_of_the_device_s_own_options_are_the_only_ones() {
    let with = |line: &str, sockets: &[&str]| {
        let mut common = Cli::<Rng>::try_parse_from(format!("d {line}").split_whitespace())
            .unwrap()
            .common;
        common.device_sockets = sockets.iter().map(PathBuf::from).collect();
        common
    };
    assert_eq!(
        with("", &["/run/a", "/tmp/b"]).plan(None).unwrap(),
        SocketPlan::Named(vec!["/run/a".into(), "/tmp/b".into()])
    );
    let refusals = [
        (with("-s /run/s", &["/run/a"]), None),
        (with("--fd 3", &["/run/a"]), None),
        (with("", &["/run/a"]), Some(1)),
        (with("", &["/run/a", "/run/a"]), None),
        (with("", &["/run/"]), None),
    ];
    for (common, offered) in refusals {
        let error = common.plan(offered).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage, "{error}");
    }
}
