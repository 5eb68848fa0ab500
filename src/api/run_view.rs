//! A run as the API shows it: with its steps, dataset, training, version, experiment and decision.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::training_view::TrainingView;
use crate::dataset::{CleaningCounts, Counts, Parts};
use crate::evaluation::{self, Usage};
use crate::experiments;
use crate::experiments::decision::Decision;
use crate::models;
use crate::preflight::ExpectedCost;
use crate::runs::{self, Request, Run, RunStatus, Step, Trigger};

/// A run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Run)]
pub(super) struct RunView {
    /// Its identifier.
    pub(super) id: Uuid,
    /// The pipeline it works for.
    #[schema(example = "hook")]
    pipeline: String,
    /// The configuration version it was started with.
    config_version: i32,
    /// What started it.
    trigger: Trigger,
    /// What it trains, where that is another base model than its configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    base_model: Option<String>,
    /// The scheduled time, where the schedule did.
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<DateTime<Utc>>,
    /// Where it stands.
    status: RunStatus,
    /// The step it is in, or ended in.
    step: Step,
    /// Why it waits or how it ended, for machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "insufficient_training_data")]
    reason_code: Option<String>,
    /// The same in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What a person asked for and was not carried out yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Request>,
    /// The steps it has entered, in their order.
    steps: Vec<StepView>,
    /// What it trains on.
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset: Option<DatasetView>,
    /// Its paid job at the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    training: Option<TrainingView>,
    /// What it is expected to cost, and what it cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<CostView>,
    /// The model version it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "1.4.0")]
    version: Option<String>,
    /// Its test.
    #[serde(skip_serializing_if = "Option::is_none")]
    experiment_id: Option<Uuid>,
    /// What its test said.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Decision>,
    /// When it was inserted.
    created_at: DateTime<Utc>,
    /// When its first step began.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<DateTime<Utc>>,
}

/// The passage through one step.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunStep)]
struct StepView {
    /// The step.
    step: Step,
    /// When it was entered.
    started_at: DateTime<Utc>,
    /// When it was left.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<DateTime<Utc>>,
    /// Errors met so far.
    retries: i32,
}

/// What a run trains on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunDataset)]
struct DatasetView {
    /// SHA-256 of the JSONL that is trained on; see `/v1/datasets/{digest}`.
    digest: String,
    /// Examples in all parts.
    examples: u64,
    /// Length of the JSONL that is trained on.
    bytes: u64,
    /// Posts looked at and why some were left out.
    counts: Counts,
    /// What cleaning did.
    cleaning: CleaningCounts,
    /// The files: what is trained on, and what is set aside to validate with.
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<Parts>,
    /// What a person should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// What a run costs: all its trainings together. The whole preflight report is at `/v1/runs/{id}/preflight`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunCost)]
struct CostView {
    /// What preflight expected.
    expected: ExpectedCost,
    /// What the provider bills for, as far as it has told the tokens; absent while it has not, or without a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    actual: Option<f64>,
    /// Tokens that are billed, as far as told.
    trained_tokens: i64,
    /// What its evaluation asked of models and judges, which is neither expected nor in `actual`.
    #[schema(max_items = 100)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    evaluation: Vec<Usage>,
}

async fn cost(conn: &mut PgConnection, run: &Run) -> sqlx::Result<Option<CostView>> {
    let Some(Json(report)) = &run.preflight else { return Ok(None) };
    let billed = sqlx::query!(
        r#"SELECT sum(cost)::double precision AS actual, coalesce(sum(trained_tokens), 0)::bigint AS "tokens!"
             FROM trainings WHERE run_id = $1"#,
        run.id,
    )
    .fetch_one(&mut *conn)
    .await?;
    let (expected, actual) = (report.cost.clone(), billed.actual);
    let evaluation = evaluation::usage(conn, run.id).await?;
    Ok(Some(CostView { expected, actual, trained_tokens: billed.tokens, evaluation }))
}

/// The run with everything that belongs to it.
pub(super) async fn view(conn: &mut PgConnection, run: Run) -> sqlx::Result<RunView> {
    let steps = runs::steps_of(&mut *conn, run.id).await?;
    let cost = cost(conn, &run).await?;
    let dataset = run.dataset_digest.zip(run.collected).map(|(digest, Json(collected))| DatasetView {
        digest,
        examples: collected.counts.examples,
        bytes: collected.bytes,
        counts: collected.counts,
        cleaning: collected.cleaning,
        parts: collected.parts,
        warnings: collected.warnings,
    });
    let training = match run.training_id {
        Some(id) => runs::training_by_id(&mut *conn, id).await?,
        None => None,
    };
    let version = match run.model_version_id {
        Some(id) => models::by_id(&mut *conn, id).await?,
        None => None,
    };
    let decision = match run.experiment_id {
        Some(id) => experiments::decision_of(&mut *conn, id).await?,
        None => None,
    };
    Ok(RunView {
        id: run.id,
        pipeline: run.pipeline,
        config_version: run.config_version,
        trigger: run.trigger,
        base_model: run.base_model,
        slot: run.slot,
        status: run.status,
        step: run.step,
        reason_code: run.reason_code,
        reason: run.reason,
        request: run.request,
        steps: steps
            .into_iter()
            .map(|step| StepView {
                step: step.step,
                started_at: step.started_at,
                finished_at: step.finished_at,
                retries: step.retries,
            })
            .collect(),
        dataset,
        training: training.map(TrainingView::from),
        cost,
        version: version.map(|version| version.version.to_string()),
        experiment_id: run.experiment_id,
        decision: decision.map(|stored| stored.record.decision),
        created_at: run.created_at,
        started_at: run.started_at,
        finished_at: run.finished_at,
    })
}
