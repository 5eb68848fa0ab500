//! `/v1/experiments`: what a test says, so far and in the end.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::ApiState;
use super::extract::{Json, Path, Query};
use super::problem::{FieldError, Place, Problem};
use super::responses::NotFound;
use crate::experiments::decision::{Decision, Rules, decide};
use crate::experiments::{self, Experiment, ExperimentStatus};
use crate::models;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(get_experiment)).routes(routes!(decide_experiment))
}

/// The A/B test of a run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Experiment)]
struct ExperimentView {
    /// Its identifier.
    id: Uuid,
    /// The pipeline.
    #[schema(example = "hook")]
    pipeline: String,
    /// The run it belongs to.
    run_id: Uuid,
    /// The version that was live when it began.
    #[schema(example = "1.3.0")]
    baseline: String,
    /// The version under test.
    #[schema(example = "1.4.0")]
    candidate: String,
    /// Where it stands.
    status: ExperimentStatus,
    /// When it began.
    started_at: DateTime<Utc>,
    /// When it is decided.
    horizon_at: DateTime<Utc>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<DateTime<Utc>>,
    /// What the decision asks for.
    rules: Rules,
    /// The decision as it was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Decision>,
    /// SHA-256 of the stored decision record.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_digest: Option<String>,
    /// What the outcomes received so far say; while the test runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    so_far: Option<Decision>,
}

/// Show an experiment
#[utoipa::path(
    get, path = "/v1/experiments/{id}", tag = "experiments", params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "The experiment.", body = ExperimentView),
        (status = 404, response = NotFound),
    ),
)]
async fn get_experiment(
    State(state): State<ApiState>,
    Path(id): Path<Uuid>,
) -> Result<Json<ExperimentView>, Problem> {
    let mut conn = state.db.acquire().await?;
    let experiment = find(&mut conn, id).await?;
    let stored = experiments::decision_of(&mut *conn, id).await?;
    let so_far = match experiment.status {
        ExperimentStatus::Running => Some(judge(&mut conn, &experiment).await?),
        ExperimentStatus::Decided | ExperimentStatus::Aborted => None,
    };
    let baseline = version(&mut conn, experiment.baseline_id).await?;
    let candidate = version(&mut conn, experiment.candidate_id).await?;
    Ok(Json(ExperimentView {
        id,
        pipeline: experiment.pipeline,
        run_id: experiment.run_id,
        baseline,
        candidate,
        status: experiment.status,
        started_at: experiment.started_at,
        horizon_at: experiment.horizon_at,
        ended_at: experiment.ended_at,
        rules: experiment.rules,
        decision_digest: stored.as_ref().map(|stored| stored.digest.clone()),
        decision: stored.map(|stored| stored.record.decision),
        so_far,
    }))
}

/// How to decide.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DecideQuery {
    /// Must be `true`: the decision itself falls at the horizon and is taken by the run.
    dry_run: bool,
}

/// Show what an experiment would be decided to be now, changing nothing
#[utoipa::path(
    post, path = "/v1/experiments/{id}/decide", tag = "experiments", params(("id" = Uuid, Path), DecideQuery),
    responses(
        (status = 200, description = "What it says now.", body = Decision),
        (status = 404, response = NotFound),
    ),
)]
async fn decide_experiment(
    State(state): State<ApiState>,
    Path(id): Path<Uuid>,
    Query(query): Query<DecideQuery>,
) -> Result<Json<Decision>, Problem> {
    if !query.dry_run {
        let message = "must be true: the decision falls at the horizon and is taken by the run";
        return Err(Problem::invalid([FieldError::new(Place::Query, "dry_run", message)]));
    }
    let mut conn = state.db.acquire().await?;
    let experiment = find(&mut conn, id).await?;
    Ok(Json(judge(&mut conn, &experiment).await?))
}

async fn find(conn: &mut PgConnection, id: Uuid) -> Result<Experiment, Problem> {
    experiments::by_id(conn, id).await?.ok_or_else(|| Problem::not_found("experiment", id))
}

/// What the outcomes say at this moment, by the database's clock.
async fn judge(conn: &mut PgConnection, experiment: &Experiment) -> Result<Decision, Problem> {
    let now = sqlx::query_scalar!(r#"SELECT now() AS "now!""#).fetch_one(&mut *conn).await?;
    let evidence = experiments::evidence(conn, experiment, now).await?;
    Ok(decide(&evidence, &experiment.rules))
}

async fn version(conn: &mut PgConnection, id: Uuid) -> Result<String, Problem> {
    let version = models::by_id(conn, id).await?;
    Ok(version.ok_or_else(|| Problem::not_found("model version", id))?.version.to_string())
}
