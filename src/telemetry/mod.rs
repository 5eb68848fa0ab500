//! What the process tells about itself: logs on standard error, traces to a collector, metrics to be scraped.

mod logs;
pub mod metrics;
mod traces;

use std::io::{self, IsTerminal};

use opentelemetry::global;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

use crate::config::TelemetryArgs;

pub use metrics::Metrics;

/// Logs and traces could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The directives that say what is logged cannot be read.
    #[error("RUST_LOG cannot be read")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process already has logs.
    #[error("logs can be set up only once in a process")]
    Again(#[from] TryInitError),
}

/// Logs and traces of the process, to be ended with [`Telemetry::shutdown`].
#[derive(Debug)]
#[must_use = "traces that are waiting to be sent are lost without `shutdown`"]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Starts logs and, when a collector is named, traces, for the whole process. Requests carry their trace in
/// the W3C header `traceparent` through the global propagator. To be called once, inside the runtime.
///
/// A collector that cannot be used or reached is logged and does not stop the process.
///
/// # Errors
///
/// When the filter cannot be read or the process already has logs.
pub fn init(settings: &TelemetryArgs) -> Result<Telemetry, TelemetryError> {
    global::set_text_map_propagator(TraceContextPropagator::new());
    let coloured =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let logs = logs::layer(settings.log_format, coloured, io::stderr)
        .with_filter(EnvFilter::try_new(&settings.log_filter)?);
    let (traces, unusable) = match settings.otlp_endpoint.as_ref().map(traces::provider) {
        None => (None, None),
        Some(Ok(provider)) => (Some(provider), None),
        Some(Err(error)) => (None, Some(error)),
    };
    let layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> =
        [Some(logs.boxed()), traces.as_ref().map(traces::layer)].into_iter().flatten().collect();
    tracing_subscriber::registry().with(layers).try_init()?;
    if let Some(error) = unusable {
        tracing::warn!(%error, "no traces are sent: OTEL_EXPORTER_OTLP_ENDPOINT cannot be used");
    }
    Ok(Telemetry { traces })
}

impl Telemetry {
    /// Sends what is still waiting, within a few seconds.
    pub async fn shutdown(self) {
        let Some(traces) = self.traces else { return };
        // The exporter blocks its caller while the runtime's tasks send for it.
        let outcome = tokio::task::spawn_blocking(move || traces.shutdown()).await;
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last traces may not have arrived"),
            Err(error) => tracing::warn!(%error, "the last traces may not have arrived"),
        }
    }
}
