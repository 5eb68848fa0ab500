//! A checkpoint that the provider kept becomes a version.

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::ApiState;
use super::super::auth::Principal;
use super::super::extract::Path;
use super::super::idempotency::{self, Begin, Idempotent, RequestKey};
use super::super::problem::{FieldError, Problem};
use super::super::reply::Reply;
use super::super::responses::{Conflict, NotFound};
use super::VersionView;
use crate::runs::{self, Which};
use crate::traffic;

/// The checkpoint to register; one of `checkpoint_id` and `step` says which.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewModelVersion {
    /// The training, which must have finished.
    training_id: Uuid,
    /// The provider's id of the checkpoint; see `/v1/trainings/{id}/checkpoints`.
    #[serde(default)]
    #[schema(example = "ftckpt_zc4Q7MP6XxulcVzj4MZdwsAB")]
    checkpoint_id: Option<String>,
    /// The training step that it was taken at.
    #[serde(default)]
    #[schema(example = 88)]
    step: Option<i64>,
    /// For the audit trail.
    #[schema(min_length = 1, max_length = 1000, example = "the last epoch overfits")]
    reason: String,
}

impl NewModelVersion {
    fn which(&self) -> Result<Which, Problem> {
        match (&self.checkpoint_id, self.step) {
            (Some(id), None) => Ok(Which::Id(id.clone())),
            (None, Some(step)) => Ok(Which::Step(step)),
            (Some(_), Some(_)) => {
                let message =
                    "cannot be given beside checkpoint_id: say in one way which checkpoint is meant";
                Err(Problem::invalid([FieldError::body("/step", message)]))
            }
            (None, None) => {
                let message = "or step is needed, to say which checkpoint is meant";
                Err(Problem::invalid([FieldError::body("/checkpoint_id", message)]))
            }
        }
    }
}

/// Register a checkpoint of a training as a version
///
/// The run registers the model that a training ended with. This registers one that the provider kept on the way: as a candidate,
/// with the next patch version. A checkpoint is registered once; a second request gets 409 with a link to the version.
#[utoipa::path(
    post, path = "/v1/pipelines/{pipeline}/models", tag = "models",
    params(("pipeline" = String, Path), RequestKey), request_body = NewModelVersion,
    responses(
        (status = 201, description = "The new version.", body = VersionView),
        (status = 404, response = NotFound),
        (status = 409, response = Conflict),
    ),
)]
pub(super) async fn register_model_version(
    State(state): State<ApiState>,
    principal: Principal,
    Path(pipeline): Path<String>,
    request: Idempotent<NewModelVersion>,
) -> Result<Reply, Problem> {
    let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
        Begin::Replay(reply) => return Ok(reply),
        Begin::Fresh(tx) => tx,
    };
    let which = request.body.which()?;
    let reason = super::super::required_reason(request.body.reason)?;
    if !traffic::lock(&mut tx, &pipeline).await? {
        return Err(Problem::not_found("pipeline", &pipeline));
    }
    let id = request.body.training_id;
    let unknown = || Problem::not_found("training", format_args!("{id} of {pipeline}"));
    let training = runs::training_by_id(&mut *tx, id).await?.ok_or_else(unknown)?;
    let run = runs::by_id(&mut *tx, training.run_id).await?.ok_or_else(unknown)?;
    if run.pipeline != pipeline {
        return Err(unknown());
    }
    let by = principal.by();
    let version =
        runs::register_checkpoint(&mut tx, &state.clock, &pipeline, &training, which, &reason, &by).await?;
    let location = format!("/v1/pipelines/{pipeline}/models/{}", version.version);
    let view = VersionView::new(version, state.clock.now().date_naive());
    tx.commit(Reply::created(location, view)).await
}
