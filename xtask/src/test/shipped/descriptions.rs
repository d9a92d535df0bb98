//! Descriptions for management software, and what the programs themselves say.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::root::{LIMIT, Root};
use crate::dist::devices::Device;
use crate::process::{bounded, capture};

/// VHostUserBackendType of QEMU's docs/interop/vhost-user.json.
const TYPES: [&str; 15] = [
    "9p",
    "balloon",
    "block",
    "caif",
    "console",
    "crypto",
    "gpu",
    "input",
    "net",
    "rng",
    "rpmsg",
    "rproc-serial",
    "scsi",
    "vsock",
    "fs",
];

/// VhostUserBackend of the same schema: the fields, and whether they have to be there.
const FIELDS: [(&str, Kind, bool); 4] = [
    ("description", Kind::Text, true),
    ("type", Kind::Text, true),
    ("binary", Kind::Text, true),
    ("tags", Kind::Texts, false),
];

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Texts,
}

impl Kind {
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Texts => value
                .as_array()
                .is_some_and(|all| all.iter().all(Value::is_string)),
        }
    }
}

/// The description is one of the schema, about a program that is there, in the folder where its type is looked for.
pub fn check(root: &Root, device: &Device) -> Result<()> {
    let place = format!(
        "usr/share/{}/{}",
        device.discovery(),
        device.description_name()
    );
    let object = object(&root.text(&place)?)?;
    conforms(&object).context(place)?;
    let text = |field: &str| {
        object
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    ensure!(
        TYPES.contains(&text("type")) == device.is_in_schema,
        "QEMU's folder is for the types of its schema, and for no others"
    );
    let binary = text("binary");
    let program = root.path().join(binary.trim_start_matches('/'));
    ensure!(
        binary.starts_with('/') && program.is_file(),
        "there is no {binary}"
    );
    ensure!(text("type") == device.name, "the type is {}", text("type"));
    Ok(())
}

fn object(text: &str) -> Result<BTreeMap<String, Value>> {
    serde_json::from_str(text).with_context(|| format!("not one JSON object: {text}"))
}

fn conforms(object: &BTreeMap<String, Value>) -> Result<()> {
    for (name, kind, is_needed) in FIELDS {
        match object.get(name) {
            Some(value) => ensure!(kind.fits(value), "{name} cannot be {value}"),
            None => ensure!(!is_needed, "{name} is missing"),
        }
    }
    match object
        .keys()
        .find(|key| FIELDS.iter().all(|(name, ..)| name != key))
    {
        Some(unknown) => bail!("the schema has no {unknown}"),
        None => Ok(()),
    }
}

/// Options that would make the program do anything else, or fail.
const OTHERS: [&str; 5] = [
    "--socket-path",
    "/no/such/folder/socket",
    "--no-such-option",
    "--config",
    "/no/such/file",
];

/// Most system calls that a program makes to say what it can do, its loading included. Twenty milliseconds, as the
/// specification of this project has it, are a hundred times what so many take.
const MAX_CALLS: usize = 200;

/// What a program may open to be loaded at all.
const LOADING: [&str; 5] = [
    "/etc/ld.so",
    "/lib",
    "/usr/lib",
    "/proc/self/maps",
    "/sys/fs/cgroup",
];

/// `--print-capabilities`: valid JSON of the schema, whatever else is asked for, and nothing is opened for it.
pub fn capabilities(root: &Root, device: &Device) -> Result<()> {
    let binary = root.path().join("usr/bin").join(device.binary());
    let trace = root.path().with_file_name(format!("{}.trace", device.name));
    let mut command = bounded("strace", LIMIT);
    command.args(["-f", "-qq", "-o"]).arg(&trace).arg(&binary);
    // cargo sets it for us, and the loader then looks in the build's folders first
    command.env_remove("LD_LIBRARY_PATH");
    let text = capture(command.args(OTHERS).arg("--print-capabilities"))?;
    let object = object(&text)?;
    ensure!(
        object.get("type").and_then(Value::as_str) == Some(device.name),
        "the type is not {}: {text}",
        device.name
    );
    ensure!(
        object
            .get("features")
            .is_some_and(|value| Kind::Texts.fits(value))
            && object.len() == 2,
        "not a VHostUserBackendCapabilities: {text}"
    );
    let calls = std::fs::read_to_string(&trace)?;
    let count = calls.lines().count();
    ensure!(count <= MAX_CALLS, "it took {count} system calls");
    let opened = calls.lines().filter(|line| {
        ["open(", "openat(", "socket(", "bind(", "connect("]
            .iter()
            .any(|call| line.contains(call))
    });
    for line in opened {
        let path = line.split('"').nth(1).unwrap_or_default();
        ensure!(
            LOADING.iter().any(|allowed| path.starts_with(allowed)),
            "it opens something: {line}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_schema_does_not_have_is_refused() {
        let good = r#"{"description": "a", "type": "rng", "binary": "/b", "tags": ["c"]}"#;
        conforms(&object(good).unwrap()).unwrap();
        for bad in [
            r#"{"description": "a", "type": "rng"}"#,
            r#"{"description": "a", "type": "rng", "binary": 1}"#,
            r#"{"description": "a", "type": "rng", "binary": "/b", "tags": "c"}"#,
            r#"{"description": "a", "type": "rng", "binary": "/b", "more": 1}"#,
        ] {
            assert!(conforms(&object(bad).unwrap()).is_err(), "{bad}");
        }
        assert!(object("[]").is_err());
    }
}
