//! Exact decimal amounts, kept as canonical text and never as a binary fraction.

use std::fmt;

use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::BigInt;

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
    /// A number with an exponent.
    #[error(
        "must be plain decimal digits without an exponent: print it with format(d, \"f\") in Python, toPlainString() in Java, toFixed() of the decimal library in JavaScript, to_s(\"F\") in Ruby"
    )]
    Exponent,
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
            let exponent = Written::parse(text).is_some_and(|written| written.exponent.is_some());
            return Err(if exponent { InvalidAmount::Exponent } else { InvalidAmount::Form });
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

    /// Tells whether `text` is this amount in any form in which a library prints numbers: with an
    /// exponent, with zeros that mean nothing. Exact, and bounded whatever the exponent is.
    pub fn is_written(&self, text: &str) -> bool {
        let value = |text| Written::parse(text).and_then(|written| written.value());
        value(text).is_some_and(|it| Some(it) == value(&self.0))
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

/// The parts of a number's text.
struct Written<'a> {
    digits: &'a str,
    exponent: Option<&'a str>,
}

/// More than any library prints; bounds the work that a hostile text can cause.
const WRITTEN_MAX: usize = 256;
const EXPONENT_MAX: usize = 6;

impl<'a> Written<'a> {
    /// `[+]digits[.digits][e[+|-]digits]`, `e` in either case; one side of the point may be empty.
    fn parse(text: &'a str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (text, None),
        };
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let digits = mantissa.strip_prefix('+').unwrap_or(mantissa);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_exponent = |text: &str| {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            !digits.is_empty() && all_digits(digits)
        };
        let fits = all_digits(whole)
            && all_digits(fraction)
            && !(whole.is_empty() && fraction.is_empty())
            && exponent.is_none_or(is_exponent);
        fits.then_some(Self { digits, exponent })
    }

    /// The value as a number without zeros at its end, and the power of ten to divide it by. None where
    /// nobody would write so.
    fn value(&self) -> Option<(BigInt, i64)> {
        let exponent = self.exponent.unwrap_or("0");
        if self.digits.len() > WRITTEN_MAX || exponent.len() > EXPONENT_MAX {
            return None;
        }
        let digits: BigDecimal = self.digits.parse().ok()?;
        let (number, scale) = digits.normalized().into_bigint_and_exponent();
        let zero = number == BigInt::default();
        Some((number, if zero { 0 } else { scale - exponent.parse::<i64>().ok()? }))
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
            "", ".", "1.", ".5", "+1", "-1", "0x1", "01", "00.1", "1,1", "1_000", " 1", "1 ",
            "1.1.1", "NaN", "inf", "１", "1\n", "٣",
        ] {
            assert_eq!(Amount::parse(text), Err(I::Form), "{text:?}");
        }
        for text in ["1e3", "1E-7", "1e-07", "1.0E-7", "0.1e-6", "1E+2", "0E-8", "1E+999999999"] {
            assert_eq!(Amount::parse(text), Err(I::Exponent), "{text:?}");
        }
        for text in ["e", "1e", "e3", "1e+", "1e1.5", "-1e3", "1e3e3", "1.1e3 BTC"] {
            assert_eq!(Amount::parse(text), Err(I::Form), "{text:?}");
        }
        let rule = I::Exponent.to_string();
        for how in ["format(d, \"f\")", "toPlainString()", "toFixed()", "to_s(\"F\")"] {
            assert!(rule.contains(how), "{rule}");
        }
        for text in ["0", "0.0", "0.000000"] {
            assert_eq!(Amount::parse(text), Err(I::Zero), "{text:?}");
        }
        assert_eq!(Amount::parse(&"9".repeat(37)), Err(I::TooLong));
        assert!(Amount::parse(&"9".repeat(36)).is_ok());
    }

    #[test]
    fn an_amount_is_known_by_its_value_in_every_form_that_a_library_prints() {
        let zeros = "0".repeat(40);
        for (amount, same) in [
            ("0.0000001", &["1E-7", "1e-7", "1e-07", "1.0E-7", "0.1e-6", "10E-8", "+1E-7"][..]),
            ("100", &["1E+2", "1e2", "1E2", "0.1e3", "100.0", "1000E-1", "0100", "+100"]),
            ("5", &[&format!("5.{zeros}"), "5.", "05", "5E0", "5e+00", &format!("5{zeros}E-40")]),
            ("0.5", &[".5", "0.50", "5E-1", "00.5"]),
            ("9007199254740993", &["9007199254740993.0", "9.007199254740993E15"]),
            ("0.000000000000000001", &["1E-18", "1e-018"]),
        ] {
            let (amount, text) = (Amount::parse(amount).expect(amount), amount);
            assert!(amount.is_written(text));
            for written in same {
                assert!(amount.is_written(written), "{amount} as {written}");
            }
        }
        let amount = Amount::parse("9007199254740993").expect("good");
        for other in ["9007199254740992", "9.007199254740992E15", "9007199254740993E1", "0", "0E5"]
        {
            assert!(!amount.is_written(other), "{other}");
        }
    }

    #[test]
    fn a_text_that_nobody_would_print_is_no_amount_and_costs_nothing() {
        let one = Amount::parse("1").expect("good");
        let begun = std::time::Instant::now();
        for hostile in [
            "1E+999999999",
            "1E-999999999",
            "1E+99999",
            "1E+9223372036854775807",
            "10E9223372036854775807",
            "0E+999999999",
            &"1".repeat(60_000),
            &format!("1E{}", "9".repeat(60_000)),
            &format!("1.{}", "0".repeat(60_000)),
            "",
            "-1",
            "--1",
            "1_0",
            " 1",
            "1 ",
            "NaN",
            "inf",
            "0x1",
            "1,0",
            "1e",
            "e1",
            ".",
            "+",
            "١",
        ] {
            assert!(!one.is_written(hostile), "{:.20}", hostile);
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}
