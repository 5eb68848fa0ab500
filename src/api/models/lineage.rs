//! A model version with all that is known of it: what it was made of, what its test said, what it cost, when it served.

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::VersionView;
use crate::dataset;
use crate::evaluation::{self, Usage};
use crate::experiments::decision::{ReasonCode, Verdict};
use crate::experiments::statistics::Estimate;
use crate::experiments::{self, ExperimentStatus};
use crate::models::{self, ModelVersion, VersionStatus};
use crate::runs::{self, RunStatus, Training, Trigger};
use crate::trainers::Hyperparameters;

/// A model version with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelVersionDetail)]
pub(super) struct VersionDetail {
    #[serde(flatten)]
    version: VersionView,
    /// What it was made of.
    lineage: LineageView,
    /// Its latest test; absent where it was never tested.
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<TestView>,
    /// What it cost; absent where nobody here trained it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<CostView>,
    /// Whether it was ever promoted although a safety check had failed.
    forced: bool,
    /// When it came to where it is.
    times: TimesView,
}

/// What a version was made of.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelLineage)]
struct LineageView {
    /// The run that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<OriginView>,
    /// What it was trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset: Option<TrainedOnView>,
    /// The version that was live when it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<ParentView>,
    /// How it was trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    training: Option<TrainedView>,
}

/// The run that made a version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelRun)]
struct OriginView {
    id: Uuid,
    trigger: Trigger,
    status: RunStatus,
    /// The configuration version it was started with.
    config_version: i32,
}

/// What a version was trained on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelDataset)]
struct TrainedOnView {
    /// SHA-256; see `/v1/datasets/{digest}`.
    digest: String,
    /// Its lines.
    examples: i64,
}

/// The version that was live when another was made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelParent)]
struct ParentView {
    #[schema(example = "1.3.0")]
    version: String,
    model_id: String,
    /// Where it stands now.
    status: VersionStatus,
}

/// How a version was trained.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelTraining)]
struct TrainedView {
    id: Uuid,
    #[schema(example = "openai")]
    provider: String,
    /// The provider's id of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
    /// The checkpoint that it is; absent for the model that the job ended with.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<CheckpointView>,
    base_model: String,
    /// `supervised` or `preference`.
    #[schema(example = "supervised")]
    method: String,
    /// What was asked for; the provider chose the rest.
    hyperparameters: Hyperparameters,
    /// The seed that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    /// What the provider says that it trained with, what it chose by itself included; absent where it has not said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_use: Option<InUse>,
    /// How examples were made of posts: the pipeline's own templates, or the name of the built-in one.
    prompt: Value,
    /// Tokens that were billed.
    #[serde(skip_serializing_if = "Option::is_none")]
    trained_tokens: Option<i64>,
    created_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<DateTime<Utc>>,
}

/// What a provider trains with.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = TrainingInUse)]
struct InUse {
    hyperparameters: Hyperparameters,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
}

/// A checkpoint of a training.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelCheckpoint)]
struct CheckpointView {
    /// The provider's id.
    id: String,
    /// The training step it was taken at.
    step: i64,
}

/// What a version's test said.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelTest)]
struct TestView {
    /// See `/v1/experiments/{id}`.
    experiment_id: Uuid,
    status: ExperimentStatus,
    /// What it was tested against.
    #[schema(example = "1.3.0")]
    baseline: String,
    started_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<DateTime<Utc>>,
    /// What was decided, once it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<DecidedView>,
}

/// A decision in short; the whole of it is shown with the experiment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelDecision)]
struct DecidedView {
    id: Uuid,
    verdict: Verdict,
    reason_code: ReasonCode,
    reason: String,
    /// The effect on the primary metric with its interval, where there was one to estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    estimate: Option<Estimate>,
    /// SHA-256 of the stored decision record.
    digest: String,
    decided_at: DateTime<Utc>,
}

/// What a version cost.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelCost)]
struct CostView {
    /// Its training, which it may share with its checkpoints; absent while the billed tokens are unknown, or without a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    training: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "USD")]
    currency: Option<String>,
    /// What the evaluation of its run asked of models and judges.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100)]
    evaluation: Vec<Usage>,
}

/// When a version came to where it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelTimes)]
#[expect(clippy::struct_field_names, reason = "fields of the API, called as times are everywhere")]
struct TimesView {
    /// When it was registered.
    created_at: DateTime<Utc>,
    /// When its first test began.
    #[serde(skip_serializing_if = "Option::is_none")]
    tested_at: Option<DateTime<Utc>>,
    /// When it first became live.
    #[serde(skip_serializing_if = "Option::is_none")]
    promoted_at: Option<DateTime<Utc>>,
    /// When it last stopped serving, for one that was live and serves nothing now.
    #[serde(skip_serializing_if = "Option::is_none")]
    retired_at: Option<DateTime<Utc>>,
}

/// The version with everything that belongs to it.
pub(super) async fn detail(
    conn: &mut PgConnection,
    version: ModelVersion,
    today: NaiveDate,
) -> sqlx::Result<VersionDetail> {
    let training = match version.training_id {
        Some(id) => runs::training_by_id(&mut *conn, id).await?,
        None => None,
    };
    let evaluation = match version.run_id {
        Some(run) => evaluation::usage(&mut *conn, run).await?,
        None => Vec::new(),
    };
    let cost = training.as_ref().map(|training| CostView {
        training: training.cost,
        currency: training.currency.clone(),
        evaluation,
    });
    let (times, forced) = times(conn, &version).await?;
    Ok(VersionDetail {
        lineage: lineage(conn, &version, training).await?,
        test: test(conn, version.id).await?,
        cost,
        forced,
        times,
        version: VersionView::new(version, today),
    })
}

async fn lineage(
    conn: &mut PgConnection,
    version: &ModelVersion,
    training: Option<Training>,
) -> sqlx::Result<LineageView> {
    let run = match version.run_id {
        Some(id) => runs::by_id(&mut *conn, id).await?,
        None => None,
    };
    let dataset = match &version.dataset_digest {
        Some(digest) => dataset::by_digest(&mut *conn, digest).await?.map(|known| (digest.clone(), known)),
        None => None,
    };
    let parent = match version.parent {
        Some(parent) => models::by_version(&mut *conn, &version.pipeline, parent).await?,
        None => None,
    };
    let training = match training {
        Some(training) => Some(trained(conn, version, training).await?),
        None => None,
    };
    Ok(LineageView {
        run: run.map(|run| OriginView {
            id: run.id,
            trigger: run.trigger,
            status: run.status,
            config_version: run.config_version,
        }),
        dataset: dataset.map(|(digest, known)| TrainedOnView { digest, examples: known.examples }),
        parent: parent.map(|parent| ParentView {
            version: parent.version.to_string(),
            model_id: parent.provider_model_id,
            status: parent.status,
        }),
        training,
    })
}

async fn trained(
    conn: &mut PgConnection,
    version: &ModelVersion,
    training: Training,
) -> sqlx::Result<TrainedView> {
    let recipe = models::recipe_of(&mut *conn, training.id).await?;
    let checkpoint = match &version.checkpoint_id {
        Some(id) => {
            let kept = runs::progress::checkpoints_of(&mut *conn, training.id).await?;
            let kept = kept.into_iter().find(|checkpoint| checkpoint.id == *id);
            kept.map(|checkpoint| CheckpointView { id: checkpoint.id, step: checkpoint.point.step })
        }
        None => None,
    };
    let in_use = sqlx::query_scalar!(
        r#"SELECT in_use AS "in_use: Json<InUse>" FROM trainings WHERE id = $1"#,
        training.id
    )
    .fetch_one(&mut *conn)
    .await?;
    Ok(TrainedView {
        id: training.id,
        provider: training.provider,
        job_id: training.provider_job_id,
        checkpoint,
        base_model: training.base_model,
        method: recipe.method,
        hyperparameters: training.hyperparameters.0,
        seed: recipe.seed,
        in_use: in_use.map(|Json(in_use)| in_use),
        prompt: recipe.prompt,
        trained_tokens: training.trained_tokens,
        created_at: training.created_at,
        finished_at: training.finished_at,
    })
}

async fn test(conn: &mut PgConnection, version: Uuid) -> sqlx::Result<Option<TestView>> {
    let latest = sqlx::query_scalar!(
        "SELECT id FROM experiments WHERE candidate_id = $1 ORDER BY started_at DESC LIMIT 1",
        version,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(id) = latest else { return Ok(None) };
    let Some(experiment) = experiments::by_id(&mut *conn, id).await? else { return Ok(None) };
    let baseline =
        models::by_id(&mut *conn, experiment.baseline_id).await?.ok_or(sqlx::Error::RowNotFound)?;
    let decision = experiments::decision_of(conn, id).await?.map(|stored| {
        let decision = stored.record.decision;
        DecidedView {
            id: stored.id,
            verdict: decision.verdict,
            reason_code: decision.reason_code,
            reason: decision.reason,
            estimate: decision.estimate,
            digest: stored.digest,
            decided_at: stored.created_at,
        }
    });
    Ok(Some(TestView {
        experiment_id: id,
        status: experiment.status,
        baseline: baseline.version.to_string(),
        started_at: experiment.started_at,
        ended_at: experiment.ended_at,
        decision,
    }))
}

/// When it came to where it is, and whether it was ever forced there: as the revisions of the traffic tell.
async fn times(conn: &mut PgConnection, version: &ModelVersion) -> sqlx::Result<(TimesView, bool)> {
    let row = sqlx::query!(
        r#"WITH live AS (SELECT min(created_at) AS first, coalesce(bool_or(forced AND kind = 'promotion'), false) AS forced
                           FROM traffic_revisions WHERE pipeline = $2 AND live_version_id = $1),
                served AS (SELECT max(revision) AS last FROM traffic_weights
                            WHERE pipeline = $2 AND model_version_id = $1 AND weight > 0)
           SELECT (SELECT min(started_at) FROM experiments WHERE candidate_id = $1) AS tested_at,
                  live.first AS promoted_at, live.forced AS "forced!",
                  (SELECT created_at FROM traffic_revisions r
                    WHERE r.pipeline = $2 AND r.revision = served.last + 1 AND live.first IS NOT NULL) AS retired_at
             FROM live, served"#,
        version.id,
        version.pipeline,
    )
    .fetch_one(conn)
    .await?;
    let times = TimesView {
        created_at: version.created_at,
        tested_at: row.tested_at,
        promoted_at: row.promoted_at,
        retired_at: row.retired_at,
    };
    Ok((times, row.forced))
}
