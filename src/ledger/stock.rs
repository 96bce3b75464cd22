//! What is in the ledger that has not come to its end, counted.

use std::collections::{BTreeMap, HashSet};
use std::time::SystemTime;

use crate::state::State;

/// Payouts that are followed, counted at one moment.
#[derive(Clone, Debug, Default)]
pub struct Stock {
    /// One entry for each project, state and reason that has any.
    pub open: Vec<Open>,
    /// Payouts that have an attention, ended ones included.
    pub with_attention: i64,
}

/// Payouts of one project that stand alike.
#[derive(Clone, Debug)]
pub struct Open {
    /// The project.
    pub pid: i64,
    /// Where they stand.
    pub state: State,
    /// Why.
    pub reason: String,
    /// How many there are.
    pub count: i64,
    /// Since when the oldest one stands there.
    pub since: SystemTime,
    /// When the first of them is to be looked at.
    pub due: SystemTime,
}

impl Stock {
    /// One sentence for each project that has open payouts and is not among those `served`: nobody here asks Cregis
    /// about them. With a shared ledger another replica may.
    pub fn not_followed(&self, served: &HashSet<i64>) -> Vec<String> {
        let mut counts = BTreeMap::<i64, i64>::new();
        for open in self.open.iter().filter(|open| !served.contains(&open.pid)) {
            *counts.entry(open.pid).or_default() += open.count;
        }
        let sentence = |(pid, count)| {
            format!(
                "project {pid} has {count} open payouts and is not in the settings: they are not followed here, and its \
                 notices are answered 404"
            )
        };
        counts.into_iter().map(sentence).collect()
    }
}
