//! An order, the rules for a good one, and what its status numbers mean.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fault::About;
use super::memory::{Verdict, refusal};
use crate::address;
use crate::amount::{Amount, InvalidAmount};
use crate::coin::Currency;
use crate::json::Json;

/// What the documentation allows in a create call; anything else is a parameter error here.
const PAYOUT_FIELDS: [&str; 11] = [
    "pid",
    "currency",
    "address",
    "amount",
    "third_party_id",
    "callback_url",
    "remark",
    "memo",
    "nonce",
    "timestamp",
    "sign",
];

/// Waits for approval; every order begins so.
pub(super) const AWAITS_APPROVAL: i32 = 0;
const SIGNED: i32 = 1;
const SIGNATURE_REJECTED: i32 = 2;
const APPROVAL_CANCELLED: i32 = 3;
/// The approver said no.
pub(super) const APPROVAL_REJECTED: i32 = 4;
const AWAITS_SIGNATURE: i32 = 5;
/// Paid, on the chain.
pub(super) const SUCCESS: i32 = 6;
const FAILED: i32 = 7;

/// An order that the sandbox holds.
#[derive(Clone, Debug, Serialize)]
pub struct Order {
    /// Our id for it.
    pub cid: i64,
    /// The caller's id.
    pub third_party_id: String,
    /// The coin, as asked.
    pub currency: String,
    /// The recipient.
    pub address: String,
    /// The amount, as asked.
    pub amount: String,
    /// The remark, or empty.
    pub remark: String,
    /// The memo, or empty.
    pub memo: String,
    /// The callback URL, or empty.
    pub callback_url: String,
    /// Cregis's status number; 0 waits for approval.
    pub status: i32,
    /// The transaction, once there is one.
    pub txid: Option<String>,
    /// The block that holds it.
    pub block_height: Option<String>,
    /// When that was mined, in milliseconds since 1970.
    pub block_time: Option<i64>,
    /// What the external verification came to; null while open, or where there is none.
    pub approved: Option<bool>,
}

/// Where an order is to go, as posted to `/orders/{cid}/status` and `/orders/status`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// The new status.
    pub status: i32,
    /// Whether a notice tells of it, where Cregis would send one. True where absent.
    #[serde(default = "yes")]
    pub notice: bool,
    /// Only orders with this id.
    pub third_party_id: Option<String>,
    /// The transaction; made up for a success that has none.
    pub txid: Option<String>,
    /// Its block; made up likewise.
    pub block_height: Option<String>,
    /// That block's time; made up likewise.
    pub block_time: Option<i64>,
}

fn yes() -> bool {
    true
}

/// Refuses what has fields that are not among `fields`.
pub(super) fn only(body: &Json, fields: &[&str]) -> Result<(), Verdict> {
    match body {
        Json::Object(given) if given.iter().any(|(name, _)| !fields.contains(&name.as_str())) => {
            Err(refusal("A0001", "unknown parameter"))
        }
        Json::Object(_)
        | Json::Null
        | Json::Bool(_)
        | Json::Integer(_)
        | Json::Decimal(_)
        | Json::Text(_)
        | Json::List(_) => Ok(()),
    }
}

/// Whether Cregis would not move an order any more.
pub(super) fn is_final(status: i32) -> bool {
    is_told(status) || status == APPROVAL_CANCELLED
}

/// Whether a notice tells of this status. A cancelled approval has none.
pub(super) fn is_told(status: i32) -> bool {
    matches!(status, SIGNATURE_REJECTED | APPROVAL_REJECTED | SUCCESS | FAILED)
}

/// The steps that lead an order from its beginning to `outcome`.
pub(super) fn way(outcome: i32) -> Vec<i32> {
    match outcome {
        AWAITS_APPROVAL => Vec::new(),
        AWAITS_SIGNATURE | APPROVAL_CANCELLED | APPROVAL_REJECTED => vec![outcome],
        SIGNED | SIGNATURE_REJECTED => vec![AWAITS_SIGNATURE, outcome],
        _ => vec![AWAITS_SIGNATURE, SIGNED, outcome],
    }
}

// === impl Move ===

impl Move {
    /// A move to `status` and nothing else.
    pub fn to(status: i32, notice: bool) -> Self {
        let (third_party_id, txid, block_height, block_time) = (None, None, None, None);
        Self { status, notice, third_party_id, txid, block_height, block_time }
    }

    /// Whether it is meant for `order`.
    pub(super) fn fits(&self, order: &Order) -> bool {
        self.third_party_id.as_ref().is_none_or(|id| *id == order.third_party_id)
    }
}

// === impl Order ===

impl Order {
    /// The order that a create call asks for, by the rules that the vendor has published.
    pub(super) fn parse(body: &Json) -> Result<Self, Verdict> {
        only(body, &PAYOUT_FIELDS)?;
        let required = |name| {
            let text = body.text(name).filter(|text| !text.is_empty());
            text.ok_or(refusal("A0001", "parameter error"))
        };
        let optional = |name| body.text(name).unwrap_or_default().to_owned();
        let (third_party_id, address) = (required("third_party_id")?, required("address")?);
        let (currency, amount) = (required("currency")?, required("amount")?);

        let coin =
            Currency::parse(currency).ok_or(refusal("E0005", "currency is not supported"))?;
        match Amount::parse(amount) {
            Ok(amount) if coin.decimals().is_none_or(|most| amount.decimals() <= most) => {}
            Ok(_) => return Err(refusal("E0007", "amount has a wrong precision")),
            Err(InvalidAmount::Zero) => return Err(refusal("E0006", "amount must be above 0")),
            Err(InvalidAmount::Form | InvalidAmount::Exponent | InvalidAmount::TooLong) => {
                return Err(refusal("E0016", "amount error"));
            }
        }
        if !address::fits(coin.chain(), address) {
            return Err(refusal("E0008", "address is invalid"));
        }
        if optional("remark").chars().count() > 256 {
            return Err(refusal("E0021", "remark is over 256 characters"));
        }
        Ok(Self {
            cid: 0,
            third_party_id: third_party_id.to_owned(),
            currency: currency.to_owned(),
            address: address.to_owned(),
            amount: amount.to_owned(),
            remark: optional("remark"),
            memo: optional("memo"),
            callback_url: optional("callback_url"),
            status: AWAITS_APPROVAL,
            txid: None,
            block_height: None,
            block_time: None,
            approved: None,
        })
    }

    /// What tells faults whether they strike it.
    pub(super) fn about(&self) -> About<'_> {
        About { third_party_id: Some(&self.third_party_id), address: Some(&self.address) }
    }

    /// The chain and the token that `currency` names.
    pub(super) fn coin(&self) -> (&str, &str) {
        self.currency.split_once('@').unwrap_or_default()
    }

    /// What a query answers.
    pub(super) fn answer(&self, pid: i64) -> Value {
        let (chain_id, token_id) = self.coin();
        json!({
            "pid": pid,
            "chain_id": chain_id,
            "token_id": token_id,
            "currency": self.currency,
            "address": self.address,
            "amount": self.amount,
            "status": self.status,
            "third_party_id": self.third_party_id,
            "remark": self.remark,
            "memo": self.memo,
            "txid": self.txid,
            "block_height": self.block_height,
            "block_time": self.block_time,
        })
    }

    /// Goes where `to` says. A success without a transaction has one made up.
    pub(super) fn shift(&mut self, to: &Move, now_ms: i64) {
        self.status = to.status;
        self.txid = to.txid.clone().or(self.txid.take());
        self.block_height = to.block_height.clone().or(self.block_height.take());
        self.block_time = to.block_time.or(self.block_time);
        if self.status == SUCCESS {
            self.txid.get_or_insert_with(made_up_txid);
            // A block each three seconds, as on the chain of the vendor's examples.
            self.block_height.get_or_insert_with(|| (now_ms / 3000).to_string());
            self.block_time.get_or_insert(now_ms);
        }
    }
}

fn made_up_txid() -> String {
    let mut bytes = [0u8; 32];
    // Without randomness all are alike, which harms nobody here.
    let _ = getrandom::fill(&mut bytes);
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_ends_where_it_shall_and_only_there_is_final() {
        for outcome in 0..=7 {
            let way = way(outcome);
            assert_eq!(way.last().copied().unwrap_or(AWAITS_APPROVAL), outcome);
            let before = way.split_last().map(|(_, before)| before).unwrap_or_default();
            assert!(!before.iter().any(|status| is_final(*status)), "{way:?}");
        }
        assert_eq!(way(SUCCESS), [5, 1, 6]);
        assert!(is_final(3) && !is_told(3), "status 3 has no notice");
    }
}
