//! A file goes to the host and another one comes from it, and both sides agree on what was in them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};

use super::{Comparison, Tour};
use crate::process::capture;

/// The tour of the socket device.
pub const TOUR: Tour = Tour {
    prepare,
    script: include_str!("../../../guest/tour/vsock.sh"),
    compare,
};

const SOCKET: &str = "vm.vsock";
/// What the guest sends, as the host got it.
const RECEIVED: &str = "received";
/// What the host sends.
const SOURCE: &str = "source";
const SOURCE_BYTES: u64 = 16 << 20;

fn prepare(folder: &Path) -> Result<Vec<OsString>> {
    let path = folder.join(SOCKET);
    let (received, source) = (folder.join(RECEIVED), folder.join(SOURCE));
    let mut random = io::Read::take(File::open("/dev/urandom")?, SOURCE_BYTES);
    io::copy(&mut random, &mut File::create(&source)?)?;
    serve(&port(&path, 1000), move |mut stream| {
        io::copy(&mut stream, &mut File::create(&received)?)?;
        let bytes = fs::metadata(&received)?.len();
        writeln!(stream, "{bytes} bytes")
    })?;
    serve(&port(&path, 1001), move |mut stream| {
        io::copy(&mut File::open(&source)?, &mut stream).map(drop)
    })?;
    Ok(vec!["--uds-path".into(), path.into()])
}

fn port(path: &Path, port: u32) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(format!("_{port}"));
    path.into()
}

/// Serves one stream. The thread ends with it, or with the process.
fn serve(
    path: &Path,
    program: impl FnOnce(UnixStream) -> io::Result<()> + Send + 'static,
) -> Result<()> {
    let listener = UnixListener::bind(path)?;
    thread::spawn(move || {
        // what it could not do is missing from the comparison
        let _ = listener.accept().and_then(|(stream, _)| program(stream));
    });
    Ok(())
}

fn compare(folder: &Path, output: &str) -> Result<Comparison> {
    let said = |what: &str| {
        output
            .lines()
            .find_map(|line| line.strip_prefix(what))
            .with_context(|| format!("the guest did not say '{what}'; it wrote:\n{output}"))
    };
    for (what, name) in [("sent: ", RECEIVED), ("read: ", SOURCE)] {
        let (guest, host) = (said(what)?, sum(&folder.join(name))?);
        ensure!(
            guest == host,
            "what the guest {what}{guest} is {host} on the host"
        );
    }
    Ok(Comparison {
        view: output.lines().map(|line| format!("    {line}\n")).collect(),
        verdict: format!(
            "16 MiB each way with equal sums, {} to the host, {} to the guest",
            said("to the host: ")?,
            said("to the guest: ")?
        ),
    })
}

fn sum(path: &Path) -> Result<String> {
    let text = capture(Command::new("md5sum").arg(path))?;
    Ok(text.chars().take(32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::Folder;

    #[test]
    fn sums_that_differ_are_refused() {
        let folder = Folder::new("tour").unwrap();
        let host = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).unwrap();
            sum(&folder.path().join(name)).unwrap()
        };
        let (sent, read) = (
            host(RECEIVED, "from the guest"),
            host(SOURCE, "to the guest"),
        );
        let output = |sent: &str, read: &str| {
            format!("sent: {sent}\nto the host: 9 MB/s\nread: {read}\nto the guest: 8 MB/s\n")
        };
        assert!(compare(folder.path(), &output(&sent, &read)).is_ok());
        assert!(compare(folder.path(), &output(&read, &read)).is_err());
        assert!(compare(folder.path(), &output(&sent, &sent)).is_err());
        assert!(compare(folder.path(), "sent: \n").is_err());
    }
}
