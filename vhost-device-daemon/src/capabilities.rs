//! `--print-capabilities`: the answer that management software reads before it starts a daemon.
//!
//! The format is `VHostUserBackendCapabilities` of QEMU's `vhost-user.json` schema, as the section "Backend program
//! conventions" of the vhost-user specification asks.

use std::io::{self, Write};

use crate::exit::Exit;
use crate::logging::json::Escaped;

/// Prints the capabilities as one line of JSON on stdout: the backend type, which is the virtio device's name in lower
/// case (`rng`), and the names of the optional features.
pub fn print(device_type: &str, features: &[&str]) -> Exit {
    let mut stdout = io::stdout().lock();
    let line = render(device_type, features);
    match stdout
        .write_all(line.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Missing,
    }
}

fn render(device_type: &str, features: &[&str]) -> String {
    let features: Vec<String> = features
        .iter()
        .map(|feature| format!("\"{}\"", Escaped(feature)))
        .collect();
    format!(
        "{{\"type\": \"{}\", \"features\": [{}]}}\n",
        Escaped(device_type),
        features.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_follows_the_schema() {
        assert_eq!(
            render("rng", &[]),
            "{\"type\": \"rng\", \"features\": []}\n"
        );
        assert_eq!(
            render("input", &["evdev-path", "no-grab"]),
            "{\"type\": \"input\", \"features\": [\"evdev-path\", \"no-grab\"]}\n"
        );
    }
}
