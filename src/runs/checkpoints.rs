//! Another model of a training: a checkpoint that the provider kept becomes a version.

use std::fmt;

use serde_json::json;
use sqlx::PgConnection;
use thiserror::Error;

use super::progress::{self, StoredCheckpoint};
use super::trainings::Training;
use crate::audit::By;
use crate::clock::Clock;
use crate::models::{self, ModelVersion, NewVersion, Version, VersionStatus};
use crate::traffic;

/// Which checkpoint of a training is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one with this id of the provider's.
    Id(String),
    /// The one that was taken at this step.
    Step(i64),
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "checkpoint {id}"),
            Self::Step(step) => write!(f, "checkpoint of step {step}"),
        }
    }
}

/// Why a checkpoint was not registered. Nothing was changed.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The provider kept none such, or has not told of it.
    #[error("the training has no {which}; it has those of the steps {steps:?}")]
    Unknown {
        /// What was asked for.
        which: Which,
        /// The steps at which there are checkpoints.
        steps: Vec<i64>,
    },
    /// The training still goes on, or its end was not seen yet.
    #[error("the training has not finished; wait for it: its own model is registered by its run")]
    Training,
    /// It is a version already.
    #[error("the model of this checkpoint is {pipeline}@{version} already")]
    Registered {
        /// The pipeline.
        pipeline: String,
        /// The version.
        version: Version,
    },
    /// The database did not answer as it should.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Registers a checkpoint of a training of the pipeline as a candidate, once. The caller holds the pipeline's lock.
pub async fn register_checkpoint(
    conn: &mut PgConnection,
    clock: &Clock,
    pipeline: &str,
    training: &Training,
    which: Which,
    reason: &str,
    by: &By,
) -> Result<ModelVersion, CheckpointError> {
    if training.finished_at.is_none() {
        return Err(CheckpointError::Training);
    }
    let checkpoint = find(conn, training, which).await?;
    let mut known = models::of_checkpoint(&mut *conn, training.id, &checkpoint.id).await?;
    if known.is_none() {
        // The last checkpoint of a job is often the model that it ended with.
        known = models::of_model(&mut *conn, pipeline, &checkpoint.model_id).await?;
    }
    if let Some(known) = known {
        return Err(CheckpointError::Registered { pipeline: known.pipeline, version: known.version });
    }
    let live = traffic::current(&mut *conn, pipeline).await?.ok_or(sqlx::Error::RowNotFound)?;
    let earlier = models::made(&mut *conn, pipeline).await?;
    let recipe = models::recipe_of(&mut *conn, training.id).await?;
    let point = checkpoint.point;
    let version = NewVersion {
        id: clock.uuid(),
        pipeline,
        version: Version::next(&earlier, training.id, &recipe),
        status: VersionStatus::Candidate,
        provider: &training.provider,
        provider_model_id: &checkpoint.model_id,
        base_model: &training.base_model,
        run_id: Some(training.run_id),
        training_id: Some(training.id),
        checkpoint_id: Some(&checkpoint.id),
        dataset_digest: Some(&training.dataset_digest),
        parent_id: Some(live.live_version_id),
        metrics: json!({
            "final_loss": point.train_loss, "validation_loss": point.full_valid_loss.or(point.valid_loss),
            "step": point.step, "hyperparameters": training.hyperparameters,
        }),
    };
    models::register(conn, &version, Some(reason), by).await?;
    Ok(models::by_id(conn, version.id).await?.ok_or(sqlx::Error::RowNotFound)?)
}

async fn find(
    conn: &mut PgConnection,
    training: &Training,
    which: Which,
) -> Result<StoredCheckpoint, CheckpointError> {
    let mut kept = progress::checkpoints_of(&mut *conn, training.id).await?;
    let wanted = kept.iter().position(|checkpoint| match &which {
        Which::Id(id) => checkpoint.id == *id,
        Which::Step(step) => checkpoint.point.step == *step,
    });
    let Some(at) = wanted else {
        let steps = kept.iter().map(|checkpoint| checkpoint.point.step).collect();
        return Err(CheckpointError::Unknown { which, steps });
    };
    Ok(kept.swap_remove(at))
}
