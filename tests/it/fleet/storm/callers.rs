//! Those who have payouts made while the storm goes on, and remember everything they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use payoutd::pb::{self, PayoutState};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic_types::StatusExt;

use super::draw;
use super::replica::CALLERS;
use crate::support::checker::Told;
use crate::support::{Client, by, order};

/// Between two payouts of one caller: what bounds the load.
const PAUSE: Duration = Duration::from_millis(100);
/// Before a caller tries another replica.
pub(super) const AGAIN: Duration = Duration::from_millis(20);
/// So often in a row it asks for one payout, before it turns to others.
const TRIES: usize = 40;

/// The replicas, as callers see them.
#[derive(Clone)]
pub(super) struct Doors {
    pub(super) clients: Vec<Client>,
    /// Where Cregis is to tell of a payout.
    pub(super) callback_urls: Vec<String>,
    /// Numbers that have been given out; each to two callers.
    pub(super) drawn: Arc<AtomicU64>,
}

/// What one caller has heard.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) told: BTreeSet<Told>,
    /// How often calls failed, by reason.
    pub(super) failed: BTreeMap<String, usize>,
}

impl Heard {
    pub(super) fn add(&mut self, other: Self) {
        self.told.extend(other.told);
        for (reason, count) in other.failed {
            *self.failed.entry(reason).or_default() += count;
        }
    }
}

impl Doors {
    /// Has payouts made until `stop`: new ones, each together with another caller, and known ones again.
    pub(super) async fn call(self, mut seed: u64, stop: CancellationToken) -> Heard {
        let (mut heard, mut beat) = (Heard::default(), pace(PAUSE));
        while !stop.is_cancelled() {
            beat.tick().await;
            let new = self.drawn.fetch_add(1, Ordering::Relaxed) / 2;
            let replica = draw(&mut seed, 3) as usize;
            self.insist(new, replica, &mut heard, &stop).await;
            let known = draw(&mut seed, new + 1);
            self.ask(known, replica + 1, &mut heard).await;
        }
        heard
    }

    /// Comes back with the same id, each time at another replica, until something is known.
    async fn insist(&self, number: u64, first: usize, heard: &mut Heard, stop: &CancellationToken) {
        let mut beat = pace(AGAIN);
        for replica in (first..).take(TRIES) {
            beat.tick().await;
            if self.ask(number, replica, heard).await || stop.is_cancelled() {
                return;
            }
        }
    }

    /// Asks once; true where it is known what became of it.
    pub(super) async fn ask(&self, number: u64, replica: usize, heard: &mut Heard) -> bool {
        let mut client = self.clients[replica % self.clients.len()].clone();
        match client.create_payout(self.request(number)).await {
            Ok(answer) => {
                let payout = answer.into_inner().payout.expect("a payout");
                let told = Told::of(&payout);
                let known = told.is_some() && payout.state() != PayoutState::Sending;
                heard.told.extend(told);
                known
            }
            Err(status) => {
                let reason = reason(&status);
                let refused = reason == "REJECTED_BY_CREGIS";
                if refused {
                    let (id, state) = (id(number), "REJECTED".to_owned());
                    heard.told.insert(Told { id, revision: 0, state, cid: 0 });
                }
                *heard.failed.entry(reason).or_default() += 1;
                refused
            }
        }
    }

    fn request(&self, number: u64) -> tonic::Request<pb::CreatePayoutRequest> {
        let at = number as usize;
        let asked = pb::CreatePayoutRequest {
            amount: format!("1.{}", number % 9 + 1),
            callback_url: self.callback_urls[at % self.callback_urls.len()].clone(),
            ..order(&id(number))
        };
        let mut request = by(CALLERS[at % CALLERS.len()], asked);
        request.set_timeout(Duration::from_secs(4));
        request
    }
}

/// A beat that is never faster than one in each `period`, however late it has become.
pub(super) fn pace(period: Duration) -> Interval {
    let mut beat = interval(period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

pub(super) fn id(number: u64) -> String {
    format!("storm-{number}")
}

/// Our reason, or what the transport says where a replica was killed under the call.
fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let ours = details.error_info().map(|info| info.reason.clone());
    ours.unwrap_or_else(|| format!("transport: {:?}", status.code()))
}
