//! Exact decimal amounts, kept as canonical text and never as a binary fraction.

use std::fmt;

use bigdecimal::BigDecimal;

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

/// A sum of amounts: exact, of any length, never below zero. The default is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Total(BigDecimal);

impl Total {
    /// Reads what [`Total`] displays: plain decimal digits. None for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        plain.then(|| text.parse().ok()).flatten().map(Self)
    }

    /// This and `amount` together.
    pub fn plus(&self, amount: &Amount) -> Self {
        Self(&self.0 + Self::from(amount).0)
    }

    /// What is left without `amount`; zero where that is more.
    pub fn minus(&self, amount: &Amount) -> Self {
        Self((&self.0 - Self::from(amount).0).max(BigDecimal::default()))
    }

    /// Whether it is more than `most`.
    pub fn exceeds(&self, most: &Amount) -> bool {
        self.0 > Self::from(most).0
    }
}

impl From<&Amount> for Total {
    fn from(amount: &Amount) -> Self {
        Self(amount.as_str().parse().expect("an amount is plain decimal digits"))
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.normalized().to_plain_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_exact_canonical_and_never_below_zero() {
        let amount = |text: &str| Amount::parse(text).expect(text);
        for (total, amount_text, sum, rest) in [
            ("0", "0.1", "0.1", "0"),
            ("0.2", "0.1", "0.3", "0.1"),
            ("99", "1", "100", "98"),
            ("1000", "1000", "2000", "0"),
            ("1", "0.000000000000000001", "1.000000000000000001", "0.999999999999999999"),
            ("9007199254740993", "0.1", "9007199254740993.1", "9007199254740992.9"),
            (
                &"9".repeat(60),
                "1",
                &format!("1{}", "0".repeat(60)),
                &format!("{}8", "9".repeat(59)),
            ),
        ] {
            let (total, amount) = (Total::parse(total).expect(total), amount(amount_text));
            assert_eq!(total.plus(&amount).to_string(), sum, "{total} + {amount}");
            assert_eq!(total.minus(&amount).to_string(), rest, "{total} - {amount}");
            assert_eq!(total.plus(&amount).minus(&amount), total);
        }
        let hundred = Total::parse("100.0").expect("plain");
        assert!(!hundred.exceeds(&amount("100")));
        assert!(hundred.plus(&amount("0.000000000000000001")).exceeds(&amount("100")));
        for bad in ["", "-1", "+1", "1e3", "1E3", "NaN", ".", "1_0", " 1"] {
            assert_eq!(Total::parse(bad), None, "{bad:?}");
        }
    }

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
