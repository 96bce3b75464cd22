//! Who comes in, and who does not.

use std::time::{SystemTime, UNIX_EPOCH};

use payoutd::caller::ROLES;
use payoutd::pb;

use super::{Page, until};
use crate::support::authority::{Leaf, SERVER};
use crate::support::{Whole, by, caller, limit, order, reason, within};
use crate::tls::Secure;

#[tokio::test(flavor = "multi_thread")]
async fn connections_and_the_end_of_the_certificate_are_told_and_move_with_the_files() {
    let secure = Secure::start().await;
    let seconds = |page: &Page| page.value("tls_certificate_expiry_timestamp_seconds") as u64;
    let hour = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + 3600;
    let page = Page::of(&secure.service).await;
    assert!(seconds(&page).abs_diff(hour) < 60, "{}", seconds(&page));
    assert_eq!(page.value("connections"), 0.0);
    let caller = secure.pki.callers.sign(Leaf::caller(&["a.example"]));
    let client = secure.client(&caller).await;
    until(&secure.service, |page| page.value("connections") == 1.0).await;
    drop(client);
    until(&secure.service, |page| page.value("connections") == 0.0).await;
    let fresh = secure.pki.servers.sign(Leaf::server(SERVER).valid(-60, 7200));
    secure.pki.install(&fresh);
    until(&secure.service, |page| seconds(page).abs_diff(hour + 3600) < 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_refusals_of_policy_are_counted() {
    let mut bounded = caller("a", &ROLES);
    bounded.limits = vec![limit(Some("1"), None)];
    let reported = payoutd::config::Caller { report_only: true, ..caller("b", &ROLES) };
    let reported = payoutd::config::Caller { limits: bounded.limits.clone(), ..reported };
    let whole = Whole::with(|config| config.callers = vec![bounded, reported]).await;
    let mut client = whole.client.clone();
    let stranger = within(client.create_payout(order("x"))).await.expect_err("nobody");
    assert_eq!(reason(&stranger).1, "UNAUTHENTICATED");
    let refused = within(client.create_payout(by("a", order("y")))).await.expect_err("too much");
    assert_eq!(reason(&refused).1, "POLICY_DENIED");
    within(client.create_payout(by("b", order("z")))).await.expect("only reported");
    let page = Page::of(&whole.service).await;
    assert_eq!(page.value("authentication_failures_total"), 1.0);
    let refusals = page.counted("policy_refusals_total");
    let rule = |mode| format!("{{rule=\"PER_PAYOUT_LIMIT\",mode=\"{mode}\"}}");
    let (enforced, reported) = (rule("enforced"), rule("reported"));
    assert_eq!(refusals, [(enforced.as_str(), 1.0), (reported.as_str(), 1.0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_whose_address_cannot_be_checked_are_counted() {
    let whole = Whole::start().await;
    whole.create(order("checked")).await.expect("OK");
    let unknown = |address: &str, validate_only| pb::CreatePayoutRequest {
        currency: "7777@7777".to_owned(),
        address: address.to_owned(),
        validate_only,
        ..order("unchecked")
    };
    let counted = async || Page::of(&whole.service).await.value("unchecked_addresses_total");
    assert_eq!(counted().await, 0.0);
    let mut client = whole.client.clone();
    let asked = within(client.create_payout(unknown("anything", true))).await;
    asked.expect_err("not among the project's coins");
    whole.create(unknown("with blank", false)).await.expect_err("not printable");
    assert_eq!(counted().await, 0.0, "neither was let through");
    whole.create(unknown("anything", false)).await.expect("Cregis decides");
    assert_eq!(counted().await, 1.0);
}
