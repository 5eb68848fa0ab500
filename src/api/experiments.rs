//! `/v1/experiments`: what a test says, so far and in the end.

mod series;

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::ApiState;
use super::extract::{Json, Path, Query};
use super::problem::{FieldError, Place, Problem};
use super::responses::NotFound;
use crate::experiments::decision::{Decision, Evidence, Rules, decide};
use crate::experiments::statistics::planning::{PlanInput, Progress};
use crate::experiments::{self, Epoch, Experiment, ExperimentStatus};
use crate::models;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(get_experiment))
        .routes(routes!(decide_experiment))
        .merge(series::routes())
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
    /// Since when it runs longer than planned, to the horizon above.
    #[serde(skip_serializing_if = "Option::is_none")]
    extended_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<DateTime<Utc>>,
    /// What the decision asks for.
    rules: Rules,
    /// Outcomes and units by arm in each epoch, with its weights; oldest first, watch included. A change of traffic starts an
    /// epoch.
    epochs: Vec<Epoch>,
    /// The power reached and the days left, for the minimum effect or 5 % where that is 0: while the test runs by what is
    /// known now, later the power by what was known at the decision. Absent where no outcomes tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<ProgressView>,
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

/// How far a test has come.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExperimentProgress)]
struct ProgressView {
    /// What is planned for: effect, power, level, split, traffic, and how the primary metric varies.
    input: PlanInput,
    /// The power reached, what the whole test takes, and the days left for it at the present traffic.
    #[serde(flatten)]
    progress: Progress,
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
    // One moment, and nothing is changed.
    let mut tx = conn.begin_with(READ_ONLY).await?;
    let experiment = find(&mut tx, id).await?;
    let stored = experiments::decision_of(&mut *tx, id).await?;
    let epochs = experiments::epochs(&mut tx, &experiment).await?;
    let now = now(&mut tx).await?;
    let standing = |evidence: &Evidence| {
        let at = experiment.ended_at.unwrap_or(now);
        let found = experiments::standing(evidence, &experiment.rules, &epochs, at);
        let running = experiment.status == ExperimentStatus::Running;
        found.map(|(input, progress)| {
            let days_left = progress.days_left.filter(|_| running);
            ProgressView { input, progress: Progress { days_left, ..progress } }
        })
    };
    let (so_far, progress) = match (experiment.status, &stored) {
        (ExperimentStatus::Running, _) => {
            let evidence = experiments::evidence(&mut tx, &experiment, now).await?;
            (Some(decide(&evidence, &experiment.rules)), standing(&evidence))
        }
        (ExperimentStatus::Decided | ExperimentStatus::Aborted, Some(stored)) => {
            (None, standing(&stored.record.evidence))
        }
        (ExperimentStatus::Decided | ExperimentStatus::Aborted, None) => (None, None),
    };
    let baseline = version(&mut tx, experiment.baseline_id).await?;
    let candidate = version(&mut tx, experiment.candidate_id).await?;
    Ok(Json(ExperimentView {
        id,
        pipeline: experiment.pipeline,
        run_id: experiment.run_id,
        baseline,
        candidate,
        status: experiment.status,
        started_at: experiment.started_at,
        horizon_at: experiment.horizon_at,
        extended_at: experiment.extended_at,
        ended_at: experiment.ended_at,
        rules: experiment.rules,
        epochs,
        progress,
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
    // The database itself refuses whatever would be kept of this look.
    let mut tx = conn.begin_with(READ_ONLY).await?;
    let experiment = find(&mut tx, id).await?;
    let now = now(&mut tx).await?;
    let evidence = experiments::evidence(&mut tx, &experiment, now).await?;
    Ok(Json(decide(&evidence, &experiment.rules)))
}

const READ_ONLY: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

async fn find(conn: &mut PgConnection, id: Uuid) -> Result<Experiment, Problem> {
    experiments::by_id(conn, id).await?.ok_or_else(|| Problem::not_found("experiment", id))
}

/// The database's time, by which experiments begin and end.
async fn now(conn: &mut PgConnection) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar!(r#"SELECT now() AS "now!""#).fetch_one(conn).await
}

async fn version(conn: &mut PgConnection, id: Uuid) -> Result<String, Problem> {
    let version = models::by_id(conn, id).await?;
    Ok(version.ok_or_else(|| Problem::not_found("model version", id))?.version.to_string())
}
