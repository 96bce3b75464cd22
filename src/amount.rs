//! Exact decimal amounts, kept as canonical text and never as a binary fraction.

use std::fmt;

/// More digits than any coin needs; bounds the work that a hostile text can cause.
const DIGITS_MAX: usize = 36;

/// An amount above zero: canonical decimal text, without trailing zeros after the point.
///
/// Two amounts are equal exactly when their values are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amount(String);

/// Why a text is not an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAmount {
    /// Not `digits[.digits]`.
    #[error(
        "must be plain decimal digits with at most one point between them, such as 1.1; no sign, exponent or leading zeros"
    )]
    Form,
    /// More than 36 digits.
    #[error("must have at most 36 digits")]
    TooLong,
    /// Not above zero.
    #[error("must be above 0")]
    Zero,
}

impl Amount {
    /// Reads `digits[.digits]`: ASCII, above zero, at most 36 digits, no leading zeros. Trailing
    /// zeros after the point are taken and dropped.
    pub fn parse(text: &str) -> Result<Self, InvalidAmount> {
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (text, None),
        };
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        if !digits(whole) || !fraction.is_none_or(digits) || leading_zero {
            return Err(InvalidAmount::Form);
        }
        if whole.len() + fraction.map_or(0, str::len) > DIGITS_MAX {
            return Err(InvalidAmount::TooLong);
        }
        let fraction = fraction.unwrap_or_default().trim_end_matches('0');
        if whole == "0" && fraction.is_empty() {
            return Err(InvalidAmount::Zero);
        }
        Ok(Self(if fraction.is_empty() { whole.into() } else { format!("{whole}.{fraction}") }))
    }

    /// The number of digits after the point.
    pub fn decimals(&self) -> usize {
        self.0.split_once('.').map_or(0, |(_, fraction)| fraction.len())
    }

    /// The canonical text, as it is stored, signed and sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_compare_by_value_and_keep_every_digit() {
        for (text, canonical, decimals) in [
            ("1", "1", 0),
            ("1.10", "1.1", 1),
            ("1.0", "1", 0),
            ("100", "100", 0),
            ("0.000000000000000001", "0.000000000000000001", 18),
            ("123456789012345678.123456789012345678", "123456789012345678.123456789012345678", 18),
        ] {
            let amount = Amount::parse(text).expect(text);
            assert_eq!((amount.as_str(), amount.decimals()), (canonical, decimals));
        }
    }

    #[test]
    fn everything_that_is_not_a_plain_decimal_is_refused() {
        use InvalidAmount as I;
        for text in [
            "", ".", "1.", ".5", "+1", "-1", "1e3", "0x1", "01", "00.1", "1,1", "1_000", " 1",
            "1 ", "1.1.1", "NaN", "inf", "１", "1\n", "٣",
        ] {
            assert_eq!(Amount::parse(text), Err(I::Form), "{text:?}");
        }
        for text in ["0", "0.0", "0.000000"] {
            assert_eq!(Amount::parse(text), Err(I::Zero), "{text:?}");
        }
        assert_eq!(Amount::parse(&"9".repeat(37)), Err(I::TooLong));
        assert!(Amount::parse(&"9".repeat(36)).is_ok());
    }
}
