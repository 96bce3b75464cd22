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
mod serve;
pub mod status;
mod streamed;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tower::Layer;

use crate::caller::{Callers, Over};
use crate::coin::{Chain, Currency};
use crate::config;
use crate::engine::{Engine, Refused};
use crate::health::Health;
use crate::ledger::Id;
use crate::listener::Connection;
use crate::metrics::label::Shed;
use crate::order::{Draft, Order, Violation, id_fits};
use crate::pb;
use crate::pb::operator_service_server::OperatorServiceServer;
use crate::pb::payout_service_server::{PayoutService, PayoutServiceServer};
use crate::policy::Terms;
use crate::telemetry::span;
use call::Call;
use gate::{Gate, Gated};
use identify::{Identified, Identify};
use observe::{Observe, Observed};
use page_token::Tokens;
use protocol::{Checked, Kept, Protocol};

/// Requests are small; a larger one is refused before it is read, or while it is unpacked.
const MESSAGE_MAX: usize = 64 * 1024;
/// A health check holds the name of a service.
const HEALTH_MESSAGE_MAX: usize = 1024;
/// Pages that are read, or wait to be sent, at once: each may hold 1 MiB of payouts.
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
    reads: Arc<Semaphore>,
    /// Bounds how many of those hold a whole page, until it is sent.
    lists: Arc<Semaphore>,
    tokens: Tokens,
}

/// The server with all its services behind their layers.
#[derive(Clone, Debug)]
pub struct Serving {
    service: Observed<Checked<Identified<Gated<Routes>>>>,
    proxies: Vec<IpNet>,
}

impl Serving {
    /// Serves `connections` until `stop`; then those that are open end when their calls have.
    pub async fn serve(
        self,
        connections: impl Stream<Item = Result<Connection, Infallible>>,
        stop: CancellationToken,
    ) {
        serve::serve(connections, self.service, self.proxies, stop).await;
    }
}

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
    let (reads, lists) = (Arc::new(reads), Arc::new(Semaphore::new(LISTS_MAX)));
    let tokens = Tokens::new(&engine.key("page_token"));
    let payouts = PayoutServiceServer::new(Payouts { engine, calls, reads, lists, tokens })
        .accept_compressed(Gzip)
        .max_decoding_message_size(MESSAGE_MAX);
    let health =
        health.service().accept_compressed(Gzip).max_decoding_message_size(HEALTH_MESSAGE_MAX);
    let mut routes = Routes::new(payouts).add_service(operator).add_service(health);
    if settings.reflection {
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // So that grpcurl and its like can show the details of an error.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        };
        // Older grpcurl and many GUI clients still speak v1alpha only.
        let (v1, v1alpha) = (reflection().build_v1()?, reflection().build_v1alpha()?);
        routes = routes
            .add_service(v1.accept_compressed(Gzip).max_decoding_message_size(MESSAGE_MAX))
            .add_service(v1alpha.accept_compressed(Gzip).max_decoding_message_size(MESSAGE_MAX));
    }
    // The innermost first.
    let service = Gate::new(callers, Arc::clone(&metrics)).layer(routes.prepare());
    let service = Protocol::new(settings).layer(Identify::new(settings).layer(service));
    let service = Observe(metrics).layer(service);
    Ok(Serving { service, proxies: settings.trusted_proxies.clone() })
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
        let places = self.places_for_a_page(&call);
        let page = match &places {
            Ok(_) => {
                list::page(&self.engine, &self.tokens, call.terms(), request.into_inner()).await
            }
            Err(status) => Err(status.clone()),
        };
        let mut answer = call.respond(page)?;
        if let Ok(places) = places {
            answer.extensions_mut().insert(places);
        }
        Ok(answer)
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

    /// The places of a page, which it has until its last byte has left: a client need not take it.
    fn places_for_a_page(&self, call: &Call) -> Result<Kept, Status> {
        let full = |why| status::refused(&self.engine.shed(why));
        let take = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned();
        let reading = take(&self.reads).map_err(|_| full(Shed::Reads))?;
        let own = call.caller.admit_list().ok_or_else(|| full(Shed::Lists))?;
        let paging = take(&self.lists).map_err(|_| full(Shed::Lists))?;
        Ok(Kept::of([reading, own, paging]))
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
