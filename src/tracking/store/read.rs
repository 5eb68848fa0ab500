//! Reading what the database holds of runs and versions.

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use crate::tracking::facts::{
    CurveFacts, DatasetFacts, DecisionFacts, RunFacts, TrainingFacts, VersionFacts,
};

/// What belongs to a run may still be written this long after its end.
const AFTERWARDS: f64 = 300.0;

/// Runs of which something may be left to deliver, oldest first, after the run `after`.
pub(in crate::tracking) async fn runs_left(
    db: impl PgExecutor<'_>,
    pipeline: &str,
    after: Option<Uuid>,
) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "SELECT r.id FROM runs r LEFT JOIN tracking_runs t ON t.run_id = r.id
          WHERE r.pipeline = $1 AND ($2::uuid IS NULL OR r.id > $2)
            AND (t.run_id IS NULL OR NOT t.gone AND (NOT t.settled OR t.run_version <> r.version))
          ORDER BY r.id LIMIT 100",
        pipeline,
        after,
    )
    .fetch_all(db)
    .await
}

/// A run with all that belongs to it, as of one moment.
pub(in crate::tracking) async fn run(db: &PgPool, id: Uuid) -> sqlx::Result<RunFacts> {
    let mut tx = db.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let row = sqlx::query!(
        r#"SELECT r.pipeline, r.config_version, c.config, r.trigger, r.slot, r.status, r.step, r.reason_code, r.reason,
                  r.version, r.dataset_digest, r.preflight, r.evaluation, r.experiment_id, r.created_at, r.finished_at,
                  e.finished_at AS "evaluated_at?",
                  r.pipeline || '@' || v.major || '.' || v.minor || '.' || v.patch AS model_version,
                  coalesce(r.finished_at < now() - make_interval(secs => $2), false)
                      AND NOT EXISTS (SELECT FROM trainings t WHERE t.run_id = r.id AND t.reports_owed) AS "settled!"
             FROM runs r
             JOIN pipeline_configs c ON c.pipeline = r.pipeline AND c.version = r.config_version
             LEFT JOIN model_versions v ON v.id = r.model_version_id
             LEFT JOIN run_steps e ON e.run_id = r.id AND e.step = 'evaluate'
            WHERE r.id = $1"#,
        id,
        AFTERWARDS,
    )
    .fetch_one(&mut *tx)
    .await?;
    let decision = sqlx::query_as!(
        DecisionFacts,
        "SELECT id, verdict, digest, record, created_at FROM decisions WHERE experiment_id = $1",
        row.experiment_id,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let rows = sqlx::query!(
        r#"SELECT id, provider, base_model, validation_digest, provider_job_id, fine_tuned_model, trained_tokens,
                  cost::double precision AS cost, currency, hyperparameters, created_at, finished_at
             FROM trainings WHERE run_id = $1 ORDER BY created_at, trial, id"#,
        id,
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut trainings = Vec::with_capacity(rows.len());
    for row in rows {
        let curve = sqlx::query_as!(
            CurveFacts,
            "SELECT step, train_loss, valid_loss, full_valid_loss, learned_at FROM training_metrics
              WHERE training_id = $1 ORDER BY step",
            row.id,
        )
        .fetch_all(&mut *tx)
        .await?;
        trainings.push(TrainingFacts {
            id: row.id,
            provider: row.provider,
            base_model: row.base_model,
            validation_digest: row.validation_digest,
            provider_job_id: row.provider_job_id,
            fine_tuned_model: row.fine_tuned_model,
            trained_tokens: row.trained_tokens,
            cost: row.cost,
            currency: row.currency,
            hyperparameters: row.hyperparameters,
            created_at: row.created_at,
            finished_at: row.finished_at,
            curve,
        });
    }
    let mut digests: Vec<String> = row.dataset_digest.iter().cloned().collect();
    digests.extend(trainings.iter().filter_map(|training| training.validation_digest.clone()));
    let datasets = sqlx::query_as!(
        DatasetFacts,
        "SELECT digest, examples, bytes FROM datasets WHERE digest = ANY($1)",
        &digests,
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(RunFacts {
        id,
        pipeline: row.pipeline,
        config_version: row.config_version,
        config: row.config,
        trigger: row.trigger,
        slot: row.slot,
        status: row.status,
        step: row.step,
        reason_code: row.reason_code,
        reason: row.reason,
        version: row.version,
        dataset_digest: row.dataset_digest,
        preflight: row.preflight,
        evaluation: row.evaluation,
        evaluated_at: row.evaluated_at,
        model_version: row.model_version,
        experiment_id: row.experiment_id,
        decision,
        created_at: row.created_at,
        finished_at: row.finished_at,
        trainings,
        datasets,
        settled: row.settled,
    })
}

/// All versions of a pipeline, the oldest number first, as of one moment.
pub(in crate::tracking) async fn versions(
    db: impl PgExecutor<'_>,
    pipeline: &str,
    settle: f64,
) -> sqlx::Result<Vec<VersionFacts>> {
    sqlx::query_as!(
        VersionFacts,
        r#"SELECT v.id, v.pipeline, v.major || '.' || v.minor || '.' || v.patch AS "version!", v.status, v.provider,
                  v.provider_model_id, v.base_model, v.run_id, v.training_id, v.dataset_digest,
                  p.major || '.' || p.minor || '.' || p.patch AS parent, v.metrics,
                  v.created_at AS "created_at: DateTime<Utc>",
                  CASE WHEN NOT r.gone THEN r.mlflow_run_id END AS mlflow_run_id,
                  t.mlflow_version AS "mlflow_version?", coalesce(t.gone, false) AS "gone!",
                  coalesce(t.create_sent_at > now() - make_interval(secs => $2), false) AS "unsettled!",
                  coalesce(t.delivered, '{}') AS "delivered!"
             FROM model_versions v
             LEFT JOIN model_versions p ON p.id = v.parent_id
             LEFT JOIN tracking_runs r ON r.run_id = v.run_id
             LEFT JOIN tracking_versions t ON t.model_version_id = v.id
            WHERE v.pipeline = $1 ORDER BY v.major, v.minor, v.patch"#,
        pipeline,
        settle,
    )
    .fetch_all(db)
    .await
}
