//! What the domain refuses, as problems: the one place where its errors get a status and a type.

use axum::http::StatusCode;

use super::problem::{FieldError, Problem};
use crate::dataset::SourceError;
use crate::models::Version;
use crate::pipelines::NotSaved;
use crate::runs::{CheckpointError, RequestError, TriggerError};
use crate::traffic::TrafficError;

/// 409 because another run is in the way, with a link to it.
fn run_active(run: uuid::Uuid, error: &impl std::fmt::Display) -> Problem {
    Problem::conflict("run-active", "Another run is in the way")
        .detail(error)
        .link("run", format_args!("/v1/runs/{run}"))
}

impl From<TriggerError> for Problem {
    fn from(error: TriggerError) -> Self {
        match error {
            TriggerError::RunActive(run) => run_active(run, &error),
            TriggerError::Database(error) => error.into(),
        }
    }
}

impl From<CheckpointError> for Problem {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Unknown { .. } => {
                let title = "There is no such checkpoint";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown-checkpoint", title).detail(&error)
            }
            CheckpointError::Training => {
                Self::conflict("training-not-finished", "The training's state does not allow this")
                    .detail(&error)
            }
            CheckpointError::Registered { ref pipeline, version } => {
                Self::conflict("model-registered", "The model is a version already")
                    .detail(&error)
                    .link("version", format_args!("/v1/pipelines/{pipeline}/models/{version}"))
            }
            CheckpointError::Database(error) => error.into(),
        }
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        let conflict = |slug| Self::conflict(slug, "The run's state does not allow this").detail(&error);
        match error {
            RequestError::Unknown(id) => Self::not_found("run", id),
            RequestError::Finished(_) => conflict("run-finished"),
            RequestError::Promoted => conflict("run-promoted"),
            RequestError::NotWaiting(_) => conflict("run-not-waiting"),
            RequestError::ReasonNeeded => Self::invalid([FieldError::body("/reason", &error)]),
            RequestError::Requested(_) => conflict("run-requested"),
            RequestError::NotFailed(_) => conflict("run-not-failed"),
            RequestError::Overtaken => conflict("run-overtaken"),
            RequestError::RunActive(run) => run_active(run, &error),
            RequestError::Database(error) => error.into(),
        }
    }
}

impl From<NotSaved> for Problem {
    fn from(error: NotSaved) -> Self {
        match error {
            NotSaved::Name => {
                Self::invalid([FieldError::new(super::problem::Place::Path, "pipeline", &error)])
            }
            NotSaved::Faults(faults) => {
                Self::invalid(faults.into_iter().map(|(field, message)| FieldError::body(field, message)))
            }
            NotSaved::Database(error) => error.into(),
        }
    }
}

impl From<SourceError> for Problem {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Unusable(faults) => Self::invalid(
                faults.into_iter().map(|(field, fault)| FieldError::body(format!("/dataset{field}"), fault)),
            ),
            SourceError::Unreachable { .. } => {
                Self::invalid([FieldError::body("/dataset/source/url_env", error)])
            }
            SourceError::Database(error) => error.into(),
        }
    }
}

/// 422 because the body names a version that there is not, in this field.
pub(super) fn unknown_version(version: Version, field: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown-version", "There is no such version")
        .detail(TrafficError::UnknownVersion(version))
        .error(FieldError::body(field, format_args!("names {version}, which does not exist")))
}

impl From<TrafficError> for Problem {
    fn from(error: TrafficError) -> Self {
        let conflict = |slug| Self::conflict(slug, "The traffic cannot be changed like that").detail(&error);
        match error {
            TrafficError::Sum(_) | TrafficError::Weight { .. } => {
                Self::invalid([FieldError::body("/weights", &error)])
            }
            TrafficError::UnknownVersion(version) => unknown_version(version, "/version"),
            TrafficError::CannotServe { .. } => conflict("cannot-serve"),
            TrafficError::NotACandidate { .. } => conflict("not-a-candidate"),
            TrafficError::LiveMissing(_) => conflict("live-missing"),
            TrafficError::NothingToRollBackTo => conflict("nothing-to-roll-back-to"),
            TrafficError::AlreadyLive(_) => conflict("already-live"),
            TrafficError::TooManyPins => conflict("too-many-pins"),
            TrafficError::NeverLive(_) => conflict("never-live"),
            TrafficError::Database(error) => error.into(),
        }
    }
}
