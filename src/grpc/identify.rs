//! Who calls: a layer that puts a [`Peer`] into every request's extensions.
//!
//! Names come from one source only: the certificate of the connection, or, in a mesh, the header of
//! a proxy that is trusted. The header never travels further.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, SizeHint};
use ipnet::IpNet;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::Layer;

use super::method::Method;
use super::{forwarded, status};
use crate::config::{Grpc, Trust};
use crate::engine::Refused;
use crate::listener::Origin;
use crate::peer::Peer;
use crate::tls::Certificate;

/// The layer.
#[derive(Clone, Debug)]
pub struct Identify {
    trust: Trust,
    proxies: Arc<[IpNet]>,
}

/// A service behind the layer.
#[derive(Clone, Debug)]
pub struct Identified<S> {
    inner: S,
    identify: Identify,
}

// === impl Identify ===

impl Identify {
    pub(super) fn new(settings: &Grpc) -> Self {
        let proxies = settings.trusted_proxies.as_slice().into();
        Self { trust: settings.trust, proxies }
    }

    /// What the transport proves.
    fn peer(&self, origin: &Origin, headers: &HeaderMap) -> Peer {
        let address = origin.address;
        let names = match (self.trust, &origin.certificate) {
            (Trust::None, Some(certificate)) => certificate.names(),
            (Trust::Mesh, _) if self.trusts(origin) => forwarded::names(headers).into(),
            (Trust::None | Trust::Mesh, _) => Arc::new([]),
        };
        Peer { address, names }
    }

    fn trusts(&self, origin: &Origin) -> bool {
        self.proxies.iter().any(|proxy| proxy.contains(&origin.address))
    }
}

impl<S> Layer<S> for Identify {
    type Service = Identified<S>;

    fn layer(&self, inner: S) -> Identified<S> {
        Identified { inner, identify: self.clone() }
    }
}

impl<S> Service<Request<Body>> for Identified<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let method = Method::of(request.uri().path());
        let origin = request.extensions().get::<Origin>().cloned();
        let peer = origin.as_ref().map(|origin| self.identify.peer(origin, request.headers()));
        request.headers_mut().remove(forwarded::HEADER);
        let certificate = origin.and_then(|origin| origin.certificate);
        // Whoever's certificate no longer stands is nobody: the gate lets only health through.
        let stands = certificate.as_ref().is_none_or(|certificate| certificate.stands());
        if let Some(peer) = peer.filter(|_| stands) {
            request.extensions_mut().insert(peer);
        }
        let answer = self.inner.call(request);
        match certificate {
            // The only answers that outlive a revocation.
            Some(certificate) if method == Method::WatchPayout => Box::pin(async move {
                let answer = answer.await?;
                Ok(answer.map(|body| Body::new(Revocable { body, certificate, ended: false })))
            }),
            Some(_) | None => Box::pin(answer),
        }
    }
}

/// A stream that ends, before it says any more, once its caller's certificate no longer stands.
struct Revocable {
    body: Body,
    certificate: Arc<Certificate>,
    ended: bool,
}

impl hyper::body::Body for Revocable {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.certificate.stands() {
            return Poll::Ready(frame);
        }
        self.ended = true;
        let mut trailers = HeaderMap::new();
        let told = status::refused(&Refused::Unauthenticated).add_header(&mut trailers);
        Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use tower::service_fn;

    use super::*;

    /// What reaches the layers within: the peer, and whether the header is still there.
    async fn within(settings: &Grpc, address: &str, header: Option<&str>) -> (Option<Peer>, bool) {
        let seen = Arc::new(Mutex::new((None, false)));
        let noted = Arc::clone(&seen);
        let inner = service_fn(move |request: Request<Body>| {
            let peer = request.extensions().get::<Peer>().cloned();
            let header = request.headers().contains_key(forwarded::HEADER);
            *noted.lock().expect("whole") = (peer, header);
            async { Ok::<_, Infallible>(Response::new(Body::empty())) }
        });
        let mut request = Request::new(Body::empty());
        if let Some(header) = header {
            request.headers_mut().insert(forwarded::HEADER, header.parse().expect("ASCII"));
        }
        let address = address.parse().expect("an address");
        request.extensions_mut().insert(Origin { address, certificate: None });
        Identify::new(settings).layer(inner).call(request).await.expect("infallible");
        let seen = seen.lock().expect("whole");
        seen.clone()
    }

    #[tokio::test]
    async fn the_peer_is_noted_and_the_header_goes_no_further() {
        let mut settings = Grpc::at(([127, 0, 0, 1], 0).into());
        let said = Some("URI=spiffe://a;DNS=b.example");
        let peer = |address: &str, names: &[&str]| {
            let address = address.parse().expect("an address");
            Some(Peer { address, names: names.iter().map(|name| (*name).to_owned()).collect() })
        };
        let nobody = peer("127.0.0.1", &[]);
        assert_eq!(within(&settings, "127.0.0.1", said).await, (nobody, false));
        settings.trust = Trust::Mesh;
        for proxy in ["127.0.0.1", "::1"] {
            let known = peer(proxy, &["spiffe://a", "b.example"]);
            assert_eq!(within(&settings, proxy, said).await, (known, false));
            assert_eq!(within(&settings, proxy, None).await, (peer(proxy, &[]), false));
        }
        let stranger = peer("192.0.2.1", &[]);
        assert_eq!(within(&settings, "192.0.2.1", said).await, (stranger, false));
    }
}
