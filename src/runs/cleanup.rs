//! What is left to do at the provider once a run has ended, or may be done later: a job of its own, so that a provider that is away never holds
//! up the end of a run.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::steps::seconds;
use super::trainings::{self, Call, Training};
use super::{Run, Services, progress, store};
use crate::audit::{self, Actor, AuditEvent};
use crate::halt;
use crate::jobs::{self, Done, Handler, JobError, Lease};
use crate::pipelines::{self, PipelineConfig};
use crate::trainers::{AnyTrainer, FileId, Trainer, TrainerError};

/// The kind of job; its subject is the run's id.
pub(super) const KIND: &str = "training_cleanup";

/// Time between two looks for a job whose creation was never answered.
const LOOK: Duration = Duration::from_secs(30);

/// For how long after a training reports are looked for that could not be read.
const REPORTS: TimeDelta = TimeDelta::days(1);

/// Asks for it, in the transaction in which the run ends, or in which it becomes possible that a job turns up late.
pub(super) async fn enqueue(conn: &mut PgConnection, run: &Run) -> sqlx::Result<()> {
    if run.training_id.is_some() {
        // One that is at work now has not seen what has changed.
        jobs::wake(conn, KIND, &run.id.to_string()).await?;
    }
    Ok(())
}

/// Cancels jobs that turn up late, reads reports that could not be read in time, and deletes uploaded files.
#[derive(Debug)]
pub struct Cleanup(Services);

impl Cleanup {
    /// A handler that works with these services.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self(services)
    }
}

impl Handler for Cleanup {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn run<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Done, JobError>> {
        clean(&self.0, lease).boxed()
    }
}

async fn clean(services: &Services, lease: &Lease) -> Result<Done, JobError> {
    let Ok(id) = lease.subject.parse::<Uuid>() else { return Ok(Done::Finished) };
    let Some(run) = store::by_id(&services.db, id).await? else { return Ok(Done::Finished) };
    let config = pipelines::config_version(&services.db, &run.pipeline, run.config_version).await?;
    let all = trainings::of_run(&services.db, id).await?;
    for training in &all {
        if adopts_no_other(run.finished_at, training) {
            let trainer = services.trainers.get(&training.provider)?;
            cancel_others(services, lease, training, trainer).await?;
        }
    }
    let owed = read_owed(services, lease, &all).await?;
    if run.finished_at.is_some() && config.training.delete_files {
        delete_files(services, lease, &run, &all).await?;
    }
    let late = until_next_look(services, &config, &run, &all).await?;
    let reports = owed.then(|| LOOK.min(seconds(config.training.settle_seconds)));
    let Some(wait) = late.into_iter().chain(reports).min() else { return Ok(Done::Finished) };
    let mut tx = services.db.begin().await?;
    lease.reschedule(&mut tx, wait).await?;
    tx.commit().await?;
    Ok(Done::Committed)
}

/// Whether every job beside the one that the training follows is one too many. While the run is about to adopt a job, it
/// looks for itself.
fn adopts_no_other(finished_at: Option<DateTime<Utc>>, training: &Training) -> bool {
    finished_at.is_some() || training.provider_job_id.is_some()
}

/// When to look again for jobs that turn up late; `None` where none can, or can be expected any more.
async fn until_next_look(
    services: &Services,
    config: &PipelineConfig,
    run: &Run,
    all: &[Training],
) -> sqlx::Result<Option<Duration>> {
    // More calls than jobs that are known.
    let unanswered = |training: &Training| training.creates > i32::from(training.provider_job_id.is_some());
    if !all.iter().any(unanswered) {
        return Ok(None);
    }
    let settle = seconds(config.training.settle_seconds);
    let now = sqlx::query_scalar!(r#"SELECT now() AS "now!""#).fetch_one(&services.db).await?;
    Ok(match run.finished_at {
        Some(finished_at) if now >= settled_at(config, finished_at) => None,
        Some(_) => Some(LOOK.min(settle)),
        // As long as the run trains it would be paid for soonest.
        None if all.iter().any(|training| training.finished_at.is_none()) => Some(LOOK.min(settle)),
        None => Some(settle.max(LOOK)),
    })
}

/// Reads the reports that trainings went on without. Returns whether some are still to be read.
async fn read_owed(services: &Services, lease: &Lease, all: &[Training]) -> Result<bool, JobError> {
    let now: DateTime<Utc> = sqlx::query_scalar!(r#"SELECT now() AS "now!""#).fetch_one(&services.db).await?;
    let mut owed = false;
    for training in all.iter().filter(|training| training.reports_owed) {
        let Some(job) = &training.provider_job_id else { continue };
        let trainer = services.trainers.get(&training.provider)?;
        let newest = progress::newest_event(&services.db, training.id).await?;
        let events = trainer.events(job, newest.as_deref()).await;
        let checkpoints = trainer.checkpoints(job).await;
        let failed = [events.as_ref().err(), checkpoints.as_ref().err()].into_iter().flatten();
        let again = failed.filter(|error| matches!(error, TrainerError::Retryable { .. })).count() > 0;
        let given_up = training.finished_at.is_some_and(|ended| now > ended + REPORTS);
        let mut tx = fenced(services, lease).await?;
        progress::keep_events(&mut tx, training.id, &events.unwrap_or_default()).await?;
        progress::keep_checkpoints(&mut tx, training.id, &checkpoints.unwrap_or_default()).await?;
        trainings::tell_version(&mut tx, training.id).await?;
        trainings::owe_reports(&mut tx, training.id, again && !given_up).await?;
        tx.commit().await?;
        owed |= again && !given_up;
    }
    Ok(owed)
}

/// A job that was created by a call without an answer shows up within the settle time.
fn settled_at(config: &PipelineConfig, finished_at: DateTime<Utc>) -> DateTime<Utc> {
    let settle = TimeDelta::from_std(seconds(config.training.settle_seconds)).unwrap_or(TimeDelta::MAX);
    finished_at.checked_add_signed(settle).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Cancels what was created for a training beside the job that the run followed.
async fn cancel_others(
    services: &Services,
    lease: &Lease,
    training: &Training,
    trainer: &AnyTrainer,
) -> Result<(), JobError> {
    if training.creates == 0 {
        return Ok(());
    }
    for job in trainer.find_jobs(training.id).await? {
        if training.provider_job_id.as_deref() == Some(&job.id) {
            continue;
        }
        // Written down first, while nobody can retry the run or adopt the job: who looks for it afterwards leaves it alone.
        let mut tx = services.db.begin().await?;
        let finished_at =
            sqlx::query_scalar!("SELECT finished_at FROM runs WHERE id = $1 FOR UPDATE", training.run_id)
                .fetch_one(&mut *tx)
                .await?;
        lease.fence(&mut tx).await?;
        let now = trainings::by_id(&mut *tx, training.id).await?;
        let is_other = |now: &Training| {
            adopts_no_other(finished_at, now) && now.provider_job_id.as_deref() != Some(&job.id)
        };
        if !now.as_ref().is_some_and(is_other) {
            continue;
        }
        if trainings::note_duplicate(&mut tx, training.id, &job.id).await? {
            record(
                &mut tx,
                "training.duplicate",
                training,
                json!({"job_id": job.id, "status": job.status.as_str()}),
            )
            .await?;
            tx.commit().await?;
            services.metrics.duplicate_training(&training.provider);
        }
        if !job.status.is_terminal() {
            lease.check_deadline()?;
            tracing::warn!(duplicate = job.id, run = %training.run_id, "cancelling a training job that turned up late");
            trainer.cancel(&job.id).await?;
        }
    }
    Ok(())
}

/// Deletes the files of a run that has ended. First it is noted that nobody may use them any more: a retry uploads anew.
async fn delete_files(
    services: &Services,
    lease: &Lease,
    run: &Run,
    all: &[Training],
) -> Result<(), JobError> {
    let mut tx = services.db.begin().await?;
    let ended =
        sqlx::query_scalar!("SELECT finished_at IS NOT NULL FROM runs WHERE id = $1 FOR UPDATE", run.id,)
            .fetch_one(&mut *tx)
            .await?;
    if ended != Some(true) {
        return Ok(());
    }
    lease.fence(&mut tx).await?;
    sqlx::query!(
        "UPDATE trainings SET files_deleted_at = coalesce(files_deleted_at, now()) WHERE run_id = $1",
        run.id,
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    for training in all {
        let files = files_of(services, training).await?;
        for file in &files {
            halt::point("cleanup", "deleting");
            services.trainers.get(&training.provider)?.delete_file(file).await?;
            halt::point("cleanup", "deleted");
        }
        // Once, however often jobs are looked for afterwards.
        if training.files_deleted_at.is_none() && !files.is_empty() {
            let deleted: Vec<_> = files.iter().map(FileId::as_str).collect();
            let mut tx = fenced(services, lease).await?;
            record(&mut tx, "training.delete_files", training, json!({"file_ids": deleted})).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}

/// The files of a training at the provider: those that are known, and what an upload without an answer left.
async fn files_of(services: &Services, training: &Training) -> Result<Vec<FileId>, JobError> {
    let known = [&training.provider_file_id, &training.validation_file_id];
    let mut files: Vec<FileId> = known.into_iter().flatten().map(FileId::new).collect();
    let calls =
        [(Call::Upload, training.upload_sent_at), (Call::UploadValidation, training.validation_sent_at)];
    for (call, _) in calls.into_iter().filter(|(_, sent_at)| sent_at.is_some()) {
        let (size, _) = services.datasets.stream(training.digest(call)).await?;
        let trainer = services.trainers.get(&training.provider)?;
        files.extend(trainer.find_file(&training.file_name(call), size).await?);
    }
    Ok(files)
}

async fn fenced(services: &Services, lease: &Lease) -> Result<Transaction<'static, Postgres>, JobError> {
    let mut tx = services.db.begin().await?;
    lease.fence(&mut tx).await?;
    Ok(tx)
}

async fn record(
    conn: &mut PgConnection,
    action: &str,
    training: &Training,
    before: Value,
) -> sqlx::Result<()> {
    let event = AuditEvent {
        before: Some(before),
        ..AuditEvent::new(Actor::Worker, action, ("training", training.id))
    };
    audit::record(conn, event).await
}
