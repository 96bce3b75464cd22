//! The API: proto in, domain in the middle, proto and statuses out.
//!
//! Handlers are futures that tonic drops when a caller goes away; none of them owns anything that
//! decides about money. They check, ask the engine, and wait.

mod deadline;
pub mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Extensions, Request, Response, Status};

use crate::config;
use crate::engine::{Engine, Refused};
use crate::health::Health;
use crate::ledger::Id;
use crate::order::{Draft, Order, Violation, id_fits};
use crate::payout::{Payout, State};
use crate::pb;
use crate::pb::payout_service_server::{PayoutService, PayoutServiceServer};

/// Requests are small; a larger one is refused before it is read.
const MESSAGE_MAX: usize = 64 * 1024;
/// Streams that one connection may have open.
const STREAMS_MAX: u32 = 1024;
/// Header bytes of one request.
const HEADERS_MAX: u32 = 16 * 1024;

/// `payout.v1.PayoutService`.
#[derive(Debug)]
pub struct Payouts {
    engine: Arc<Engine>,
    /// Bounds the memory that waiting callers hold; sends have their own bound.
    calls: Semaphore,
}

/// What is known about a request before its body is read.
#[derive(Clone, Debug)]
struct Call {
    arrival: Instant,
    id: MetadataValue<Ascii>,
}

/// The server with all its services, ready to be given a socket.
///
/// # Errors
/// Where the descriptors built into the binary cannot be read.
pub fn server(
    settings: &config::Grpc,
    engine: Arc<Engine>,
    health: &Health,
) -> Result<Router, tonic_reflection::server::Error> {
    let payouts = Payouts { engine, calls: Semaphore::new(settings.max_calls) };
    let payouts = PayoutServiceServer::new(payouts).max_decoding_message_size(MESSAGE_MAX);
    let calls = Arc::new(Calls::new());

    // tonic hands unset limits down as "none", which lifts hyper's own: say every one of them.
    let router = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_pending_accept_reset_streams(Some(100))
        .http2_max_local_error_reset_streams(Some(1024))
        .http2_max_header_list_size(HEADERS_MAX)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .add_service(InterceptedService::new(payouts, move |request| calls.note(request)))
        .add_service(health.service());
    if !settings.reflection {
        return Ok(router);
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that grpcurl and its like can show the details of an error.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    // Older grpcurl and many GUI clients still speak v1alpha only.
    Ok(router.add_service(reflection().build_v1()?).add_service(reflection().build_v1alpha()?))
}

// === impl PayoutService ===

#[tonic::async_trait]
impl PayoutService for Payouts {
    async fn create_payout(
        &self,
        request: Request<pb::CreatePayoutRequest>,
    ) -> Result<Response<pb::CreatePayoutResponse>, Status> {
        let call = Call::of(request.extensions());
        let until = deadline::answer_by(request.metadata(), call.arrival);
        let created = self.create(request.into_inner(), until, &call).await;
        call.respond(created.map(|payout| pb::CreatePayoutResponse {
            cid: payout.as_ref().map_or(0, |payout| payout.cid),
            payout,
        }))
    }

    async fn get_payout(
        &self,
        request: Request<pb::GetPayoutRequest>,
    ) -> Result<Response<pb::GetPayoutResponse>, Status> {
        let call = Call::of(request.extensions());
        let got = self.get(request.into_inner()).await;
        call.respond(got.map(|payout| pb::GetPayoutResponse { payout: Some(payout) }))
    }
}

impl Payouts {
    async fn create(
        &self,
        request: pb::CreatePayoutRequest,
        until: Option<Instant>,
        call: &Call,
    ) -> Result<Option<pb::Payout>, Status> {
        let Some(until) = until else { return Err(status::deadline_too_short()) };
        let _waiting =
            self.calls.try_acquire().map_err(|_| status::refused(&Refused::Overloaded))?;
        let validate_only = request.validate_only;
        let order = self.order(request)?;
        if validate_only {
            self.engine.validate(&order).await.map_err(|refused| status::refused(&refused))?;
            return Ok(None);
        }
        let created = self.engine.create(order, call.id(), until).await;
        created.map(|payout| Some(payout.into())).map_err(|refused| status::refused(&refused))
    }

    async fn get(&self, request: pb::GetPayoutRequest) -> Result<pb::Payout, Status> {
        use pb::get_payout_request::Id as Asked;
        let mut violations = Vec::new();
        let pid = self.resolve(request.pid, &mut violations);
        let id = match request.id {
            Some(Asked::ThirdPartyId(id)) if id_fits(&id) => Some(Id::ThirdParty(id)),
            Some(Asked::ThirdPartyId(_)) => {
                let rule = "must match [A-Za-z0-9_-]{1,64}";
                violations.push(Violation::new("third_party_id", rule));
                None
            }
            Some(Asked::Cid(cid)) if cid > 0 => Some(Id::Cid(cid)),
            Some(Asked::Cid(_)) => {
                violations.push(Violation::new("cid", "must be above 0"));
                None
            }
            None => {
                violations.push(Violation::new("id", "give one of third_party_id and cid"));
                None
            }
        };
        let (Some(id), true) = (id, violations.is_empty()) else {
            return Err(status::invalid(&violations));
        };
        self.engine.get(pid, id).await.map(Into::into).map_err(|refused| status::refused(&refused))
    }

    fn order(&self, request: pb::CreatePayoutRequest) -> Result<Order, Status> {
        let mut violations = Vec::new();
        let pid = self.resolve(request.pid, &mut violations);
        let project = self.engine.project(pid);
        let draft = Draft {
            pid,
            currency: request.currency,
            address: request.address,
            amount: request.amount,
            third_party_id: request.third_party_id,
            callback_url: request.callback_url,
            remark: request.remark,
            memo: request.memo,
        };
        let checked = Order::check(draft, project.is_ok_and(|project| project.strict_text()));
        match checked {
            Ok(order) if violations.is_empty() => Ok(order),
            Ok(_) => Err(status::invalid(&violations)),
            Err(more) => {
                violations.extend(more);
                Err(status::invalid(&violations))
            }
        }
    }

    /// The project meant by `pid`; 0 where that is ambiguous, which is then a violation.
    fn resolve(&self, pid: i64, violations: &mut Vec<Violation>) -> i64 {
        self.engine.resolve(pid).unwrap_or_else(|| {
            let rule = "0 means the only project, but several are configured";
            violations.push(Violation::new("pid", rule));
            0
        })
    }
}

// === what is known about a call ===

/// Gives every call an id: the caller's own where it has a usable one.
#[derive(Debug)]
struct Calls {
    /// Makes ids of different processes differ.
    prefix: u32,
    count: AtomicU64,
}

impl Calls {
    fn new() -> Self {
        Self { prefix: getrandom::u32().unwrap_or_default(), count: AtomicU64::new(1) }
    }

    fn note(&self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let given = request.metadata().get("x-request-id").filter(|id| {
            let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
            matches!(id.len(), 1..=64) && id.as_bytes().iter().all(fits)
        });
        let id = given.cloned().unwrap_or_else(|| self.next());
        request.extensions_mut().insert(Call { arrival: Instant::now(), id });
        Ok(request)
    }

    fn next(&self) -> MetadataValue<Ascii> {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:08x}-{count:x}", self.prefix);
        id.parse().unwrap_or_else(|_| MetadataValue::from(count))
    }
}

impl Call {
    fn of(extensions: &Extensions) -> Self {
        // Every request passes the interceptor.
        let noted = extensions.get::<Self>().cloned();
        noted.unwrap_or_else(|| Self { arrival: Instant::now(), id: MetadataValue::from(0) })
    }

    fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    /// Sends the call's id along with its answer.
    fn respond<T>(self, answer: Result<T, Status>) -> Result<Response<T>, Status> {
        match answer {
            Ok(message) => {
                let mut response = Response::new(message);
                response.metadata_mut().insert("x-request-id", self.id);
                Ok(response)
            }
            Err(mut status) => {
                tracing::debug!(request.id = self.id(), %status, "refused");
                status.metadata_mut().insert("x-request-id", self.id);
                Err(status)
            }
        }
    }
}

// === domain to proto ===

impl From<Payout> for pb::Payout {
    fn from(payout: Payout) -> Self {
        let order = Arc::unwrap_or_clone(payout.order);
        Self {
            pid: order.key.pid,
            third_party_id: order.key.third_party_id,
            cid: payout.cid.unwrap_or_default(),
            state: pb::PayoutState::from(payout.state).into(),
            reason: payout.reason,
            currency: order.currency.to_string(),
            address: order.address,
            amount: order.amount.to_string(),
            remark: order.remark,
            memo: order.memo,
            callback_url: order.callback_url,
            cregis_status: None,
            txid: String::new(),
            block_height: 0,
            block_time: None,
            create_time: Some(timestamp(payout.create_time)),
            update_time: Some(timestamp(payout.update_time)),
            revision: payout.revision,
            attention: payout.attention,
        }
    }
}

impl From<State> for pb::PayoutState {
    fn from(state: State) -> Self {
        match state {
            State::Sending => Self::Sending,
            State::NotSent => Self::NotSent,
            State::InDoubt => Self::InDoubt,
            State::Accepted => Self::Accepted,
            State::Rejected => Self::Rejected,
            State::Voided => Self::Voided,
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
            State::Denied => Self::Denied,
        }
    }
}

fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    time.into()
}
