//! Traces, sent to a collector by OTLP over gRPC. Sampling follows `OTEL_TRACES_SAMPLER`, headers follow
//! `OTEL_EXPORTER_OTLP_HEADERS`, as the OpenTelemetry SDK reads them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use reqwest::Url;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Layer, Registry};

/// Crates that carry the traces themselves; their spans would say nothing of tuneloop's work.
const CARRIERS: [&str; 5] = ["h2", "hyper", "hyper_util", "tonic", "tower"];

/// Collects spans and sends them to `endpoint` in batches. Connects when the first batch is due.
pub(super) fn provider(endpoint: &Url) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint.as_str()).build()?;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(LoudExporter { exporter, failing: AtomicBool::new(false) })
        .with_resource(resource())
        .build())
}

/// Spans of level info and above, whatever is logged.
pub(super) fn layer(provider: &SdkTracerProvider) -> Box<dyn Layer<Registry> + Send + Sync> {
    let targets = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_targets(CARRIERS.map(|name| (name, LevelFilter::OFF)));
    tracing_opentelemetry::layer().with_tracer(provider.tracer("tuneloop")).with_filter(targets).boxed()
}

/// Who sends the traces: `tuneloop`, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` names it.
fn resource() -> Resource {
    let named = Resource::builder().build().get(&Key::new("service.name"));
    let name = named.filter(|name| !name.as_str().starts_with("unknown_service"));
    Resource::builder()
        .with_service_name(name.unwrap_or_else(|| "tuneloop".into()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Logs when exporting begins to fail and when it works again, which the SDK keeps to itself.
#[derive(Debug)]
struct LoudExporter<E> {
    exporter: E,
    failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for LoudExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let outcome = self.exporter.export(batch).await;
        let was_failing = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(error) if !was_failing => {
                tracing::warn!(%error, "traces do not arrive at OTEL_EXPORTER_OTLP_ENDPOINT");
            }
            Ok(()) if was_failing => tracing::info!("traces arrive at OTEL_EXPORTER_OTLP_ENDPOINT again"),
            _ => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use opentelemetry_sdk::error::OTelSdkError;

    use super::*;
    use crate::config::LogFormat;
    use crate::telemetry::logs::tests::logged;

    /// Answers with what it was given, last first.
    #[derive(Debug)]
    struct Scripted(Mutex<Vec<OTelSdkResult>>);

    impl SpanExporter for Scripted {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().pop().unwrap()
        }
    }

    #[test]
    fn an_outage_is_logged_when_it_begins_and_when_it_ends() {
        let away = || Err(OTelSdkError::InternalFailure("collector away".to_owned()));
        let script = vec![Ok(()), away(), Ok(()), Ok(()), away(), away(), Ok(())];
        let exports = script.len();
        let exporter =
            LoudExporter { exporter: Scripted(Mutex::new(script)), failing: AtomicBool::new(false) };
        let text = logged(LogFormat::Text, || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for _ in 0..exports {
                // Failures still reach the SDK.
                let _ = runtime.block_on(exporter.export(Vec::new()));
            }
        });
        let told: Vec<_> =
            text.lines().map(|line| if line.contains("collector away") { "away" } else { "again" }).collect();
        assert_eq!(told, ["away", "again", "away", "again"], "{text}");
    }

    #[test]
    fn the_resource_names_the_service_and_its_version() {
        let resource = resource();
        let value = |key| resource.get(&Key::new(key)).map(|value| value.to_string());
        assert_eq!(value("service.name").as_deref(), Some("tuneloop"));
        assert_eq!(value("service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
    }
}
