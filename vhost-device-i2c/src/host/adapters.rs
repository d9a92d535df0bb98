//! Finds the host's I2C adapters.

use std::fs;
use std::io;
use std::path::Path;

use super::OpenError;
use crate::config::Adapter;

/// Where the kernel lists adapters, as i2c-NUMBER, and targets.
const DEVICES: &str = "/sys/bus/i2c/devices";

/// The number of an adapter.
///
/// # Errors
/// If a name is nobody's, or not one adapter's alone, or the list cannot be read.
pub fn number(adapter: &Adapter) -> Result<u32, OpenError> {
    number_in(Path::new(DEVICES), adapter)
}

fn number_in(devices: &Path, adapter: &Adapter) -> Result<u32, OpenError> {
    let name = match adapter {
        Adapter::Number(number) => return Ok(*number),
        Adapter::Name(name) => name,
    };
    let known = list(devices).map_err(|error| OpenError::Io {
        action: "list",
        object: devices.display().to_string(),
        error,
    })?;
    let named = |wanted: &str| -> Vec<u32> {
        let same = known.iter().filter(|(_, name)| name == wanted);
        same.map(|(number, _)| *number).collect()
    };
    match named(name).as_slice() {
        [number] => Ok(*number),
        [] => Err(OpenError::NoAdapter {
            name: name.clone(),
            known,
        }),
        numbers => Err(OpenError::Ambiguous {
            name: name.clone(),
            numbers: numbers.to_vec(),
        }),
    }
}

/// All adapters with their names, by number. A kernel without I2C has none.
fn list(devices: &Path) -> io::Result<Vec<(u32, String)>> {
    let entries = match fs::read_dir(devices) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix("i2c-"))
            .and_then(|digits| digits.parse().ok());
        // one that goes away meanwhile is not there
        if let Some(number) = number
            && let Ok(name) = fs::read_to_string(entry.path().join("name"))
        {
            found.push((number, name.trim_end().to_owned()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vhost_device_testkit::process::TempDir;

    fn devices(adapters: &[(&str, &str)]) -> TempDir {
        let dir = TempDir::new().unwrap();
        for (entry, name) in adapters {
            let entry = dir.path().join(entry);
            fs::create_dir(&entry).unwrap();
            fs::write(entry.join("name"), format!("{name}\n")).unwrap();
        }
        dir
    }

    #[test]
    fn a_name_is_found_if_it_is_one_adapters_alone() {
        let dir = devices(&[
            ("i2c-0", "i915 gmbus dpd"),
            ("i2c-12", "DPDDC-D"),
            ("i2c-3", "twin"),
            ("i2c-4", "twin"),
            // a target, not an adapter
            ("0-0050", "24c02"),
        ]);
        let find = |name: &str| number_in(dir.path(), &Adapter::from(name));
        assert_eq!(find("i915 gmbus dpd").unwrap(), 0);
        assert_eq!(find("DPDDC-D").unwrap(), 12);
        assert_eq!(find("7").unwrap(), 7, "a number needs no list");
        assert!(matches!(
            find("twin"),
            Err(OpenError::Ambiguous { numbers, .. }) if numbers == [3, 4]
        ));
        assert!(matches!(
            find("24c02"),
            Err(OpenError::NoAdapter { known, .. }) if known.len() == 4 && known[3] == (12, "DPDDC-D".into())
        ));
    }

    #[test]
    fn a_kernel_without_i2c_has_no_adapters() {
        let missing = number_in(Path::new("/nonexistent"), &Adapter::from("x y"));
        assert!(matches!(missing, Err(OpenError::NoAdapter { known, .. }) if known.is_empty()));
    }
}
