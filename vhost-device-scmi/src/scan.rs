//! Scans of an IIO buffer: all enabled channels of one moment, each in the format that sysfs tells (iio, "in_..._type").

use std::str::FromStr;

/// How one element of a scan is stored, written as `le:s12/16>>4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    is_big_endian: bool,
    is_signed: bool,
    /// Bits that are valid, once shifted.
    bits: u32,
    /// Bytes of one number.
    bytes: usize,
    /// Numbers of one element; the first one is the reading.
    repeat: usize,
    shift: u32,
}

impl Format {
    /// Bytes of one element.
    pub fn length(&self) -> usize {
        self.bytes * self.repeat
    }

    /// The number that an element begins with; `None` if there are fewer bytes. Unsigned numbers of 64 bits are cut to what
    /// a signed one can hold.
    pub fn decode(&self, element: &[u8]) -> Option<i64> {
        let stored = element.get(..self.bytes)?;
        let append = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        let stored = if self.is_big_endian {
            stored.iter().fold(0, append)
        } else {
            stored.iter().rev().fold(0, append)
        };
        // what is beyond the valid bits goes out at the top
        let unused = 64 - self.bits;
        let top = stored.checked_shr(self.shift)? << unused;
        Some(if self.is_signed {
            top as i64 >> unused
        } else {
            i64::try_from(top >> unused).unwrap_or(i64::MAX)
        })
    }
}

impl FromStr for Format {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        read(text).ok_or(())
    }
}

fn read(text: &str) -> Option<Format> {
    let (order, rest) = text.split_once(':')?;
    let (bits, rest) = rest.split_once('/')?;
    let (storage, shift) = rest.split_once(">>")?;
    let (storage, repeat) = match storage.split_once('X') {
        Some((storage, repeat)) => (storage, repeat.parse().ok()?),
        None => (storage, 1),
    };
    let is_signed = match bits.get(..1)? {
        "s" => true,
        "u" => false,
        _ => return None,
    };
    let storage: u32 = storage.parse().ok()?;
    let format = Format {
        is_big_endian: match order {
            "be" => true,
            "le" => false,
            _ => return None,
        },
        is_signed,
        bits: bits.get(1..)?.parse().ok()?,
        bytes: match storage {
            8 => 1,
            16 => 2,
            32 => 4,
            64 => 8,
            _ => return None,
        },
        repeat,
        shift: shift.parse().ok()?,
    };
    let is_sound = (1..=storage).contains(&format.bits)
        && format.bits.checked_add(format.shift)? <= storage
        && (1..=16).contains(&repeat);
    is_sound.then_some(format)
}

/// Where the wanted elements are in a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The places of the wanted elements, in the order in which they were asked for.
    elements: Vec<(usize, Format)>,
    length: usize,
}

impl Layout {
    /// The layout of a scan with just these elements, each with its index in scans. Every element is aligned to its own
    /// length, and the scan to that of its longest element.
    pub fn new(wanted: &[(u32, Format)]) -> Self {
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|position| wanted.get(*position).map(|(index, _)| *index));
        let mut elements: Vec<(usize, Format)> =
            wanted.iter().map(|(_, format)| (0, *format)).collect();
        let (mut end, mut longest) = (0usize, 1);
        for position in order {
            if let Some((at, format)) = elements.get_mut(position) {
                *at = end.next_multiple_of(format.length());
                end = *at + format.length();
                longest = longest.max(format.length());
            }
        }
        Self {
            elements,
            length: end.next_multiple_of(longest),
        }
    }

    /// Bytes of a scan.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The numbers of a scan, in the order in which they were asked for; `None` if it is too short.
    pub fn decode(&self, scan: &[u8]) -> Option<Vec<i64>> {
        let number = |(at, format): &(usize, Format)| format.decode(scan.get(*at..)?);
        self.elements.iter().map(number).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn format(text: &str) -> Format {
        text.parse().unwrap()
    }

    #[test]
    fn numbers_of_any_order_sign_width_and_shift_are_read() {
        let table: [(&str, &[u8], i64); 11] = [
            ("le:u8/8>>0", &[0xff], 255),
            ("le:s8/8>>0", &[0xff], -1),
            ("le:s12/16>>4", &[0xf0, 0xff], -1),
            ("le:s12/16>>4", &[0x10, 0x80], -2047),
            ("be:s12/16>>4", &[0x7f, 0xff], 2047),
            ("be:u12/16>>0", &[0xff, 0x01], 0xf01),
            ("le:u24/32>>8", &[0xaa, 1, 2, 3], 0x030201),
            ("be:s24/32>>0", &[0x55, 0xff, 0xff, 0xfe], -2),
            (
                "le:s64/64>>0",
                &[0xfe, 255, 255, 255, 255, 255, 255, 255],
                -2,
            ),
            ("be:u64/64>>0", &[0xff; 8], i64::MAX),
            ("le:s16/16X3>>0", &[1, 0, 2, 0, 3, 0], 1),
        ];
        for (text, bytes, expected) in table {
            assert_eq!(format(text).decode(bytes), Some(expected), "{text}");
            assert_eq!(
                format(text).decode(&bytes[..bytes.len().min(format(text).bytes) - 1]),
                None
            );
        }
    }

    #[test]
    fn formats_that_cannot_be_are_refused() {
        for text in [
            "",
            "le",
            "le:s12",
            "le:s12/16",
            "xe:s12/16>>4",
            "le:f12/16>>4",
            "le:s12/24>>4",
            "le:s0/16>>0",
            "le:s17/16>>0",
            "le:s12/16>>5",
            "le:s12/16X0>>4",
            "le:s12/16X17>>4",
            "le:s/16>>0",
            "le:s1/8>>4294967295",
        ] {
            assert_eq!(text.parse::<Format>(), Err(()), "{text}");
        }
    }

    #[test]
    fn elements_are_aligned_as_the_kernel_does() {
        // as asked for: a timestamp, two numbers of 16 bits, and one of 8 between them
        let layout = Layout::new(&[
            (9, format("le:s64/64>>0")),
            (0, format("le:s16/16>>0")),
            (2, format("be:s16/16>>0")),
            (1, format("le:u8/8>>0")),
        ]);
        assert_eq!(layout.length(), 16);
        let scan = [1, 0, 7, 0xee, 0, 2, 0xee, 0xee, 9, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(layout.decode(&scan), Some(vec![9, 1, 2, 7]));
        assert_eq!(layout.decode(&scan[..15]), None);
        assert_eq!(Layout::new(&[]).length(), 0);
    }

    proptest! {
        #[test]
        fn every_number_that_fits_comes_out_as_it_went_in(
            is_big_endian: bool, is_signed: bool, size in 0u32..4, bits: u32, shift: u32, number: i64,
            noise: u64,
        ) {
            let storage = 8 << size;
            let bits = 1 + bits % storage;
            let shift = shift % (storage - bits + 1);
            let order = if is_big_endian { "be" } else { "le" };
            let sign = if is_signed { "s" } else { "u" };
            let format = format(&format!("{order}:{sign}{bits}/{storage}>>{shift}"));
            let unused = 64 - bits;
            let number = if is_signed {
                number << unused >> unused
            } else {
                (number as u64 >> unused) as i64 & i64::MAX
            };
            let mask = u64::MAX >> unused << shift;
            let stored = (number as u64) << shift & mask | noise & !mask;
            let bytes = stored.to_le_bytes();
            let mut element = bytes[..storage as usize / 8].to_vec();
            if is_big_endian {
                element.reverse();
            }
            prop_assert_eq!(format.decode(&element), Some(number));
        }

        #[test]
        fn any_text_is_a_format_or_not(text in "[lbe:su0-9/X>]{0,20}") {
            if let Ok(format) = text.parse::<Format>() {
                let _ = format.decode(&[0; 128]);
            }
        }
    }
}
