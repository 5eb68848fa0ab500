//! The handler of a run's job: carries out what a person asked for, else runs the step the run is in.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::transition::{Outcome, Transition, Verdict, event};
use super::{JOB_KIND, Request, Run, RunStatus, Step, cancel, finish, steps, store, wind_down};
use crate::audit::By;
use crate::clock::Clock;
use crate::dataset::{DatasetStore, Sources};
use crate::halt;
use crate::jobs::{Done, Handler, JobError, Lease};
use crate::models::VersionStatus;
use crate::pipelines::{self, PipelineConfig};
use crate::preflight::PriceTable;
use crate::telemetry::metrics::Metrics;
use crate::traffic;
use crate::trainers::{TrainerError, Trainers};

/// What the steps work with.
#[derive(Debug, Clone)]
pub struct Services {
    /// The service's database.
    pub db: PgPool,
    /// Identifiers.
    pub clock: Clock,
    /// Where posts are read.
    pub sources: Sources,
    /// Where datasets are kept.
    pub datasets: DatasetStore,
    /// The providers.
    pub trainers: Trainers,
    /// What they charge.
    pub prices: PriceTable,
    /// What is counted.
    pub metrics: Metrics,
}

/// Advances runs.
#[derive(Debug)]
pub struct RunHandler(Services);

impl RunHandler {
    /// A handler that works with these services.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self(services)
    }
}

/// One step of one run, under one lease.
pub(super) struct StepContext<'a> {
    pub(super) services: &'a Services,
    pub(super) lease: &'a Lease,
    pub(super) run: &'a Run,
    pub(super) config: &'a PipelineConfig,
    /// The database's time when the step began.
    pub(super) now: DateTime<Utc>,
}

impl StepContext<'_> {
    /// Opens the transaction in which the step ends. The run's row is locked; where the run has moved since
    /// the step began, the step's work is void: another worker has moved it, or a person has.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Postgres>, JobError> {
        let mut tx = self.services.db.begin().await?;
        self.lock_run(&mut tx).await?;
        Ok(tx)
    }

    /// As [`Self::begin`], holding the pipeline's lock as well: for steps that move traffic or places.
    pub(super) async fn begin_with_pipeline(&self) -> Result<Transaction<'static, Postgres>, JobError> {
        let mut tx = self.services.db.begin().await?;
        traffic::lock(&mut tx, &self.run.pipeline).await?;
        self.lock_run(&mut tx).await?;
        Ok(tx)
    }

    async fn lock_run(&self, conn: &mut PgConnection) -> Result<(), JobError> {
        let same = sqlx::query_scalar!(
            "SELECT true FROM runs WHERE id = $1 AND version = $2 FOR UPDATE",
            self.run.id,
            self.run.version,
        )
        .fetch_optional(conn)
        .await?;
        same.map(|_| ()).ok_or(JobError::Superseded)
    }

    /// Opens a transaction for a write in the midst of a step, such as an intention; only the worker that
    /// holds the lease can commit it. The run is locked before the job, as everywhere.
    pub(super) async fn fenced(&self) -> Result<Transaction<'static, Postgres>, JobError> {
        let mut tx = self.begin().await?;
        self.lease.fence(&mut tx).await?;
        Ok(tx)
    }
}

impl Handler for RunHandler {
    fn kind(&self) -> &'static str {
        JOB_KIND
    }

    fn run<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Done, JobError>> {
        advance(&self.0, lease).boxed()
    }

    fn retried<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        lease: &'a Lease,
        message: &'a str,
        wait: Duration,
    ) -> BoxFuture<'a, sqlx::Result<()>> {
        note_retry(conn, lease, message, wait).boxed()
    }

    fn failed<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        lease: &'a Lease,
        code: &'a str,
        message: &'a str,
    ) -> BoxFuture<'a, Result<(), JobError>> {
        fail(&self.0, conn, lease, code, message).boxed()
    }
}

async fn advance(services: &Services, lease: &Lease) -> Result<Done, JobError> {
    let Some(run) = load(&services.db, lease).await? else { return Ok(Done::Finished) };
    let mut config = pipelines::config_version(&services.db, &run.pipeline, run.config_version).await?;
    if let Some(base_model) = &run.base_model {
        config.training.base_model.clone_from(base_model);
    }
    let now = sqlx::query_scalar!(r#"SELECT now() AS "now!""#).fetch_one(&services.db).await?;
    let context = StepContext { services, lease, run: &run, config: &config, now };

    let begun = Instant::now();
    let result = match perform(&context).await {
        Ok(transition) => transition.commit(&run, lease).await,
        Err(error) => Err(error),
    };
    let word = match &result {
        Ok(Outcome::Next(_)) => "next",
        Ok(Outcome::Wait { .. }) => "wait",
        Ok(Outcome::Finish(_)) => "finish",
        Err(JobError::LeaseLost) => "lease_lost",
        Err(JobError::Superseded) => "superseded",
        Err(_) => "error",
    };
    services.metrics.step_executed(&run.pipeline, run.step.as_str(), word, begun.elapsed());
    match result? {
        Outcome::Next(step) => {
            tracing::info!(pipeline = run.pipeline, from = %run.step, to = %step, "step done");
        }
        Outcome::Finish(verdict) => count_finished(services, &run, &verdict),
        Outcome::Wait { .. } => {}
    }
    Ok(Done::Committed)
}

fn count_finished(services: &Services, run: &Run, verdict: &Verdict) {
    services.metrics.run_finished(&run.pipeline, verdict.status.as_str(), Some(&verdict.code));
    if verdict.status == RunStatus::RolledBack {
        services.metrics.rolled_back(&run.pipeline, &verdict.code);
        tracing::error!(pipeline = run.pipeline, run = %run.id, reason = verdict.reason, "rolled back");
    }
    tracing::info!(
        pipeline = run.pipeline, status = %verdict.status, code = verdict.code, reason = verdict.reason,
        "run finished"
    );
}

/// The run of this job; `None` where it has finished or there is none.
async fn load(db: &PgPool, lease: &Lease) -> Result<Option<Run>, JobError> {
    let Ok(id) = lease.subject.parse::<Uuid>() else { return Ok(None) };
    Ok(store::by_id(db, id).await?.filter(|run| !run.status.finished()))
}

async fn perform(context: &StepContext<'_>) -> Result<Transition, JobError> {
    halt::point(context.run.step.as_str(), "begun");
    if context.run.request == Some(Request::Cancel) && context.run.step < Step::Watch {
        return cancel::run(context).await;
    }
    match context.run.step {
        Step::Collect => steps::collect::run(context).await,
        Step::Preflight => steps::preflight::run(context).await,
        Step::Upload => steps::upload::run(context).await,
        Step::Train => steps::train::run(context).await,
        Step::Register => steps::register::run(context).await,
        Step::Evaluate => steps::evaluate::run(context).await,
        Step::Test => steps::test::run(context).await,
        Step::Decide => steps::decide::run(context).await,
        Step::Promote => steps::promote::run(context).await,
        Step::Watch => steps::watch::run(context).await,
    }
}

async fn note_retry(
    conn: &mut PgConnection,
    lease: &Lease,
    message: &str,
    wait: Duration,
) -> sqlx::Result<()> {
    let Ok(id) = lease.subject.parse::<Uuid>() else { return Ok(()) };
    // Locked before its steps and its job, as everywhere.
    sqlx::query!("SELECT id FROM runs WHERE id = $1 FOR UPDATE", id).fetch_optional(&mut *conn).await?;
    let Some(run) = store::by_id(&mut *conn, id).await? else { return Ok(()) };
    sqlx::query!(
        "INSERT INTO run_steps (run_id, step, retries) VALUES ($1, $2, 1)
         ON CONFLICT (run_id, step) DO UPDATE SET retries = run_steps.retries + 1",
        id,
        run.step as Step,
    )
    .execute(&mut *conn)
    .await?;
    let data =
        json!({"attempt": lease.attempt, "of": lease.max_attempts, "wait_seconds": wait.as_secs_f64()});
    event(conn, &run, run.step, "retry", message, &data).await
}

/// Ends the run as failed. A test it was running ends; a promotion it made stays.
async fn fail(
    services: &Services,
    conn: &mut PgConnection,
    lease: &Lease,
    code: &str,
    message: &str,
) -> Result<(), JobError> {
    let Ok(id) = lease.subject.parse::<Uuid>() else { return Ok(()) };
    let Some(run) = store::by_id(&mut *conn, id).await? else { return Ok(()) };
    traffic::lock(conn, &run.pipeline).await?;
    sqlx::query!("SELECT id FROM runs WHERE id = $1 FOR UPDATE", id).fetch_one(&mut *conn).await?;
    // Before anything is counted.
    lease.fence(conn).await?;
    let Some(run) = store::by_id(&mut *conn, id).await?.filter(|run| !run.status.finished()) else {
        return Ok(());
    };
    wind_down::end_test(conn, &run, VersionStatus::Candidate, "the run failed", &By::worker()).await?;
    let reason = if run.step == Step::Watch {
        // Not being able to watch is not harm: people decide.
        format!(
            "{message}. The promoted version stays live with the split as it is and nobody watches it: retry the run to \
             go on watching, or roll the pipeline back"
        )
    } else {
        message.to_owned()
    };
    let verdict = Verdict { status: RunStatus::Failed, code: code.to_owned(), reason };
    finish::finish(conn, &run, &verdict, &json!({"attempts": lease.attempt}), &By::worker()).await?;
    count_finished(services, &run, &verdict);
    Ok(())
}

impl From<TrainerError> for JobError {
    fn from(error: TrainerError) -> Self {
        match error {
            TrainerError::Retryable { message, retry_after, .. } => Self::Retryable { message, retry_after },
            TrainerError::Rejected { reason, message } => {
                Self::Fatal { code: reason.as_str().to_owned(), message }
            }
        }
    }
}
