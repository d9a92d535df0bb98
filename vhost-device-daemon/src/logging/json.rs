//! Strings in JSON.

use std::fmt;

/// Displays a string as it stands between the quotes of a JSON string.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| escape(f, c))
    }
}

/// Writes one character as it stands in a JSON string.
pub(super) fn escape(out: &mut impl fmt::Write, c: char) -> fmt::Result {
    match c {
        '"' => out.write_str("\\\""),
        '\\' => out.write_str("\\\\"),
        '\n' => out.write_str("\\n"),
        c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c)),
        c => out.write_char(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_reserves_is_escaped() {
        let text = "a\"b\\c\nd\te\u{1b}f\u{7f}g\u{9b}\u{e4}\u{1f980}/";
        let expected = "a\\\"b\\\\c\\nd\\u0009e\\u001bf\\u007fg\\u009b\u{e4}\u{1f980}/";
        assert_eq!(Escaped(text).to_string(), expected);
    }
}
