//! Decimal fractions, as sysfs writes them and sensors are described with: a whole number times a power of ten.

use std::str::FromStr;

/// Largest power of ten that is multiplied or divided by; far above what 64 bits hold.
const MAX_SHIFT: u32 = 36;

/// `mantissa` times ten to the power of `exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// The digits.
    pub mantissa: i64,
    /// The power of ten.
    pub exponent: i8,
}

impl Decimal {
    /// A whole number.
    pub const fn whole(mantissa: i64) -> Self {
        Self {
            mantissa,
            exponent: 0,
        }
    }

    /// As a multiple of ten to the power of `exponent`, rounded; `None` if that is more than 64 bits.
    pub fn at(self, exponent: i8) -> Option<i64> {
        shifted(
            self.mantissa.into(),
            i32::from(self.exponent) - i32::from(exponent),
        )
    }
}

/// `number` times ten to the power of `power`, rounded to the nearest, halves away from zero.
fn shifted(number: i128, power: i32) -> Option<i64> {
    let factor = |power: u32| 10i128.checked_pow(power.min(MAX_SHIFT));
    let result = if power >= 0 {
        number.checked_mul(factor(power.unsigned_abs())?)?
    } else {
        let divisor = factor(power.unsigned_abs())?;
        let half = divisor / 2 * number.signum();
        number.checked_add(half)?.checked_div(divisor)?
    };
    i64::try_from(result).ok()
}

impl FromStr for Decimal {
    type Err = ();

    /// Reads digits with an optional sign, point and exponent, as in `-0.001953` or `1e-3`. Digits behind the eighteenth are
    /// left out behind the point, and refused before it.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (digits, power) = match text.split_once(['e', 'E']) {
            Some((digits, power)) => (digits, power.parse::<i8>().map_err(|_| ())?),
            None => (text, 0),
        };
        let (is_negative, digits) = match digits.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, digits.strip_prefix('+').unwrap_or(digits)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(());
        }
        let mut mantissa = read_digits(whole)?;
        let mut exponent = i32::from(power);
        let fraction = fraction.trim_end_matches('0');
        for digit in fraction.bytes() {
            let value = read_digit(digit)?;
            // what is smaller than this is beyond every sensor
            if let Some(more) = append(mantissa, value) {
                mantissa = more;
                exponent -= 1;
            }
        }
        Ok(Self {
            mantissa: if is_negative { -mantissa } else { mantissa },
            exponent: i8::try_from(exponent).map_err(|_| ())?,
        })
    }
}

fn append(mantissa: i64, digit: i64) -> Option<i64> {
    let more = mantissa.checked_mul(10)?.checked_add(digit)?;
    (more < 1_000_000_000_000_000_000).then_some(more)
}

fn read_digit(byte: u8) -> Result<i64, ()> {
    if byte.is_ascii_digit() {
        Ok(i64::from(byte - b'0'))
    } else {
        Err(())
    }
}

fn read_digits(text: &str) -> Result<i64, ()> {
    text.bytes().try_fold(0, |number, byte| {
        append(number, read_digit(byte)?).ok_or(())
    })
}

/// What makes a raw number of a converter a quantity: `(raw + offset) * scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Added to the raw number.
    pub offset: Decimal,
    /// Multiplied with the sum.
    pub scale: Decimal,
}

impl Linear {
    /// The raw number is the quantity.
    pub const IDENTITY: Self = Self {
        offset: Decimal::whole(0),
        scale: Decimal::whole(1),
    };

    /// The quantity as a multiple of ten to the power of `exponent`, rounded; `None` if that is more than 64 bits.
    pub fn apply(&self, raw: i64, exponent: i8) -> Option<i64> {
        // the sum, in units of the smaller of both
        let unit = self.offset.exponent.min(0);
        let power = |exponent: i8| 10i128.checked_pow(u32::from(exponent.unsigned_abs()));
        let raw = i128::from(raw).checked_mul(power(unit)?)?;
        let up = self.offset.exponent.max(0);
        let offset = i128::from(self.offset.mantissa).checked_mul(power(up)?)?;
        let sum = raw.checked_add(offset)?;
        let product = sum.checked_mul(self.scale.mantissa.into())?;
        let power = i32::from(unit) + i32::from(self.scale.exponent) - i32::from(exponent);
        shifted(product, power)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_are_read_as_sysfs_writes_them() {
        let table = [
            ("0", (0, 0)),
            ("-40", (-40, 0)),
            ("+7", (7, 0)),
            ("0.000598", (598, -6)),
            ("9.806650000", (980_665, -5)),
            ("-0.5", (-5, -1)),
            (".25", (25, -2)),
            ("1e-3", (1, -3)),
            ("1.5E6", (15, 5)),
            ("12.", (12, 0)),
            ("0.1234567890123456789", (123_456_789_012_345_678, -18)),
        ];
        for (text, (mantissa, exponent)) in table {
            assert_eq!(text.parse(), Ok(Decimal { mantissa, exponent }), "{text}");
        }
        for text in [
            "",
            ".",
            "-",
            "1,5",
            "0x10",
            "1e",
            "1e999",
            "abc",
            "9999999999999999999",
        ] {
            assert_eq!(text.parse::<Decimal>(), Err(()), "{text}");
        }
    }

    #[test]
    fn quantities_are_exact_where_they_can_be() {
        let decimal = |text: &str| text.parse::<Decimal>().unwrap();
        let linear = |offset, scale| Linear {
            offset: decimal(offset),
            scale: decimal(scale),
        };
        // an accelerometer, in micrometres per square second
        assert_eq!(linear("0", "0.000598").apply(-1000, -6), Some(-598_000));
        // a thermometer that counts from -273.15 in eighths
        assert_eq!(linear("-2185.2", "125").apply(2360, 0), Some(21_850));
        assert_eq!(linear("0", "0.000598").apply(1000, -3), Some(598));
        assert_eq!(linear("0.5", "1").apply(1, 0), Some(2));
        assert_eq!(linear("0", "1e30").apply(1, 0), None);
    }

    proptest! {
        #[test]
        fn no_scale_and_no_raw_number_overflows(raw: i64, om: i64, oe: i8, sm: i64, se: i8, exponent: i8) {
            let linear = Linear {
                offset: Decimal { mantissa: om, exponent: oe },
                scale: Decimal { mantissa: sm, exponent: se },
            };
            let _ = linear.apply(raw, exponent);
        }

        #[test]
        fn whole_numbers_come_out_as_they_are(raw: i64) {
            prop_assert_eq!(Linear::IDENTITY.apply(raw, 0), Some(raw));
            prop_assert_eq!(raw.to_string().parse::<Decimal>().ok().and_then(|d| d.at(0)),
                (raw.unsigned_abs() < 1_000_000_000_000_000_000).then_some(raw));
        }

        #[test]
        fn any_text_is_a_decimal_or_not(text in "[-+.0-9eE]{0,30}") {
            let _ = text.parse::<Decimal>();
        }
    }
}
