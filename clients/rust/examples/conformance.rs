//! The conformance program of Rust: `clients/conformance/README.md` says what it reads and prints.

use std::error::Error;
use std::io::stdin;
use std::time::Duration;

use payoutd_client::v1::operator_service_client::OperatorServiceClient;
use payoutd_client::v1::payout_service_client::PayoutServiceClient;
use payoutd_client::v1::resolve_payout_request::Resolution;
use payoutd_client::v1::{
    CreatePayoutRequest, GetPayoutRequest, ListPayoutsRequest, Payout, PayoutState,
    ResolvePayoutRequest, SetIntakeRequest, WatchPayoutRequest, get_payout_request,
    watch_payout_request,
};
use payoutd_client::{Error as PayError, pay};
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

const PREFIX: &str = "PAYOUT_STATE_";

struct Caller {
    payouts: PayoutServiceClient<Channel>,
    operator: OperatorServiceClient<Channel>,
    healths: HealthClient<Channel>,
}

impl Caller {
    fn new(channel: Channel) -> Self {
        Self {
            payouts: PayoutServiceClient::new(channel.clone()),
            operator: OperatorServiceClient::new(channel.clone()),
            healths: HealthClient::new(channel),
        }
    }

    /// Makes one step's call.
    async fn call(&mut self, step: &Value) -> Result<Value, Status> {
        let request = &step["request"];
        match text(step, "op").as_str() {
            "create" => self.create(step).await,
            "get" => {
                let request = GetPayoutRequest { pid: int(request, "pid"), id: get_id(request) };
                let response = self.payouts.get_payout(bounded(request, step)).await?;
                Ok(answer(response.into_inner().payout))
            }
            "list" => self.list(step).await,
            "watch" => {
                let changes = self.payouts.watch_payout(bounded(to_watch(request), step)).await?;
                events(changes.into_inner(), step, |it| it.payout.as_ref().map(shown)).await
            }
            "resolve" => {
                let request = ResolvePayoutRequest {
                    pid: int(request, "pid"),
                    third_party_id: text(request, "third_party_id"),
                    resolution: resolution(request),
                    evidence: text(request, "evidence"),
                };
                let response = self.operator.resolve_payout(bounded(request, step)).await?;
                Ok(answer(response.into_inner().payout))
            }
            "set_intake" => {
                let request = SetIntakeRequest {
                    pid: int(request, "pid"),
                    paused: flag(request, "paused"),
                    note: text(request, "note"),
                };
                let response = self.operator.set_intake(bounded(request, step)).await?;
                Ok(json!({"code": "OK", "paused": response.into_inner().paused}))
            }
            "pay" => self.pay(step).await,
            "health" => {
                let request = HealthCheckRequest { service: text(step, "service") };
                let response = self.healths.check(bounded(request, step)).await?.into_inner();
                Ok(json!({"code": "OK", "status": response.status().as_str_name()}))
            }
            "health_watch" => {
                let request = HealthCheckRequest { service: text(step, "service") };
                let changes = self.healths.watch(bounded(request, step)).await?;
                events(changes.into_inner(), step, |it| Some(json!(it.status().as_str_name())))
                    .await
            }
            op => Ok(json!({"code": "UNSUPPORTED", "why": format!("no such op: {op}")})),
        }
    }

    async fn create(&mut self, step: &Value) -> Result<Value, Status> {
        let call = self.payouts.create_payout(bounded(to_pay(step), step));
        let response = match millis(step, "cancel_after_ms") {
            Some(patience) => match timeout(patience, call).await {
                Ok(response) => response?,
                Err(_dropped) => return Ok(cancelled()),
            },
            None => call.await?,
        };
        let response = response.into_inner();
        Ok(with_cid(response.cid, response.payout))
    }

    async fn list(&mut self, step: &Value) -> Result<Value, Status> {
        let mut request = to_list(&step["request"]);
        let mut payouts = Vec::new();
        loop {
            let page =
                self.payouts.list_payouts(bounded(request.clone(), step)).await?.into_inner();
            payouts.extend(page.payouts.iter().map(shown));
            if page.next_page_token.is_empty() {
                return Ok(json!({"code": "OK", "payouts": payouts}));
            }
            request.page_token = page.next_page_token;
        }
    }

    async fn pay(&mut self, step: &Value) -> Result<Value, Status> {
        let time = millis(step, "timeout_ms").unwrap_or(Duration::MAX);
        match pay(&mut self.payouts, &to_pay(step), time).await {
            Ok(payout) => Ok(with_cid(payout.cid, Some(payout))),
            Err(PayError::Refused(error)) => Err(error),
            Err(error @ PayError::NotFinal) => Err(Status::deadline_exceeded(error.to_string())),
        }
    }
}

/// Prints what `event` makes of each message; ends the stream after as many as the step says.
async fn events<M>(
    mut changes: Streaming<M>,
    step: &Value,
    event: impl Fn(M) -> Option<Value>,
) -> Result<Value, Status> {
    let mut seen = 0;
    while let Some(change) = changes.message().await? {
        let Some(event) = event(change) else { continue };
        say(&json!({"event": event}));
        seen += 1;
        if Some(seen) == step["stop_after"].as_u64() {
            return Ok(cancelled());
        }
    }
    Ok(json!({"code": "OK"}))
}

fn to_pay(step: &Value) -> CreatePayoutRequest {
    let fields = &step["request"];
    CreatePayoutRequest {
        pid: int(fields, "pid"),
        currency: text(fields, "currency"),
        address: text(fields, "address"),
        amount: text(fields, "amount"),
        third_party_id: text(fields, "third_party_id"),
        callback_url: text(fields, "callback_url"),
        remark: text(fields, "remark"),
        memo: text(fields, "memo"),
        validate_only: flag(fields, "validate_only"),
    }
}

fn to_list(fields: &Value) -> ListPayoutsRequest {
    let states = fields["states"].as_array().into_iter().flatten();
    let known = |state: &Value| PayoutState::from_str_name(&format!("{PREFIX}{}", state.as_str()?));
    ListPayoutsRequest {
        pid: int(fields, "pid"),
        states: states.map(|state| known(state).expect("a state").into()).collect(),
        attention_only: flag(fields, "attention_only"),
        min_age: None,
        page_size: fields["page_size"].as_i64().map_or(0, |size| size.try_into().expect("an i32")),
        page_token: text(fields, "page_token"),
    }
}

fn to_watch(fields: &Value) -> WatchPayoutRequest {
    use watch_payout_request::Id;
    WatchPayoutRequest {
        pid: int(fields, "pid"),
        id: match fields.get("cid") {
            Some(_) => Some(Id::Cid(int(fields, "cid"))),
            None => Some(Id::ThirdPartyId(text(fields, "third_party_id"))),
        },
        after_revision: int(fields, "after_revision"),
    }
}

fn get_id(fields: &Value) -> Option<get_payout_request::Id> {
    use get_payout_request::Id;
    match fields.get("cid") {
        Some(_) => Some(Id::Cid(int(fields, "cid"))),
        None => Some(Id::ThirdPartyId(text(fields, "third_party_id"))),
    }
}

fn resolution(fields: &Value) -> Option<Resolution> {
    match fields.get("cid") {
        Some(_) => Some(Resolution::Cid(int(fields, "cid"))),
        None => Some(Resolution::Void(flag(fields, "void"))),
    }
}

fn text(fields: &Value, name: &str) -> String {
    fields[name].as_str().unwrap_or_default().to_owned()
}

/// 64-bit integers come as texts.
fn int(fields: &Value, name: &str) -> i64 {
    fields[name].as_str().map_or(0, |digits| digits.parse().expect("an i64"))
}

fn flag(fields: &Value, name: &str) -> bool {
    fields[name].as_bool().unwrap_or_default()
}

fn millis(step: &Value, name: &str) -> Option<Duration> {
    step[name].as_u64().map(Duration::from_millis)
}

fn bounded<M>(message: M, step: &Value) -> Request<M> {
    let mut request = Request::new(message);
    if let Some(time) = millis(step, "timeout_ms") {
        request.set_timeout(time);
    }
    request
}

fn shown(payout: &Payout) -> Value {
    json!({
        "pid": payout.pid.to_string(),
        "third_party_id": payout.third_party_id,
        "cid": payout.cid.to_string(),
        "state": payout.state().as_str_name().strip_prefix(PREFIX),
        "reason": payout.reason,
        "currency": payout.currency,
        "address": payout.address,
        "amount": payout.amount,
        "remark": payout.remark,
        "memo": payout.memo,
        "revision": payout.revision.to_string(),
    })
}

fn answer(payout: Option<Payout>) -> Value {
    let mut seen = json!({"code": "OK"});
    if let Some(payout) = payout {
        seen["payout"] = shown(&payout);
    }
    seen
}

fn with_cid(cid: i64, payout: Option<Payout>) -> Value {
    let mut seen = answer(payout);
    seen["cid"] = json!(cid.to_string());
    seen
}

fn cancelled() -> Value {
    json!({"code": "CANCELLED"})
}

fn failure(error: &Status) -> Value {
    let mut seen = json!({"code": name(error.code())});
    let details = error.get_error_details();
    if let Some(info) = details.error_info() {
        seen["reason"] = json!(info.reason);
        seen["domain"] = json!(info.domain);
        seen["metadata"] = json!(info.metadata);
    }
    if let Some(bad) = details.bad_request() {
        let fields = bad.field_violations.iter().map(|violation| &violation.field);
        seen["violations"] = fields.map(|field| json!(field)).collect();
    }
    if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
        seen["retry_after_ms"] = json!(u64::try_from(delay.as_millis()).expect("not that long"));
    }
    seen
}

/// `InvalidArgument` as `INVALID_ARGUMENT`.
fn name(code: Code) -> String {
    let mut name = String::new();
    for (at, letter) in format!("{code:?}").char_indices() {
        if at > 0 && letter.is_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

fn say(line: &Value) {
    println!("{line}");
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("conformance ADDRESS")?;
    let mut caller = Caller::new(Endpoint::new(format!("http://{address}"))?.connect_lazy());
    for line in stdin().lines() {
        let step = serde_json::from_str(&line?)?;
        say(&caller.call(&step).await.unwrap_or_else(|error| failure(&error)));
    }
    Ok(())
}
