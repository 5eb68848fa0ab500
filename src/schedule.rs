//! The scheduler: turns the slots of pipelines' schedules into runs, once per slot however many replicas tick.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

use crate::audit::By;
use crate::clock::Clock;
use crate::jobs;
use crate::model_check;
use crate::notifications;
use crate::outcome_judge;
use crate::outcome_pull;
use crate::pipelines::cron::Cron;
use crate::pipelines::{self, Pipeline};
use crate::publication;
use crate::runs::{self, RunStatus};
use crate::telemetry::metrics::Metrics;
use crate::tracking;

/// How often pipelines are looked at. A slot starts at most this late.
const TICK: &str = "*/5 * * * * *";
/// The kind of the job that deletes what is old, inserted every hour.
pub const HOUSEKEEPING: &str = "housekeeping";
const HOURLY: &str = "0 17 * * * *";
/// A slot missed while no scheduler ran is caught up this long; older ones are left out.
const CATCH_UP: TimeDelta = TimeDelta::hours(24);

/// Inserts the runs of slots that have come.
#[derive(Debug, Clone)]
pub struct Scheduler {
    db: PgPool,
    clock: Clock,
    metrics: Metrics,
    tracking: bool,
}

impl Scheduler {
    /// A scheduler over the pipelines in this database.
    #[must_use]
    pub fn new(db: PgPool, clock: Clock, metrics: Metrics) -> Self {
        Self { db, clock, metrics, tracking: false }
    }

    /// Whether MLflow is to be told of what is new.
    #[must_use]
    pub fn with_tracking(self, tracking: bool) -> Self {
        Self { tracking, ..self }
    }

    /// Ticks until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), JobSchedulerError> {
        let mut ticker = JobScheduler::new().await?;
        let db = self.db.clone();
        let scheduler = Arc::new(self);
        ticker
            .add(Job::new_async(TICK, move |_, _| {
                let scheduler = scheduler.clone();
                Box::pin(async move {
                    if let Err(error) = scheduler.tick().await {
                        tracing::warn!(%error, "schedules could not be looked at; trying again at the next tick");
                    }
                })
            })?)
            .await?;
        ticker
            .add(Job::new_async(HOURLY, move |_, _| {
                let db = db.clone();
                Box::pin(async move {
                    if let Err(error) = enqueue_housekeeping(&db).await {
                        tracing::warn!(%error, "the housekeeping could not be scheduled; trying again in an hour");
                    }
                })
            })?)
            .await?;
        ticker.start().await?;
        shutdown.cancelled().await;
        ticker.shutdown().await
    }

    /// Starts what is due now. The slot of each pipeline is unique in the database: of any number of
    /// schedulers that tick at once, one inserts the run.
    pub async fn tick(&self) -> sqlx::Result<()> {
        let now = self.clock.now();
        // None of them must hold up the schedules.
        if let Err(error) = publication::schedule(&self.db).await {
            tracing::warn!(%error, "what is to be published could not be scheduled");
        }
        if let Err(error) = notifications::schedule(&self.db).await {
            tracing::warn!(%error, "the sealing of the audit trail could not be scheduled");
        }
        if let Err(error) = notifications::revive(&self.db).await {
            tracing::warn!(%error, "the delivery of webhooks could not be scheduled");
        }
        if self.tracking
            && let Err(error) = tracking::schedule(&self.db).await
        {
            tracing::warn!(%error, "what MLflow is to be told could not be scheduled");
        }
        let mut after: Option<String> = None;
        loop {
            let page = pipelines::all(&self.db, after.as_deref(), 100).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.name.clone());
            for pipeline in &page {
                if let Err(error) = self.pull_outcomes(pipeline).await {
                    tracing::warn!(%error, pipeline = pipeline.name, "the pull of outcomes could not be scheduled");
                }
                if let Err(error) = outcome_judge::schedule(&self.db, pipeline).await {
                    tracing::warn!(%error, pipeline = pipeline.name, "the judge of outcomes could not be scheduled");
                }
                if let Err(error) = model_check::schedule(&self.db, pipeline).await {
                    tracing::warn!(%error, pipeline = pipeline.name, "the check of models could not be scheduled");
                }
                if let Some(slot) = due(pipeline, now) {
                    // One pipeline that cannot be started must not hold up the others.
                    if let Err(error) = self.start(pipeline, slot).await {
                        tracing::warn!(%error, pipeline = pipeline.name, %slot, "the slot's run could not be inserted");
                    }
                }
            }
        }
    }

    /// Where the job stands already, nothing is added.
    async fn pull_outcomes(&self, pipeline: &Pipeline) -> sqlx::Result<()> {
        let mut tx = self.db.begin().await?;
        outcome_pull::schedule(&mut tx, pipeline).await?;
        tx.commit().await
    }

    async fn start(&self, pipeline: &Pipeline, slot: DateTime<Utc>) -> sqlx::Result<()> {
        let known = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT 1 FROM runs WHERE pipeline = $1 AND slot = $2) AS "known!""#,
            pipeline.name,
            slot,
        )
        .fetch_one(&self.db)
        .await?;
        if known {
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        let begun = runs::by_schedule(&mut tx, &self.clock, pipeline, slot, &By::scheduler()).await?;
        tx.commit().await?;
        if let Some((run, status)) = begun {
            tracing::info!(pipeline = pipeline.name, %slot, %run, %status, "the schedule inserted a run");
            if status == RunStatus::Skipped {
                self.metrics.run_finished(&pipeline.name, status.as_str(), Some("run_active"));
            }
        }
        Ok(())
    }
}

/// Of any number of schedulers one inserts the job: it is unfinished at most once.
async fn enqueue_housekeeping(db: &PgPool) -> sqlx::Result<()> {
    let mut tx = db.begin().await?;
    jobs::enqueue(&mut tx, HOUSEKEEPING, "all", &serde_json::Value::Null, Duration::ZERO).await?;
    tx.commit().await
}

/// The newest slot that has come since the schedule was set, if it is not too old.
fn due(pipeline: &Pipeline, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let schedule = &pipeline.config.schedule;
    if !schedule.enabled {
        return None;
    }
    let cron = Cron::new(&schedule.cron, &schedule.timezone).ok()?;
    cron.newest_between(pipeline.scheduled_since.max(now - CATCH_UP), now)
}
