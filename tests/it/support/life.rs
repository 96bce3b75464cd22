//! What the life after acceptance needs: watchers, operators and the ledger's own events.

use std::net::SocketAddr;
use std::process::Output;

use payoutd::pb::operator_service_client::OperatorServiceClient;
use payoutd::pb::resolve_payout_request::Resolution;
use payoutd::pb::watch_payout_request::Id;
use payoutd::pb::{self, PayoutState};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_types::StatusExt;

use super::{Client, Row, Whole, payoutd, within};

pub(crate) type Watch = Streaming<pb::WatchPayoutResponse>;
pub(crate) type Operator = OperatorServiceClient<Channel>;

/// One revision as callers can see it: number, state, reason, cid, confirmed status, attention.
pub(crate) type Seen = (i64, String, String, i64, Option<i32>, String);

/// Watches the payout `id`.
pub(crate) async fn watch(client: &Client, id: &str) -> Result<Watch, Status> {
    watch_from(client, Id::ThirdPartyId(id.to_owned()), 0).await
}

pub(crate) async fn watch_from(client: &Client, id: Id, after: i64) -> Result<Watch, Status> {
    let request = pb::WatchPayoutRequest { pid: 0, id: Some(id), after_revision: after };
    Ok(within(client.clone().watch_payout(request)).await?.into_inner())
}

/// The next revision of a watch; None at its end.
pub(crate) async fn told(watch: &mut Watch) -> Result<Option<pb::Payout>, Status> {
    loop {
        match within(watch.message()).await? {
            Some(pb::WatchPayoutResponse { payout: None }) => {}
            Some(news) => return Ok(news.payout),
            None => return Ok(None),
        }
    }
}

/// Does `work` beside the test.
pub(crate) fn beside<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinSet<T> {
    JoinSet::from_iter([work])
}

/// What the work beside the test came to.
pub(crate) async fn ended<T: 'static>(mut beside: JoinSet<T>) -> T {
    within(beside.join_next()).await.expect("one task").expect("no panic")
}

/// The fields that INVALID_REQUEST blames.
pub(crate) fn bad_fields(status: &Status) -> Vec<String> {
    assert_eq!(super::reason(status).1, "INVALID_REQUEST");
    let details = status.get_error_details();
    let violations = &details.bad_request().expect("BadRequest").field_violations;
    violations.iter().map(|violation| violation.field.clone()).collect()
}

/// Runs the binary against the service at `address`.
pub(crate) async fn run(address: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = payoutd();
    command.args(arguments).args(["--addr", &format!("http://{address}")]);
    within(command.output()).await.expect("ran")
}

pub(crate) fn seen(payout: &pb::Payout) -> Seen {
    let name = payout.state().as_str_name();
    (
        payout.revision,
        name.trim_start_matches("PAYOUT_STATE_").to_owned(),
        payout.reason.clone(),
        payout.cid,
        payout.cregis_status,
        payout.attention.join(","),
    )
}

impl Whole {
    pub(crate) async fn operator(&self) -> Operator {
        let address = format!("http://{}", self.service.addresses.grpc);
        OperatorServiceClient::connect(address).await.expect("connected")
    }

    /// Settles the payout `id` as an operator.
    pub(crate) async fn resolve(
        &self,
        id: &str,
        resolution: Resolution,
    ) -> Result<pb::Payout, Status> {
        let request = pb::ResolvePayoutRequest {
            pid: 0,
            third_party_id: id.to_owned(),
            resolution: Some(resolution),
            evidence: format!("seen at Cregis: {id}"),
        };
        let answer = within(self.operator().await.resolve_payout(request)).await?;
        Ok(answer.into_inner().payout.expect("a payout"))
    }

    pub(crate) async fn set_intake(&self, pid: i64, paused: bool) -> Result<bool, Status> {
        let request = pb::SetIntakeRequest { pid, paused, note: "why".to_owned() };
        Ok(within(self.operator().await.set_intake(request)).await?.into_inner().paused)
    }

    /// A payout whose answer was lost: in doubt here, and stored at Cregis under the cid returned.
    pub(crate) async fn doubt(&self, id: &str) -> i64 {
        self.upstream.fault(&format!(r#"{{"third_party_id": "{id}", "then": "drop"}}"#));
        let payout = self.create(super::order(id)).await.expect("OK");
        assert_eq!((payout.state(), payout.cid), (PayoutState::InDoubt, 0));
        self.cid(id)
    }

    /// A payout that never reached Cregis's books, and in doubt here.
    pub(crate) async fn lost(&self, id: &str) {
        let fault = format!(r#"{{"third_party_id": "{id}", "then": "drop", "store": false}}"#);
        self.upstream.fault(&fault);
        let payout = self.create(super::order(id)).await.expect("OK");
        assert_eq!((payout.state(), payout.cid), (PayoutState::InDoubt, 0));
    }

    /// The cid of `id` at Cregis.
    pub(crate) fn cid(&self, id: &str) -> i64 {
        let orders = self.upstream.book.orders();
        orders.iter().find(|order| order.third_party_id == id).expect("stored").cid
    }

    /// Asks until the payout is as wanted, and returns it.
    pub(crate) async fn until(&self, id: &str, wanted: impl Fn(&pb::Payout) -> bool) -> pb::Payout {
        within(async {
            loop {
                match self.get(id).await {
                    Ok(payout) if wanted(&payout) => return payout,
                    Ok(_) | Err(_) => tokio::task::yield_now().await,
                }
            }
        })
        .await
    }

    /// Every revision of the payout, as the ledger's events hold it.
    pub(crate) fn events(&self, id: &str) -> Vec<Seen> {
        let rows = self.shell().rows(&format!(
            "SELECT e.revision, e.state, e.reason, coalesce(e.cid, 0), e.cregis_status, e.attention
             FROM event e JOIN payout p ON e.payout = p.id
             WHERE p.third_party_id = '{id}' ORDER BY e.revision"
        ));
        let event = |row: &Row| {
            let text = |at: usize| row[at].clone().expect("a text");
            let number = |at: usize| text(at).parse().expect("a number");
            let status = row[4].as_ref().map(|status| status.parse().expect("a status"));
            (number(0), text(1), text(2), number(3), status, text(5))
        };
        rows.iter().map(event).collect()
    }

    /// Cause and evidence of the payout's last revision.
    pub(crate) fn cause(&self, id: &str) -> (String, Option<String>) {
        let mut rows = self.shell().rows(&format!(
            "SELECT e.cause, e.evidence FROM event e JOIN payout p ON e.payout = p.id
             WHERE p.third_party_id = '{id}' ORDER BY e.revision DESC LIMIT 1"
        ));
        let [cause, evidence] = &mut rows[0][..] else { panic!("two columns") };
        (cause.take().expect("a cause"), evidence.take())
    }

    /// Makes the payout look as if it had been in its state for so long, and due.
    pub(crate) fn aged(&self, id: &str, hours: i64) {
        let changed = self.shell().execute(&format!(
            "UPDATE payout SET state_time = state_time - {hours} * 3600000000, due = 1
             WHERE third_party_id = '{id}'"
        ));
        assert_eq!(changed, 1);
    }
}
