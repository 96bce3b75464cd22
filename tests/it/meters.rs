//! What can be counted is right, closed, and known to the documents; and a trace holds no secret.

mod closed;
mod doors;
mod papers;
mod traces;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use payoutd::pb::{self, PayoutState};
use payoutd::sandbox::PID;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::{Service, Shell, Whole, order, told, watch, within};

/// A page of meters: every sample by its series, such as `payoutd_shed_total{reason="calls"}`.
pub(super) struct Page {
    text: String,
    samples: BTreeMap<String, f64>,
}

impl Page {
    /// Asks the admin port.
    pub(super) async fn of(service: &Service) -> Self {
        let (content_type, text) = get(service.addresses.admin, "").await;
        assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert!(text.ends_with("\n# EOF\n"), "cut off");
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            (series.to_owned(), value.parse().expect(line))
        });
        let samples = samples.collect();
        Self { text, samples }
    }

    /// The value of a series below `payoutd_`.
    pub(super) fn value(&self, series: &str) -> f64 {
        let series = format!("payoutd_{series}");
        *self.samples.get(&series).unwrap_or_else(|| panic!("no {series} in {}", self.text))
    }

    /// The series that are not 0, of all whose name begins so.
    fn counted(&self, name: &str) -> Vec<(&str, f64)> {
        let name = format!("payoutd_{name}");
        let all = self.samples.iter().filter(|(series, value)| {
            series.starts_with(&name) && !series.contains("_bucket{") && **value != 0.0
        });
        all.map(|(series, value)| (&series[name.len()..], *value)).collect()
    }
}

/// A page of the admin port, and its content type.
async fn get(admin: SocketAddr, accept: &str) -> (String, String) {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let page = http.get(format!("http://{admin}/metrics")).header("accept", accept).send();
    let page = within(page).await.expect("answered");
    assert_eq!(page.status(), 200);
    let content_type = page.headers()["content-type"].to_str().expect("a text").to_owned();
    (content_type, page.text().await.expect("a text"))
}

/// Asks until the page is as wanted.
async fn until(service: &Service, wanted: impl Fn(&Page) -> bool) -> Page {
    within(async {
        loop {
            let page = Page::of(service).await;
            if wanted(&page) {
                return page;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_by_method_and_code_and_payouts_by_each_state_they_come_into() {
    let whole =
        Whole::with(|config| config.projects[0].poll_first = Duration::from_millis(50)).await;
    whole.create(order("a")).await.expect("OK");
    whole.create(order("a")).await.expect("OK");
    // In the headers of an answer without a body.
    whole
        .create(pb::CreatePayoutRequest { amount: "-1".into(), ..order("b") })
        .await
        .expect_err("");
    whole.get("nobody").await.expect_err("unknown");
    // In the trailers of a stream.
    let mut news = watch(&whole.client, "a").await.expect("OK");
    within(async {
        while told(&mut news).await.expect("OK").expect("more").cregis_status != Some(0) {}
    })
    .await;
    assert!(whole.upstream.book.set_status(whole.cid("a"), 6, false));
    while told(&mut news).await.expect("OK").is_some() {}

    let watched = r#"rpc_requests_total{method="WatchPayout",code="OK"}"#;
    let page = until(&whole.service, |page| page.value(watched) == 1.0).await;
    let counted = [
        ("\"CreatePayout\",code=\"INVALID_ARGUMENT\"}", 1.0),
        ("\"CreatePayout\",code=\"OK\"}", 2.0),
        ("\"GetPayout\",code=\"NOT_FOUND\"}", 1.0),
        ("\"WatchPayout\",code=\"OK\"}", 1.0),
    ];
    assert_eq!(page.counted("rpc_requests_total{method="), counted);
    assert_eq!(page.counted("rpc_in_flight"), []);
    // A revision that leaves the state as it was is no coming into it.
    let entered = page.counted("transitions_total{state=");
    assert_eq!(entered, [("\"ACCEPTED\"}", 1.0), ("\"SENDING\"}", 1.0), ("\"SUCCEEDED\"}", 1.0)]);
    let durations = page.counted("rpc_duration_seconds_count{method=");
    assert_eq!(durations, [("\"CreatePayout\"}", 3.0), ("\"GetPayout\"}", 1.0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_its_caller_leaves_counts_as_cancelled_and_its_payout_goes_on() {
    let whole = Whole::start().await;
    whole.upstream.fault(r#"{"third_party_id": "left", "delay_answer": "400ms"}"#);
    let mut client = whole.client.clone();
    let mut call = JoinSet::from_iter([async move { client.create_payout(order("left")).await }]);
    whole.upstream.received(1).await;
    let page = Page::of(&whole.service).await;
    assert_eq!(page.value(r#"rpc_in_flight{method="CreatePayout"}"#), 1.0);
    assert_eq!(page.value(&format!(r#"sends_in_flight{{pid="{PID}"}}"#)), 1.0);
    call.shutdown().await;

    let cancelled = r#"rpc_requests_total{method="CreatePayout",code="CANCELLED"}"#;
    let page = until(&whole.service, |page| page.value(cancelled) == 1.0).await;
    assert_eq!(page.counted("rpc_requests_total").len(), 1, "{:?}", page.counted("rpc_requests"));
    assert_eq!(page.value(r#"rpc_in_flight{method="CreatePayout"}"#), 0.0);
    assert_eq!(page.value(r#"rpc_duration_seconds_count{method="CreatePayout"}"#), 1.0);
    assert_eq!(whole.settled("left").await.state(), PayoutState::Accepted);

    // A watch that is left, too.
    let news = watch(&whole.client, "left").await.expect("OK");
    until(&whole.service, |page| page.value("watchers") == 1.0).await;
    drop(news);
    let cancelled = r#"rpc_requests_total{method="WatchPayout",code="CANCELLED"}"#;
    until(&whole.service, |page| page.value(cancelled) == 1.0).await;
    until(&whole.service, |page| page.value("watchers") == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sends_came_to_is_counted_once_each_however_often_it_is_asked_for() {
    let whole = Whole::start().await;
    whole.create(order("accepted")).await.expect("OK");
    whole.create(order("accepted")).await.expect("OK");
    whole.doubt("doubt").await;
    whole.upstream.fault(r#"{"third_party_id": "rejected", "code": "E0008"}"#);
    whole.create(order("rejected")).await.expect_err("refused");
    whole.create(order("rejected")).await.expect_err("refused");
    whole.upstream.fault(r#"{"third_party_id": "us", "code": "E0003"}"#);
    whole.create(order("us")).await.expect_err("refused");

    let page = Page::of(&whole.service).await;
    let outcomes = page.counted("outcomes_total{outcome=");
    let once = ["ACCEPTED", "GATEWAY_REFUSED", "IN_DOUBT", "REJECTED"];
    let once = once.map(|outcome| format!("\"{outcome}\"}}"));
    assert_eq!(outcomes, once.each_ref().map(|outcome| (outcome.as_str(), 1.0)));
    let entered = page.counted("transitions_total{state=");
    let expected = [
        ("\"ACCEPTED\"}", 1.0),
        ("\"IN_DOUBT\"}", 1.0),
        ("\"NOT_SENT\"}", 1.0),
        ("\"REJECTED\"}", 1.0),
        ("\"SENDING\"}", 4.0),
    ];
    assert_eq!(entered, expected);
    assert_eq!(page.value(&format!(r#"breaker_open{{pid="{PID}"}}"#)), 1.0);
    assert_eq!(page.value(r#"doubts{reason="CONNECTION_LOST"}"#), 1.0);
    let sends = page.value(r#"upstream_duration_seconds_count{call="create",outcome="ACCEPTED"}"#);
    assert_eq!(sends, 1.0);
    assert!(page.value("ledger_commit_duration_seconds_count") >= 8.0);
    assert!(page.value("ledger_batch_operations_sum") >= 8.0);
    // Of a file only.
    let free = page.counted("ledger_free_bytes");
    assert_eq!(free.len(), usize::from(whole.service.config.ledger.path().is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn gauges_are_right_after_a_restart() {
    let whole = Whole::start().await;
    whole.create(order("accepted")).await.expect("OK");
    whole.doubt("old").await;
    whole.doubt("young").await;
    whole.create(order("paid")).await.expect("OK");
    let cid = whole.cid("paid");
    assert!(whole.upstream.book.set_status(cid, 6, false));
    // Another's cid for a doubt: it keeps its state, and needs a person.
    whole.upstream.fault(&format!(r#"{{"third_party_id": "twice", "cid": {cid}}}"#));
    whole.create(order("twice")).await.expect("OK");
    whole.set_intake(0, true).await.expect("paused");
    whole.aged("old", 5);
    let raised = Page::of(&whole.service).await;
    assert_eq!(raised.counted("attention_total{attention="), [("\"DUPLICATE_CID\"}", 1.0)]);

    let whole = whole.restart().await;
    let page = Page::of(&whole.service).await;
    let states = page.counted("payouts{state=");
    assert_eq!(states, [("\"ACCEPTED\"}", 2.0), ("\"IN_DOUBT\"}", 3.0)]);
    let reasons = page.counted("doubts{reason=");
    assert_eq!(reasons, [("\"ACCEPTED_NO_CID\"}", 1.0), ("\"CONNECTION_LOST\"}", 2.0)]);
    let age = page.value("oldest_doubt_age_seconds");
    assert!((18_000.0..18_100.0).contains(&age), "{age}");
    assert_eq!(page.value("payouts_with_attention"), 1.0);
    assert_eq!(page.value(&format!(r#"intake_paused{{pid="{PID}"}}"#)), 1.0);
    assert_eq!(page.value("ledger_writable"), 1.0);
    assert_eq!(page.counted("transitions_total"), [], "counters begin anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_left_is_counted_as_a_doubt_by_the_next_one() {
    let whole = Whole::start().await;
    whole.create(order("sending")).await.expect("OK");
    let config = whole.service.stop().await;
    let reason = Shell::of(&config.ledger).orphan("sending");
    let service = Service::start(config).await;
    let page = Page::of(&service).await;
    assert_eq!(page.counted("transitions_total{state="), [("\"IN_DOUBT\"}", 1.0)]);
    assert_eq!(page.counted("doubts{reason="), [(&*format!("\"{reason}\"}}"), 1.0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_that_nobody_asks_about_shows_how_late_that_is() {
    let whole = Whole::with(|config| config.projects[0].poll_first = Duration::from_secs(30)).await;
    let lag = format!(r#"poll_lag_seconds{{pid="{PID}"}}"#);
    whole.create(order("late")).await.expect("OK");
    assert_eq!(Page::of(&whole.service).await.value(&lag), 0.0);
    // While the breaker is open, nobody asks.
    whole.upstream.fault(r#"{"third_party_id": "us", "code": "E0003"}"#);
    whole.upstream.fault(r#"{"on": "query", "code": "E0003", "times": 1000}"#);
    whole.create(order("us")).await.expect_err("refused");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after");
    let then = i64::try_from(now.as_micros()).expect("fits") - 100_000_000;
    let late = format!("UPDATE payout SET due = {then} WHERE third_party_id = 'late'");
    let shell = whole.shell();
    let page = until(&whole.service, |page| {
        // Again and again: somebody may just have been asking when the breaker opened.
        assert_eq!(shell.execute(&late), 1);
        page.value(&lag) > 0.0
    })
    .await;
    assert!((100.0..130.0).contains(&page.value(&lag)), "{}", page.value(&lag));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_turned_away_are_counted_by_why() {
    let whole = Whole::with(|config| {
        config.grpc.max_calls = 1;
        config.grpc.max_watches = 1;
    })
    .await;
    whole.upstream.fault(r#"{"third_party_id": "first", "then": "hang"}"#);
    let mut client = whole.client.clone();
    let _first = JoinSet::from_iter([async move { client.create_payout(order("first")).await }]);
    whole.upstream.received(1).await;
    let refused = whole.create(order("second")).await.expect_err("too many");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let _watch = watch(&whole.client, "first").await.expect("OK");
    watch(&whole.client, "first").await.expect_err("too many");
    let page = Page::of(&whole.service).await;
    let shed = page.counted("shed_total{reason=");
    assert_eq!(shed, [("\"calls\"}", 1.0), ("\"watches\"}", 1.0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_cannot_be_written_says_so_and_goes_on_counting_what_it_holds() {
    let whole = Whole::start().await;
    whole.doubt("doubt").await;
    let hold = whole.hold();
    whole.create(order("refused")).await.expect_err("no ledger");
    let page = until(&whole.service, |page| page.value("ledger_writable") == 0.0).await;
    assert_eq!(page.value(r#"payouts{state="IN_DOUBT"}"#), 1.0);
    drop(hold);
    until(&whole.service, |page| page.value("ledger_writable") == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_the_older_format_gets_it() {
    let whole = Whole::start().await;
    let admin = whole.service.addresses.admin;
    let (content_type, page) = get(admin, "text/plain;version=0.0.4;q=0.5,*/*;q=0.1").await;
    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
    assert!(page.contains("# TYPE payoutd_shed_total counter\n") && !page.contains("# EOF"));
    let both = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    assert!(get(admin, both).await.0.starts_with("application/openmetrics-text"));
}
