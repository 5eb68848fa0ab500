//! Prometheus metrics: what this process did, and what the database holds at the moment of a scrape.

mod database;

use std::time::Duration;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TEXT_FORMAT,
    TextEncoder,
};
use sqlx::PgPool;

use database::DatabaseGauges;

/// One execution of a step takes from milliseconds to minutes; waiting is not counted.
const STEP_SECONDS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

/// The metrics of a process. Cheap to clone; clones share their values.
///
/// Labels take values from small, fixed sets, and names of pipelines and kinds of jobs, and versions that serve; ids only of
/// webhook endpoints, which are few and have no name.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    step_seconds: HistogramVec,
    job_retries: IntCounterVec,
    jobs_finished: IntCounterVec,
    leases_lost: IntCounterVec,
    runs_finished: IntCounterVec,
    rollbacks: IntCounterVec,
    duplicate_trainings: IntCounterVec,
    webhooks: IntCounterVec,
    webhook_deliveries: IntCounterVec,
    breakers: IntGaugeVec,
    database: DatabaseGauges,
}

impl Metrics {
    /// The media type of [`Metrics::encode`].
    pub const CONTENT_TYPE: &str = TEXT_FORMAT;

    /// Metrics with a registry of their own, so that tests do not share counts.
    ///
    /// # Errors
    ///
    /// When two metrics have one name, which the tests exclude.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let build_info = register(
            &registry,
            IntGaugeVec::new(Opts::new("tuneloop_build_info", "The running build; always 1."), &["version"])?,
        )?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let steps =
            HistogramOpts::new("tuneloop_step_duration_seconds", "Time one execution of a run's step took.")
                .buckets(STEP_SECONDS.to_vec());
        Ok(Self {
            step_seconds: register(&registry, HistogramVec::new(steps, &["pipeline", "step", "outcome"])?)?,
            job_retries: counter(
                &registry,
                "tuneloop_job_retries_total",
                "Executions of jobs that failed and are tried again.",
                &["kind"],
            )?,
            jobs_finished: counter(
                &registry,
                "tuneloop_jobs_finished_total",
                "Jobs that ended, by whether they are done or failed.",
                &["kind", "state"],
            )?,
            leases_lost: counter(
                &registry,
                "tuneloop_lease_lost_total",
                "Jobs whose lease ended before their worker did; what it wrote changed nothing.",
                &["kind"],
            )?,
            runs_finished: counter(
                &registry,
                "tuneloop_runs_finished_total",
                "Runs that ended, by status and reason code; the reason is empty where none is given.",
                &["pipeline", "status", "reason"],
            )?,
            rollbacks: counter(
                &registry,
                "tuneloop_rollbacks_total",
                "Live versions that were taken back, by cause: harm (found by a watch), model_unavailable or operator.",
                &["pipeline", "cause"],
            )?,
            duplicate_trainings: counter(
                &registry,
                "tuneloop_duplicate_trainings_total",
                "Duplicate training jobs that turned up late and were cancelled at the provider.",
                &["provider"],
            )?,
            webhooks: counter(
                &registry,
                "tuneloop_webhooks_received_total",
                "Notices of providers, by what became of them: accepted, ignored, replayed or refused.",
                &["provider", "outcome"],
            )?,
            webhook_deliveries: counter(
                &registry,
                "tuneloop_webhook_deliveries_total",
                "Attempts to deliver a notice to an endpoint: delivered, retried (failed and attempted again later) or failed (given up).",
                &["endpoint", "result"],
            )?,
            breakers: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "tuneloop_circuit_breaker_state",
                        "Whether calls of an outside service pass: 0 closed, 1 half open (one call tries), 2 open (none).",
                    ),
                    &["service"],
                )?,
            )?,
            database: DatabaseGauges::new(&registry)?,
            registry,
        })
    }

    /// Where other rooms add metrics of their own, such as the API those of its requests.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A run's step was executed once, with an outcome such as `next`, `wait`, `finish`, `retry` or `failed`.
    pub fn step_executed(&self, pipeline: &str, step: &str, outcome: &str, took: Duration) {
        self.step_seconds.with_label_values(&[pipeline, step, outcome]).observe(took.as_secs_f64());
    }

    /// A job's execution failed and will be repeated.
    pub fn job_retried(&self, kind: &str) {
        self.job_retries.with_label_values(&[kind]).inc();
    }

    /// Jobs of a kind ended in `state`, `done` or `failed`.
    pub fn jobs_finished(&self, kind: &str, state: &str, count: u64) {
        self.jobs_finished.with_label_values(&[kind, state]).inc_by(count);
    }

    /// A job was taken over by another worker while this one still held it.
    pub fn lease_lost(&self, kind: &str) {
        self.leases_lost.with_label_values(&[kind]).inc();
    }

    /// A run reached its final `status`.
    pub fn run_finished(&self, pipeline: &str, status: &str, reason_code: Option<&str>) {
        self.runs_finished.with_label_values(&[pipeline, status, reason_code.unwrap_or_default()]).inc();
    }

    /// A live version was taken back, because of `harm` that its watch found, because its model is gone (`model_unavailable`), or by an `operator`.
    pub fn rolled_back(&self, pipeline: &str, cause: &str) {
        self.rollbacks.with_label_values(&[pipeline, cause]).inc();
    }

    /// Where the state of a service's circuit breaker is shown.
    #[must_use]
    pub fn circuit_breaker(&self, service: &str) -> IntGauge {
        self.breakers.with_label_values(&[service])
    }

    /// A provider's notice came in, with an outcome such as `accepted` or `refused`.
    pub fn webhook_received(&self, provider: &str, outcome: &str) {
        self.webhooks.with_label_values(&[provider, outcome]).inc();
    }

    /// A notice was attempted to be delivered to an endpoint: it is `delivered`, `retried` later or `failed` for good.
    pub fn webhook_attempted(&self, endpoint: &str, result: &str) {
        self.webhook_deliveries.with_label_values(&[endpoint, result]).inc();
    }

    /// A second training job of one training was found at the provider and cancelled.
    pub fn duplicate_training(&self, provider: &str) {
        self.duplicate_trainings.with_label_values(&[provider]).inc();
    }

    /// Reads from the database what it holds now. When it does not answer, `tuneloop_database_up` becomes 0
    /// and the metrics read from it are left out until it is back.
    pub async fn refresh(&self, pool: &PgPool) {
        self.database.refresh(pool).await;
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    ///
    /// When a metric has no series to write, which its registration excludes.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.database.steady(|| self.registry.gather()))
    }
}

fn counter(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn register<C>(registry: &Registry, collector: C) -> Result<C, prometheus::Error>
where
    C: prometheus::core::Collector + Clone + 'static,
{
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn used() -> Metrics {
        let metrics = Metrics::new().unwrap();
        metrics.step_executed("hook", "train", "wait", Duration::from_millis(30));
        metrics.job_retried("run");
        metrics.jobs_finished("run", "done", 3);
        metrics.lease_lost("run");
        metrics.run_finished("hook", "succeeded", None);
        metrics.rolled_back("hook", "harm");
        metrics.run_finished("hook", "skipped", Some("insufficient_training_data"));
        metrics.duplicate_training("openai");
        metrics
    }

    /// What `promtool check metrics` asks for, on the lines themselves.
    #[test]
    fn names_help_and_series_are_sound() {
        let text = used().encode().unwrap();
        let (mut helps, mut types, mut series) = (HashMap::new(), HashMap::new(), HashSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(help.ends_with('.'), "{line}");
                assert!(helps.insert(name, help).is_none(), "{name} has two helps");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(types.insert(name, kind).is_none(), "{name} has two types");
            } else {
                let (identity, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(series.insert(identity), "{identity} stands twice");
                let name = identity.split('{').next().unwrap();
                let family = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|suffix| {
                        name.strip_suffix(suffix).filter(|base| types.get(base) == Some(&"histogram"))
                    })
                    .unwrap_or(name);
                assert!(helps.contains_key(family) && types.contains_key(family), "{name} is not described");
            }
        }
        for (name, kind) in &types {
            assert!(name.starts_with("tuneloop_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == "counter", "{name} is a {kind}");
            assert_eq!(name.ends_with("_seconds"), *kind == "histogram" || name.contains("age"), "{name}");
        }
        for name in ["tuneloop_step_duration_seconds", "tuneloop_build_info", "tuneloop_database_up"] {
            assert!(types.contains_key(name), "{name} is missing");
        }
    }

    #[test]
    fn counts_stand_under_their_labels() {
        let text = used().encode().unwrap();
        let skipped = r#"tuneloop_runs_finished_total{pipeline="hook",reason="insufficient_training_data",status="skipped"} 1"#;
        for line in [
            skipped,
            r#"tuneloop_runs_finished_total{pipeline="hook",reason="",status="succeeded"} 1"#,
            r#"tuneloop_jobs_finished_total{kind="run",state="done"} 3"#,
            r#"tuneloop_job_retries_total{kind="run"} 1"#,
            r#"tuneloop_lease_lost_total{kind="run"} 1"#,
            r#"tuneloop_duplicate_trainings_total{provider="openai"} 1"#,
            r#"tuneloop_step_duration_seconds_count{outcome="wait",pipeline="hook",step="train"} 1"#,
            r#"tuneloop_step_duration_seconds_bucket{outcome="wait",pipeline="hook",step="train",le="0.05"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn two_processes_of_one_test_do_not_share_counts() {
        used();
        assert!(!Metrics::new().unwrap().encode().unwrap().contains("tuneloop_job_retries_total"));
    }
}
