//! What Cregis says an order is, in a query's answer or in a message of its own; compared with the
//! ledger field by field, because a signature alone decides nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::json::Json;
use crate::order::Order;
use crate::payout::Progress;

/// An order as Cregis describes it. Texts are Cregis's; what is absent or null is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    /// The project, where it is named.
    pub pid: Option<i64>,
    /// The caller's id.
    pub third_party_id: String,
    /// The recipient.
    pub address: String,
    /// A number, as it is written.
    pub amount: String,
    /// Cregis's id of the chain.
    pub chain_id: String,
    /// The token, or the chain's id again.
    pub token_id: String,
    /// The remark, where it is echoed.
    pub remark: Option<String>,
    /// The memo, where it is echoed.
    pub memo: Option<String>,
    /// Cregis's status number.
    pub status: i32,
    /// Hash of the transaction.
    pub txid: String,
    /// Height of its block, or 0.
    pub block_height: i64,
    /// Time of its block.
    pub block_time: Option<SystemTime>,
}

impl Echo {
    /// Reads an answer's `data`. None where a field that must be there is not, or is of a wrong type.
    pub fn parse(data: &Json) -> Option<Self> {
        Self::read(data, "address", data.int64("status")?)
    }

    /// Reads an external verification: it calls the recipient `to_address`, and has no status yet.
    pub fn parse_verification(body: &Json) -> Option<Self> {
        Self::read(body, "to_address", 0)
    }

    fn read(data: &Json, address: &str, status: i64) -> Option<Self> {
        Some(Self {
            pid: data.int64("pid"),
            third_party_id: kept(data.text("third_party_id")?),
            address: data.text(address)?.to_owned(),
            amount: data.text_or_number("amount")?,
            chain_id: data.text_or_integer("chain_id")?,
            token_id: data.text_or_integer("token_id")?,
            remark: data.text("remark").map(str::to_owned),
            memo: data.text_or_number("memo"),
            status: i32::try_from(status).ok()?,
            txid: kept(data.text("txid").unwrap_or_default()),
            block_height: integer_or_text(data, "block_height").unwrap_or_default(),
            block_time: integer_or_text(data, "block_time").and_then(block_time),
        })
    }

    /// Names the fields that decide about money in which this is not `order`, by meaning. Empty means
    /// that it is.
    ///
    /// The coin's name is not compared: chain and token identify the coin, the name varies.
    pub fn differences(&self, order: &Order) -> Vec<&'static str> {
        let chain = order.currency.chain_id();
        // What is left out where it is empty comes back as null or as nothing.
        let memo = self.memo.as_deref().unwrap_or_default();
        let fields = [
            ("pid", self.pid.is_some_and(|pid| pid != order.key.pid)),
            ("third_party_id", self.third_party_id != order.key.third_party_id),
            ("address", !order.pays_to(&self.address)),
            ("amount", !order.amount.is_written(&self.amount)),
            ("chain_id", self.chain_id != chain),
            ("token_id", !order.currency.is(chain, &self.token_id)),
            ("memo", !order.has_memo(memo)),
        ];
        fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// Tells whether the remark came back as another one. It is for people, and may be left out.
    pub fn changes_remark(&self, order: &Order) -> bool {
        self.remark.as_ref().is_some_and(|remark| !remark.is_empty() && *remark != order.remark)
    }

    /// What it says about the life of the order, as known under `cid`.
    pub fn progress(&self, cid: i64) -> Progress {
        Progress {
            cid,
            status: self.status,
            txid: self.txid.clone(),
            block_height: self.block_height,
            block_time: self.block_time,
        }
    }
}

/// A text as every ledger can keep it: PostgreSQL has no NUL. What stands in its place is in no id of a caller's.
fn kept(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The vendor's pages and its code disagree on which of these are texts.
fn integer_or_text(data: &Json, key: &str) -> Option<i64> {
    data.int64(key).or_else(|| data.text(key)?.parse().ok())
}

/// Milliseconds, or seconds where there are ten digits only.
fn block_time(number: i64) -> Option<SystemTime> {
    let number = u64::try_from(number).ok().filter(|number| *number > 0)?;
    let millis = if number < 100_000_000_000 { number.checked_mul(1000)? } else { number };
    UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::order;

    const DATA: &str = r#"{"pid":1,"chain_id":"195","token_id":"195","currency":"TRX",
        "address":"TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS","amount":"1.10","status":6,
        "third_party_id":"id","remark":null,"memo":null,"txid":"ab","block_height":"34527604",
        "block_time":1686814482000}"#;

    fn parse(text: &str) -> Option<Echo> {
        Echo::parse(&Json::parse(text.as_bytes()).expect("JSON"))
    }

    #[test]
    fn the_documented_answer_is_read_and_agrees_by_value() {
        let echo = parse(DATA).expect("read");
        assert_eq!(echo.differences(&order()), [""; 0]);
        let progress = echo.progress(9);
        assert_eq!((progress.cid, progress.status, progress.block_height), (9, 6, 34_527_604));
        let seconds = parse(&DATA.replace("1686814482000", "\"1686814482\"")).expect("read");
        assert_eq!(seconds.block_time, progress.block_time, "the same in seconds, as text");
        assert_eq!(parse(&DATA.replace("1686814482000", "null")).expect("read").block_time, None);
    }

    #[test]
    fn fields_are_compared_by_meaning_and_a_remark_decides_nothing() {
        for (from, to) in [
            ("\"1.10\"", "1.10"),
            ("\"1.10\"", "1.1"),
            ("\"1.10\"", "11E-1"),
            ("\"1.10\"", "\"1.1E0\""),
            ("\"1.10\"", "\"0.11e+01\""),
            ("TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS", "41f04b40f0d5efe9aa13b22131639fd3e0a10be38f"),
            ("\"remark\":null", "\"remark\":\"x\""),
        ] {
            let echo = parse(&DATA.replace(from, to)).expect("read");
            assert_eq!(echo.differences(&order()), [""; 0], "{to}");
            assert_eq!(echo.changes_remark(&order()), from.contains("remark"), "{to}");
        }
    }

    #[test]
    fn every_field_that_differs_is_named() {
        for (from, to, field) in [
            ("\"pid\":1", "\"pid\":2", "pid"),
            ("\"id\"", "\"other\"", "third_party_id"),
            ("TXsm", "TYsm", "address"),
            ("1.10", "1.11", "amount"),
            ("1.10", "1.1e1", "amount"),
            ("\"1.10\"", "1.11", "amount"),
            ("\"1.10\"", "11", "amount"),
            ("\"chain_id\":\"195\"", "\"chain_id\":\"60\"", "chain_id"),
            ("\"token_id\":\"195\"", "\"token_id\":\"195memox\"", "token_id"),
            ("\"memo\":null", "\"memo\":\"7\"", "memo"),
            ("\"memo\":null", "\"memo\":7", "memo"),
        ] {
            let echo = parse(&DATA.replace(from, to)).expect("read");
            assert_eq!(echo.differences(&order()), [field], "{to}");
        }
    }

    #[test]
    fn what_lacks_a_field_or_has_a_wrong_type_is_not_read() {
        for (from, to) in [
            ("\"status\":6", "\"status\":\"6\""),
            ("\"status\":6", "\"status\":6.0"),
            ("\"status\":6,", ""),
            ("\"amount\":\"1.10\"", "\"amount\":true"),
            ("\"amount\":\"1.10\"", "\"amount\":null"),
            ("\"amount\":\"1.10\"", "\"amount\":[1.10]"),
            ("\"address\"", "\"to_address\""),
            ("\"third_party_id\":\"id\"", "\"third_party_id\":null"),
        ] {
            assert_eq!(parse(&DATA.replace(from, to)), None, "{to}");
        }
    }
}
