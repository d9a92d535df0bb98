//! The engine over a real socket, with devices made for the purpose (see the `levels` example).

#![allow(
    clippy::expect_used,
    clippy::single_range_in_vec_init,
    reason = "helpers of tests may panic, and a list of one field is meant"
)]

mod badly_behaved;
mod confined;
mod counted;
mod disk;
mod echo;
mod stream;
mod supervised;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The example's binary. `cargo test --test` does not build examples, so that it is built here if it is not up to date.
fn levels() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(build).clone()
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("tests are built two folders below the profile's");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--locked", "--example", "levels"])
        .args([
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .arg("--target-dir")
        .arg(profile.parent().expect("the profile's folder has a parent"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the example cannot be built: {status}");
    profile.join("examples").join("levels")
}
