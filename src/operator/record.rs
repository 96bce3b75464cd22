//! One payout in the forms in which it is printed.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use serde::Serialize;

use crate::pb;

/// A payout as JSON: ids as texts, which every JSON reader keeps exact.
#[derive(Serialize)]
pub(super) struct Record<'a> {
    pid: String,
    third_party_id: &'a str,
    cid: String,
    state: String,
    reason: &'a str,
    currency: &'a str,
    address: &'a str,
    amount: &'a str,
    remark: &'a str,
    memo: &'a str,
    callback_url: &'a str,
    cregis_status: Option<i32>,
    txid: &'a str,
    block_height: i64,
    block_time: Option<String>,
    create_time: Option<String>,
    update_time: Option<String>,
    state_time: Option<String>,
    revision: i64,
    attention: &'a [String],
}

impl<'a> From<&'a pb::Payout> for Record<'a> {
    fn from(payout: &'a pb::Payout) -> Self {
        let time = |time: &Option<Timestamp>| time.as_ref().map(Timestamp::to_string);
        Self {
            pid: payout.pid.to_string(),
            third_party_id: &payout.third_party_id,
            cid: payout.cid.to_string(),
            state: state(payout),
            reason: &payout.reason,
            currency: &payout.currency,
            address: &payout.address,
            amount: &payout.amount,
            remark: &payout.remark,
            memo: &payout.memo,
            callback_url: &payout.callback_url,
            cregis_status: payout.cregis_status,
            txid: &payout.txid,
            block_height: payout.block_height,
            block_time: time(&payout.block_time),
            create_time: time(&payout.create_time),
            update_time: time(&payout.update_time),
            state_time: time(&payout.state_time),
            revision: payout.revision,
            attention: &payout.attention,
        }
    }
}

/// The names of [`fields`], in order.
pub(super) const FIELDS: [&str; 20] = [
    "pid",
    "third_party_id",
    "cid",
    "state",
    "reason",
    "currency",
    "address",
    "amount",
    "remark",
    "memo",
    "callback_url",
    "cregis_status",
    "txid",
    "block_height",
    "block_time",
    "create_time",
    "update_time",
    "state_time",
    "revision",
    "attention",
];

/// Every field as text; empty where there is nothing to say.
pub(super) fn fields(payout: &pb::Payout) -> [String; 20] {
    let record = Record::from(payout);
    let known = |number: i64| if number == 0 { String::new() } else { number.to_string() };
    [
        record.pid,
        record.third_party_id.to_owned(),
        known(payout.cid),
        record.state,
        record.reason.to_owned(),
        record.currency.to_owned(),
        record.address.to_owned(),
        record.amount.to_owned(),
        record.remark.to_owned(),
        record.memo.to_owned(),
        record.callback_url.to_owned(),
        record.cregis_status.as_ref().map(i32::to_string).unwrap_or_default(),
        record.txid.to_owned(),
        known(payout.block_height),
        record.block_time.unwrap_or_default(),
        record.create_time.unwrap_or_default(),
        record.update_time.unwrap_or_default(),
        record.state_time.unwrap_or_default(),
        record.revision.to_string(),
        record.attention.join(" "),
    ]
}

/// The heads of [`columns`], in order.
pub(super) const COLUMNS: [&str; 9] = [
    "STATE",
    "REASON",
    "AGE",
    "THIRD_PARTY_ID",
    "CID",
    "AMOUNT",
    "CURRENCY",
    "ADDRESS",
    "ATTENTION",
];

/// What a row of a table shows; a dash where there is nothing to say.
pub(super) fn columns(payout: &pb::Payout, now: SystemTime) -> [String; 9] {
    let cid = if payout.cid == 0 { String::new() } else { payout.cid.to_string() };
    let shown = [
        state(payout),
        payout.reason.clone(),
        age(payout, now).map(human).unwrap_or_default(),
        payout.third_party_id.clone(),
        cid,
        payout.amount.clone(),
        payout.currency.clone(),
        shortened(&payout.address),
        payout.attention.join(" "),
    ];
    shown.map(|text| if text.is_empty() { "-".to_owned() } else { plain(&text) })
}

/// The state's name without its prefix; the number where this payoutd is too old to know it.
pub(super) fn state(payout: &pb::Payout) -> String {
    match pb::PayoutState::try_from(payout.state) {
        Ok(state) => state.as_str_name().trim_start_matches("PAYOUT_STATE_").to_owned(),
        Err(_) => payout.state.to_string(),
    }
}

/// How long the payout has been in its state; none where that cannot be told.
pub(super) fn age(payout: &pb::Payout, now: SystemTime) -> Option<Duration> {
    let changed = SystemTime::try_from(payout.state_time?).ok()?;
    // The clocks of two machines may differ a little.
    Some(now.duration_since(changed).unwrap_or_default())
}

/// A duration by its two largest units: "3h 12m".
pub(super) fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        (_, _, _) => format!("{days}d {}h", hours % 24),
    }
}

/// An address as people compare it: its first six and its last four characters.
fn shortened(address: &str) -> String {
    let characters: Vec<char> = address.chars().collect();
    match characters.len() {
        0..=11 => address.to_owned(),
        length => {
            let (head, tail) = (&characters[..6], &characters[length - 4..]);
            format!("{}…{}", head.iter().collect::<String>(), tail.iter().collect::<String>())
        }
    }
}

/// A text for a terminal: what would steer it, or turn its lines around, is spelled out.
pub(super) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                // Writing to a String cannot fail.
                let _ = write!(shown, "{}", c.escape_unicode());
            }
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_by_their_two_largest_units() {
        for (seconds, told) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3_599, "59m 59s"),
            (11_520, "3h 12m"),
            (86_399, "23h 59m"),
            (86_400, "1d 0h"),
            (400 * 86_400 + 3_600, "400d 1h"),
        ] {
            assert_eq!(human(Duration::from_secs(seconds)), told);
        }
    }

    #[test]
    fn only_long_addresses_are_shortened() {
        for (address, shown) in [
            ("TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS", "TXsmKp…n1FS"),
            ("rEb8TK3gBgk", "rEb8TK3gBgk"),
            ("éééééééééééé", "éééééé…éééé"),
            ("", ""),
        ] {
            assert_eq!(shortened(address), shown);
        }
    }

    #[test]
    fn nothing_that_steers_a_terminal_is_shown_as_it_is() {
        let shown = plain("a\x1b[2Jb\nc\u{9b}d\u{202e}e é 汉 \"q\"");
        assert_eq!(shown, "a\\u{1b}[2Jb\\nc\\u{9b}d\\u{202e}e é 汉 \"q\"");
    }
}
