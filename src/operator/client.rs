//! The calls: each is made once, and every answer is shown. Nothing here repeats a call.

use std::time::Duration;

use tonic::{Request, Status};

use super::args::{Resolve, Target};
use super::refusal::Refusal;
use crate::endpoint::{self, Connection};
use crate::pb;
use crate::pb::operator_service_client::OperatorServiceClient;
use crate::pb::payout_service_client::PayoutServiceClient;

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Longer than the query at Cregis that a resolution waits for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Payouts to ask for at once.
const PAGE: u64 = 500;
/// A page of the longest texts fits well.
const ANSWER_MAX: usize = 16 << 20;

/// Why a command has no answer to print.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error(transparent)]
    Endpoint(#[from] endpoint::Error),
    /// The service refused, or something on the way did.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// OK, but not the answer that was asked for.
    #[error("the answer makes no sense: {0}")]
    Answer(&'static str),
    /// Standard output is gone or full.
    #[error("cannot write the answer")]
    Output(#[from] std::io::Error),
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(Refusal::from(status)))
    }
}

/// A connection to one service, about one project.
pub(super) struct Client {
    payouts: PayoutServiceClient<Connection>,
    operator: OperatorServiceClient<Connection>,
    pid: i64,
}

impl Client {
    pub(super) async fn connect(target: &Target) -> Result<Self, Error> {
        let connection = target.endpoint.connect(CONNECT).await?;
        let payouts = PayoutServiceClient::new(connection.clone());
        let payouts = payouts.max_decoding_message_size(ANSWER_MAX);
        Ok(Self { payouts, operator: OperatorServiceClient::new(connection), pid: target.pid })
    }

    pub(super) async fn get(
        &mut self,
        id: pb::get_payout_request::Id,
    ) -> Result<pb::Payout, Error> {
        let request = pb::GetPayoutRequest { pid: self.pid, id: Some(id) };
        let answer = self.payouts.get_payout(patient(request)).await?.into_inner();
        answer.payout.ok_or(Error::Answer("no payout in it"))
    }

    pub(super) async fn resolve(&mut self, args: Resolve) -> Result<pb::Payout, Error> {
        use pb::resolve_payout_request::Resolution;
        let resolution = args.resolution.cid.map_or(Resolution::Void(true), Resolution::Cid);
        let request = pb::ResolvePayoutRequest {
            pid: self.pid,
            third_party_id: args.third_party_id,
            resolution: Some(resolution),
            evidence: args.evidence,
        };
        let answer = self.operator.resolve_payout(patient(request)).await?.into_inner();
        answer.payout.ok_or(Error::Answer("no payout in it"))
    }

    /// Pauses or resumes the intake, and tells whether it is paused now.
    pub(super) async fn set_intake(&mut self, paused: bool, note: String) -> Result<bool, Error> {
        let request = pb::SetIntakeRequest { pid: self.pid, paused, note };
        Ok(self.operator.set_intake(patient(request)).await?.into_inner().paused)
    }
}

fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

/// Which payouts to list.
#[derive(Default)]
pub(super) struct Filter {
    pub(super) states: Vec<pb::PayoutState>,
    pub(super) attention_only: bool,
    pub(super) min_age: Option<prost_types::Duration>,
}

/// A listing, page by page.
pub(super) struct Listing {
    request: pb::ListPayoutsRequest,
    /// How many payouts may still come; none: as many as there are.
    left: Option<u64>,
    /// Whether the last page has been read.
    ended: bool,
    /// Payouts so far.
    pub(super) rows: u64,
}

impl Listing {
    pub(super) fn new(filter: Filter, limit: Option<u64>) -> Self {
        let request = pb::ListPayoutsRequest {
            states: filter.states.into_iter().map(Into::into).collect(),
            attention_only: filter.attention_only,
            min_age: filter.min_age,
            ..pb::ListPayoutsRequest::default()
        };
        Self { request, left: limit, ended: false, rows: 0 }
    }

    /// Whether the limit cut the listing short.
    pub(super) fn is_cut(&self) -> bool {
        !self.ended
    }

    /// The next page; none after the last one, and none after the limit.
    pub(super) async fn next(
        &mut self,
        client: &mut Client,
    ) -> Result<Option<Vec<pb::Payout>>, Error> {
        let size = PAGE.min(self.left.unwrap_or(PAGE));
        if self.ended || size == 0 {
            return Ok(None);
        }
        self.request.pid = client.pid;
        self.request.page_size = i32::try_from(size).unwrap_or(i32::MAX);
        let asked = patient(self.request.clone());
        let mut page = client.payouts.list_payouts(asked).await?.into_inner();
        let count = page.payouts.len() as u64;
        if count > size {
            return Err(Error::Answer("the page is longer than asked for"));
        }
        self.ended = page.next_page_token.is_empty();
        if !self.ended && page.next_page_token == self.request.page_token {
            return Err(Error::Answer("the next page is this page"));
        }
        self.request.page_token = std::mem::take(&mut page.next_page_token);
        self.left = self.left.map(|left| left - count);
        self.rows += count;
        Ok(Some(page.payouts))
    }
}
