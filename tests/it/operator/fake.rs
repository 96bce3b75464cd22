//! A service of canned answers, and runs of the real binary against it.

use std::net::SocketAddr;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use payoutd::pb::operator_service_server::{OperatorService, OperatorServiceServer};
use payoutd::pb::payout_service_server::{PayoutService, PayoutServiceServer};
use payoutd::pb::{self, PayoutState};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::support::{ADDRESS, any_port, payoutd, within};

/// An id that a double cannot hold.
pub(super) const CID: i64 = 9_007_199_254_740_993;

/// What the service was asked, in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Asked {
    Get(pb::GetPayoutRequest),
    List(pb::ListPayoutsRequest),
    Resolve(pb::ResolvePayoutRequest),
    Intake(pb::SetIntakeRequest),
}

/// A service that answers from a script.
#[derive(Clone, Default)]
pub(super) struct Fake {
    pub(super) payouts: Arc<Vec<pb::Payout>>,
    /// Payouts on a page, however many were asked for.
    pub(super) page: usize,
    pub(super) refusal: Option<Status>,
    pub(super) asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    pub(super) fn of(payouts: Vec<pb::Payout>) -> Self {
        Self { payouts: Arc::new(payouts), page: 1000, ..Self::default() }
    }

    fn hear(&self, asked: Asked) -> Result<(), Status> {
        self.asked.lock().expect("not poisoned").push(asked);
        self.refusal.clone().map_or(Ok(()), Err)
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("not poisoned").clone()
    }

    /// Serves until the set is dropped.
    pub(super) async fn serve(&self) -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind(any_port()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = tonic::transport::Server::builder()
            .add_service(PayoutServiceServer::new(self.clone()))
            .add_service(OperatorServiceServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let mut task = JoinSet::new();
        task.spawn(async move { server.await.expect("served") });
        (address, task)
    }

    /// Runs the binary against this service.
    pub(super) async fn run(&self, arguments: &[&str]) -> Ran {
        let (address, _task) = self.serve().await;
        let mut command = payoutd();
        command.args(arguments).args(["--addr", &format!("http://{address}")]);
        Ran(within(command.output()).await.expect("ran"))
    }
}

#[tonic::async_trait]
impl PayoutService for Fake {
    type WatchPayoutStream = ReceiverStream<Result<pb::WatchPayoutResponse, Status>>;

    async fn create_payout(
        &self,
        _: Request<pb::CreatePayoutRequest>,
    ) -> Result<Response<pb::CreatePayoutResponse>, Status> {
        panic!("an operator's command creates no payout")
    }

    async fn get_payout(
        &self,
        request: Request<pb::GetPayoutRequest>,
    ) -> Result<Response<pb::GetPayoutResponse>, Status> {
        self.hear(Asked::Get(request.into_inner()))?;
        Ok(Response::new(pb::GetPayoutResponse { payout: self.payouts.first().cloned() }))
    }

    async fn list_payouts(
        &self,
        request: Request<pb::ListPayoutsRequest>,
    ) -> Result<Response<pb::ListPayoutsResponse>, Status> {
        let request = request.into_inner();
        self.hear(Asked::List(request.clone()))?;
        let states = &request.states;
        let fits = |payout: &&pb::Payout| {
            (states.is_empty() || states.contains(&payout.state))
                && (!request.attention_only || !payout.attention.is_empty())
        };
        let begin: usize = request.page_token.parse().unwrap_or(0);
        let size = self.page.min(usize::try_from(request.page_size).expect("a size"));
        let fitting: Vec<_> = self.payouts.iter().filter(fits).cloned().collect();
        let payouts: Vec<_> = fitting.iter().skip(begin).take(size).cloned().collect();
        let end = begin + payouts.len();
        let next_page_token = if end < fitting.len() { end.to_string() } else { String::new() };
        Ok(Response::new(pb::ListPayoutsResponse { payouts, next_page_token }))
    }

    async fn watch_payout(
        &self,
        _: Request<pb::WatchPayoutRequest>,
    ) -> Result<Response<Self::WatchPayoutStream>, Status> {
        panic!("an operator's command watches nothing")
    }
}

#[tonic::async_trait]
impl OperatorService for Fake {
    async fn resolve_payout(
        &self,
        request: Request<pb::ResolvePayoutRequest>,
    ) -> Result<Response<pb::ResolvePayoutResponse>, Status> {
        self.hear(Asked::Resolve(request.into_inner()))?;
        Ok(Response::new(pb::ResolvePayoutResponse { payout: self.payouts.first().cloned() }))
    }

    async fn set_intake(
        &self,
        request: Request<pb::SetIntakeRequest>,
    ) -> Result<Response<pb::SetIntakeResponse>, Status> {
        let request = request.into_inner();
        self.hear(Asked::Intake(request.clone()))?;
        Ok(Response::new(pb::SetIntakeResponse { paused: request.paused }))
    }
}

/// How a run of the binary ended.
pub(super) struct Ran(pub(super) Output);

impl Ran {
    pub(super) fn out(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).expect("UTF-8")
    }

    pub(super) fn err(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).expect("UTF-8")
    }

    pub(super) fn ended(self, code: i32) -> Self {
        assert_eq!(self.0.status.code(), Some(code), "{}{}", self.out(), self.err());
        self
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.out()).expect("one JSON document")
    }

    pub(super) fn csv(&self) -> Vec<Vec<String>> {
        let text = self.out();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        let row = |row: csv::StringRecord| row.iter().map(str::to_owned).collect();
        reader.records().map(|read| row(read.expect("a row"))).collect()
    }
}

/// A payout that came to its state `minutes` ago.
pub(super) fn payout(id: &str, state: PayoutState, amount: &str, minutes: u64) -> pb::Payout {
    let changed = SystemTime::now() - Duration::from_secs(60 * minutes + 30);
    pb::Payout {
        pid: 1_382_528_827_416_576,
        third_party_id: id.to_owned(),
        state: state as i32,
        currency: "195@195".to_owned(),
        address: ADDRESS.to_owned(),
        amount: amount.to_owned(),
        update_time: Some(changed.into()),
        state_time: Some(changed.into()),
        revision: 2,
        ..pb::Payout::default()
    }
}

pub(super) fn doubt(id: &str, amount: &str, minutes: u64) -> pb::Payout {
    pb::Payout { reason: "TIMEOUT".to_owned(), ..payout(id, PayoutState::InDoubt, amount, minutes) }
}

pub(super) fn refusal(code: Code, reason: &str, retry: &str, message: &str) -> Status {
    let metadata = [("retry".to_owned(), retry.to_owned())];
    let mut details = ErrorDetails::with_error_info(reason, "payout.v1", metadata);
    details.set_retry_info(Some(Duration::from_secs(5)));
    Status::with_error_details(code, message, details)
}
