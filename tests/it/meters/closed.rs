//! Nothing that anybody sends becomes a label.

use std::collections::BTreeSet;

use payoutd::pb;
use payoutd::sandbox::PID;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

use super::{Page, until};
use crate::support::{Whole, order, within};

fn series(page: &Page) -> BTreeSet<String> {
    page.samples.keys().cloned().collect()
}

/// Calls a method that is not served here.
async fn call(whole: &Whole, path: &str) {
    let address = format!("http://{}", whole.service.addresses.grpc);
    let channel = Channel::from_shared(address).expect("an address").connect_lazy();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("ready");
    let codec = tonic_prost::ProstCodec::<pb::GetPayoutRequest, pb::GetPayoutResponse>::default();
    let request = tonic::Request::new(pb::GetPayoutRequest::default());
    let path = path.parse::<PathAndQuery>().expect("a path");
    within(client.unary(request, path, codec)).await.expect_err("not served");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_sent_the_series_stay_the_same() {
    let whole = Whole::start().await;
    whole.create(order("first")).await.expect("OK");
    let before = series(&Page::of(&whole.service).await);

    for (number, code) in ["E0008", "E9999", "A0001", "canary-code"].iter().enumerate() {
        let id = format!("canary-{number}");
        let fault = format!(r#"{{"third_party_id": "{id}", "code": "{code}", "msg": "canary"}}"#);
        whole.upstream.fault(&fault);
        let _ = whole.create(order(&id)).await;
    }
    for pid in [7_i64, -1, i64::MAX] {
        whole.create(pb::CreatePayoutRequest { pid, ..order("x") }).await.expect_err("no project");
    }
    let address = "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8";
    for currency in ["195@195", "60@60", "canary@canary"] {
        let (address, currency) = (address.to_owned(), currency.to_owned());
        let request = pb::CreatePayoutRequest { address, currency, ..order(&"y".repeat(64)) };
        let _ = whole.create(request).await;
    }
    for path in ["/canary.Service/Canary", "/payout.v1.PayoutService/Canary", "/canary"] {
        call(&whole, path).await;
    }
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let callback = whole.service.addresses.callback;
    for path in ["7/payout", "canary/verification", &format!("{PID}/payout")] {
        let post = http.post(format!("http://{callback}/callbacks/{path}")).body("canary").send();
        within(post).await.expect("answered");
    }

    let unserved = r#"rpc_requests_total{method="unknown",code="UNIMPLEMENTED"}"#;
    let page = until(&whole.service, |page| page.value(unserved) >= 2.0).await;
    assert_eq!(series(&page), before);
    assert_eq!(page.value(r#"callbacks_total{kind="notice",verdict="forged"}"#), 1.0);
    assert_eq!(page.value(r#"callbacks_total{kind="notice",verdict="unknown"}"#), 1.0);
    for secret in ["canary", address, "yyyy", "first", "E0008", payoutd::sandbox::API_KEY] {
        assert!(!page.text.contains(secret), "{secret} is on the page");
    }
    // The only numbers of anybody's are the configured projects.
    let pids = before.iter().filter(|series| series.contains("pid=\""));
    assert!(pids.clone().count() > 5);
    assert!(pids.into_iter().all(|series| series.ends_with(&format!("{{pid=\"{PID}\"}}"))));
}
