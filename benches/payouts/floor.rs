//! The least that a payout can cost: a bare tonic echo that makes one bare signed HTTP POST.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use payoutd::pb::payout_service_server::{PayoutService, PayoutServiceServer};
use payoutd::sandbox::{API_KEY, PID};
use payoutd::{pb, sign};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Response, Status};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A bare HTTP client and where it posts to.
pub(crate) struct Poster {
    http: Client<HttpConnector, Full<Bytes>>,
    uri: hyper::Uri,
}

impl Poster {
    pub(crate) fn new(upstream: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new()).build(connector);
        let uri = format!("http://{upstream}/api/v1/payout").parse().expect("a uri");
        Self { http, uri }
    }

    /// One signed POST under `id`; the answer's body.
    pub(crate) async fn post(&self, id: &str) -> Bytes {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let time = now.expect("after 1970").as_millis().to_string();
        let nonce = &id[..6];
        let address = "TXsmKpEuW7qWnXzJLGP9eDLvWPR2GRn1FS";
        let pid = PID.to_string();
        let parameters = [
            ("pid", pid.as_str()),
            ("currency", "195@195"),
            ("address", address),
            ("amount", "1.1"),
            ("third_party_id", id),
            ("nonce", nonce),
            ("timestamp", &time),
        ];
        let sign = sign::sign(API_KEY, &parameters);
        let body = format!(
            "{{\"pid\":{PID},\"currency\":\"195@195\",\"address\":\"{address}\",\"amount\":\"1.1\",\
             \"third_party_id\":\"{id}\",\"nonce\":\"{nonce}\",\"timestamp\":{time},\
             \"sign\":\"{sign}\"}}"
        );
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        let response = self.http.request(request).await.expect("an answer");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert!(
            body.starts_with(b"{\"code\":\"00000\"") || body.ends_with(b"\"success\"}"),
            "{body:?}"
        );
        body
    }
}

struct Floor(Poster);

#[tonic::async_trait]
impl PayoutService for Floor {
    async fn create_payout(
        &self,
        request: tonic::Request<pb::CreatePayoutRequest>,
    ) -> Result<Response<pb::CreatePayoutResponse>, Status> {
        let request = request.into_inner();
        self.0.post(&request.third_party_id).await;
        let payout = pb::Payout {
            third_party_id: request.third_party_id,
            currency: request.currency,
            address: request.address,
            amount: request.amount,
            ..pb::Payout::default()
        };
        Ok(Response::new(pb::CreatePayoutResponse { cid: 1, payout: Some(payout) }))
    }

    async fn get_payout(
        &self,
        _: tonic::Request<pb::GetPayoutRequest>,
    ) -> Result<Response<pb::GetPayoutResponse>, Status> {
        Err(Status::unimplemented("the floor keeps nothing"))
    }

    async fn list_payouts(
        &self,
        _: tonic::Request<pb::ListPayoutsRequest>,
    ) -> Result<Response<pb::ListPayoutsResponse>, Status> {
        Err(Status::unimplemented("the floor keeps nothing"))
    }

    type WatchPayoutStream = tokio_stream::Empty<Result<pb::WatchPayoutResponse, Status>>;

    async fn watch_payout(
        &self,
        _: tonic::Request<pb::WatchPayoutRequest>,
    ) -> Result<Response<Self::WatchPayoutStream>, Status> {
        Err(Status::unimplemented("the floor keeps nothing"))
    }
}

/// Serves until it is killed; prints its address first.
#[tokio::main]
pub(crate) async fn run(upstream: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let service = PayoutServiceServer::new(Floor(Poster::new(upstream)));
    let server = tonic::transport::Server::builder().add_service(service);
    server.serve_with_incoming(incoming).await.expect("served");
}
