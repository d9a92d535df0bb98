//! The line with which a host program says which port of the guest it wants: `CONNECT 1234\n`.

/// The longest line, its end included; more than any port needs.
pub const MAX_LINE: usize = 32;

/// What the first bytes from a host program mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// The line has not ended yet.
    Incomplete,
    /// The line is `length` bytes long, its end included; what follows is data for the guest.
    Connect {
        /// The guest's port.
        port: u32,
        /// Bytes of the line.
        length: usize,
    },
    /// No such line.
    Invalid,
}

/// Looks at the first bytes from a host program, of which it need not send all at once.
pub fn parse(bytes: &[u8]) -> Greeting {
    match bytes.iter().take(MAX_LINE).position(|byte| *byte == b'\n') {
        Some(end) => match bytes.get(..end).and_then(port) {
            Some(port) => Greeting::Connect {
                port,
                length: end + 1,
            },
            None => Greeting::Invalid,
        },
        None if bytes.len() < MAX_LINE => Greeting::Incomplete,
        None => Greeting::Invalid,
    }
}

fn port(line: &[u8]) -> Option<u32> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (word, number) = line.split_at_checked(8)?;
    if !word.eq_ignore_ascii_case(b"CONNECT ") || number.is_empty() {
        return None;
    }
    let digits = number.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(number).ok().filter(|_| digits)?;
    // The largest number means "any port" and is none.
    text.parse().ok().filter(|port| *port != u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_names_a_port_and_what_follows_is_data() {
        let rows: [(&[u8], u32, usize); 5] = [
            (b"CONNECT 1234\n", 1234, 13),
            (b"CONNECT 0\nCONNECT 1\n", 0, 10),
            (b"connect 4294967294\n", 4_294_967_294, 19),
            (b"CONNECT 52\r\n", 52, 12),
            (b"CONNECT 00052\n\xff\xfe", 52, 14),
        ];
        for (bytes, port, length) in rows {
            assert_eq!(parse(bytes), Greeting::Connect { port, length });
        }
    }

    #[test]
    fn other_lines_are_none() {
        let rows: [&[u8]; 11] = [
            b"\n",
            b"CONNECT\n",
            b"CONNECT \n",
            b"CONNECT  1\n",
            b"CONNECT -1\n",
            b"CONNECT +1\n",
            b"CONNECT 1 \n",
            b"CONNECT 4294967295\n",
            b"CONNECT 4294967296\n",
            b"GET / HTTP/1.1\r\n",
            &[b'C'; MAX_LINE],
        ];
        for bytes in rows {
            assert_eq!(parse(bytes), Greeting::Invalid, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn a_line_in_pieces_means_the_same(port in 0..u32::MAX, data in any::<Vec<u8>>()) {
            let line = format!("CONNECT {port}\n");
            let bytes = [line.as_bytes(), &data].concat();
            for length in 0..line.len() {
                prop_assert_eq!(parse(&bytes[..length]), Greeting::Incomplete);
            }
            let connect = Greeting::Connect { port, length: line.len() };
            prop_assert_eq!(parse(&bytes), connect);
        }

        #[test]
        fn nothing_is_incomplete_for_ever(bytes in prop::collection::vec(any::<u8>(), MAX_LINE..100)) {
            prop_assert_ne!(parse(&bytes), Greeting::Incomplete);
        }
    }
}
