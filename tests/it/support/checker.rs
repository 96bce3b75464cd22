//! What is true after any disaster, or something is broken: what Cregis stored, what the ledger holds and
//! what callers were told, compared. It is tested with planted errors: a checker that finds nothing proves
//! nothing, unless it finds what is there.

use std::collections::{BTreeMap, BTreeSet};

use payoutd::pb;
use payoutd::sandbox::order::Order;

use super::Upstream;

/// Everything that is known from outside.
#[derive(Clone, Default)]
pub(crate) struct Evidence {
    /// What Cregis stored.
    pub(crate) orders: Vec<Order>,
    /// The id of every create call that reached Cregis.
    pub(crate) posts: Vec<String>,
    /// What the ledger holds, by the callers' ids.
    pub(crate) rows: BTreeMap<String, Row>,
    /// Everything that callers were told.
    pub(crate) told: BTreeSet<Told>,
    /// What callers have spent.
    pub(crate) accounts: Vec<Account>,
}

/// A payout's row and its history.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) cid: Option<i64>,
    /// Currency, address, amount.
    pub(crate) order: (String, String, String),
    pub(crate) history: Vec<Step>,
}

/// One revision.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) revision: i64,
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) cid: Option<i64>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Told {
    pub(crate) id: String,
    /// 0 where it was not told.
    pub(crate) revision: i64,
    pub(crate) state: String,
    /// 0 for none.
    pub(crate) cid: i64,
}

/// One caller's day, in decimal text.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    /// The total that is kept.
    pub(crate) kept: String,
    /// The sum of its payouts.
    pub(crate) sum: String,
}

impl Told {
    /// What `payout` promises; None where it is an answer about what is not written down yet.
    pub(crate) fn of(payout: &pb::Payout) -> Option<Self> {
        let written = payout.revision > 0 && payout.reason != "LEDGER_WRITE_FAILED";
        let state = payout.state().as_str_name().trim_start_matches("PAYOUT_STATE_").to_owned();
        let (id, revision, cid) = (payout.third_party_id.clone(), payout.revision, payout.cid);
        written.then_some(Self { id, revision, state, cid })
    }
}

/// The ids of every create call that `upstream` received.
pub(crate) fn posts(upstream: &Upstream) -> Vec<String> {
    upstream.book.posts().into_iter().filter_map(|post| post.third_party_id).collect()
}

impl Evidence {
    /// Everything that breaks an invariant; empty where all of them hold.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.check_orders(&mut found);
        self.check_posts(&mut found);
        self.check_rows(&mut found);
        for told in &self.told {
            let why = self.rows.get(&told.id).map_or(Some("is gone"), |row| row.belies(told));
            found.extend(why.map(|why| format!("{}: a caller was told {told:?}, {why}", told.id)));
        }
        for Account { name, kept, sum } in &self.accounts {
            if kept != sum {
                found.push(format!("{name}: {kept} is kept as spent, and payouts come to {sum}"));
            }
        }
        found
    }

    fn check_orders(&self, found: &mut Vec<String>) {
        let mut ids = BTreeSet::new();
        for order in &self.orders {
            let id = &order.third_party_id;
            if !ids.insert(id) {
                found.push(format!("{id}: ordered twice"));
            }
            match self.rows.get(id) {
                None => found.push(format!("{id}: at Cregis, and unknown to the ledger")),
                Some(row) if ["NOT_SENT", "REJECTED", "VOIDED"].contains(&&*row.state) => {
                    found.push(format!("{id}: at Cregis, and {} in the ledger", row.state));
                }
                Some(_) => {}
            }
        }
    }

    /// Sent once, and once more for each time that Cregis refused the gateway.
    fn check_posts(&self, found: &mut Vec<String>) {
        let mut posts: BTreeMap<&str, usize> = BTreeMap::new();
        for id in &self.posts {
            *posts.entry(id).or_default() += 1;
        }
        for (id, count) in posts {
            let allowed = 1 + self.rows.get(id).map_or(0, Row::refusals);
            if count > allowed {
                found.push(format!("{id}: sent {count} times, where {allowed} are allowed"));
            }
        }
    }

    fn check_rows(&self, found: &mut Vec<String>) {
        let orders: BTreeMap<i64, &Order> =
            self.orders.iter().map(|order| (order.cid, order)).collect();
        let mut cids = BTreeSet::new();
        for (id, row) in &self.rows {
            let order = row.cid.and_then(|cid| orders.get(&cid));
            let same = order.is_some_and(|order| {
                order.third_party_id == *id
                    && (&order.currency, &order.address, &order.amount)
                        == (&row.order.0, &row.order.1, &row.order.2)
            });
            if row.cid.is_some() && !same {
                found.push(format!("{id}: its cid is not its order's"));
            }
            if row.cid.is_some_and(|cid| !cids.insert(cid)) {
                found.push(format!("{id}: its cid is another payout's, too"));
            }
            if row.state == "IN_DOUBT" && row.reason.is_empty() {
                found.push(format!("{id}: a doubt without a reason"));
            }
            let revisions = row.history.iter().map(|step| step.revision);
            if row.history.is_empty() || !revisions.eq(1..=row.history.len() as i64) {
                found.push(format!("{id}: a revision is missing"));
            }
            let begins = row.history.first().is_some_and(|step| step.state == "SENDING");
            let ends = row.history.last().is_some_and(|step| {
                (&step.state, &step.reason, step.cid) == (&row.state, &row.reason, row.cid)
            });
            if !begins || !ends || !row.history.windows(2).all(legal) {
                found.push(format!("{id}: an illegal history {:?}", row.history));
            }
        }
    }
}

impl Row {
    /// How often Cregis refused the gateway, so that this was certainly not created, and may be sent again.
    fn refusals(&self) -> usize {
        let ours = ["CONNECT_FAILED", "LEDGER_UNAVAILABLE", "SEND_EXPIRED"];
        let proven = |step: &&Step| step.state == "NOT_SENT" && !ours.contains(&&*step.reason);
        self.history.iter().filter(proven).count()
    }

    /// Why what a caller was told is not true.
    fn belies(&self, told: &Told) -> Option<&'static str> {
        let ends = ["REJECTED", "VOIDED", "SUCCEEDED", "FAILED", "DENIED"];
        let step = self.history.iter().find(|step| step.revision == told.revision);
        let same = step.is_some_and(|step| {
            (&step.state, step.cid.unwrap_or_default()) == (&told.state, told.cid)
        });
        if told.cid > 0 && self.cid != Some(told.cid) {
            Some("and that cid is gone")
        } else if ends.contains(&&*told.state) && self.state != told.state {
            Some("and that end is gone")
        } else if told.revision > 0 && !same {
            Some("and that revision says something else")
        } else {
            None
        }
    }
}

/// Whether the table of states has such a step, where nobody resolves a doubt by hand.
fn legal(step: &[Step]) -> bool {
    let (from, to) = (step[0].state.as_str(), step[1].state.as_str());
    match from {
        "SENDING" => ["ACCEPTED", "REJECTED", "NOT_SENT", "IN_DOUBT", "SUCCEEDED"].contains(&to),
        "NOT_SENT" => to == "SENDING",
        "IN_DOUBT" => ["ACCEPTED", "SUCCEEDED"].contains(&to),
        "ACCEPTED" => ["ACCEPTED", "SUCCEEDED"].contains(&to),
        _ => false,
    }
}

mod tests {
    use super::super::ADDRESS;
    use super::*;

    fn step(revision: i64, state: &str, reason: &str, cid: Option<i64>) -> Step {
        Step { revision, state: state.to_owned(), reason: reason.to_owned(), cid }
    }

    fn row(history: Vec<Step>) -> Row {
        let Step { state, reason, cid, .. } = history.last().expect("a revision").clone();
        let order = ("195@195".to_owned(), ADDRESS.to_owned(), "1.1".to_owned());
        Row { state, reason, cid, order, history }
    }

    fn told(id: &str, revision: i64, state: &str, cid: i64) -> Told {
        Told { id: id.to_owned(), revision, state: state.to_owned(), cid }
    }

    /// One paid, one refused, one refused for our sake and then sent again.
    fn good() -> Evidence {
        let order = |cid: i64, id: &str| Order {
            cid,
            third_party_id: id.to_owned(),
            currency: "195@195".to_owned(),
            address: ADDRESS.to_owned(),
            amount: "1.1".to_owned(),
            remark: String::new(),
            memo: String::new(),
            callback_url: String::new(),
            status: 0,
            txid: None,
            block_height: None,
            block_time: None,
            approved: None,
        };
        let paid = vec![step(1, "SENDING", "", None), step(2, "ACCEPTED", "", Some(7))];
        let refused = vec![step(1, "SENDING", "", None), step(2, "REJECTED", "E0008", None)];
        let again = vec![
            step(1, "SENDING", "", None),
            step(2, "NOT_SENT", "E0034", None),
            step(3, "SENDING", "", None),
            step(4, "IN_DOUBT", "TIMEOUT", None),
        ];
        let rows = [("paid", paid), ("refused", refused), ("again", again)];
        Evidence {
            orders: vec![order(7, "paid"), order(8, "again")],
            posts: ["paid", "refused", "again", "again"].map(str::to_owned).to_vec(),
            rows: rows.into_iter().map(|(id, steps)| (id.to_owned(), row(steps))).collect(),
            told: BTreeSet::from([
                told("paid", 1, "SENDING", 0),
                told("paid", 2, "ACCEPTED", 7),
                told("refused", 0, "REJECTED", 0),
            ]),
            accounts: vec![Account { name: "a".into(), kept: "2.2".into(), sum: "2.2".into() }],
        }
    }

    #[test]
    fn the_checker_finds_every_planted_error_and_none_where_there_is_none() {
        type Plant = fn(&mut Evidence);
        fn edit<'a>(evidence: &'a mut Evidence, id: &str) -> &'a mut Row {
            evidence.rows.get_mut(id).expect("a row")
        }
        assert_eq!(good().violations(), [""; 0]);
        let plants: [(&str, Plant); 16] = [
            ("ordered twice", |e| e.orders.push(Order { cid: 9, ..e.orders[0].clone() })),
            ("unknown to the ledger", |e| e.orders[0].third_party_id = "z".into()),
            ("and REJECTED in the ledger", |e| e.orders[1].third_party_id = "refused".into()),
            ("sent 2 times, where 1", |e| e.posts.push("paid".into())),
            ("sent 3 times, where 2", |e| e.posts.push("again".into())),
            ("sent 2 times, where 1", |e| {
                edit(e, "again").history[1].reason = "SEND_EXPIRED".into();
            }),
            ("is not its order's", |e| edit(e, "paid").order.2 = "9".into()),
            ("is another payout's, too", |e| edit(e, "again").cid = Some(7)),
            ("a doubt without a reason", |e| edit(e, "again").reason.clear()),
            ("a revision is missing", |e| drop(edit(e, "again").history.remove(1))),
            ("an illegal history", |e| edit(e, "again").history[1].state = "IN_DOUBT".into()),
            ("is gone", |e| drop(e.rows.remove("refused"))),
            ("that cid is gone", |e| e.told.extend([told("paid", 2, "ACCEPTED", 9)])),
            ("that end is gone", |e| e.told.extend([told("paid", 0, "SUCCEEDED", 7)])),
            ("says something else", |e| e.told.extend([told("again", 4, "SENDING", 0)])),
            ("is kept as spent", |e| e.accounts[0].kept = "3.3".into()),
        ];
        for (expected, plant) in plants {
            let mut evidence = good();
            plant(&mut evidence);
            let found = evidence.violations();
            assert!(found.iter().any(|found| found.contains(expected)), "{expected}: {found:?}");
        }
    }
}
