//! The way to the collector. One that is slow or gone costs spans, and nothing else.

use std::error::Error;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
};
use tonic::transport::ClientTlsConfig;

use crate::config::Telemetry;

/// The longest that one batch may take, repetitions included.
const EXPORT_MAX: Duration = Duration::from_secs(5);
/// How often spans leave.
const EXPORT_EVERY: Duration = Duration::from_secs(1);
/// Spans that wait to leave; with more, the newest are lost.
const SPANS_MAX: usize = 8_192;
/// A collector that takes nothing is mentioned this often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(600);

/// What makes and sends spans; None where no collector is configured.
pub(super) fn provider(
    telemetry: &Telemetry,
) -> Result<Option<SdkTracerProvider>, Box<dyn Error + Send + Sync>> {
    let Some(endpoint) = &telemetry.otlp_endpoint else { return Ok(None) };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint.as_str())
        .with_timeout(EXPORT_MAX);
    let exporter = match endpoint.scheme() {
        "https" => exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots()),
        _ => exporter,
    };
    let exporter = Exporter { inner: exporter.build()?, complained: Mutex::new(None) };
    // Every limit is said here: what is left out is read from the environment.
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(SPANS_MAX)
        .with_max_export_batch_size(512)
        .with_scheduled_delay(EXPORT_EVERY)
        .build();
    let sampler = Sampler::TraceIdRatioBased(telemetry.sample_ratio);
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource =
        Resource::builder_empty().with_service_name("payoutd").with_attributes([version]);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(
            BatchSpanProcessor::builder(exporter).with_batch_config(batches).build(),
        )
        .with_sampler(Sampler::ParentBased(Box::new(sampler)))
        .with_resource(resource.build())
        .build();
    Ok(Some(provider))
}

/// Sends batches, and says at most now and then that nobody takes them.
#[derive(Debug)]
struct Exporter {
    inner: opentelemetry_otlp::SpanExporter,
    complained: Mutex<Option<Instant>>,
}

impl Exporter {
    fn complain(&self, error: &(dyn Error + 'static)) {
        let Ok(mut last) = self.complained.lock() else { return };
        if last.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
            *last = Some(Instant::now());
            tracing::warn!(error, "the collector takes no traces");
        }
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.inner.export(batch).await;
        if let Err(error) = &exported {
            self.complain(error);
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
