//! Strict JSON: one reading per text.
//!
//! Integers stay exact, a repeated key is refused, and a number with a point or an exponent is kept
//! apart from integers, so that an id can never have gone through a binary fraction.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number that is exactly this integer, written without point or exponent.
    Integer(i128),
    /// Any other number; its value is not kept.
    Inexact,
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
        serde_json::from_slice(bytes)
    }

    /// The value under `key`, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(fields) => fields.iter().find(|(name, _)| name == key).map(|(_, v)| v),
            Self::Null
            | Self::Bool(_)
            | Self::Integer(_)
            | Self::Inexact
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

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value without repeated keys")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Inexact)
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut fields: Vec<(String, Json)> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if fields.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom("repeated key"));
            }
            fields.push((key, map.next_value()?));
        }
        Ok(Json::Object(fields))
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
        for inexact in ["1.0", "1e3", "1E0", "18446744073709551616", "-0.0"] {
            assert_eq!(at(inexact), Json::Inexact, "{inexact}");
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
            "",
        ] {
            assert!(Json::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Json::parse(b"{\"a\":\"\xff\"}").is_err(), "not UTF-8");
        assert!(Json::parse(&[b"[".repeat(100_000), b"]".repeat(100_000)].concat()).is_err());
    }
}
