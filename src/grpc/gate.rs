//! Who may come in, and what for: the one place that every call passes before its body is read.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::call::{Call, ID, id_of};
use super::method::Method;
use super::status;
use crate::caller::{Caller, Callers, Credential, Role};
use crate::engine::Refused;
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::telemetry::lines::Lines;

/// So many refusals are logged within that time: whoever is refused may call as often as it likes.
const REFUSALS: u32 = 10;
const REFUSALS_IN: Duration = Duration::from_secs(10);

/// What a method asks of whoever calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Nothing: the platform knows no secret.
    Nothing,
    /// To be known; every caller has some role.
    Known,
    /// This role.
    Role(Role),
}

/// Who may call what.
fn need(method: Method) -> Need {
    match method {
        Method::CreatePayout => Need::Role(Role::Create),
        Method::GetPayout | Method::ListPayouts | Method::WatchPayout => Need::Role(Role::Read),
        Method::ResolvePayout | Method::SetIntake => Need::Role(Role::Operate),
        Method::Health => Need::Nothing,
        // A stranger does not learn what is there, either.
        Method::Reflection | Method::Unknown => Need::Known,
    }
}

/// The gate, as a layer around all services.
#[derive(Clone, Debug)]
pub(super) struct Gate(Arc<Keeper>);

#[derive(Debug)]
struct Keeper {
    callers: Callers,
    metrics: Arc<Metrics>,
    refusals: Arc<Lines>,
}

/// Services behind the gate.
#[derive(Clone, Debug)]
pub(super) struct Gated<S> {
    services: S,
    gate: Gate,
}

impl Gate {
    pub(super) fn new(callers: Callers, metrics: Arc<Metrics>) -> Self {
        let refusals = Arc::new(Lines::new(REFUSALS, REFUSALS_IN));
        Self(Arc::new(Keeper { callers, metrics, refusals }))
    }

    /// Notes who calls.
    ///
    /// # Errors
    /// The status for whoever may not.
    fn admit<B>(&self, request: &mut Request<B>) -> Result<(), Status> {
        let arrival = Instant::now();
        let method = Method::of(request.uri().path());
        let need = need(method);
        if need == Need::Nothing {
            return Ok(());
        }
        let id = id_of(request.headers());
        let caller = self.identify(request);
        let verdict = match (caller, need) {
            (None, _) => Err(Refused::Unauthenticated),
            (Some(caller), Need::Role(role)) if !caller.is(role) => Err(Refused::Forbidden),
            (Some(caller), _) => Ok(Arc::clone(caller)),
        };
        let (name, method) = (caller.map(|caller| caller.name()), method.as_str());
        match verdict {
            Ok(caller) => {
                if need == Need::Role(Role::Operate) {
                    let address = address(request);
                    tracing::info!(
                        request.id = id.to_str().unwrap_or_default(),
                        method,
                        address,
                        caller = name,
                        "operator call"
                    );
                }
                let refusals = Arc::clone(&self.0.refusals);
                request.extensions_mut().insert(Call { arrival, caller, id, refusals });
                Ok(())
            }
            Err(refused) => {
                if refused == Refused::Unauthenticated {
                    self.0.metrics.rpc.authentication_failures.inc();
                }
                let mut status = status::refused(&refused);
                if let Some(left_out) = self.0.refusals.admit() {
                    let (address, why) = (address(request), status.message());
                    tracing::warn!(
                        request.id = id.to_str().unwrap_or_default(),
                        method,
                        address,
                        caller = name,
                        why,
                        left_out,
                        "call refused"
                    );
                }
                status.metadata_mut().insert(ID, id);
                Err(status)
            }
        }
    }

    fn identify<B>(&self, request: &Request<B>) -> Option<&Arc<Caller>> {
        let values = request.headers().get_all(AUTHORIZATION).iter();
        let credential = Credential::read(values.map(|value| value.as_bytes()));
        // A peer that is not noted has lost what it had proven, and no token makes up for that.
        let peer = request.extensions().get::<Peer>()?;
        self.0.callers.identify(credential, &peer.names)
    }
}

/// Where a call comes from, for the log.
fn address<B>(request: &Request<B>) -> Option<String> {
    request.extensions().get::<Peer>().map(|peer| peer.address.to_string())
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, services: S) -> Gated<S> {
        Gated { services, gate: self.clone() }
    }
}

impl<S, B> Service<Request<B>> for Gated<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.services.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.gate.admit(&mut request) {
            Ok(()) => Either::Right(self.services.call(request)),
            Err(status) => Either::Left(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::Future;
    use std::net::Ipv4Addr;
    use std::pin::pin;

    use tonic::Code;

    use super::*;
    use crate::caller::ROLES;
    use crate::config;

    /// Stands for all services: answers with the name of the caller that was noted.
    #[derive(Clone)]
    struct Inside;

    impl Service<Request<()>> for Inside {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<()>) -> Self::Future {
            let noted = request.extensions().get::<Call>();
            let mut response = Response::new(Body::empty());
            let name = noted.map(|call| call.caller.name().to_owned());
            response.extensions_mut().insert(name);
            ready(Ok(response))
        }
    }

    /// The noted caller's name, or the code of the refusal; inside, None is a call without a note.
    fn pass(gate: &Gate, path: &str, names: Option<&[&str]>) -> Result<Option<String>, Code> {
        let mut request = Request::new(());
        *request.uri_mut() = path.parse().expect("a path");
        if let Some(names) = names {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let address = Ipv4Addr::LOCALHOST.into();
            request.extensions_mut().insert(Peer { address, names });
        }
        let called = pin!(gate.layer(Inside).call(request));
        let Poll::Ready(Ok(answer)) =
            called.poll(&mut Context::from_waker(std::task::Waker::noop()))
        else {
            panic!("the gate waits for nothing")
        };
        match answer.extensions().get::<Option<String>>() {
            Some(name) => Ok(name.clone()),
            None => Err(Status::from_header_map(answer.headers()).expect("a status").code()),
        }
    }

    fn caller(name: &str, identities: &[&str], roles: &[Role]) -> config::Caller {
        config::Caller {
            name: name.to_owned(),
            identities: identities.iter().map(|name| (*name).to_owned()).collect(),
            tokens: vec![],
            roles: roles.to_vec(),
            projects: vec![],
            own_payouts_only: false,
            max_calls: None,
            creates_per_minute: None,
            allow_addresses: vec![],
            report_only: false,
            limits: vec![],
        }
    }

    const PATHS: &[(&str, Need)] = &[
        ("/payout.v1.PayoutService/CreatePayout", Need::Role(Role::Create)),
        ("/payout.v1.PayoutService/GetPayout", Need::Role(Role::Read)),
        ("/payout.v1.PayoutService/ListPayouts", Need::Role(Role::Read)),
        ("/payout.v1.PayoutService/WatchPayout", Need::Role(Role::Read)),
        ("/payout.v1.OperatorService/ResolvePayout", Need::Role(Role::Operate)),
        ("/payout.v1.OperatorService/SetIntake", Need::Role(Role::Operate)),
        ("/grpc.health.v1.Health/Check", Need::Nothing),
        ("/grpc.health.v1.Health/Watch", Need::Nothing),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Need::Known),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Need::Known),
        ("/payout.v1.PayoutService/createpayout", Need::Known),
        ("/payout.v1.PayoutService/CreatePayout/", Need::Known),
        ("/", Need::Known),
    ];

    #[test]
    fn a_proven_name_has_its_callers_roles_and_no_others() {
        let settings: Vec<_> =
            ROLES.iter().map(|role| caller(role.as_str(), &[role.as_str()], &[*role])).collect();
        let gate = Gate::new(Callers::new(&settings, true), Metrics::new([]));
        for (path, need) in PATHS {
            for role in ROLES {
                let name = || Ok(Some(role.as_str().to_owned()));
                let expected = match need {
                    Need::Nothing => Ok(None),
                    Need::Known => name(),
                    Need::Role(needed) if *needed == role => name(),
                    Need::Role(_) => Err(Code::PermissionDenied),
                };
                let passed = pass(&gate, path, Some(&["x", role.as_str()]));
                assert_eq!(passed, expected, "{}: {path}", role.as_str());
            }
            let stranger =
                if *need == Need::Nothing { Ok(None) } else { Err(Code::Unauthenticated) };
            for names in [None, Some(&[][..]), Some(&["Create"]), Some(&["create.x"])] {
                assert_eq!(pass(&gate, path, names), stranger, "{names:?}: {path}");
            }
        }
    }

    #[test]
    fn a_name_is_matched_whole_and_two_callers_in_one_certificate_are_none() {
        let spiffe = "spiffe://cluster.local/ns/pay/sa/api";
        let settings = [
            caller("a", &[spiffe, "api.pay.internal"], &ROLES),
            caller("b", &["b.internal"], &ROLES),
        ];
        let gate = Gate::new(Callers::new(&settings, true), Metrics::new([]));
        let path = "/payout.v1.PayoutService/CreatePayout";
        let a = || Ok(Some("a".to_owned()));
        assert_eq!(pass(&gate, path, Some(&[spiffe])), a());
        assert_eq!(pass(&gate, path, Some(&["api.pay.internal", "other", spiffe])), a());
        for names in [
            &["spiffe://cluster.local/ns/pay/sa/api/"][..],
            &["spiffe://cluster.local/ns/pay/sa/ap"],
            &["SPIFFE://cluster.local/ns/pay/sa/api"],
            &["a"],
            &["internal"],
            &["x.api.pay.internal"],
            &[""],
            &[spiffe, "b.internal"],
        ] {
            assert_eq!(pass(&gate, path, Some(names)), Err(Code::Unauthenticated), "{names:?}");
        }
    }

    #[test]
    fn without_listed_callers_a_proven_name_may_do_all_and_loopback_needs_none() {
        for (path, need) in PATHS {
            let noted = || if *need == Need::Nothing { Ok(None) } else { Ok(Some(String::new())) };
            let proven = Gate::new(Callers::new(&[], true), Metrics::new([]));
            assert_eq!(pass(&proven, path, Some(&["anything"])), noted(), "{path}");
            let stranger =
                if *need == Need::Nothing { Ok(None) } else { Err(Code::Unauthenticated) };
            assert_eq!(pass(&proven, path, Some(&[])), stranger, "{path}");
            assert_eq!(pass(&proven, path, None), stranger, "{path}");
            let open = Gate::new(Callers::new(&[], false), Metrics::new([]));
            assert_eq!(pass(&open, path, Some(&[])), noted(), "{path}");
            assert_eq!(pass(&open, path, None), stranger, "{path}: it has lost its certificate");
        }
    }
}
