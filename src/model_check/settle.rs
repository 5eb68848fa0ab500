//! What follows from a provider's answer about a version.

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::json;
use sqlx::PgConnection;

use super::{Answer, is_gone};
use crate::audit::{self, AuditEvent, By};
use crate::clock::Clock;
use crate::jobs::JobError;
use crate::models::{self, ModelVersion, VersionStatus, availability};
use crate::pipelines::Pipeline;
use crate::pipelines::config::WhenGone;
use crate::runs::{self, Loss, TriggerError};
use crate::traffic;

/// What settling an answer has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// Nothing to come back to before the next check.
    Done,
    /// To be asked again soon.
    ToConfirm,
    /// The live version was replaced.
    RolledBack,
}

/// One check of a pipeline; the pipeline's lock is held.
pub(super) struct Settling<'a> {
    pub(super) clock: &'a Clock,
    pub(super) pipeline: &'a Pipeline,
    /// When the check began.
    pub(super) now: DateTime<Utc>,
    /// The version that a lost live one is replaced by.
    pub(super) fallback: Option<ModelVersion>,
}

impl Settling<'_> {
    pub(super) async fn settle(
        &self,
        conn: &mut PgConnection,
        version: &ModelVersion,
        answer: &Answer,
    ) -> Result<Settled, JobError> {
        match answer {
            Answer::Found(state) => {
                availability::found(conn, version.id, state.shutdown_date).await?;
                if version.availability.gone_at.is_some() {
                    self.back(conn, version).await?;
                }
                // As it is now: warnings that were about another date are due again.
                let version = reread(conn, version).await?;
                if let Some(date) = state.shutdown_date {
                    self.warn(conn, &version, date).await?;
                }
                Ok(Settled::Done)
            }
            Answer::Nothing => {
                availability::unanswered(conn, version.id).await?;
                Ok(Settled::Done)
            }
            Answer::NotFound if is_gone(version, answer, self.now) => {
                availability::not_found(conn, version.id).await?;
                self.gone(conn, version).await
            }
            Answer::NotFound => {
                availability::not_found(conn, version.id).await?;
                Ok(Settled::ToConfirm)
            }
        }
    }

    /// Announces that the model is about to end, and starts the run that is to follow it.
    async fn warn(
        &self,
        conn: &mut PgConnection,
        version: &ModelVersion,
        date: NaiveDate,
    ) -> Result<(), JobError> {
        let left = availability::days_left(date, self.now.date_naive());
        let warned = version.availability.warned_days;
        let due = availability::warning_due(left, warned);
        if let Some(days) = due {
            availability::warned(conn, version.id, days).await?;
            let reason = format!(
                "the provider shuts {} down on {date}: make another version live before, and set training.base_model \
                 to its successor if {} is trained on it",
                version.provider_model_id, self.pipeline.name
            );
            let after = json!({"shutdown_date": date, "days_left": left, "threshold": days});
            self.record(conn, "model.end_of_life", version, after, &reason).await?;
        }
        if due.or(warned).is_some() {
            self.follow(conn, version).await?;
        }
        Ok(())
    }

    /// Starts a run on the configured successor, once for a version, and only for the one that most depends on it.
    async fn follow(&self, conn: &mut PgConnection, version: &ModelVersion) -> Result<(), JobError> {
        let Some(successor) = &self.pipeline.config.lifecycle.successor_model else { return Ok(()) };
        let ends_with_it = version.base_model == *successor || version.provider_model_id == *successor;
        let is_live = version.status == VersionStatus::Live;
        if !is_live || ends_with_it || version.availability.successor_run_id.is_some() {
            return Ok(());
        }
        match runs::by_end_of_life(conn, self.clock, self.pipeline, successor, &By::worker()).await {
            Ok(run) => Ok(availability::followed_by(conn, version.id, run).await?),
            Err(TriggerError::RunActive(other)) => {
                tracing::info!(
                    version = version.name(), %other, "another run is being built; the run on the successor model is \
                     started at a later check"
                );
                Ok(())
            }
            Err(TriggerError::Database(error)) => Err(error.into()),
        }
    }

    /// A model that is gone serves nobody: its version becomes `unavailable`, and its traffic goes elsewhere. Only a live version
    /// that nothing can or may replace stays what it is, so that a pipeline always has one.
    async fn gone(&self, conn: &mut PgConnection, version: &ModelVersion) -> Result<Settled, JobError> {
        let known = version.availability.gone_at.is_some();
        let by = By::worker();
        let name = &self.pipeline.name;
        let lost = format!(
            "the provider no longer knows {}, the model of {}",
            version.provider_model_id,
            version.name()
        );
        if !known {
            availability::gone(conn, version.id).await?;
        }
        let (settled, reason) = match version.status {
            VersionStatus::Unavailable => return Ok(Settled::Done),
            VersionStatus::Live => match self.replacement(conn).await? {
                Ok(fallback) => {
                    let reason = format!("{lost}; {} still answers", fallback.name());
                    runs::yield_to_loss(conn, name, Loss::Live, &reason, &by).await?;
                    traffic::replace_lost(conn, name, &fallback, &reason, &by).await?;
                    tracing::error!(pipeline = name, reason, "rolled back");
                    (Settled::RolledBack, reason)
                }
                Err(why) => {
                    let reason = format!("{lost}; it stays live, because {why}");
                    tracing::error!(pipeline = name, reason, "the live model is gone");
                    // Where it may be replaced, it is as soon as another one answers.
                    let settled = match self.pipeline.config.lifecycle.when_gone {
                        WhenGone::RollBack => Settled::ToConfirm,
                        WhenGone::Nothing => Settled::Done,
                    };
                    if known {
                        return Ok(settled);
                    }
                    (settled, reason)
                }
            },
            VersionStatus::Testing => {
                runs::yield_to_loss(conn, name, Loss::Candidate, &lost, &by).await?;
                traffic::drop_share(conn, name, version.id, &lost, &by).await?;
                models::set_status(conn, version.id, VersionStatus::Unavailable, &lost, &by).await?;
                (Settled::Done, lost)
            }
            _ => {
                traffic::drop_share(conn, name, version.id, &lost, &by).await?;
                models::set_status(conn, version.id, VersionStatus::Unavailable, &lost, &by).await?;
                (Settled::Done, lost)
            }
        };
        let status = reread(conn, version).await?.status;
        let after = json!({"status": status, "model_id": version.provider_model_id});
        self.record(conn, "model.unavailable", version, after, &reason).await?;
        Ok(settled)
    }

    /// The version that takes the place of the live one, or why none does.
    async fn replacement(&self, conn: &mut PgConnection) -> sqlx::Result<Result<ModelVersion, &'static str>> {
        if self.pipeline.config.lifecycle.when_gone == WhenGone::Nothing {
            return Ok(Err(
                "lifecycle.when_gone says so: promote another version, or roll the pipeline back",
            ));
        }
        let Some(fallback) = &self.fallback else {
            return Ok(Err(
                "no version that was live before was found to answer: promote one whose model does",
            ));
        };
        // It may have changed while it was asked.
        let fresh = models::by_id(conn, fallback.id).await?;
        let fits = |version: &ModelVersion| {
            matches!(version.status, VersionStatus::HoldBack | VersionStatus::Retired)
        };
        Ok(fresh.filter(fits).ok_or("the version that would replace it changed meanwhile; it is tried again"))
    }

    /// A model that was gone answers again. Its version is what it was, but gets no traffic by that.
    async fn back(&self, conn: &mut PgConnection, version: &ModelVersion) -> Result<(), JobError> {
        let again = format!("the provider knows {} again", version.provider_model_id);
        let status = availability::restore(conn, version, &again, &By::worker()).await?;
        let reason = format!("{again}; {} is {status}", version.name());
        let after = json!({"status": status, "model_id": version.provider_model_id});
        self.record(conn, "model.available", version, after, &reason).await?;
        Ok(())
    }

    async fn record(
        &self,
        conn: &mut PgConnection,
        action: &str,
        version: &ModelVersion,
        after: serde_json::Value,
        reason: &str,
    ) -> sqlx::Result<()> {
        let by = By::worker();
        let event = AuditEvent {
            pipeline: Some(&self.pipeline.name),
            after: Some(after),
            reason: Some(reason),
            ..by.event(action, ("model_version", version.name()))
        };
        audit::record(conn, event).await
    }
}

async fn reread(conn: &mut PgConnection, version: &ModelVersion) -> sqlx::Result<ModelVersion> {
    models::by_id(conn, version.id).await?.ok_or(sqlx::Error::RowNotFound)
}
