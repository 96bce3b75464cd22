//! Traces, as a collector gets them from the real binary.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use payoutd::pb;
use payoutd::sandbox::API_KEY;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::support::{ADDRESS, Binary, Upstream, any_port, order, within};

/// A collector that hands on what it gets.
struct Collector {
    address: SocketAddr,
    spans: mpsc::UnboundedReceiver<Span>,
    seen: Vec<Span>,
    _task: JoinSet<()>,
}

struct Inlet(mpsc::UnboundedSender<Span>);

#[tonic::async_trait]
impl TraceService for Inlet {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let service = resource.resource.expect("a resource").attributes;
            assert!(format!("{service:?}").contains("\"payoutd\""), "{service:?}");
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                self.0.send(span).expect("the test lives");
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind(any_port()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (inlet, spans) = mpsc::unbounded_channel();
        let server = Server::builder().add_service(TraceServiceServer::new(Inlet(inlet)));
        let mut task = JoinSet::new();
        task.spawn(async move {
            server.serve_with_incoming(TcpIncoming::from(listener)).await.expect("served");
        });
        Self { address, spans, seen: Vec::new(), _task: task }
    }

    /// Waits for every one of `names` in the trace, and returns those spans by name.
    async fn trace(&mut self, trace: &str, names: &[&str]) -> BTreeMap<String, Span> {
        loop {
            let of_trace = self.seen.iter().filter(|span| hex::encode(&span.trace_id) == trace);
            let found: BTreeMap<_, _> = of_trace.map(|s| (s.name.clone(), s.clone())).collect();
            if names.iter().all(|name| found.contains_key(*name)) {
                return found;
            }
            self.seen.push(within(self.spans.recv()).await.expect("the collector lives"));
        }
    }
}

const RPC: &str = "payout.v1.PayoutService/CreatePayout";
const NAMES: [&str; 6] = [RPC, "validate", "flight", "ledger begin", "upstream", "ledger settle"];

fn in_trace<T>(message: T, traceparent: &str) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", traceparent.parse().expect("ascii"));
    metadata.insert("x-request-id", "canary-request".parse().expect("ascii"));
    request
}

fn attribute(span: &Span, name: &str) -> Option<Value> {
    span.attributes.iter().find(|a| a.key == name)?.value.clone()?.value
}

fn text(text: &str) -> Option<Value> {
    Some(Value::StringValue(text.to_owned()))
}

/// Waits until the log says it, and counts how often.
async fn said(binary: &Binary, line: &str) -> usize {
    within(async {
        loop {
            let log = std::fs::read_to_string(&binary.log).expect("a log");
            match log.matches(line).count() {
                0 => tokio::task::yield_now().await,
                times => return times,
            }
        }
    })
    .await
}

async fn traced(upstream: &Upstream, folder: &tempfile::TempDir, to: SocketAddr) -> Binary {
    sampled(upstream, folder, to, "1").await
}

async fn sampled(
    upstream: &Upstream,
    folder: &tempfile::TempDir,
    to: SocketAddr,
    ratio: &str,
) -> Binary {
    let endpoint = format!("http://{to}");
    let settings = [
        ("PAYOUTD_TELEMETRY__OTLP_ENDPOINT", endpoint.as_str()),
        ("PAYOUTD_TELEMETRY__SAMPLE_RATIO", ratio),
    ];
    Binary::start_with(upstream.address, folder, &settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_from_its_caller_to_cregis_and_tells_no_secret() {
    let (upstream, mut collector) = (Upstream::start().await, Collector::start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let mut binary = traced(&upstream, &folder, collector.address).await;
    let mut client = binary.client().await;

    // A caller that does not want to be traced is not.
    let unwanted = "11111111111111111111111111111111";
    let quiet = in_trace(order("quiet"), &format!("00-{unwanted}-1111111111111111-00"));
    client.create_payout(quiet).await.expect("OK");
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let remark = "canary-remark".to_owned();
    let request =
        pb::CreatePayoutRequest { amount: "7.654321".into(), remark, ..order("canary-id") };
    let request = in_trace(request, &format!("00-{trace}-b7ad6b7169203331-01"));
    client.create_payout(request).await.expect("OK");

    let spans = collector.trace(trace, &NAMES).await;
    assert_eq!(spans.len(), NAMES.len(), "{:?}", spans.keys());
    let parent = |name: &str| hex::encode(&spans[name].parent_span_id);
    let id = |name: &str| hex::encode(&spans[name].span_id);
    assert_eq!(parent(RPC), "b7ad6b7169203331", "the caller's own span");
    assert_eq!((parent("validate"), parent("flight")), (id(RPC), id(RPC)));
    for step in ["ledger begin", "upstream", "ledger settle"] {
        assert_eq!(parent(step), id("flight"), "{step}");
    }
    assert_eq!(attribute(&spans[RPC], "rpc.system"), text("grpc"));
    assert_eq!(attribute(&spans[RPC], "rpc.method"), text("CreatePayout"));
    assert_eq!(attribute(&spans[RPC], "rpc.grpc.status_code"), Some(Value::IntValue(0)));
    assert_eq!(attribute(&spans["upstream"], "http.request.method"), text("POST"));
    assert_eq!(attribute(&spans["upstream"], "server.address"), text("127.0.0.1"));
    assert_eq!(attribute(&spans["upstream"], "outcome"), text("ACCEPTED"));

    // Nothing but that: no ids, no amounts, nobody's address, no log lines, and not the health checks.
    let all = format!("{:?}", collector.seen);
    for secret in [API_KEY, "canary", ADDRESS, "7.654321", "sign", "Health", unwanted] {
        assert!(!all.contains(secret), "{secret} is in {all}");
    }
    assert!(collector.seen.iter().all(|span| span.events.is_empty()));
    assert!(!collector.seen.iter().any(|span| hex::encode(&span.trace_id) == unwanted));
    // The payout's line names its trace.
    assert_eq!(said(&binary, &format!("\"trace.id\":\"{trace}\"")).await, 1);
    binary.signal(Signal::SIGTERM);
    assert_eq!(binary.code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flight_stays_in_the_trace_of_a_caller_that_has_gone() {
    let (upstream, mut collector) = (Upstream::start().await, Collector::start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let binary = traced(&upstream, &folder, collector.address).await;
    let mut client = binary.client().await;
    upstream.fault(r#"{"third_party_id": "gone", "delay_answer": "400ms"}"#);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = in_trace(order("gone"), &format!("00-{trace}-00f067aa0ba902b7-01"));
    let mut call = JoinSet::from_iter([async move { client.create_payout(request).await }]);
    upstream.received(1).await;
    call.shutdown().await;

    let spans = collector.trace(trace, &NAMES).await;
    let cancelled = attribute(&spans[RPC], "rpc.grpc.status_code");
    assert_eq!(cancelled, Some(Value::IntValue(1)));
    assert!(spans[RPC].end_time_unix_nano < spans["upstream"].end_time_unix_nano, "it ended first");
    assert_eq!(attribute(&spans["upstream"], "outcome"), text("ACCEPTED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ratio_decides_where_the_caller_has_not_and_the_last_spans_leave_with_the_stop() {
    let (upstream, mut collector) = (Upstream::start().await, Collector::start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let mut binary = sampled(&upstream, &folder, collector.address, "0.0").await;
    let mut client = binary.client().await;
    client.create_payout(order("undecided")).await.expect("OK");
    let trace = "33333333333333333333333333333333";
    let request = in_trace(order("wanted"), &format!("00-{trace}-4444444444444444-01"));
    client.create_payout(request).await.expect("OK");
    binary.signal(Signal::SIGTERM);
    assert_eq!(binary.code().await, Some(0));
    collector.trace(trace, &NAMES).await;
    assert_eq!(collector.seen.len(), NAMES.len(), "{:?}", collector.seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_gone_costs_one_line_and_no_payout() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    // Held, and never listened on.
    let nobody = std::net::TcpListener::bind(any_port()).expect("a port");
    let address = nobody.local_addr().expect("an address");
    drop(nobody);
    let mut binary = traced(&upstream, &folder, address).await;
    let mut client = binary.client().await;
    for number in 0..200 {
        client.create_payout(order(&format!("p-{number}"))).await.expect("OK");
    }
    assert_eq!(said(&binary, "the collector takes no traces").await, 1);
    for number in 200..400 {
        client.create_payout(order(&format!("p-{number}"))).await.expect("OK");
    }
    binary.signal(Signal::SIGTERM);
    assert_eq!(binary.code().await, Some(0));
    assert_eq!(said(&binary, "the collector takes no traces").await, 1);
    assert_eq!(upstream.book.orders().len(), 400);
}
