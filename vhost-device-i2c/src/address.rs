//! Addresses of targets on a bus.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The largest 10-bit address.
const MAX_TEN: u16 = 0x3ff;

/// The first byte on the bus of a 10-bit address is 11110xx0; the 7-bit addresses that look like it are reserved.
const TEN_MARK: u16 = 0b1111_0000;
const TEN_MASK: u16 = 0b1111_1001;

/// The address of a target, without the read bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// 0 to 0x7f.
    Seven(u8),
    /// 0 to 0x3ff, an address space of its own.
    Ten(u16),
}

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} is no I2C address: decimal or 0x-hexadecimal, 7 bits, 10 bits above 0x7f (or with t in front)"
)]
pub struct BadAddress(String);

impl Address {
    /// Decodes the field `addr` of a request. `None` if it is neither a 7-bit nor a 10-bit address.
    pub fn from_wire(field: u16) -> Option<Self> {
        let [low, high] = field.to_le_bytes();
        if u16::from(low) & TEN_MASK == TEN_MARK {
            let top = u16::from(low & 0b110) << 7;
            return Some(Self::Ten(top | u16::from(high)));
        }
        (high == 0 && low & 1 == 0).then_some(Self::Seven(low >> 1))
    }

    /// The field `addr` of a request to this address.
    pub fn to_wire(self) -> u16 {
        match self {
            Self::Seven(address) => u16::from(address) << 1,
            Self::Ten(address) => (address & 0xff) << 8 | TEN_MARK | (address >> 7 & 0b110),
        }
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    /// Decimal or 0x-hexadecimal. Numbers above 0x7f are 10-bit addresses, and so are smaller ones behind a `t`.
    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(text.to_owned());
        let (ten, digits) = match text.strip_prefix('t') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let value = number(digits).ok_or_else(bad)?;
        match u8::try_from(value) {
            Ok(short @ ..=0x7f) if !ten => Ok(Self::Seven(short)),
            _ if value <= MAX_TEN => Ok(Self::Ten(value)),
            _ => Err(bad()),
        }
    }
}

fn number(text: &str) -> Option<u16> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // from_str_radix takes a sign, which an address does not have
    digits
        .starts_with(|c: char| c.is_ascii_hexdigit())
        .then(|| u16::from_str_radix(digits, radix).ok())?
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seven(address) => write!(f, "{address:#04x}"),
            Self::Ten(address) if *address <= 0x7f => write!(f, "t{address:#05x}"),
            Self::Ten(address) => write!(f, "{address:#05x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_decoded_as_the_specification_draws_them() {
        let table = [
            (0x0000, Some(Address::Seven(0))),
            (0x00a0, Some(Address::Seven(0x50))),
            (0x00ee, Some(Address::Seven(0x77))),
            (0x00fe, Some(Address::Seven(0x7f))),
            // the read bit is a flag of the request
            (0x00a1, None),
            (0x01a0, None),
            (0x8000, None),
            (0xffff, None),
            // A9 and A8 in bits 2 and 1, A7 to A0 in the upper byte
            (0x00f0, Some(Address::Ten(0))),
            (0x50f2, Some(Address::Ten(0x150))),
            (0xfff6, Some(Address::Ten(0x3ff))),
            (0x50f3, None),
            (0x50f8, None),
        ];
        for (field, address) in table {
            assert_eq!(Address::from_wire(field), address, "{field:#06x}");
        }
    }

    #[test]
    fn texts_are_decimal_or_hexadecimal() {
        let table = [
            ("32", Some(Address::Seven(0x20))),
            ("0x20", Some(Address::Seven(0x20))),
            ("0X7f", Some(Address::Seven(0x7f))),
            ("0x150", Some(Address::Ten(0x150))),
            ("128", Some(Address::Ten(0x80))),
            ("t0x50", Some(Address::Ten(0x50))),
            ("t1023", Some(Address::Ten(0x3ff))),
            ("1024", None),
            ("0x", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("0x+1", None),
            ("20h", None),
            ("a", None),
            ("99999999", None),
        ];
        for (text, address) in table {
            assert_eq!(text.parse().ok(), address, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_address_survives_the_trip_over_the_wire_and_through_text(ten in any::<bool>(), value in 0..=0x3ffu16) {
            let address = match u8::try_from(value) {
                // these look like 10-bit addresses on the bus, which is why they are reserved
                Ok(0x78..=0x7b) if !ten => return Ok(()),
                Ok(short @ ..=0x7f) if !ten => Address::Seven(short),
                _ => Address::Ten(value),
            };
            prop_assert_eq!(Address::from_wire(address.to_wire()), Some(address));
            prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }

        #[test]
        fn what_is_decoded_is_what_was_sent(field in any::<u16>()) {
            if let Some(address) = Address::from_wire(field) {
                prop_assert_eq!(address.to_wire(), field);
            }
        }
    }
}
