//! The device's own options, as a person meets them on the command line.

use std::fs;

use vhost_device_testkit::failure::Result;
use vhost_device_testkit::process::{Launch, run};

fn daemon() -> Result<Launch> {
    Ok(Launch::new(
        env!("CARGO_BIN_EXE_vhost-device-template").into(),
    )?)
}

/// The exit code and stderr of a run that does not get as far as listening.
fn refused(launch: Launch) -> Result<(Option<i32>, String)> {
    let socket = launch.dir().join("s");
    let (status, output, log) = run(launch.arguments(["--socket-path".into(), socket]))?;
    assert_eq!(output, "", "stdout is silent");
    assert_eq!(log.lines().count(), 1, "one line explains it: {log:?}");
    Ok((status.code(), log))
}

#[test]
fn help_and_version_are_printed_on_stdout() -> Result<()> {
    let (status, help, log) = run(daemon()?.arguments(["--help"]))?;
    assert!(status.success() && log.is_empty());
    for option in ["--translation <SOURCE>", "--socket-path <PATH>"] {
        assert!(help.contains(option), "{option} in {help}");
    }
    let (status, version, log) = run(daemon()?.arguments(["--version"]))?;
    assert!(status.success() && log.is_empty());
    let expected = concat!("vhost-device-template ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(version, expected);
    Ok(())
}

#[test]
fn the_capabilities_name_the_device_type() -> Result<()> {
    let (status, capabilities, _) = run(daemon()?.arguments(["--print-capabilities"]))?;
    assert!(status.success());
    assert_eq!(capabilities, "{\"type\": \"template\", \"features\": []}\n");
    Ok(())
}

#[test]
fn a_source_that_makes_no_sense_is_an_error_of_usage() -> Result<()> {
    for source in ["", "sim:", "sim:soon"] {
        let (code, log) = refused(daemon()?.arguments(["--translation", source]))?;
        assert_eq!(code, Some(2), "{source:?}: {log}");
        assert!(log.contains("--translation"), "{source:?}: {log}");
    }
    Ok(())
}

#[test]
fn a_table_that_is_missing_or_too_short_is_named() -> Result<()> {
    for content in [None, Some([0; 255])] {
        let launch = daemon()?;
        let table = launch.dir().join("table");
        if let Some(content) = content {
            fs::write(&table, content)?;
        }
        let (code, log) = refused(launch.arguments(["--translation".into(), table.clone()]))?;
        assert_eq!(code, Some(3), "{log}");
        let problem = format!("cannot open {}: ", table.display());
        assert!(log.contains(&problem), "{log}");
    }
    Ok(())
}
