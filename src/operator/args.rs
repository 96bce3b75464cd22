//! The command line of `payoutd payouts` and `payoutd reconcile`.

use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, ValueEnum};

use crate::endpoint::Endpoint;
use crate::pb;

/// `payoutd payouts`.
#[derive(Debug, Args)]
pub struct Payouts {
    #[command(flatten)]
    pub(super) target: Target,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List payouts in the order in which they were first recorded.
    List(List),
    /// Show one payout whole.
    Show(Show),
    /// Settle a payout in doubt. A wrong --void makes its caller pay again: look at Cregis first.
    Resolve(Resolve),
    /// Take no new payouts from now on, across restarts.
    Pause(Note),
    /// Take new payouts again.
    Resume(Note),
}

/// Whom to ask, and how to print the answer.
#[derive(Debug, Args)]
pub(super) struct Target {
    #[command(flatten)]
    pub(super) endpoint: Endpoint,
    /// The Cregis project; 0 is the only one, and all of them for pause and resume.
    #[arg(long, global = true, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    pub(super) pid: i64,
    /// How to print.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

/// The forms in which answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Table,
    /// One JSON document, exact.
    Json,
    /// For spreadsheets.
    Csv,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only payouts in this state; may be repeated.
    #[arg(long = "state", value_name = "STATE", value_parser = state, value_delimiter = ',')]
    pub(super) states: Vec<pb::PayoutState>,
    /// Only payouts that a person should look at.
    #[arg(long)]
    pub(super) attention: bool,
    /// Only payouts that have been in their state for so long, such as "1h 30m".
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(super) min_age: Option<prost_types::Duration>,
    /// The most to list.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Show {
    /// The caller's id.
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub(super) third_party_id: Option<String>,
    /// Cregis's id instead.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub(super) cid: Option<i64>,
}

#[derive(Debug, Args)]
pub(super) struct Resolve {
    /// The caller's id.
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub(super) third_party_id: String,
    #[command(flatten)]
    pub(super) resolution: Resolution,
    /// What was seen, where and by whom; kept for ever.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub(super) evidence: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Resolution {
    /// It exists at Cregis under this id.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub(super) cid: Option<i64>,
    /// It was never created.
    #[arg(long)]
    pub(super) void: bool,
}

#[derive(Debug, Args)]
pub(super) struct Note {
    /// Why, for those who come later.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) note: String,
}

/// `payoutd reconcile`.
#[derive(Debug, Args)]
pub struct Reconcile {
    #[command(flatten)]
    pub(super) target: Target,
    /// List ACCEPTED payouts without news for at least so long.
    #[arg(long, value_name = "AGE", default_value = "1h", value_parser = age)]
    pub(super) accepted_age: prost_types::Duration,
    /// Exit 1 where anything was found.
    #[arg(long)]
    pub(crate) fail_on_findings: bool,
}

impl Payouts {
    /// Where the service is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.target.endpoint
    }
}

impl Reconcile {
    /// Where the service is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.target.endpoint
    }
}

fn state(text: &str) -> Result<pb::PayoutState, &'static str> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("PAYOUT_STATE_").unwrap_or(&name);
    match pb::PayoutState::from_str_name(&format!("PAYOUT_STATE_{name}")) {
        None | Some(pb::PayoutState::Unspecified) => Err(
            "must be SENDING, NOT_SENT, IN_DOUBT, ACCEPTED, REJECTED, VOIDED, SUCCEEDED, FAILED or DENIED",
        ),
        Some(state) => Ok(state),
    }
}

fn age(text: &str) -> Result<prost_types::Duration, &'static str> {
    let age: Option<Duration> = humantime::parse_duration(text).ok();
    age.and_then(|age| age.try_into().ok()).ok_or("must be a duration such as \"1h 30m\"")
}
