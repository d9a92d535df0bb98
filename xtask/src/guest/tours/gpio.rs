//! The guest blinks a line, the host sees it; the host pulls a line, the guest is interrupted.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Comparison, Tour};

/// The tour of the gpio device.
pub const TOUR: Tour = Tour {
    prepare,
    script: include_str!("../../../guest/tour/gpio.sh"),
    compare,
};

/// What the chip's control socket tells of the light as it blinks twice.
const BLINKS: [&str; 4] = ["event 0 1", "event 0 0", "event 0 1", "event 0 0"];

/// What the guest says when the host has pulled line 3.
const RUNG: &str = "gpiomon: rising edge of line 3";

/// What it says where the machine has no interrupts for it.
const UNABLE: &str = "no interrupts: QEMU before 9.0 does not pass them on";

const CONTROL: &str = "control";
const SEEN: &str = "seen";

/// How long the host waits for the daemon to be there.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long its notes may take to be complete once the guest is gone.
const SETTLE: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(20);

fn prepare(folder: &Path) -> Result<Vec<OsString>> {
    let control = folder.join(CONTROL);
    let seen = folder.join(SEEN);
    fs::write(&seen, "")?;
    let chip = format!("s8,names=led///doorbell,control={}", control.display());
    thread::spawn(move || {
        // what it could not do is missing from the comparison
        let _ = watch(&control, &seen);
    });
    Ok(vec!["--chip".into(), chip.into()])
}

/// The host's part: writes down what it sees, and rings once the light is on.
fn watch(control: &Path, seen: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let stream = loop {
        match UnixStream::connect(control) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::sleep(POLL),
        }
    };
    (&stream).write_all(b"watch\n")?;
    let mut text = String::new();
    for line in BufReader::new(&stream).lines() {
        let line = line?;
        if line == BLINKS[0] {
            (&stream).write_all(b"set doorbell 1\n")?;
        }
        if line.starts_with("event") {
            writeln!(text, "{line}").map_err(io::Error::other)?;
            fs::write(seen, &text)?;
        }
    }
    Ok(())
}

fn compare(folder: &Path, output: &str) -> Result<Comparison> {
    let seen = seen(&folder.join(SEEN))?;
    let mut view = format!("the guest\n{}", indented(output));
    write!(view, "the host\n{}", indented(&seen))?;
    ensure!(
        has_blinked(&seen),
        "the guest's light did not blink twice for the host\n{view}"
    );
    let says = |what| output.lines().any(|line| line == what);
    ensure!(
        says(RUNG) || says(UNABLE),
        "the guest saw no interrupt\n{view}"
    );
    let bell = if says(RUNG) {
        ", the guest the doorbell once"
    } else {
        ""
    };
    Ok(Comparison {
        view,
        verdict: format!("the host saw the light blink twice{bell}"),
    })
}

/// The events that the host wrote down. The last one may still be on its way to the file.
fn seen(path: &Path) -> Result<String> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let text = fs::read_to_string(path).context("the host saw nothing")?;
        if has_blinked(&text) || Instant::now() > deadline {
            return Ok(text);
        }
        thread::sleep(POLL);
    }
}

fn has_blinked(seen: &str) -> bool {
    seen.lines()
        .filter(|line| line.starts_with("event 0 "))
        .eq(BLINKS)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::Folder;

    #[test]
    fn the_blinking_and_the_bell_must_both_have_been_seen() {
        let folder = Folder::new("tour").unwrap();
        let saw = |text: &str| fs::write(folder.path().join(SEEN), text).unwrap();
        let blinks = BLINKS.join("\n");
        let rung = format!("gpiochip0\n{RUNG}\n");
        saw(&format!("{blinks}\nevent 3 1\n"));
        assert!(compare(folder.path(), &rung).is_ok());
        assert!(compare(folder.path(), "gpiochip0\n").is_err());
        saw(&BLINKS[..3].join("\n"));
        assert!(compare(folder.path(), &rung).is_err());
    }
}
