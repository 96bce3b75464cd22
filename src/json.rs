//! Strict JSON: one reading per text.
//!
//! Integers stay exact, a repeated key is refused, and a number with a point or an exponent is kept
//! as it is written, so that neither an id nor an amount can ever have gone through a binary fraction.

use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Deeper nesting is refused; no message of Cregis's has more than three levels.
const DEPTH: usize = 32;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number that is exactly this integer, written without point or exponent.
    Integer(i128),
    /// Any other number, as it is written.
    Decimal(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object, in its written order; no key twice.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads `bytes`, the whole of them, as one value.
    ///
    /// # Errors
    /// Where they are not UTF-8, not one JSON value, or repeat a key. The error names a place,
    /// never the text.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        read(serde_json::from_slice(bytes)?, DEPTH)
    }

    /// The value under `key`, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(fields) => fields.iter().find(|(name, _)| name == key).map(|(_, v)| v),
            Self::Null
            | Self::Bool(_)
            | Self::Integer(_)
            | Self::Decimal(_)
            | Self::Text(_)
            | Self::List(_) => None,
        }
    }

    /// The text under `key`.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(Self::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The text under `key`, or the number there as it is written.
    pub fn text_or_number(&self, key: &str) -> Option<String> {
        match self.get(key) {
            Some(Self::Decimal(written)) => Some(written.clone()),
            _ => self.text_or_integer(key),
        }
    }

    /// The text under `key`, or the digits of the integer there.
    pub fn text_or_integer(&self, key: &str) -> Option<String> {
        match self.get(key) {
            Some(Self::Text(text)) => Some(text.clone()),
            Some(Self::Integer(value)) => Some(value.to_string()),
            _ => None,
        }
    }

    /// The integer under `key`, if it is one and fits.
    pub fn int64(&self, key: &str) -> Option<i64> {
        match self.get(key) {
            Some(Self::Integer(value)) => i64::try_from(*value).ok(),
            _ => None,
        }
    }
}

/// Reads one value. A number's own text is to be had in no other way than from the raw JSON.
fn read(raw: &RawValue, depth: usize) -> Result<Json, serde_json::Error> {
    let text = raw.get();
    let inside = || depth.checked_sub(1).ok_or_else(|| Error::custom("nested too deeply"));
    Ok(match text.as_bytes() {
        [b'n', ..] => Json::Null,
        [b't' | b'f', ..] => Json::Bool(serde_json::from_str(text)?),
        [b'"', ..] => Json::Text(serde_json::from_str(text)?),
        [b'[', ..] => {
            let depth = inside()?;
            let values: Vec<&RawValue> = serde_json::from_str(text)?;
            let values = values.into_iter().map(|value| read(value, depth));
            Json::List(values.collect::<Result<_, _>>()?)
        }
        [b'{', ..] => {
            let depth = inside()?;
            let fields = serde_json::Deserializer::from_str(text).deserialize_map(Fields)?;
            let fields = fields.into_iter().map(|(key, value)| Ok((key, read(value, depth)?)));
            Json::Object(fields.collect::<Result<_, serde_json::Error>>()?)
        }
        _ => number(text),
    })
}

/// What JSON allows as a number: an integer where it is one of 64 bits, signed or not.
fn number(text: &str) -> Json {
    let range = i128::from(i64::MIN)..=i128::from(u64::MAX);
    match text.parse::<i128>() {
        Ok(value) if range.contains(&value) && text != "-0" => Json::Integer(value),
        Ok(_) | Err(_) => Json::Decimal(text.to_owned()),
    }
}

/// Reads an object's fields without looking into their values.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object without repeated keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields: Self::Value = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if fields.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom("repeated key"));
            }
            fields.push((key, map.next_value()?));
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_stay_exact_and_everything_else_is_not_one() {
        let at = |number: &str| Json::parse(number.as_bytes()).expect(number);
        assert_eq!(at("9007199254740993"), Json::Integer(9_007_199_254_740_993));
        assert_eq!(at("18446744073709551615"), Json::Integer(u64::MAX.into()));
        assert_eq!(at("-1"), Json::Integer(-1));
        let long = format!("1.{}1", "0".repeat(60));
        for number in
            ["1.0", "1e3", "1E-7", "18446744073709551616", "-0.0", "-0", "1E+999999999", &long]
        {
            assert_eq!(at(number), Json::Decimal(number.to_owned()), "{number}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for bad in [
            r#"{"code":"00000","code":"E0008"}"#,
            r#"{"a":{"b":1,"b":1}}"#,
            r#"{"c\u006fde":1,"code":1}"#,
            "{} {}",
            "\u{feff}{}",
            "{'a':1}",
            "{\"a\":NaN}",
            "{\"a\":01}",
            "{\"a\":.5}",
            "{\"a\":1.}",
            "{\"a\":+1}",
            "{\"a\":1e}",
            "{\"a\":nul}",
            "{\"a\":\"\\x\"}",
            "[1,]",
            "",
        ] {
            assert!(Json::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Json::parse(b"{\"a\":\"\xff\"}").is_err(), "not UTF-8");
        assert!(Json::parse(&[b"[".repeat(100_000), b"]".repeat(100_000)].concat()).is_err());
    }
}
