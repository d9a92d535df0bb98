//! As much JSON as the kit needs: reading a capability document strictly, writing one record a line.

use std::iter::Peekable;
use std::str::Chars;

use crate::failure::{Failure, Result};
use crate::{ensure, fail};

/// A JSON value. Numbers stay text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// null
    Null,
    /// true or false
    Bool(bool),
    /// A number, as written.
    Number(String),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Value>),
    /// An object, in the order of its members.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// A member of an object.
    pub fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value),
            _ => None,
        }
    }
}

/// Reads one document and nothing behind it.
///
/// # Errors
/// With the place of the first mistake.
pub fn parse(text: &str) -> Result<Value> {
    let mut reader = Reader {
        rest: text.chars().peekable(),
    };
    let value = reader.value(0)?;
    reader.space();
    ensure!(
        reader.rest.peek().is_none(),
        "text behind the JSON document"
    );
    Ok(value)
}

/// A string as JSON writes it, quotes included.
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    fn space(&mut self) {
        while self.rest.next_if(|c| " \t\r\n".contains(*c)).is_some() {}
    }

    fn expect(&mut self, wanted: char) -> Result<()> {
        match self.rest.next() {
            Some(c) if c == wanted => Ok(()),
            other => fail!("{other:?} where JSON wants {wanted:?}"),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        ensure!(depth < 32, "JSON nested too deeply");
        self.space();
        match self.rest.peek() {
            Some('{') => self.object(depth),
            Some('[') => self.list(depth),
            Some('"') => self.text().map(Value::Text),
            Some(c) if c.is_ascii_digit() || *c == '-' => Ok(self.number()),
            Some(_) => self.word(),
            None => fail!("JSON ends where a value is due"),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value> {
        let mut members = Vec::new();
        self.expect('{')?;
        self.space();
        if self.rest.next_if_eq(&'}').is_some() {
            return Ok(Value::Object(members));
        }
        loop {
            self.space();
            let key = self.text()?;
            self.space();
            self.expect(':')?;
            members.push((key, self.value(depth + 1)?));
            self.space();
            if self.rest.next_if_eq(&',').is_none() {
                self.expect('}')?;
                return Ok(Value::Object(members));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value> {
        let mut values = Vec::new();
        self.expect('[')?;
        self.space();
        if self.rest.next_if_eq(&']').is_some() {
            return Ok(Value::List(values));
        }
        loop {
            values.push(self.value(depth + 1)?);
            self.space();
            if self.rest.next_if_eq(&',').is_none() {
                self.expect(']')?;
                return Ok(Value::List(values));
            }
        }
    }

    fn text(&mut self) -> Result<String> {
        let mut out = String::new();
        self.expect('"')?;
        loop {
            match self.rest.next() {
                Some('"') => return Ok(out),
                Some('\\') => out.push(self.escape()?),
                Some(c) if (c as u32) >= 0x20 => out.push(c),
                other => fail!("{other:?} inside a JSON string"),
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        match self.rest.next() {
            Some(c @ ('"' | '\\' | '/')) => Ok(c),
            Some('n') => Ok('\n'),
            Some('t') => Ok('\t'),
            Some('r') => Ok('\r'),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('u') => {
                let digits: String = self.rest.by_ref().take(4).collect();
                u32::from_str_radix(&digits, 16)
                    .ok()
                    .and_then(char::from_u32)
                    .ok_or_else(|| Failure::new(format!("\\u{digits} in a JSON string")))
            }
            other => fail!("escape {other:?} in a JSON string"),
        }
    }

    fn number(&mut self) -> Value {
        let mut out = String::new();
        while let Some(c) = self
            .rest
            .next_if(|c| c.is_ascii_digit() || "+-.eE".contains(*c))
        {
            out.push(c);
        }
        Value::Number(out)
    }

    fn word(&mut self) -> Result<Value> {
        let mut out = String::new();
        while let Some(c) = self.rest.next_if(char::is_ascii_alphabetic) {
            out.push(c);
        }
        match out.as_str() {
            "null" => Ok(Value::Null),
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => fail!("{:?} is no JSON value", out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read() {
        let value = parse(r#" {"type": "rng", "features": ["a", "b\n"], "n": -1.5e3, "x": null} "#);
        let value = value.unwrap();
        assert_eq!(value.member("type"), Some(&Value::Text("rng".into())));
        assert_eq!(value.member("n"), Some(&Value::Number("-1.5e3".into())));
        assert_eq!(value.member("x"), Some(&Value::Null));
        assert_eq!(value.member("y"), None);
    }

    #[test]
    fn mistakes_are_mistakes() {
        for text in [
            "",
            "{",
            "{]",
            "[1,]",
            "{\"a\" 1}",
            "\"",
            "nul",
            "{} {}",
            "{'a': 1}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_quoted_reads_back() {
        let text = "a \"quoted\" \\ line\nend\u{1}";
        assert_eq!(parse(&quote(text)).unwrap(), Value::Text(text.into()));
    }
}
