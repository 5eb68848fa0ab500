//! The job of a place: one attempt after another, without end. A failure of the place is told and tried again, at first soon
//! and later at a slow interval.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::PgPool;

use super::bring::{self, Brought};
use super::config_map::ConfigMapPlace;
use super::file::FilePlace;
use super::store::{self, PublicationState, Published, Settled};
use super::{PublicationMetrics, PublishError, Reach, deployments, http};
use crate::clock::Clock;
use crate::halt;
use crate::jobs::{self, Done, Handler, JobError, Lease, backoff};
use crate::outbound::Targets;
use crate::pipelines;
use crate::pipelines::config::{
    ConfigMapTarget, HttpTarget, PublicationSettings, PublicationTarget, TargetKind,
};
use crate::traffic::{PUBLISH, publication_subject};

/// After this many failures in a row it is tried at the slow interval.
const ATTEMPTS: i32 = 20;
const SLOW: Duration = Duration::from_mins(10);

/// Sees to it that what is not published has a job. It loses it only where the job could not even write down why it failed.
pub(crate) async fn schedule(db: &PgPool) -> sqlx::Result<()> {
    for (pipeline, target) in store::without_job(db).await? {
        let mut tx = db.begin().await?;
        let subject = publication_subject(&pipeline, &target);
        jobs::enqueue(&mut tx, PUBLISH, &subject, &Value::Null, Duration::ZERO).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Handles the jobs.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) reach: Reach,
    /// The clients that call applications.
    pub(crate) targets: Targets,
    pub(crate) metrics: PublicationMetrics,
}

/// One attempt at one place.
pub(super) struct Attempt<'a> {
    pub(super) db: &'a PgPool,
    pub(super) clock: &'a Clock,
    pub(super) reach: &'a Reach,
    pub(super) targets: &'a Targets,
    pub(super) metrics: &'a PublicationMetrics,
    pub(super) lease: &'a Lease,
    pub(super) settings: &'a PublicationSettings,
    /// As it was when the attempt began.
    pub(super) state: PublicationState,
}

impl Handler for Publication {
    fn kind(&self) -> &'static str {
        PUBLISH
    }

    fn run<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Done, JobError>> {
        async {
            let Some((pipeline, target)) = lease.subject.split_once('/') else { return Ok(Done::Finished) };
            let Some(state) = store::state(&self.db, pipeline, target).await? else {
                return Ok(Done::Finished);
            };
            let Some(pipeline) = pipelines::by_name(&self.db, pipeline).await? else {
                return Ok(Done::Finished);
            };
            let settings = &pipeline.config.publication;
            // Removed meanwhile: the next look finds no state.
            let Some(kind) = settings.target(target).and_then(PublicationTarget::kind) else {
                return Ok(Done::Finished);
            };
            halt::point("publish", "begun");
            let attempt = Attempt {
                db: &self.db,
                clock: &self.clock,
                reach: &self.reach,
                targets: &self.targets,
                metrics: &self.metrics,
                lease,
                settings,
                state,
            };
            let outcome = lease.keep(&self.db, Box::pin(attempt.carry_out(kind))).await?;
            attempt.settle(outcome).await?;
            Ok(Done::Committed)
        }
        .boxed()
    }
}

impl Attempt<'_> {
    async fn carry_out(&self, kind: TargetKind<'_>) -> Result<Settled, PublishError> {
        match kind {
            TargetKind::ConfigMap(target) => self.config_map(target).await,
            TargetKind::File(target) => {
                let place = FilePlace::new(self.reach.directory.as_deref(), target)?;
                let Brought { in_place, recorded, .. } = bring::bring(self, &place).await?;
                Ok(Settled { in_place, recorded, restarted_for: None })
            }
            TargetKind::Http(target) => self.http(target).await,
        }
    }

    async fn config_map(&self, target: &ConfigMapTarget) -> Result<Settled, PublishError> {
        let (kubernetes, pipeline) = (&self.reach.kubernetes, &self.state.pipeline);
        let place = ConfigMapPlace::new(kubernetes, pipeline, target).await?;
        let Brought { payload, in_place, recorded } = bring::bring(self, &place).await?;
        let cause = deployments::cause(target, &payload).filter(|_| in_place);
        let due = cause.filter(|cause| Some(cause) != self.state.restarted_for.as_ref());
        if let Some(cause) = &due {
            self.lease.check_deadline()?;
            halt::point("publish", "restarting");
            deployments::restart(kubernetes, pipeline, target, cause).await?;
        }
        Ok(Settled { in_place, recorded, restarted_for: due })
    }

    /// What the application has accepted cannot be read: it is sent once for each revision, and when somebody asks.
    async fn http(&self, target: &HttpTarget) -> Result<Settled, PublishError> {
        let state = &self.state;
        let payload = bring::newest(self.db, &state.pipeline).await?;
        let digest = payload.alone().digest();
        let sent =
            state.published_revision == Some(payload.revision) && state.digest.as_ref() == Some(&digest);
        let due = !sent || state.answered < state.requests;
        if due {
            let (pipeline, name, revision) = (&state.pipeline, &state.target, payload.revision);
            let id = format!("{pipeline}.{name}.{revision}.{}", state.requests);
            self.lease.check_deadline()?;
            halt::point("publish", "writing");
            http::send(self.reach, self.targets, self.clock, target, &id, &payload).await?;
            halt::point("publish", "written");
            let published = Published { revision: payload.revision, digest: &digest, corrected: None };
            self.record(&published).await?;
        }
        Ok(Settled { in_place: true, recorded: due, restarted_for: None })
    }

    /// Records that what was written stands there.
    pub(super) async fn record(&self, published: &Published<'_>) -> Result<(), PublishError> {
        let state = &self.state;
        let mut tx = self.db.begin().await?;
        let seconds = store::published(&mut tx, state, published).await?;
        self.lease.fence(&mut tx).await?;
        tx.commit().await?;
        if state.published_revision != Some(published.revision) {
            self.metrics.published(&state.pipeline, &state.target, seconds);
        }
        tracing::info!(revision = published.revision, place = state.place, seconds, "published");
        Ok(())
    }

    /// Ends the attempt and says when the next one is.
    async fn settle(&self, outcome: Result<Settled, PublishError>) -> Result<(), JobError> {
        let settled = match outcome {
            Ok(settled) => settled,
            Err(PublishError::Failed { message, retry_after }) => {
                return self.fail(message, retry_after).await;
            }
            Err(PublishError::Overtaken) => return Err(JobError::Superseded),
            Err(PublishError::Job(error)) => return Err(error),
        };
        let mut tx = self.db.begin().await?;
        store::settled(&mut tx, &self.state, &settled).await?;
        if self.state.kind == "http" {
            // Nothing can be looked at until there is something new to send.
            self.lease.finish(&mut tx).await?;
        } else {
            let interval = Duration::from_secs_f64(self.settings.check_seconds);
            self.lease.reschedule(&mut tx, interval).await?;
        }
        halt::point("publish", "committing");
        tx.commit().await?;
        Ok(())
    }

    /// Not a failure of this service: told, and tried again, for as long as the configuration asks for it.
    async fn fail(&self, message: String, retry_after: Option<Duration>) -> Result<(), JobError> {
        let state = &self.state;
        let failures = state.failures + 1;
        let (wait, message) = if failures <= ATTEMPTS {
            let attempt = u32::try_from(failures).unwrap_or(1);
            (backoff::delay(attempt, retry_after, self.clock), message)
        } else {
            let told = format!(
                "{message}; after {ATTEMPTS} attempts it is tried every {} minutes, at the next revision, and when asked for",
                SLOW.as_secs() / 60
            );
            (SLOW, told)
        };
        let mut tx = self.db.begin().await?;
        store::failed(&mut tx, state, &message).await?;
        self.lease.reschedule(&mut tx, wait).await?;
        tx.commit().await?;
        self.metrics.failed(&state.pipeline, &state.target);
        tracing::warn!(error = message, place = state.place, failures, ?wait, "could not be published");
        Ok(())
    }
}
