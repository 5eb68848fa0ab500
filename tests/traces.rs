//! A span arrives at a collector that speaks OTLP over gRPC, in the trace that a caller began.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::collections::HashMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::routing::post;
use clap::Parser;
use opentelemetry::global;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tuneloop::config::TelemetryArgs;
use tuneloop::telemetry;

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// The gRPC method of OTLP: a length-prefixed protobuf message in, an empty one out.
async fn export(State(received): State<mpsc::UnboundedSender<Bytes>>, body: Bytes) -> (HeaderMap, [u8; 5]) {
    received.send(body).unwrap();
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))];
    (HeaderMap::from_iter(headers), [0; 5])
}

fn contains(body: &[u8], wanted: &[u8]) -> bool {
    body.windows(wanted.len()).any(|window| window == wanted)
}

#[tokio::test]
async fn a_span_arrives_before_shutdown_returns_and_keeps_the_callers_trace() {
    let (sender, mut received) = mpsc::unbounded_channel();
    let collector = Router::new()
        .route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", post(export))
        .with_state(sender);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, collector).await });

    let arguments = ["tuneloop", "--otlp-endpoint", &endpoint, "--log-filter", "off"];
    let telemetry = telemetry::init(&Settings::parse_from(arguments).telemetry).unwrap();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let caller = HashMap::from([("traceparent".to_owned(), format!("00-{trace}-b7ad6b7169203331-01"))]);
    let parent = global::get_text_map_propagator(|propagator| propagator.extract(&caller));
    {
        // Spans are sent whatever the log filter says.
        let span = tracing::info_span!("collect_posts", pipeline = "hook");
        span.set_parent(parent).unwrap();
        let _entered = span.entered();
        let _carrier = tracing::info_span!(target: "h2::codec", "frame").entered();
    }
    telemetry.shutdown().await;

    let body = received.try_recv().unwrap();
    for wanted in ["collect_posts", "hook", "service.name", "tuneloop", env!("CARGO_PKG_VERSION")] {
        assert!(contains(&body, wanted.as_bytes()), "{wanted} did not arrive");
    }
    assert!(contains(&body, &hex::decode(trace).unwrap()), "the caller's trace was not continued");
    assert!(!contains(&body, b"frame"), "the exporter's own spans are sent");
    server.abort();
}
