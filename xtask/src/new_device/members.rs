//! The list of members in the workspace's Cargo.toml, as text: comments and order are kept.

use anyhow::{Context, Result, ensure};

const BEGIN: &str = "members = [\n";

/// `manifest` with `package` among its members, before the first one that sorts behind it.
pub fn with(manifest: &str, package: &str) -> Result<String> {
    let (before, rest) = manifest
        .split_once(BEGIN)
        .context("it has no list of members, one a line")?;
    let end = rest.find("]\n").context("its list of members has no end")?;
    let (list, after) = rest.split_at(end);
    let mut lines: Vec<&str> = list.lines().collect();
    let own = format!("    \"{package}\",");
    ensure!(
        !lines.contains(&own.as_str()),
        "{package} is a member already"
    );
    let at = lines
        .iter()
        .position(|line| **line > *own)
        .unwrap_or(lines.len());
    lines.insert(at, &own);
    Ok(format!("{before}{BEGIN}{}\n{after}", lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_added_in_its_place() {
        let manifest = |members: &str| format!("[workspace]\nmembers = [\n{members}]\nnext = 1\n");
        let old = manifest("    \"b\",\n    \"d\",\n");
        for (package, members) in [
            ("a", "    \"a\",\n    \"b\",\n    \"d\",\n"),
            ("c", "    \"b\",\n    \"c\",\n    \"d\",\n"),
            ("e", "    \"b\",\n    \"d\",\n    \"e\",\n"),
        ] {
            assert_eq!(with(&old, package).unwrap(), manifest(members));
        }
    }

    #[test]
    fn a_member_is_not_added_twice_and_a_list_that_is_none_is_not_touched() {
        assert!(with("members = [\n    \"a\",\n]\n", "a").is_err());
        assert!(with("members = [\"a\"]\n", "b").is_err());
    }
}
