//! Experiments and their decisions in the database.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{PgConnection, PgExecutor};
use utoipa::ToSchema;
use uuid::Uuid;

use super::decision::{EarlyLook, Metric, Record, Rules, Verdict};
use super::observations::Phase;
use super::statistics::Arm;
use crate::audit::{self, AuditEvent, By};
use crate::models;

/// Where an experiment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum ExperimentStatus {
    /// Collecting outcomes.
    Running,
    /// A decision was taken.
    Decided,
    /// It was ended without one.
    Aborted,
}

/// The A/B test of a run.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// Its key, and the salt of its assignment.
    pub id: Uuid,
    /// The pipeline.
    pub pipeline: String,
    /// The run it belongs to.
    pub run_id: Uuid,
    /// The version that was live when it began.
    pub baseline_id: Uuid,
    /// The version under test.
    pub candidate_id: Uuid,
    /// What the decision asks for, as configured when it began.
    pub rules: Rules,
    /// Where it stands.
    pub status: ExperimentStatus,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it is decided.
    pub horizon_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// The standard errors that looks during the test are planned for, by metric.
    pub planned_errors_test: BTreeMap<Metric, f64>,
    /// The same for the watch.
    pub planned_errors_watch: BTreeMap<Metric, f64>,
    /// Looks before the horizon that have spent a part of the level, oldest first.
    pub early_looks: Vec<EarlyLook>,
    /// When the test was extended, which moved its horizon.
    pub extended_at: Option<DateTime<Utc>>,
}

impl Experiment {
    /// The part that a version plays.
    #[must_use]
    pub fn arm_of(&self, model_version_id: Uuid) -> Option<Arm> {
        if model_version_id == self.candidate_id {
            Some(Arm::Candidate)
        } else if model_version_id == self.baseline_id {
            Some(Arm::Baseline)
        } else {
            None
        }
    }
}

/// What is known of an experiment when it begins.
#[derive(Debug)]
pub struct NewExperiment<'a> {
    /// Its key, and the salt of its assignment.
    pub id: Uuid,
    /// The pipeline.
    pub pipeline: &'a str,
    /// The run it belongs to.
    pub run_id: Uuid,
    /// The version that is live.
    pub baseline_id: Uuid,
    /// The version under test.
    pub candidate_id: Uuid,
    /// What the decision asks for.
    pub rules: &'a Rules,
    /// Until it is decided.
    pub horizon_seconds: f64,
}

/// Starts an experiment, with its audit event.
pub async fn start(conn: &mut PgConnection, new: &NewExperiment<'_>, by: &By) -> sqlx::Result<()> {
    let settings = serde_json::to_value(new.rules).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query!(
        "INSERT INTO experiments (id, pipeline, run_id, baseline_id, candidate_id, settings, status, horizon_at)
         VALUES ($1, $2, $3, $4, $5, $6, 'running', now() + make_interval(secs => $7))",
        new.id,
        new.pipeline,
        new.run_id,
        new.baseline_id,
        new.candidate_id,
        settings,
        new.horizon_seconds,
    )
    .execute(&mut *conn)
    .await?;
    let (baseline, candidate) = (
        models::by_id(&mut *conn, new.baseline_id).await?,
        models::by_id(&mut *conn, new.candidate_id).await?,
    );
    let after = json!({
        "status": ExperimentStatus::Running, "run": new.run_id, "baseline": baseline.map(|version| version.version),
        "candidate": candidate.map(|version| version.version), "horizon_seconds": new.horizon_seconds,
    });
    let event = AuditEvent {
        pipeline: Some(new.pipeline),
        after: Some(after),
        ..by.event("experiment.start", ("experiment", new.id))
    };
    audit::record(conn, event).await
}

/// Ends a running experiment without a decision, with its audit event. One that has ended stays as it is.
pub async fn abort(conn: &mut PgConnection, id: Uuid, reason: &str, by: &By) -> sqlx::Result<()> {
    let Some(pipeline) = end(conn, id, ExperimentStatus::Aborted).await? else { return Ok(()) };
    let event = AuditEvent {
        pipeline: Some(&pipeline),
        before: Some(json!({"status": ExperimentStatus::Running})),
        after: Some(json!({"status": ExperimentStatus::Aborted})),
        reason: Some(reason),
        ..by.event("experiment.abort", ("experiment", id))
    };
    audit::record(conn, event).await
}

/// Ends a running experiment with its decision, with its audit event.
pub async fn conclude(
    conn: &mut PgConnection,
    id: Uuid,
    decision_id: Uuid,
    record: &Record,
    by: &By,
) -> sqlx::Result<()> {
    record_decision(conn, decision_id, id, record).await?;
    let Some(pipeline) = end(conn, id, ExperimentStatus::Decided).await? else { return Ok(()) };
    let decision = &record.decision;
    let after = json!({
        "status": ExperimentStatus::Decided, "verdict": decision.verdict, "reason_code": decision.reason_code,
        "decision_id": decision_id,
    });
    let event = AuditEvent {
        pipeline: Some(&pipeline),
        before: Some(json!({"status": ExperimentStatus::Running})),
        after: Some(after),
        reason: Some(&decision.reason),
        ..by.event("experiment.decide", ("experiment", id))
    };
    audit::record(conn, event).await
}

/// Returns the pipeline of the experiment, if it was running.
async fn end(conn: &mut PgConnection, id: Uuid, status: ExperimentStatus) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        "UPDATE experiments SET status = $2, ended_at = now() WHERE id = $1 AND status = 'running' RETURNING pipeline",
        id,
        status as ExperimentStatus,
    )
    .fetch_optional(conn)
    .await
}

/// Keeps the standard errors of the first look that had enough data, by metric; later ones change nothing.
pub async fn freeze_planned_errors(
    conn: &mut PgConnection,
    id: Uuid,
    phase: Phase,
    errors: &BTreeMap<Metric, f64>,
) -> sqlx::Result<()> {
    let errors = serde_json::to_value(errors).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query!(
        "UPDATE experiments
            SET planned_errors_test = CASE WHEN $2 THEN $3 || planned_errors_test ELSE planned_errors_test END,
                planned_errors_watch = CASE WHEN $2 THEN planned_errors_watch ELSE $3 || planned_errors_watch END
          WHERE id = $1",
        id,
        phase == Phase::Test,
        errors,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes down that a look before the horizon has spent its part of the level.
pub async fn spend_look(conn: &mut PgConnection, id: Uuid, look: EarlyLook) -> sqlx::Result<()> {
    let look = serde_json::to_value([look]).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query!("UPDATE experiments SET early_looks = early_looks || $2 WHERE id = $1", id, look)
        .execute(conn)
        .await?;
    Ok(())
}

/// Lets a running experiment go on for so many hours more, with its audit event; it must not have been extended before.
pub async fn extend(
    conn: &mut PgConnection,
    experiment: &Experiment,
    hours: f64,
    reason: &str,
    by: &By,
) -> sqlx::Result<()> {
    let horizon_at = sqlx::query_scalar!(
        "UPDATE experiments SET extended_at = now(), horizon_at = now() + make_interval(secs => $2)
          WHERE id = $1 AND status = 'running' AND extended_at IS NULL RETURNING horizon_at",
        experiment.id,
        hours * 3600.0,
    )
    .fetch_one(&mut *conn)
    .await?;
    let event = AuditEvent {
        pipeline: Some(&experiment.pipeline),
        before: Some(json!({"horizon_at": experiment.horizon_at})),
        after: Some(json!({"horizon_at": horizon_at})),
        reason: Some(reason),
        ..by.event("experiment.extend", ("experiment", experiment.id))
    };
    audit::record(conn, event).await
}

/// The experiment with this key.
pub async fn by_id(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<Experiment>> {
    let row = sqlx::query!(
        r#"SELECT id, pipeline, run_id, baseline_id, candidate_id, settings, status AS "status: ExperimentStatus",
                  started_at, horizon_at, ended_at, planned_errors_test, planned_errors_watch, early_looks,
                  extended_at
             FROM experiments WHERE id = $1"#,
        id,
    )
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        Ok(Experiment {
            id: row.id,
            pipeline: row.pipeline,
            run_id: row.run_id,
            baseline_id: row.baseline_id,
            candidate_id: row.candidate_id,
            rules: decoded(row.settings)?,
            status: row.status,
            started_at: row.started_at,
            horizon_at: row.horizon_at,
            ended_at: row.ended_at,
            planned_errors_test: decoded(row.planned_errors_test)?,
            planned_errors_watch: decoded(row.planned_errors_watch)?,
            early_looks: decoded(row.early_looks)?,
            extended_at: row.extended_at,
        })
    })
    .transpose()
}

fn decoded<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> sqlx::Result<T> {
    serde_json::from_value(value).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// A decision as it was taken.
#[derive(Debug, Clone)]
pub struct StoredDecision {
    /// Its key.
    pub id: Uuid,
    /// Evidence, rules, every figure and the verdict.
    pub record: Record,
    /// SHA-256 of the record.
    pub digest: String,
    /// When it was taken.
    pub created_at: DateTime<Utc>,
}

/// Keeps a decision, once per experiment.
async fn record_decision(
    conn: &mut PgConnection,
    id: Uuid,
    experiment: Uuid,
    record: &Record,
) -> sqlx::Result<()> {
    let encode = |error: serde_json::Error| sqlx::Error::Encode(error.into());
    let digest = record.digest().map_err(encode)?;
    let verdict = verdict_word(record.decision.verdict);
    sqlx::query!(
        "INSERT INTO decisions (id, experiment_id, verdict, record, digest) VALUES ($1, $2, $3, $4, $5)",
        id,
        experiment,
        verdict,
        serde_json::to_value(record).map_err(encode)?,
        digest,
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Collecting => "collecting",
        Verdict::Promote => "promote",
        Verdict::Reject => "reject",
        Verdict::Inconclusive => "inconclusive",
        Verdict::Extend => "extend",
        Verdict::StopForHarm => "stop_for_harm",
        Verdict::Invalid => "invalid",
    }
}

/// The decision of an experiment, if it was taken.
pub async fn decision_of(db: impl PgExecutor<'_>, experiment: Uuid) -> sqlx::Result<Option<StoredDecision>> {
    let row = sqlx::query!(
        "SELECT id, record, digest, created_at FROM decisions WHERE experiment_id = $1",
        experiment,
    )
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        Ok(StoredDecision {
            id: row.id,
            record: decoded(row.record)?,
            digest: row.digest,
            created_at: row.created_at,
        })
    })
    .transpose()
}
