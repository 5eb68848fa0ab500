//! Asks providers about the models that serve: whether they are there, and until when. One job per pipeline, which puts itself
//! off until the next check.

mod settle;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::PgPool;

use crate::clock::Clock;
use crate::jobs::{self, Done, Handler, JobError, Lease};
use crate::models::{self, ModelVersion, VersionStatus};
use crate::pipelines::config::WhenGone;
use crate::pipelines::{self, Pipeline};
use crate::telemetry::metrics::Metrics;
use crate::traffic;
use crate::trainers::{ModelState, Trainer, TrainerError, Trainers};

/// The kind of job; its subject is the pipeline.
pub(crate) const KIND: &str = "model_check";
/// The first check waits this long, so that a start of the service is no storm of questions.
const FIRST: Duration = Duration::from_mins(5);
/// A model that is not found is asked about again after this long, and is gone only if it is not found then, either.
const CONFIRM: Duration = Duration::from_mins(1);
/// How soon a provider that gave no answer is asked again.
const AFTER_TROUBLE: Duration = Duration::from_mins(10);

/// Sees to it that the models of a pipeline are checked within the time that its settings say.
pub(crate) async fn schedule(db: &PgPool, pipeline: &Pipeline) -> sqlx::Result<()> {
    let interval = interval(pipeline);
    let planned = sqlx::query_scalar!(
        r#"SELECT (state = 'ready' AND run_at > now() + make_interval(secs => $3)) AS "late!"
             FROM jobs WHERE kind = $1 AND subject = $2 AND state IN ('ready', 'leased')"#,
        KIND,
        pipeline.name,
        interval.as_secs_f64(),
    )
    .fetch_optional(db)
    .await?;
    let mut tx = db.begin().await?;
    match planned {
        Some(false) => return Ok(()),
        // The settings ask for more frequent checks than they did.
        Some(true) => jobs::wake(&mut tx, KIND, &pipeline.name).await?,
        None => {
            jobs::enqueue(&mut tx, KIND, &pipeline.name, &Value::Null, FIRST.min(interval)).await?;
        }
    }
    tx.commit().await
}

fn interval(pipeline: &Pipeline) -> Duration {
    // It was validated when it was saved.
    Duration::try_from_secs_f64(pipeline.config.lifecycle.check_seconds).unwrap_or(Duration::MAX)
}

/// Handles the job.
#[derive(Debug)]
pub(crate) struct ModelCheck {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) trainers: Trainers,
    pub(crate) metrics: Metrics,
}

/// What the provider answered about a version.
#[derive(Debug)]
enum Answer {
    Found(ModelState),
    NotFound,
    /// None, or one that says nothing of the model.
    Nothing,
}

impl Handler for ModelCheck {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn run<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Done, JobError>> {
        async {
            match pipelines::by_name(&self.db, &lease.subject).await? {
                Some(pipeline) => self.check(lease, &pipeline).await,
                None => Ok(Done::Finished),
            }
        }
        .boxed()
    }
}

impl ModelCheck {
    /// Asks, then writes what was answered and what follows from it. Nothing is held while it asks.
    async fn check(&self, lease: &Lease, pipeline: &Pipeline) -> Result<Done, JobError> {
        let name = &pipeline.name;
        let now = sqlx::query_scalar!(r#"SELECT now() AS "now!""#).fetch_one(&self.db).await?;
        let versions = models::serving_or_gone(&self.db, name).await?;
        let answers = lease.keep(&self.db, self.ask(versions)).await?;
        let lost_live = answers
            .iter()
            .any(|(version, answer)| version.status == VersionStatus::Live && is_gone(version, answer, now));
        let fallback = if lost_live && pipeline.config.lifecycle.when_gone == WhenGone::RollBack {
            lease.keep(&self.db, self.first_that_answers(name)).await??
        } else {
            None
        };

        let mut tx = self.db.begin().await?;
        traffic::lock(&mut tx, name).await?;
        let settling = settle::Settling { clock: &self.clock, pipeline, now, fallback };
        let mut rolled_back = false;
        let mut wait = interval(pipeline);
        for (before, answer) in &answers {
            let Some(version) = models::by_id(&mut *tx, before.id).await? else { continue };
            let settled = settling.settle(&mut tx, &version, answer).await?;
            rolled_back |= settled == settle::Settled::RolledBack;
            wait = wait.min(match (settled, answer) {
                (settle::Settled::ToConfirm, _) => CONFIRM,
                (_, Answer::Nothing) => AFTER_TROUBLE,
                _ => wait,
            });
        }
        // After pipeline and run, as everywhere.
        lease.fence(&mut tx).await?;
        lease.reschedule(&mut tx, wait).await?;
        tx.commit().await?;
        if rolled_back {
            self.metrics.rolled_back(name, "model_unavailable");
        }
        Ok(Done::Committed)
    }

    async fn ask(&self, versions: Vec<ModelVersion>) -> Vec<(ModelVersion, Answer)> {
        let mut answers = Vec::with_capacity(versions.len());
        for version in versions {
            let answer = match self.model(&version).await {
                Ok(Some(state)) => Answer::Found(state),
                Ok(None) => Answer::NotFound,
                Err(error) => {
                    tracing::warn!(%error, version = version.name(), "the provider did not say whether it serves the model");
                    Answer::Nothing
                }
            };
            answers.push((version, answer));
        }
        answers
    }

    async fn model(&self, version: &ModelVersion) -> Result<Option<ModelState>, TrainerError> {
        self.trainers.get(&version.provider)?.model(&version.provider_model_id).await
    }

    /// The version that the traffic of a lost one can go to: it was asked, and answered.
    async fn first_that_answers(&self, pipeline: &str) -> sqlx::Result<Option<ModelVersion>> {
        for version in traffic::fallbacks(&self.db, pipeline).await? {
            if matches!(self.model(&version).await, Ok(Some(_))) {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }
}

/// Whether a model that is not found was not found before, long enough ago.
fn is_gone(version: &ModelVersion, answer: &Answer, now: DateTime<Utc>) -> bool {
    let confirm = TimeDelta::from_std(CONFIRM).unwrap_or(TimeDelta::MAX);
    let before = version.availability.missing_since;
    matches!(answer, Answer::NotFound) && before.is_some_and(|since| now - since >= confirm)
}
