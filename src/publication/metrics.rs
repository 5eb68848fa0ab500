//! What is counted of publications. How far they are behind is read from the database at each scrape.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

const DELAY_SECONDS: [f64; 13] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0];
const LABELS: [&str; 2] = ["pipeline", "target"];

/// The metrics of a process that publishes.
#[derive(Debug, Clone)]
pub(crate) struct PublicationMetrics {
    delay: HistogramVec,
    failures: IntCounterVec,
    drifts: IntCounterVec,
}

impl PublicationMetrics {
    /// Adds them to `registry`, which fails when they are there already.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let delay = HistogramOpts::new(
            "tuneloop_publication_delay_seconds",
            "Time from the commit of a traffic revision until it was published at a target and read back.",
        );
        let failures = Opts::new(
            "tuneloop_publication_failures_total",
            "Attempts to publish at a target or to look at it that failed.",
        );
        let drifts = Opts::new(
            "tuneloop_publication_drifts_total",
            "Changes by somebody else of what was published at a target.",
        );
        let metrics = Self {
            delay: HistogramVec::new(delay.buckets(DELAY_SECONDS.to_vec()), &LABELS)?,
            failures: IntCounterVec::new(failures, &LABELS)?,
            drifts: IntCounterVec::new(drifts, &LABELS)?,
        };
        registry.register(Box::new(metrics.delay.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.drifts.clone()))?;
        Ok(metrics)
    }

    pub(super) fn published(&self, pipeline: &str, target: &str, seconds: f64) {
        self.delay.with_label_values(&[pipeline, target]).observe(seconds);
    }

    pub(super) fn failed(&self, pipeline: &str, target: &str) {
        self.failures.with_label_values(&[pipeline, target]).inc();
    }

    pub(super) fn drifted(&self, pipeline: &str, target: &str) {
        self.drifts.with_label_values(&[pipeline, target]).inc();
    }
}
