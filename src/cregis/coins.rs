//! What Cregis says about coins and addresses: two reads that move nothing.

use std::time::Duration;

use super::reply::{Envelope, Meaning, SKEW_MAX};
use super::{BODY_MAX, Cregis, Parameter, ReadError, Standing};
use crate::coin::Currency;
use crate::json::Json;

/// The most that a list of coins may hold, in bytes and in coins.
const LIST_MAX: usize = 1024 * 1024;
const COINS_MAX: usize = 4096;
/// More decimals than an amount can have digits say nothing.
const DECIMALS_MAX: i64 = 36;

/// A coin that the project can pay out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coin {
    /// Cregis's id of the chain.
    pub chain_id: String,
    /// The token's contract, or the chain's id again.
    pub token_id: String,
    /// Digits after the point, where Cregis says how many.
    pub decimals: Option<usize>,
}

/// Why a question about a coin or an address stays open.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// No answer, or none of Cregis's.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Cregis refuses us, with this code.
    #[error("Cregis refuses this gateway: {0}")]
    Refused(String),
    /// The answer, under this code, settles nothing.
    #[error("the answer {0} settles nothing")]
    Other(String),
}

impl Coin {
    /// Tells whether this is `currency`.
    pub fn is(&self, currency: &Currency) -> bool {
        currency.is(&self.chain_id, &self.token_id)
    }

    fn parse(entry: &Json) -> Option<Self> {
        Some(Self {
            chain_id: entry.text_or_integer("chain_id")?,
            token_id: entry.text_or_integer("token_id")?,
            // A text, and only in the newest of the vendor's models.
            decimals: entry
                .text_or_integer("decimals")
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|text| text.parse::<i64>().ok())
                .filter(|decimals| (0..=DECIMALS_MAX).contains(decimals))
                .and_then(|decimals| usize::try_from(decimals).ok()),
        })
    }
}

/// The coins of an answer's `data`; null is none. None where it is not the documented list.
fn parse(data: &Json) -> Option<Vec<Coin>> {
    match data.get("payout_coins")? {
        Json::Null => Some(Vec::new()),
        Json::List(entries) if entries.len() <= COINS_MAX => {
            entries.iter().map(Coin::parse).collect()
        }
        Json::List(_)
        | Json::Bool(_)
        | Json::Integer(_)
        | Json::Decimal(_)
        | Json::Text(_)
        | Json::Object(_) => None,
    }
}

impl Cregis {
    /// Asks which coins the project can pay out. Moves nothing.
    ///
    /// # Errors
    /// Where there was no answer, or one that settles nothing.
    pub async fn coins(&self) -> Result<Vec<Coin>, Unanswered> {
        let Envelope { code, data, .. } = settled(self.read(&self.coins, &[], LIST_MAX).await?)?;
        let coins = if code == "00000" { parse(&data) } else { None };
        coins.ok_or(Unanswered::Other(code))
    }

    /// Asks whether `address` is one of the chain `chain_id`. Moves nothing.
    ///
    /// # Errors
    /// Where there was no answer, or one that settles nothing.
    pub async fn is_legal(&self, chain_id: &str, address: &str) -> Result<bool, Unanswered> {
        let own = [("chain_id", Parameter::Text(chain_id)), ("address", Parameter::Text(address))];
        let Envelope { code, data, .. } = settled(self.read(&self.legal, &own, BODY_MAX).await?)?;
        match (code.as_str(), data.get("result")) {
            ("00000", Some(Json::Bool(legal))) => Ok(*legal),
            // "The address is invalid", said as of a payout.
            ("E0008", _) => Ok(false),
            (_, _) => Err(Unanswered::Other(code)),
        }
    }
}

/// The envelope, unless it refuses us and not what was asked.
fn settled(Standing { envelope, skew }: Standing) -> Result<Envelope, Unanswered> {
    let clock_is_off = skew.is_some_and(|skew: Duration| skew > SKEW_MAX);
    match envelope.meaning() {
        Meaning::RefusesGateway => Err(Unanswered::Refused(envelope.code)),
        Meaning::Parameter if clock_is_off => Err(Unanswered::Refused(envelope.code)),
        Meaning::Success
        | Meaning::Parameter
        | Meaning::RefusesPayout
        | Meaning::Exists
        | Meaning::Unlisted => Ok(envelope),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &str) -> Option<Vec<Coin>> {
        parse(&Json::parse(data.as_bytes()).expect("JSON"))
    }

    fn decimals(written: &str) -> Option<usize> {
        let entry = format!(
            r#"{{"payout_coins":[{{"coin_name":"TRX","chain_id":"195","token_id":"195"{written}}}]}}"#
        );
        read(&entry).expect("read")[0].decimals
    }

    #[test]
    fn decimals_are_read_where_they_are_whole_and_believable_and_else_unknown() {
        for (written, expected) in [
            (r#","decimals":"6""#, Some(6)),
            (r#","decimals":"0""#, Some(0)),
            (r#","decimals":18"#, Some(18)),
            ("", None),
            (r#","decimals":null"#, None),
            (r#","decimals":"""#, None),
            (r#","decimals":"+6""#, None),
            (r#","decimals":"six""#, None),
            (r#","decimals":-1"#, None),
            (r#","decimals":6.0"#, None),
            (r#","decimals":"37""#, None),
            (r#","decimals":"99999999999999999999""#, None),
        ] {
            assert_eq!(decimals(written), expected, "{written}");
        }
    }

    #[test]
    fn a_null_list_is_empty_and_what_is_no_list_of_coins_is_not_read() {
        assert_eq!(read(r#"{"payout_coins":null,"order_coins":[]}"#), Some(vec![]));
        for bad in [
            "null",
            "[]",
            "{}",
            r#"{"payout_coins":{}}"#,
            r#"{"payout_coins":"[]"}"#,
            r#"{"payout_coins":[null]}"#,
            r#"{"payout_coins":[{"chain_id":"195"}]}"#,
            r#"{"payout_coins":[{"chain_id":"195","token_id":null}]}"#,
            r#"{"payout_coins":[{"chain_id":1.5,"token_id":"195"}]}"#,
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_contract_of_an_evm_chain_is_the_same_in_either_case() {
        let list = r#"{"payout_coins":[{"chain_id":60,"token_id":"0xABcd"}]}"#;
        let coin = &read(list).expect("read")[0];
        for (currency, same) in [("60@0xabCD", true), ("61@0xabcd", false), ("60@60", false)] {
            assert_eq!(coin.is(&Currency::parse(currency).expect("good")), same, "{currency}");
        }
    }
}
