//! The API: proto in, domain in the middle, proto and statuses out.
//!
//! Handlers are futures that tonic drops when a caller goes away; none of them owns anything that
//! decides about money. They check, ask the engine, and wait.

mod body;
mod call;
mod convert;
mod deadline;
mod forwarded;
mod gate;
pub mod identify;
mod list;
pub mod method;
mod observe;
mod operator;
mod page_token;
mod protocol;
pub mod reason;
pub mod status;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tonic::codec::CompressionEncoding::Gzip;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status};
use tower::layer::util::{Identity, Stack};

use crate::caller::{Callers, Over};
use crate::coin::{Chain, Currency};
use crate::config;
use crate::engine::{Engine, Refused};
use crate::health::Health;
use crate::ledger::Id;
use crate::metrics::label::Shed;
use crate::order::{Draft, Order, Violation, id_fits};
use crate::pb;
use crate::pb::operator_service_server::OperatorServiceServer;
use crate::pb::payout_service_server::{PayoutService, PayoutServiceServer};
use crate::policy::Terms;
use crate::telemetry::span;
use call::Call;
use gate::Gate;
use identify::Identify;
use observe::Observe;
use page_token::Tokens;
use protocol::Protocol;

/// Requests are small; a larger one is refused before it is read, or while it is unpacked.
const MESSAGE_MAX: usize = 64 * 1024;
/// A health check holds the name of a service.
const HEALTH_MESSAGE_MAX: usize = 1024;
/// Pages that are read at once: each may hold a thousand payouts.
const LISTS_MAX: usize = 16;
/// Streams that one connection may have open. More than the usual 100: a mesh's proxy brings all its
/// callers over a connection or two, and each watcher holds a stream for as long as its payout runs.
/// Memory is bounded by `max_calls` and `max_watches`, not by this.
const STREAMS_MAX: u32 = 1024;
/// Header bytes of one request.
const HEADERS_MAX: u32 = 16 * 1024;

/// What a watcher hears.
type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchPayoutResponse, Status>> + Send>>;

/// `payout.v1.PayoutService`.
#[derive(Debug)]
pub struct Payouts {
    engine: Arc<Engine>,
    /// Bounds the memory that waiting callers hold; sends have their own bound.
    calls: Semaphore,
    /// Bounds those who look something up; they are not in the way of those who create.
    reads: Semaphore,
    /// Bounds how many of those hold a whole page.
    lists: Semaphore,
    tokens: Tokens,
}

/// The server behind its layers, the outermost last.
pub type Serving = Router<Stack<Gate, Stack<Identify, Stack<Protocol, Stack<Observe, Identity>>>>>;

/// The server with all its services, ready to be given connections; open to `callers`.
///
/// # Errors
/// Where the descriptors built into the binary cannot be read.
pub fn server(
    settings: &config::Grpc,
    callers: Callers,
    engine: Arc<Engine>,
    health: &Health,
) -> Result<Serving, tonic_reflection::server::Error> {
    let metrics = Arc::clone(engine.metrics());
    let operator = operator::Operator::new(Arc::clone(&engine));
    let operator = OperatorServiceServer::new(operator)
        .accept_compressed(Gzip)
        .max_decoding_message_size(MESSAGE_MAX);
    let (calls, reads) = (Semaphore::new(settings.max_calls), Semaphore::new(settings.max_reads));
    let tokens = Tokens::new(&engine.key("page_token"));
    let payouts = Payouts { engine, calls, reads, lists: Semaphore::new(LISTS_MAX), tokens };
    let payouts = PayoutServiceServer::new(payouts)
        .accept_compressed(Gzip)
        .max_decoding_message_size(MESSAGE_MAX);

    // tonic hands unset limits down as "none", which lifts hyper's own: say every one of them.
    let router = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_pending_accept_reset_streams(Some(100))
        .http2_max_local_error_reset_streams(Some(1024))
        .http2_max_header_list_size(HEADERS_MAX)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .layer(Observe(Arc::clone(&metrics)))
        .layer(Protocol::new(settings))
        .layer(Identify::new(settings))
        .layer(Gate::new(callers, metrics))
        .add_service(payouts)
        .add_service(operator)
        .add_service(
            health.service().accept_compressed(Gzip).max_decoding_message_size(HEALTH_MESSAGE_MAX),
        );
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
    let (v1, v1alpha) = (reflection().build_v1()?, reflection().build_v1alpha()?);
    Ok(router
        .add_service(v1.accept_compressed(Gzip).max_decoding_message_size(MESSAGE_MAX))
        .add_service(v1alpha.accept_compressed(Gzip).max_decoding_message_size(MESSAGE_MAX)))
}

// === impl PayoutService ===

#[tonic::async_trait]
impl PayoutService for Payouts {
    async fn create_payout(
        &self,
        request: Request<pb::CreatePayoutRequest>,
    ) -> Result<Response<pb::CreatePayoutResponse>, Status> {
        let call = Call::of(request.extensions())?;
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
        let call = Call::of(request.extensions())?;
        let got = self.get(request.into_inner(), call.terms()).await;
        call.respond(got.map(|payout| pb::GetPayoutResponse { payout: Some(payout) }))
    }

    async fn list_payouts(
        &self,
        request: Request<pb::ListPayoutsRequest>,
    ) -> Result<Response<pb::ListPayoutsResponse>, Status> {
        let call = Call::of(request.extensions())?;
        let page = self.list(request.into_inner(), call.terms()).await;
        call.respond(page)
    }

    type WatchPayoutStream = WatchStream;

    async fn watch_payout(
        &self,
        request: Request<pb::WatchPayoutRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let call = Call::of(request.extensions())?;
        let watched = self.watch(request.into_inner(), call.terms()).await;
        call.respond(watched)
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
        // The caller's own bounds first: whoever is over them takes no place from others.
        let _its_place = call.caller.admit().map_err(|over| match over {
            Over::Calls => status::refused(&self.engine.shed(Shed::CallerCalls)),
            Over::Rate(wait) => {
                self.engine.shed(Shed::CallerRate);
                status::refused(&Refused::OverQuota(wait))
            }
        })?;
        let _waiting = self.place(&self.calls, Shed::Calls)?;
        let validate_only = request.validate_only;
        let terms = call.terms();
        let (order, late) = span::validate().in_scope(|| self.order(request, terms))?;
        if validate_only {
            let validated = self.engine.validate(&order, late, terms, until).await;
            return validated.map(|()| None).map_err(|refused| status::refused(&refused));
        }
        if order.currency.chain() == Chain::Other {
            self.engine.metrics().rpc.unchecked_addresses.inc();
        }
        let created = self.engine.create((order, late), terms, call.id(), until).await;
        created.map(|payout| Some(payout.into())).map_err(|refused| status::refused(&refused))
    }

    async fn get(
        &self,
        request: pb::GetPayoutRequest,
        terms: &Terms,
    ) -> Result<pb::Payout, Status> {
        use pb::get_payout_request::Id as Asked;
        let _reading = self.place(&self.reads, Shed::Reads)?;
        let (pid, id) = self.named(
            terms,
            request.pid,
            request.id.map(|id| match id {
                Asked::ThirdPartyId(id) => Id::ThirdParty(id),
                Asked::Cid(cid) => Id::Cid(cid),
            }),
            vec![],
        )?;
        let got = self.engine.get(terms, pid, id).await;
        got.map(Into::into).map_err(|refused| status::refused(&refused))
    }

    async fn list(
        &self,
        request: pb::ListPayoutsRequest,
        terms: &Terms,
    ) -> Result<pb::ListPayoutsResponse, Status> {
        let _reading = self.place(&self.reads, Shed::Reads)?;
        let _paging = self.place(&self.lists, Shed::Lists)?;
        list::page(&self.engine, &self.tokens, terms, request).await
    }

    async fn watch(
        &self,
        request: pb::WatchPayoutRequest,
        terms: &Arc<Terms>,
    ) -> Result<WatchStream, Status> {
        use pb::watch_payout_request::Id as Asked;
        let below = || Violation::new("after_revision", "must not be below 0");
        let (pid, id) = self.named(
            terms,
            request.pid,
            request.id.map(|id| match id {
                Asked::ThirdPartyId(id) => Id::ThirdParty(id),
                Asked::Cid(cid) => Id::Cid(cid),
            }),
            (request.after_revision < 0).then(below).into_iter().collect(),
        )?;
        let watched = self.engine.watch(terms, pid, id, request.after_revision).await;
        let news = watched.map_err(|refused| status::refused(&refused))?;
        Ok(Box::pin(news.map(|news| match news {
            Ok(payout) => Ok(pb::WatchPayoutResponse { payout: payout.map(Into::into) }),
            Err(refused) => Err(status::refused(&refused)),
        })))
    }

    /// One of the `places`, for as long as it is held; nobody waits for one.
    fn place<'a>(&self, places: &'a Semaphore, why: Shed) -> Result<SemaphorePermit<'a>, Status> {
        places.try_acquire().map_err(|_| status::refused(&self.engine.shed(why)))
    }

    /// The one payout that a request names; refuses with all `violations`, those given included.
    fn named(
        &self,
        terms: &Terms,
        pid: i64,
        id: Option<Id>,
        mut violations: Vec<Violation>,
    ) -> Result<(i64, Id), Status> {
        let pid = resolve(&self.engine, terms, pid, &mut violations)?;
        match &id {
            Some(Id::ThirdParty(id)) if !id_fits(id) => {
                let rule = "must match [A-Za-z0-9_-]{1,64}";
                violations.push(Violation::new("third_party_id", rule));
            }
            Some(Id::Cid(..=0)) => violations.push(Violation::new("cid", "must be above 0")),
            Some(Id::ThirdParty(_) | Id::Cid(_)) => {}
            None => violations.push(Violation::new("id", "give one of third_party_id and cid")),
        }
        match id {
            Some(id) if violations.is_empty() => Ok((pid, id)),
            Some(_) | None => Err(status::invalid(&violations)),
        }
    }

    /// The order, and what is wrong with its amount or address, if nothing else is and it may be recorded.
    fn order(
        &self,
        request: pb::CreatePayoutRequest,
        terms: &Terms,
    ) -> Result<(Order, Option<Violation>), Status> {
        let mut violations = Vec::new();
        let pid = resolve(&self.engine, terms, request.pid, &mut violations)?;
        let project = self.engine.project(pid).ok();
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
        let strict_text = project.is_some_and(|project| project.strict_text());
        let decimals = |currency: &Currency| match project {
            Some(project) => project.decimals(currency),
            None => currency.decimals(),
        };
        match Order::examine(draft, strict_text, decimals) {
            Ok(checked) if violations.is_empty() => Ok(checked),
            Ok((_, late)) => {
                violations.extend(late);
                Err(status::invalid(&violations))
            }
            Err(more) => {
                violations.extend(more);
                Err(status::invalid(&violations))
            }
        }
    }
}

/// The project meant by `pid`; 0 where that is ambiguous, which is then a violation.
///
/// # Errors
/// At once where the caller may not use the project: nothing else about it may show.
fn resolve(
    engine: &Engine,
    terms: &Terms,
    pid: i64,
    violations: &mut Vec<Violation>,
) -> Result<i64, Status> {
    let resolved = engine.resolve(terms, pid).map_err(|refused| status::refused(&refused))?;
    Ok(resolved.unwrap_or_else(|| {
        let rule = "0 means the only project, but several are configured";
        violations.push(Violation::new("pid", rule));
        0
    }))
}
