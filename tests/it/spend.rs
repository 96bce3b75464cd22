//! What counts against a day's limit, payout by payout: the ledger's own books.

mod file;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use payoutd::ledger::{Begun, Cause, Id, Ledger, Resend, Unrecorded};
use payoutd::metrics::Metrics;
use payoutd::order::{Draft, Order};
use payoutd::outcome::{Doubt, Outcome, Refusal, Unsent};
use payoutd::payout::{Payout, Progress};
use payoutd::policy::{Rule, Terms};
use payoutd::state::State;

use crate::support::{Row, Shell, kept_in, limit, plain};

const SOON: Duration = Duration::from_secs(30);

fn terms(name: &str, per_day: &str) -> Arc<Terms> {
    let limits = vec![limit(None, Some(per_day))];
    Arc::new(Terms { caller: name.to_owned(), limits, ..Terms::default() })
}

fn order(id: &str, amount: &str) -> Arc<Order> {
    let draft = Draft {
        pid: 1,
        currency: "195@195".into(),
        address: crate::support::ADDRESS.into(),
        amount: amount.into(),
        third_party_id: id.into(),
        ..Draft::default()
    };
    Arc::new(Order::check(draft, false).expect("good"))
}

/// A ledger, and a person's connection to it.
struct Books {
    ledger: Ledger,
    shell: Shell,
    _folder: tempfile::TempDir,
}

impl Books {
    async fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = kept_in(&folder).await;
        let ledger = Ledger::of(&settings, &Metrics::new([])).await.expect("opened");
        Self { ledger, shell: Shell::of(&settings), _folder: folder }
    }

    async fn begin(&self, order: &Arc<Order>, terms: &Arc<Terms>, resend: Resend) -> Begun {
        self.ledger.begin(Arc::clone(order), Arc::clone(terms), resend).await.expect("begun")
    }

    async fn sent(&self, order: &Arc<Order>, terms: &Arc<Terms>) -> Payout {
        let begun = self.begin(order, terms, Resend::Never).await;
        let Begun::Send(payout) = begun else { panic!("not sent: {begun:?}") };
        payout
    }

    async fn settled(&self, payout: Payout, outcome: Outcome) -> Payout {
        self.ledger.settle(payout, outcome, SOON).await.expect("settled")
    }

    /// What each caller has spent, with how many days ago that was; zeros are left out.
    fn spent(&self) -> Vec<(String, i64, String)> {
        let sql = "SELECT caller, day, total FROM spend
                   WHERE currency = '195@195' AND total <> '0' ORDER BY caller, day";
        let now = self.ledger.now().duration_since(UNIX_EPOCH).expect("after 1970");
        let today = i64::try_from(now.as_secs() / 86_400).expect("small");
        let row = |row: Row| {
            let [caller, day, total] = &row[..] else { panic!("three columns") };
            let text = |column: &Option<String>| column.clone().expect("a text");
            let day: i64 = text(day).parse().expect("a day");
            (text(caller), today - day, plain(&text(total)))
        };
        self.shell.rows(sql).into_iter().map(row).collect()
    }

    /// Makes everything so many days older.
    fn age(&self, days: i64) {
        let sql = format!(
            "UPDATE spend SET day = day - {days};
             UPDATE payout SET send_time = send_time - {days} * 86400000000;"
        );
        self.shell.execute(&sql);
    }

    async fn found(&self, id: &str) -> Payout {
        let found = self.ledger.find(1, Id::ThirdParty(id.into())).await.expect("read");
        found.expect("a payout")
    }
}

fn day(caller: &str, days_ago: i64, total: &str) -> (String, i64, String) {
    (caller.to_owned(), days_ago, total.to_owned())
}

fn refusal(code: &str) -> Refusal {
    Refusal { code: code.into(), msg: String::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_move_money_counts_and_what_cannot_gives_its_budget_back() {
    let books = Books::open().await;
    let terms = terms("a", "1000");
    let rows = [
        (Outcome::Accepted(1), State::Accepted, true),
        (Outcome::InDoubt(Doubt::Timeout), State::InDoubt, true),
        (Outcome::Rejected(refusal("E0008")), State::Rejected, false),
        (Outcome::NotSent(Unsent::ConnectFailed), State::NotSent, false),
        (Outcome::NotSent(Unsent::GatewayRefused(refusal("E0001"))), State::NotSent, false),
        (Outcome::Accepted(1), State::InDoubt, true),
    ];
    for (number, (outcome, state, counts)) in rows.into_iter().enumerate() {
        let books_before = books.spent();
        let payout = books.sent(&order(&format!("p{number}"), "1.1"), &terms).await;
        assert_ne!(books.spent(), books_before, "SENDING counts");
        assert_eq!(books.settled(payout, outcome).await.state, state);
        assert_eq!(books.spent() != books_before, counts, "{state}");
    }
    assert_eq!(books.spent(), [day("a", 0, "3.3")]);

    // How an accepted one ends; a doubt that is voided; and one that reopens.
    for (number, (status, total)) in
        [(6, "4.4"), (7, "4.4"), (2, "4.4"), (6, "5.5")].iter().enumerate()
    {
        let cid = 100 + i64::try_from(number).expect("small");
        let payout = books.sent(&order(&format!("e{number}"), "1.1"), &terms).await;
        let accepted = books.settled(payout, Outcome::Accepted(cid)).await;
        let progress = Progress { cid, status: *status, ..Progress::default() };
        books.ledger.confirm(accepted, progress, SOON, Cause::Poll).await.expect("confirmed");
        assert_eq!(books.spent(), [day("a", 0, total)], "{status}");
    }
    let (doubt, seen) = (books.found("p1").await, "seen".to_owned());
    let voided = books.ledger.void(doubt, Duration::ZERO, seen).await.expect("written");
    assert_eq!(voided.expect("a doubt").state, State::Voided);
    assert_eq!(books.spent(), [day("a", 0, "4.4")]);
    let voided = books.found("p1").await;
    let progress = Progress { cid: 200, status: 1, ..Progress::default() };
    let reopened = books.ledger.confirm(voided, progress, SOON, Cause::Poll).await;
    assert_eq!(reopened.expect("confirmed").state, State::Accepted);
    assert_eq!(books.spent(), [day("a", 0, "5.5")], "it exists after all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_is_that_of_the_last_send_and_the_next_one_is_new() {
    let books = Books::open().await;
    let terms = terms("a", "10");
    let yesterday = books.sent(&order("old", "7"), &terms).await;
    books.settled(yesterday, Outcome::Accepted(1)).await;
    let denied = books.begin(&order("x", "3.000001"), &terms, Resend::Never).await;
    assert!(matches!(denied, Begun::Denied(Rule::PerDayLimit)), "{denied:?}");
    books.age(1);
    books.sent(&order("new", "10"), &terms).await;
    assert_eq!(books.spent(), [day("a", 1, "7"), day("a", 0, "10")]);
    // What fails today, and was sent yesterday, gives yesterday's budget back and not today's.
    let progress = Progress { cid: 1, status: 7, ..Progress::default() };
    let old = books.found("old").await;
    let failed = books.ledger.confirm(old, progress, SOON, Cause::Poll).await.expect("confirmed");
    assert_eq!(failed.state, State::Failed);
    assert_eq!(books.spent(), [day("a", 0, "10")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_send_moves_what_is_spent_and_never_counts_it_twice() {
    let books = Books::open().await;
    let (a, b) = (terms("a", "10"), terms("b", "10"));
    let later = Resend::DoubtsOlderThan(SystemTime::now() + SOON);
    let payout = order("x", "8");
    let sent = books.sent(&payout, &a).await;
    books.settled(sent, Outcome::InDoubt(Doubt::Timeout)).await;
    // Its own share of the day does not speak against it.
    let Begun::Send(again) = books.begin(&payout, &a, later).await else { panic!("denied") };
    assert_eq!(books.spent(), [day("a", 0, "8")]);
    books.settled(again, Outcome::InDoubt(Doubt::Timeout)).await;
    books.age(1);
    let Begun::Send(today) = books.begin(&payout, &a, later).await else { panic!("denied") };
    assert_eq!(books.spent(), [day("a", 0, "8")], "moved to the day of the last send");
    books.settled(today, Outcome::InDoubt(Doubt::Timeout)).await;
    let Begun::Send(theirs) = books.begin(&payout, &b, later).await else { panic!("denied") };
    assert_eq!((theirs.sender(), books.spent()), ("b", vec![day("b", 0, "8")]));
    let found = books.found("x").await;
    assert_eq!((found.caller.as_str(), found.sender()), ("a", "b"));
    let unsent = Outcome::NotSent(Unsent::ConnectFailed);
    // The first send's doubt stands, and with it what may have been spent.
    assert_eq!(books.settled(theirs, unsent).await.state, State::InDoubt);
    assert_eq!(books.spent(), [day("b", 0, "8")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_that_the_rules_would_not_send_again_is_answered_as_it_stands() {
    let books = Books::open().await;
    let later = Resend::DoubtsOlderThan(SystemTime::now() + SOON);
    let (doubted, unsent) = (order("doubt", "8"), order("unsent", "8"));
    for (payout, outcome) in [
        (&doubted, Outcome::InDoubt(Doubt::Timeout)),
        (&unsent, Outcome::NotSent(Unsent::ConnectFailed)),
    ] {
        let sent = books.sent(payout, &terms("a", "16")).await;
        books.settled(sent, outcome).await;
    }
    // Somebody has lowered the limit since. A refusal would say that nothing was created.
    let poor = terms("a", "1");
    let answer = books.begin(&doubted, &poor, later).await;
    assert!(matches!(&answer, Begun::Known(known) if known.state == State::InDoubt), "{answer:?}");
    let answer = books.begin(&unsent, &poor, later).await;
    assert!(matches!(answer, Begun::Denied(Rule::PerDayLimit)), "{answer:?}");
    assert_eq!(books.found("unsent").await.state, State::NotSent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_was_taken_back_or_orphaned_is_counted_right() {
    let books = Books::open().await;
    let terms = terms("a", "10");
    let sent = books.sent(&order("back", "2"), &terms).await;
    books
        .ledger
        .unsend(sent.order.key.clone(), &Unrecorded::at_once(Some(sent.send_time)))
        .await
        .expect("taken back");
    assert_eq!(books.spent(), []);
    // The record of a later send is another's to take back.
    let later = books.sent(&order("back", "2"), &terms).await;
    let none = books
        .ledger
        .unsend(later.order.key.clone(), &Unrecorded::at_once(Some(sent.send_time)))
        .await;
    assert_eq!(none.expect("asked"), None);
    assert_eq!(books.found("back").await.state, State::Sending);
    books
        .ledger
        .unsend(later.order.key.clone(), &Unrecorded::at_once(Some(later.send_time)))
        .await
        .expect("taken back");
    books.sent(&order("orphan", "3"), &terms).await;
    books.shell.orphan("orphan");
    assert_eq!(books.ledger.recover().await.expect("recovered").len(), 1);
    assert_eq!(books.spent(), [day("a", 0, "3")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_told_from_others_has_no_books() {
    let books = Books::open().await;
    let sent = books.sent(&order("x", "1"), &Terms::open()).await;
    books.settled(sent, Outcome::Accepted(1)).await;
    assert_eq!(books.shell.number("SELECT count(*) FROM spend"), 0);
}
