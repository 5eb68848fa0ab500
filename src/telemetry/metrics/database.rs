//! Gauges that are read from the database at each scrape.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{Gauge, GaugeVec, IntGaugeVec, Opts, Registry};
use sqlx::PgPool;

use super::register;

/// A scrape waits this long for the database; Prometheus itself gives up after ten seconds.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub(super) struct DatabaseGauges {
    up: Gauge,
    runs: IntGaugeVec,
    jobs: IntGaugeVec,
    oldest_job: GaugeVec,
    untold: GaugeVec,
    cost: GaugeVec,
    trained_tokens: IntGaugeVec,
    model_days_left: IntGaugeVec,
    publications: IntGaugeVec,
    undelivered: IntGaugeVec,
    oldest_undelivered: GaugeVec,
    /// Held while the gauges change and while they are read, so that no scrape sees half of them.
    steady: Arc<Mutex<()>>,
}

/// What the database holds.
struct Holdings {
    /// Pipeline, status, count.
    runs: Vec<(String, String, i64)>,
    /// Kind, state, count, and the seconds since the oldest due job became due.
    jobs: Vec<(String, String, i64, f64)>,
    /// Pipeline, and the seconds since the oldest change that MLflow was not told of.
    untold: Vec<(String, f64)>,
    /// Pipeline, currency (empty without a price), cost, billed tokens: since the beginning.
    costs: Vec<(String, String, f64, i64)>,
    /// Pipeline, version, and the days until the provider shuts it down: of those that serve and have such a date.
    ends: Vec<(String, String, i64)>,
    /// Pipeline, target, revisions that are not published there.
    publications: Vec<(String, String, i64)>,
    /// Webhook endpoint, notices that wait for it, and the seconds since the oldest began to wait.
    notices: Vec<(String, i64, f64)>,
}

impl DatabaseGauges {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let up = Gauge::new("tuneloop_database_up", "Whether the database answered this scrape: 1 or 0.")?;
        let runs = Opts::new("tuneloop_runs", "Runs by pipeline and status.");
        let jobs = Opts::new("tuneloop_jobs", "Jobs in the table, by kind and state.");
        let oldest = Opts::new(
            "tuneloop_job_oldest_age_seconds",
            "How long the oldest job that is due waits for a worker; 0 when none waits.",
        );
        let cost = Opts::new(
            "tuneloop_training_cost",
            "What all trainings of a pipeline have cost, as far as the provider has told the billed tokens.",
        );
        let tokens =
            Opts::new("tuneloop_trained_tokens", "Tokens that all trainings of a pipeline were billed for.");
        let days_left = Opts::new(
            "tuneloop_model_days_left",
            "Days until the provider shuts down the model of a version that serves; below 0 afterwards.",
        );
        let behind = Opts::new(
            "tuneloop_publication_revisions_behind",
            "Traffic revisions that a target of a pipeline's publication is behind; 0 when it has the newest.",
        );
        let untold = Opts::new(
            "tuneloop_tracking_oldest_age_seconds",
            "How old the oldest change is that MLflow was not told of; 0 when it has all.",
        );
        let undelivered =
            Opts::new("tuneloop_webhook_undelivered", "Notices that wait to be delivered to an endpoint.");
        let oldest_undelivered = Opts::new(
            "tuneloop_webhook_oldest_age_seconds",
            "How long the oldest notice waits to be delivered to an endpoint; 0 when none waits.",
        );
        Ok(Self {
            undelivered: register(registry, IntGaugeVec::new(undelivered, &["endpoint"])?)?,
            oldest_undelivered: register(registry, GaugeVec::new(oldest_undelivered, &["endpoint"])?)?,
            model_days_left: register(registry, IntGaugeVec::new(days_left, &["pipeline", "version"])?)?,
            publications: register(registry, IntGaugeVec::new(behind, &["pipeline", "target"])?)?,
            untold: register(registry, GaugeVec::new(untold, &["pipeline"])?)?,
            cost: register(registry, GaugeVec::new(cost, &["pipeline", "currency"])?)?,
            trained_tokens: register(registry, IntGaugeVec::new(tokens, &["pipeline"])?)?,
            up: register(registry, up)?,
            runs: register(registry, IntGaugeVec::new(runs, &["pipeline", "status"])?)?,
            jobs: register(registry, IntGaugeVec::new(jobs, &["kind", "state"])?)?,
            oldest_job: register(registry, GaugeVec::new(oldest, &["kind"])?)?,
            steady: Arc::default(),
        })
    }

    pub(super) async fn refresh(&self, pool: &PgPool) {
        let holdings = match tokio::time::timeout(TIMEOUT, read(pool)).await {
            Ok(Ok(holdings)) => Some(holdings),
            Ok(Err(error)) => {
                tracing::warn!(%error, "metrics of the database cannot be read");
                None
            }
            Err(_) => {
                tracing::warn!("metrics of the database cannot be read: no answer in time");
                None
            }
        };
        self.steady(|| self.set(holdings.as_ref()));
    }

    /// Does `work` while the gauges stand still.
    pub(super) fn steady<T>(&self, work: impl FnOnce() -> T) -> T {
        let _held = self.steady.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    fn set(&self, holdings: Option<&Holdings>) {
        self.runs.reset();
        self.jobs.reset();
        self.oldest_job.reset();
        self.untold.reset();
        self.cost.reset();
        self.trained_tokens.reset();
        self.model_days_left.reset();
        self.publications.reset();
        self.undelivered.reset();
        self.oldest_undelivered.reset();
        self.up.set(if holdings.is_some() { 1.0 } else { 0.0 });
        let Some(holdings) = holdings else { return };
        for (pipeline, status, count) in &holdings.runs {
            self.runs.with_label_values(&[pipeline, status]).set(*count);
        }
        for (pipeline, age) in &holdings.untold {
            self.untold.with_label_values(&[pipeline]).set(*age);
        }
        for (pipeline, currency, cost, tokens) in &holdings.costs {
            if !currency.is_empty() {
                self.cost.with_label_values(&[pipeline, currency]).set(*cost);
            }
            self.trained_tokens.with_label_values(&[pipeline]).add(*tokens);
        }
        for (pipeline, version, days) in &holdings.ends {
            self.model_days_left.with_label_values(&[pipeline, version]).set(*days);
        }
        for (pipeline, target, behind) in &holdings.publications {
            self.publications.with_label_values(&[pipeline, target]).set(*behind);
        }
        for (endpoint, count, age) in &holdings.notices {
            self.undelivered.with_label_values(&[endpoint]).set(*count);
            self.oldest_undelivered.with_label_values(&[endpoint]).set(*age);
        }
        for (kind, state, count, age) in &holdings.jobs {
            self.jobs.with_label_values(&[kind, state]).set(*count);
            let oldest = self.oldest_job.with_label_values(&[kind]);
            oldest.set(oldest.get().max(*age));
        }
    }
}

/// Counts of 0 are there as well, so that an alert sees a count fall to it.
async fn read(pool: &PgPool) -> Result<Holdings, sqlx::Error> {
    let runs = sqlx::query!(
        r#"SELECT p.name AS "pipeline!", s.status AS "status!", count(r.id) AS "count!"
             FROM pipelines p
            CROSS JOIN unnest(ARRAY['queued', 'running', 'waiting_approval', 'succeeded', 'skipped', 'rejected',
                                    'inconclusive', 'failed', 'cancelled', 'rolled_back']) AS s (status)
             LEFT JOIN runs r ON r.pipeline = p.name AND r.status = s.status
            GROUP BY p.name, s.status"#
    )
    .fetch_all(pool)
    .await?;
    let jobs = sqlx::query!(
        r#"WITH held AS (
               SELECT kind, state, count(*) AS count,
                      max(extract(epoch FROM now() - run_at))
                          FILTER (WHERE state = 'ready' AND run_at <= now()) AS age
                 FROM jobs GROUP BY kind, state)
           SELECT k.kind AS "kind!", s.state AS "state!", coalesce(h.count, 0) AS "count!",
                  coalesce(h.age, 0)::double precision AS "age!"
             FROM (SELECT DISTINCT kind FROM held) k
            CROSS JOIN unnest(ARRAY['ready', 'leased', 'done', 'failed']) AS s (state)
             LEFT JOIN held h ON h.kind = k.kind AND h.state = s.state"#
    )
    .fetch_all(pool)
    .await?;
    let costs = sqlx::query!(
        r#"SELECT r.pipeline AS "pipeline!", coalesce(t.currency, '') AS "currency!",
                  coalesce(sum(t.cost), 0)::double precision AS "cost!",
                  coalesce(sum(t.trained_tokens), 0)::bigint AS "tokens!"
             FROM trainings t JOIN runs r ON r.id = t.run_id GROUP BY 1, 2"#
    )
    .fetch_all(pool)
    .await?;
    let ends = sqlx::query!(
        r#"SELECT pipeline, major || '.' || minor || '.' || patch AS "version!",
                  (shutdown_date - (now() AT TIME ZONE 'UTC')::date)::bigint AS "days!"
             FROM model_versions
            WHERE shutdown_date IS NOT NULL AND status IN ('live', 'hold_back', 'testing')"#
    )
    .fetch_all(pool)
    .await?;
    let publications = sqlx::query!(
        r#"SELECT s.pipeline, s.target, p.traffic_revision - coalesce(s.published_revision, 0) AS "behind!"
             FROM publications s JOIN pipelines p ON p.name = s.pipeline WHERE s.active"#
    )
    .fetch_all(pool)
    .await?;
    let untold = sqlx::query!(
        r#"SELECT pipeline,
                  coalesce(extract(epoch FROM now() - (
                      SELECT a.at FROM audit_events a WHERE a.pipeline = s.pipeline AND a.id > s.seen_event
                       ORDER BY a.id LIMIT 1)), 0)::double precision AS "age!"
             FROM tracking_state s"#
    )
    .fetch_all(pool)
    .await?;
    // A notice waits 24 hours from when it was begun, or begun again by a person.
    let notices = sqlx::query!(
        r#"SELECT e.id::text AS "endpoint!", count(d.id) AS "count!",
                  coalesce(extract(epoch FROM now() - min(d.give_up_at) + interval '24 hours'), 0)::double precision
                      AS "age!"
             FROM webhook_endpoints e
             LEFT JOIN webhook_deliveries d ON d.endpoint_id = e.id AND d.status = 'pending'
            GROUP BY e.id"#
    )
    .fetch_all(pool)
    .await?;
    Ok(Holdings {
        notices: notices.into_iter().map(|row| (row.endpoint, row.count, row.age)).collect(),
        ends: ends.into_iter().map(|row| (row.pipeline, row.version, row.days)).collect(),
        publications: publications.into_iter().map(|row| (row.pipeline, row.target, row.behind)).collect(),
        untold: untold.into_iter().map(|row| (row.pipeline, row.age)).collect(),
        costs: costs.into_iter().map(|row| (row.pipeline, row.currency, row.cost, row.tokens)).collect(),
        runs: runs.into_iter().map(|row| (row.pipeline, row.status, row.count)).collect(),
        jobs: jobs.into_iter().map(|row| (row.kind, row.state, row.count, row.age)).collect(),
    })
}
