//! Reader of the system's package sources, in both formats that apt knows (sources.list(5)).

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// One source of binary packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stanza {
    /// Where the archive is.
    pub uris: Vec<String>,
    /// Releases, for example "bookworm".
    pub suites: Vec<String>,
    /// Parts of a release, for example "main".
    pub components: Vec<String>,
    /// The key or key file, as written, with its continuation lines.
    pub signed_by: Option<String>,
}

impl fmt::Display for Stanza {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Types: deb")?;
        writeln!(f, "URIs: {}", self.uris.join(" "))?;
        writeln!(f, "Suites: {}", self.suites.join(" "))?;
        writeln!(f, "Components: {}", self.components.join(" "))?;
        match &self.signed_by {
            Some(key) => writeln!(f, "Signed-By: {key}"),
            None => Ok(()),
        }
    }
}

/// All enabled sources below `folder` (the system's is /etc/apt).
pub fn read(folder: &Path) -> Result<Vec<Stanza>> {
    let mut paths = vec![folder.join("sources.list")];
    if let Ok(parts) = fs::read_dir(folder.join("sources.list.d")) {
        let mut parts: Vec<_> = parts.filter_map(|entry| Some(entry.ok()?.path())).collect();
        parts.sort();
        paths.extend(parts);
    }
    let mut stanzas = Vec::new();
    for path in paths.iter().filter(|path| path.is_file()) {
        let text =
            || fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("list") => stanzas.extend(text()?.lines().filter_map(one_line)),
            Some("sources") => stanzas.extend(deb822(&text()?)),
            _ => {}
        }
    }
    Ok(stanzas)
}

/// The source that carries "main" of `release` itself, not its security or backports suite.
pub fn main_archive<'a>(stanzas: &'a [Stanza], release: &str) -> Option<&'a Stanza> {
    stanzas.iter().find(|stanza| {
        stanza.suites.iter().any(|suite| suite == release)
            && stanza
                .components
                .iter()
                .any(|component| component == "main")
    })
}

/// `deb [option=value ...] URI SUITE COMPONENT...`
fn one_line(line: &str) -> Option<Stanza> {
    let line = line.split('#').next()?;
    let rest = line.trim().strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Stanza {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(str::to_owned),
    })
}

/// Paragraphs of "Field: value" lines, separated by empty lines.
fn deb822(text: &str) -> Vec<Stanza> {
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    text.split(|line| line.trim().is_empty())
        .filter_map(paragraph)
        .collect()
}

fn paragraph(lines: &[&str]) -> Option<Stanza> {
    let words = |name| -> Option<Vec<String>> {
        Some(
            field(lines, name)?
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
        )
    };
    if !words("Types")?.iter().any(|kind| kind == "deb") {
        return None;
    }
    if field(lines, "Enabled").is_some_and(|value| matches!(value.as_str(), "no" | "false" | "0")) {
        return None;
    }
    Some(Stanza {
        uris: words("URIs")?,
        suites: words("Suites")?,
        components: words("Components").unwrap_or_default(),
        signed_by: field(lines, "Signed-By"),
    })
}

/// The value of a field with its continuation lines, as written.
fn field(lines: &[&str], name: &str) -> Option<String> {
    let at = lines.iter().position(|line| {
        line.split_once(':')
            .is_some_and(|(field, _)| field.eq_ignore_ascii_case(name))
    })?;
    let (_, first) = lines[at].split_once(':')?;
    let mut value = first.trim().to_owned();
    for line in lines[at + 1..]
        .iter()
        .take_while(|line| line.starts_with([' ', '\t']))
    {
        value.push('\n');
        value.push_str(line);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_sources_are_read_with_and_without_options() {
        let plain = one_line("deb http://mirror.invalid/debian bookworm main # comment").unwrap();
        assert_eq!(plain.uris, ["http://mirror.invalid/debian"]);
        assert_eq!(plain.components, ["main"]);
        let signed =
            one_line("deb [arch=amd64 signed-by=/k.gpg] http://m.invalid/d sid main").unwrap();
        assert_eq!(signed.signed_by.as_deref(), Some("/k.gpg"));
        assert_eq!(signed.suites, ["sid"]);
        assert_eq!(
            one_line("deb-src http://mirror.invalid/debian bookworm main"),
            None
        );
        assert_eq!(
            one_line("# deb http://mirror.invalid/debian bookworm main"),
            None
        );
    }

    #[test]
    fn deb822_sources_keep_an_inline_key_and_leave_out_disabled_ones() {
        let text = "# mirror\nTypes: deb deb-src\nURIs: http://m.invalid/debian\n# why\n\
                    Suites: bookworm bookworm-updates\nComponents: main\nSigned-By:\n line one\n .\n line two\n\
                    \n\
                    Types: deb\nURIs: http://off.invalid/debian\nSuites: bookworm\nComponents: main\n\
                    Enabled: no\n";
        let stanzas = deb822(text);
        assert_eq!(stanzas.len(), 1);
        assert_eq!(
            stanzas[0].signed_by.as_deref(),
            Some("\n line one\n .\n line two")
        );
        assert_eq!(main_archive(&stanzas, "bookworm"), Some(&stanzas[0]));
        assert_eq!(main_archive(&stanzas, "trixie"), None);
    }

    #[test]
    fn the_security_archive_is_not_the_main_one() {
        let security =
            one_line("deb http://m.invalid/debian-security bookworm-security main").unwrap();
        assert_eq!(main_archive(&[security], "bookworm"), None);
    }
}
