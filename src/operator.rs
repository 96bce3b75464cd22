//! `payoutd payouts` and `payoutd reconcile`: the operator's view and hand.
//!
//! A client of the gRPC API like any other: it asks once, prints what it hears, and repeats nothing.
//! Whoever settles a doubt must see every answer.

pub mod args;
mod client;
mod progress;
mod reconcile;
mod record;
mod refusal;
mod sheet;
mod sum;

use std::io::{ErrorKind, Write};
use std::time::{Instant, SystemTime};

use args::{List, Output, Payouts, Reconcile, Show, Target, Verb};
use client::{Client, Filter, Listing};
use progress::Progress;
use sheet::{Sheet, stdout};

pub use client::Error;
pub use refusal::Refusal;

use crate::pb;

/// `payoutd payouts`: lists, shows, settles, pauses, resumes.
///
/// # Errors
/// Where the service cannot be reached, refuses, or the answer cannot be written.
pub async fn payouts(args: Payouts) -> Result<(), Error> {
    let Payouts { target, verb } = args;
    let mut client = Client::connect(&target).await?;
    let done = match verb {
        Verb::List(args) => list(&mut client, args, target.output).await,
        Verb::Show(args) => show(&mut client, args, target.output).await,
        Verb::Resolve(args) => {
            let payout = client.resolve(args).await?;
            print(target.output, &payout)
        }
        Verb::Pause(args) => intake(&mut client, true, args.note, &target).await,
        Verb::Resume(args) => intake(&mut client, false, args.note, &target).await,
    };
    unless_unread(done)
}

/// `payoutd reconcile`: reports what a person must settle, and tells whether there is anything.
///
/// # Errors
/// Where the service cannot be reached, refuses, or the report cannot be written.
pub async fn reconcile(args: Reconcile) -> Result<bool, Error> {
    let mut client = Client::connect(&args.target).await?;
    let found = reconcile::find(&mut client, &args).await?;
    let printed = reconcile::print(args.target.output, &found, SystemTime::now());
    unless_unread(printed.map_err(Error::Output))?;
    Ok(reconcile::any(&found))
}

async fn list(client: &mut Client, args: List, output: Output) -> Result<(), Error> {
    let filter =
        Filter { states: args.states, attention_only: args.attention, min_age: args.min_age };
    let mut listing = Listing::new(filter, args.limit);
    let mut progress = Progress::new(output);
    let mut sheet = Sheet::begin(output, stdout(), SystemTime::now())?;
    while let Some(page) = listing.next(client).await? {
        for payout in &page {
            sheet.add(payout)?;
        }
        progress.rows(listing.rows, Instant::now());
    }
    progress.end();
    Ok(sheet.end(listing.is_cut())?)
}

async fn show(client: &mut Client, args: Show, output: Output) -> Result<(), Error> {
    use pb::get_payout_request::Id;
    let id = match (args.third_party_id, args.cid) {
        (Some(id), _) => Id::ThirdPartyId(id),
        (None, cid) => Id::Cid(cid.unwrap_or_default()),
    };
    print(output, &client.get(id).await?)
}

fn print(output: Output, payout: &pb::Payout) -> Result<(), Error> {
    let age = record::age(payout, SystemTime::now()).map(record::human);
    let next = reconcile::next_step(payout).to_owned();
    let notes = [("age", age.unwrap_or_default()), ("next", next)];
    Ok(sheet::show(output, payout, &notes)?)
}

async fn intake(
    client: &mut Client,
    pause: bool,
    note: String,
    target: &Target,
) -> Result<(), Error> {
    let paused = client.set_intake(pause, note).await?;
    let whose = match target.pid {
        0 => "all projects".to_owned(),
        pid => format!("pid {pid}"),
    };
    let mut out = stdout();
    match target.output {
        Output::Table if paused => writeln!(out, "{whose}: paused; no new payouts are taken")?,
        Output::Table => writeln!(out, "{whose}: new payouts are taken")?,
        Output::Json => writeln!(out, "{{\"paused\":{paused}}}")?,
        Output::Csv => writeln!(out, "paused\n{paused}")?,
    }
    Ok(out.flush()?)
}

/// A reader that has gone, such as `head`, wants no more: no reason to fail.
fn unless_unread(done: Result<(), Error>) -> Result<(), Error> {
    match done {
        Err(Error::Output(gone)) if gone.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}
