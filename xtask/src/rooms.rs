//! The layers of the workspace: which crates must not know which others. See the table of crates in ARCHITECTURE.md.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use crate::process::capture;
use crate::workspace::cargo;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `None` for an ordinary dependency, else "dev" or "build".
    kind: Option<String>,
}

impl Package {
    /// What the crate itself uses, its tests apart.
    fn uses(&self) -> BTreeSet<&str> {
        let own = self.dependencies.iter().filter(|one| one.kind.is_none());
        own.map(|one| one.name.as_str()).collect()
    }
}

const PREFIX: &str = "vhost-device-";

/// Crates that bring sockets, processes or a command line.
const OUTSIDE: &[&str] = &[
    "clap",
    "libc",
    "nix",
    "rustix",
    "vhost",
    "vhost-user-backend",
    "vmm-sys-util",
];

/// The vhost-user protocol.
const PROTOCOL: &[&str] = &["vhost", "vhost-user-backend"];

#[test]
fn no_crate_uses_what_it_must_not_know() {
    let mut command = cargo(Duration::from_secs(120));
    command.args(["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Metadata = serde_json::from_str(&capture(&mut command).unwrap()).unwrap();
    let layers = ["core", "daemon", "testkit"].map(|layer| format!("{PREFIX}{layer}"));
    let [core, daemon, testkit] = &layers;
    for package in &metadata.packages {
        let uses = package.uses();
        let ours: BTreeSet<&str> = uses
            .iter()
            .copied()
            .filter(|name| name.starts_with(PREFIX))
            .collect();
        let forbids = |names: &[&str]| {
            let found: Vec<_> = names.iter().filter(|name| uses.contains(**name)).collect();
            assert!(found.is_empty(), "{} uses {found:?}", package.name);
        };
        let allows = |names: &[&String]| {
            let allowed: BTreeSet<&str> = names.iter().map(|name| name.as_str()).collect();
            assert!(ours.is_subset(&allowed), "{} uses {ours:?}", package.name);
        };
        match package.name.strip_prefix(PREFIX) {
            Some("core") => {
                forbids(OUTSIDE);
                allows(&[]);
            }
            Some("daemon") => allows(&[core]),
            Some("testkit") => allows(&[]),
            Some(_) => {
                forbids(PROTOCOL);
                allows(&[core, daemon]);
            }
            None => allows(&[testkit]),
        }
    }
    let known = |name: &String| {
        metadata
            .packages
            .iter()
            .any(|package| package.name == *name)
    };
    assert!(layers.iter().all(known), "the layers have other names now");
}
