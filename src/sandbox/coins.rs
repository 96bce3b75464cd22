//! The sandbox's coins and its check of addresses: by the same tables and rules as for an order.

use serde_json::json;

use super::memory::{Verdict, refusal, success};
use super::order::only;
use crate::address;
use crate::coin::{Currency, published};
use crate::json::Json;

/// Answers which coins there are: every published one.
pub(super) fn list(body: &Json) -> Result<Verdict, Verdict> {
    only(body, &["pid", "nonce", "timestamp", "sign"])?;
    let coins: Vec<_> = published()
        .map(|(chain_id, token_id, decimals)| {
            json!({
                // Cregis has names such as USDT-TRC20 here; nobody publishes the list.
                "coin_name": format!("{chain_id}@{token_id}"),
                "chain_id": chain_id,
                "token_id": token_id,
                "decimals": decimals.to_string(),
            })
        })
        .collect();
    Ok(success(json!({ "payout_coins": coins, "address_coins": coins, "order_coins": null })))
}

/// Answers whether an address is one of its chain; on an unknown chain each is.
pub(super) fn legal(body: &Json) -> Result<Verdict, Verdict> {
    only(body, &["pid", "chain_id", "address", "nonce", "timestamp", "sign"])?;
    let (chain_id, address) = (body.text("chain_id"), body.text("address"));
    let native = chain_id.and_then(|id| Currency::parse(&format!("{id}@{id}")));
    let (Some(native), Some(address)) = (native, address.filter(|text| !text.is_empty())) else {
        return Err(refusal("A0001", "parameter error"));
    };
    Ok(success(json!({ "result": address::fits(native.chain(), address) })))
}
