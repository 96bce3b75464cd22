//! `ListPayouts`: filters, pages and their tokens.

use std::time::{Duration, SystemTime};

use prost::Message;
use tonic::Status;

use super::page_token::{Scope, Tokens};
use super::{convert, resolve, status};
use crate::engine::{Engine, Refused};
use crate::ledger::Filter;
use crate::order::Violation;
use crate::pb;
use crate::policy::Terms;
use crate::state::STATES;

/// The page where none is asked for, and the largest.
const PAGE: i64 = 50;
const PAGE_MAX: i64 = 1000;

/// Bytes of a page's payouts, encoded. One payout is a few hundred, and 8 KiB at most.
const PAGE_BYTES: usize = 1024 * 1024;

/// One page.
pub(super) async fn page(
    engine: &Engine,
    tokens: &Tokens,
    terms: &Terms,
    mut request: pb::ListPayoutsRequest,
) -> Result<pb::ListPayoutsResponse, Status> {
    let mut filter = filter(engine, tokens, terms, &mut request)?;
    let (page, caller) = (filter.limit, filter.caller.clone());
    // One more than asked for shows whether there is another page.
    filter.limit += 1;
    let mut payouts = engine.list(filter).await.map_err(|refused| status::refused(&refused))?;
    let mut more = payouts.len() as i64 > page;
    payouts.truncate(page as usize);
    let (mut listed, mut bytes, mut last) = (Vec::with_capacity(payouts.len()), 0, 0);
    for payout in payouts {
        let (row, payout) = (payout.row, pb::Payout::from(payout));
        // With what it takes to tell it from the next one.
        bytes += payout.encoded_len() + 4;
        if bytes > PAGE_BYTES && !listed.is_empty() {
            more = true;
            break;
        }
        listed.push(payout);
        last = row;
    }
    let scope = Scope { request: &request, caller: caller.as_deref() };
    let next_page_token = if more {
        // An empty one would say that this is the end.
        let sealed = tokens.seal(last, scope);
        sealed.ok_or_else(|| status::refused(&Refused::LedgerUnavailable))?
    } else {
        String::new()
    };
    Ok(pb::ListPayoutsResponse { payouts: listed, next_page_token })
}

fn filter(
    engine: &Engine,
    tokens: &Tokens,
    terms: &Terms,
    request: &mut pb::ListPayoutsRequest,
) -> Result<Filter, Status> {
    let mut violations = Vec::new();
    let pid = resolve(engine, terms, request.pid, &mut violations)?;
    request.pid = pid;
    let caller = terms.own_payouts_only.then(|| terms.caller.clone());
    let named = request
        .states
        .iter()
        .map(|named| pb::PayoutState::try_from(*named).ok().and_then(convert::state));
    let states: Option<Vec<_>> = named.collect();
    if states.is_none() {
        violations.push(Violation::new("states", "must be named states of PayoutState"));
    }
    let min_age = request.min_age.map(Duration::try_from);
    if matches!(min_age, Some(Err(_))) {
        violations.push(Violation::new("min_age", "must not be below 0"));
    }
    let min_age = min_age.and_then(Result::ok).filter(|age| !age.is_zero());
    let limit = match i64::from(request.page_size) {
        0 => PAGE,
        size if (1..=PAGE_MAX).contains(&size) => size,
        _ => {
            violations.push(Violation::new("page_size", "must be 0 to 1000"));
            PAGE
        }
    };
    let after_row = match request.page_token.as_str() {
        "" => Some(0),
        token => tokens.open(token, Scope { request, caller: caller.as_deref() }),
    };
    if after_row.is_none() {
        violations.push(Violation::new(
            "page_token",
            "must be the next_page_token of a page of the same list",
        ));
    }
    if !violations.is_empty() {
        return Err(status::invalid(&violations));
    }
    // Each once and in one order, however long the request's list is.
    let named = states.unwrap_or_default();
    let states = STATES.into_iter().filter(|state| named.contains(state)).collect();
    let begun = |age| engine.now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(Filter {
        pid,
        caller,
        states,
        attention_only: request.attention_only,
        not_after: min_age.map(begun),
        after_row: after_row.unwrap_or_default(),
        limit,
    })
}
