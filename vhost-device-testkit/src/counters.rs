//! What a daemon counts, as it tells whoever connects to its control socket.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::ensure;
use crate::failure::{At, Result};

/// Longest wait for the text.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The sum of all values of one name.
///
/// # Errors
/// When the text is not complete, or the name is not in it.
pub fn counter(control: &Path, name: &str) -> Result<u64> {
    let mut stream = UnixStream::connect(control)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut text = String::new();
    stream.read_to_string(&mut text).at("read the counters")?;
    ensure!(
        text.ends_with("# EOF\n"),
        "the counters have no end: {text}"
    );
    let values: Vec<u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'))
        .filter_map(|rest| rest.rsplit_once("} ")?.1.parse().ok())
        .collect();
    ensure!(!values.is_empty(), "there is no {name} in: {text}");
    Ok(values.iter().sum())
}
