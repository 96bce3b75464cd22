//! What a person must settle: which payouts, how much money, and what to do with each.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Instant, SystemTime};

use prost_types::Timestamp;
use serde::Serialize;

use super::args::{Output, Reconcile};
use super::client::{Client, Error, Filter, Listing};
use super::progress::Progress;
use super::record::{COLUMNS, FIELDS, Record, age, columns, fields, plain};
use super::sheet::{counted, for_spreadsheets, stdout, table};
use super::sum::Totals;
use crate::pb;
use crate::pb::PayoutState;

/// Every send ends well before; what is still SENDING then is stuck.
const SENDING_AGE: prost_types::Duration = prost_types::Duration { seconds: 120, nanos: 0 };
/// What this report cannot show.
const BLIND_SPOT: &str = "orders at Cregis without a ledger row: the API does not list them; \
                          see orphans in the log and docs/operations.md";

/// One question that the report answers.
struct Section {
    name: &'static str,
    title: &'static str,
    filter: Filter,
}

/// The payouts of one section, the longest in their state first.
pub(super) struct Found {
    name: &'static str,
    title: &'static str,
    payouts: Vec<pb::Payout>,
}

fn sections(accepted_age: prost_types::Duration) -> [Section; 4] {
    let of = |state, min_age| Filter { states: vec![state], min_age, attention_only: false };
    [
        Section {
            name: "in_doubt",
            title: "IN_DOUBT: may or may not exist at Cregis",
            filter: of(PayoutState::InDoubt, None),
        },
        Section {
            name: "accepted",
            title: "ACCEPTED, and no news since",
            filter: of(PayoutState::Accepted, Some(accepted_age)),
        },
        Section {
            name: "attention",
            title: "Attention, in any state",
            filter: Filter { attention_only: true, ..Filter::default() },
        },
        Section {
            name: "sending",
            title: "SENDING for over 2 minutes",
            filter: of(PayoutState::Sending, Some(SENDING_AGE)),
        },
    ]
}

/// Asks for everything that the report shows.
pub(super) async fn find(client: &mut Client, args: &Reconcile) -> Result<Vec<Found>, Error> {
    let mut progress = Progress::new(Output::Table);
    let mut found = Vec::new();
    let mut before = 0;
    for Section { name, title, filter } in sections(args.accepted_age) {
        let mut listing = Listing::new(filter, None);
        let mut payouts = Vec::new();
        while let Some(page) = listing.next(client).await? {
            payouts.extend(page);
            progress.rows(before + listing.rows, Instant::now());
        }
        before += listing.rows;
        payouts.sort_by_key(seniority);
        found.push(Found { name, title, payouts });
    }
    progress.end();
    Ok(found)
}

/// Sorts the longest in their state first.
fn seniority(payout: &pb::Payout) -> Option<(i64, i32)> {
    payout.state_time.as_ref().map(|time| (time.seconds, time.nanos))
}

/// Whether the report holds any payout at all.
pub(super) fn any(found: &[Found]) -> bool {
    found.iter().any(|section| !section.payouts.is_empty())
}

/// Prints the report.
pub(super) fn print(output: Output, found: &[Found], now: SystemTime) -> io::Result<()> {
    match output {
        Output::Table => for_people(stdout(), found, now),
        Output::Json => as_json(stdout(), found, now),
        Output::Csv => as_csv(found, now),
    }
}

fn for_people(mut out: impl Write, found: &[Found], now: SystemTime) -> io::Result<()> {
    for section in found {
        writeln!(out, "{}", section.title)?;
        if !section.payouts.is_empty() {
            let mut rows = table(&[&COLUMNS[..], &["NEXT"]].concat());
            for payout in &section.payouts {
                let next = next_step(payout).to_owned();
                rows.add_row(columns(payout, now).into_iter().chain([next]));
            }
            writeln!(out, "{}", rows.trim_fmt())?;
        }
        writeln!(out, "{}\n", summary(&Totals::of(&section.payouts)))?;
    }
    writeln!(out, "{BLIND_SPOT}")?;
    out.flush()
}

fn summary(totals: &Totals) -> String {
    let mut words = counted(totals.count);
    let sums = totals.by_currency.iter().map(|(currency, sum)| format!("{sum} {currency}"));
    let unreadable = totals.unreadable;
    let unsummed = (unreadable > 0).then(|| format!("{} in no sum", counted(unreadable)));
    for (place, part) in sums.chain(unsummed).enumerate() {
        words.push_str(if place == 0 { ": " } else { ", " });
        words.push_str(&plain(&part));
    }
    words
}

#[derive(Serialize)]
struct Report<'a> {
    time: String,
    sections: Vec<SectionRecord<'a>>,
    note: &'static str,
}

#[derive(Serialize)]
struct SectionRecord<'a> {
    name: &'static str,
    count: usize,
    totals: BTreeMap<String, String>,
    /// Payouts whose amount could not be read.
    unsummed: usize,
    payouts: Vec<Finding<'a>>,
}

#[derive(Serialize)]
struct Finding<'a> {
    #[serde(flatten)]
    payout: Record<'a>,
    age_seconds: Option<u64>,
    next_step: &'static str,
}

fn as_json(mut out: impl Write, found: &[Found], now: SystemTime) -> io::Result<()> {
    let finding = |payout| Finding {
        payout: Record::from(payout),
        age_seconds: age(payout, now).map(|age| age.as_secs()),
        next_step: next_step(payout),
    };
    let sections = found.iter().map(|found| {
        let totals = Totals::of(&found.payouts);
        let sums =
            totals.by_currency.into_iter().map(|(currency, sum)| (currency, sum.to_string()));
        SectionRecord {
            name: found.name,
            count: totals.count,
            totals: sums.collect(),
            unsummed: totals.unreadable,
            payouts: found.payouts.iter().map(finding).collect(),
        }
    });
    let time = Timestamp::from(now).to_string();
    let report = Report { time, sections: sections.collect(), note: BLIND_SPOT };
    serde_json::to_writer_pretty(&mut out, &report)?;
    writeln!(out)?;
    out.flush()
}

/// The rows alone; what is no row goes to standard error.
fn as_csv(found: &[Found], now: SystemTime) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(stdout());
    csv.write_record([&["section", "age_seconds", "next_step"], &FIELDS[..]].concat())?;
    for section in found {
        for payout in &section.payouts {
            let age = age(payout, now).map(|age| age.as_secs().to_string());
            let (name, next) = (section.name.to_owned(), next_step(payout).to_owned());
            let row = [name, age.unwrap_or_default(), next].into_iter().chain(fields(payout));
            csv.write_record(row.map(for_spreadsheets))?;
        }
    }
    csv.flush()?;
    for section in found {
        eprintln!("{}: {}", section.name, summary(&Totals::of(&section.payouts)));
    }
    eprintln!("{BLIND_SPOT}");
    Ok(())
}

/// What to do with the payout next; `docs/operations.md` tells how.
pub(super) fn next_step(payout: &pb::Payout) -> &'static str {
    use PayoutState as S;
    let warning = payout.attention.iter().find_map(|attention| warned(attention));
    match (warning, PayoutState::try_from(payout.state).unwrap_or(S::Unspecified)) {
        (Some(step), _) => step,
        (None, S::Sending) => "look at the log and the disk: the outcome may not be written down",
        (None, S::NotSent) => "nothing left; its caller repeats the same id",
        (None, S::InDoubt) => settle(&payout.reason),
        (None, S::Accepted) => "look at Cregis: it waits for approval, a signature or the chain",
        (None, S::Rejected) => "none: refused; its caller uses a new id",
        (None, S::Voided) => "none: closed as never created",
        (None, S::Succeeded) => "none: paid",
        (None, S::Failed) => "check txid on the chain; its caller uses a new id",
        (None, S::Denied) => "ask at Cregis who denied it; its caller uses a new id",
        (None, S::Unspecified) => "this payoutd is older than the service: use the same version",
    }
}

/// How a doubt ends, by what made it.
fn settle(reason: &str) -> &'static str {
    match reason {
        "EXISTS_UPSTREAM" | "ACCEPTED_NO_CID" => {
            "it exists at Cregis: find its cid there by its id, then resolve --cid"
        }
        "LEDGER_WRITE_FAILED" => "free or mend the disk; then the outcome is written by itself",
        _ => {
            "look for its id at Cregis: found, resolve --cid; not there after a day, resolve --void"
        }
    }
}

/// What an attention asks for before anything else. AGE asks for nothing that the state does not.
fn warned(attention: &str) -> Option<&'static str> {
    match attention {
        "AGE" => None,
        "CONTRADICTION" => {
            Some("Cregis contradicts itself: compare log, Cregis and chain; pay nothing")
        }
        "CID_MISMATCH" => Some("two cids for one payout: find both at Cregis; deny the wrong one"),
        "DUPLICATE_CID" => {
            Some("one cid for two payouts: look for both ids at Cregis; pay nothing")
        }
        "EXISTS_AFTER_CLOSE" => {
            Some("closed, but it exists at Cregis: stop it there, stop its new id")
        }
        "FIELD_MISMATCH" => Some("Cregis holds other fields: deny it there; suspect the key"),
        _ => Some("new attention: see docs/operations.md of the service's version"),
    }
}
