//! Trainings: one paid job at a provider each, written down before the provider is called.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use crate::audit::{self, Actor, AuditEvent};
use crate::trainers::{Hyperparameters, JobStatus, ProviderJob};

/// One paid job at a provider.
#[derive(Debug, Clone)]
pub struct Training {
    /// Travels in the job's metadata and in the file's name.
    pub id: Uuid,
    /// The run it belongs to.
    pub run_id: Uuid,
    /// The trainer.
    pub provider: String,
    /// What is trained.
    pub base_model: String,
    /// What it is trained on.
    pub dataset_digest: String,
    /// What it is measured on, where some examples were set aside.
    pub validation_digest: Option<String>,
    /// Set while it is unknown whether the upload of the training file was carried out.
    pub upload_sent_at: Option<DateTime<Utc>>,
    /// The same for the validation file.
    pub validation_sent_at: Option<DateTime<Utc>>,
    /// Set while it is unknown whether a create was carried out.
    pub create_sent_at: Option<DateTime<Utc>>,
    /// Uploads of the training file sent.
    pub uploads: i32,
    /// Uploads of the validation file sent.
    pub validation_uploads: i32,
    /// Creates sent.
    pub creates: i32,
    /// The provider's id of the training file.
    pub provider_file_id: Option<String>,
    /// The provider's id of the validation file.
    pub validation_file_id: Option<String>,
    /// The provider's id of the job.
    pub provider_job_id: Option<String>,
    /// The job's status in the provider's words.
    pub provider_status: Option<String>,
    /// The model it made.
    pub fine_tuned_model: Option<String>,
    /// Tokens that are billed.
    pub trained_tokens: Option<i64>,
    /// Training loss at the last step that told one.
    pub final_loss: Option<f64>,
    /// Loss on what was set aside.
    pub validation_loss: Option<f64>,
    /// Late duplicates that were cancelled.
    pub duplicates: i32,
    /// Its place among the trainings of a search, from 0.
    pub trial: i32,
    /// What it was asked to train with.
    pub hyperparameters: Json<Hyperparameters>,
    /// Tokens that it is expected to be billed for.
    pub expected_tokens: Option<i64>,
    /// What that costs, in `currency`; absent where the model had no price.
    pub expected_cost: Option<f64>,
    /// What it cost, once the billed tokens are known.
    pub cost: Option<f64>,
    /// The currency of both.
    pub currency: Option<String>,
    /// Looks at the job since something last changed.
    pub unchanged_looks: i32,
    /// Since when the provider holds the job.
    pub paused_since: Option<DateTime<Utc>>,
    /// For how long it did so before.
    pub paused_seconds: f64,
    /// Since when its files are being deleted at the provider.
    pub files_deleted_at: Option<DateTime<Utc>>,
    /// Whether it went on without reports of the provider, which are still to be read.
    pub reports_owed: bool,
    /// When it was written down.
    pub created_at: DateTime<Utc>,
    /// When its job was seen to have ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// What is known of a training when it is written down.
#[derive(Debug)]
pub(super) struct NewTraining<'a> {
    pub(super) id: Uuid,
    pub(super) run: Uuid,
    pub(super) pipeline: &'a str,
    pub(super) provider: &'a str,
    pub(super) base_model: &'a str,
    pub(super) dataset_digest: &'a str,
    pub(super) validation_digest: Option<&'a str>,
    pub(super) trial: i32,
    pub(super) hyperparameters: Hyperparameters,
    pub(super) expected_tokens: Option<i64>,
    /// Amount per million tokens, and its currency.
    pub(super) price: Option<(f64, &'a str)>,
}

impl Training {
    /// The name of a file at the provider, by which it is found again: whose it is, and what is in it.
    pub(super) fn file_name(&self, call: Call) -> String {
        file_name(self.id, self.digest(call))
    }

    /// Whether it can no longer lead to a model: its job has ended without one, or its files may be gone at any moment. A
    /// job that has succeeded may still tell its model.
    pub(super) fn is_spent(&self) -> bool {
        let ended = self.finished_at.is_some() && self.provider_status.as_deref() != Some("succeeded");
        self.fine_tuned_model.is_none() && (ended || self.files_deleted_at.is_some())
    }

    /// Whether its job is still to come, or on its way.
    pub(super) fn is_open(&self) -> bool {
        self.fine_tuned_model.is_none()
            && !self.is_spent()
            && self.provider_status.as_deref() != Some("succeeded")
    }

    /// The digest of what a call uploads.
    pub(super) fn digest(&self, call: Call) -> &str {
        match (call, &self.validation_digest) {
            (Call::UploadValidation, Some(validation)) => validation,
            _ => &self.dataset_digest,
        }
    }
}

fn file_name(training: Uuid, digest: &str) -> String {
    format!("tuneloop-{training}-{}.jsonl", digest.get(..12).unwrap_or(digest))
}

/// The name of the file with the same content that an earlier training of the run has at the same provider.
pub(super) async fn with_same_file(
    db: impl PgExecutor<'_>,
    training: &Training,
    call: Call,
) -> sqlx::Result<Option<String>> {
    let digest = training.digest(call);
    let owner = sqlx::query_scalar!(
        "SELECT id FROM trainings
          WHERE run_id = $1 AND id <> $2 AND provider = $3 AND files_deleted_at IS NULL
            AND ((dataset_digest = $4 AND provider_file_id IS NOT NULL)
              OR (validation_digest = $4 AND validation_file_id IS NOT NULL))
          ORDER BY id LIMIT 1",
        training.run_id,
        training.id,
        training.provider,
        digest,
    )
    .fetch_optional(db)
    .await?;
    Ok(owner.map(|owner| file_name(owner, digest)))
}

/// A call whose effect is looked for before it is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Upload,
    UploadValidation,
    Create,
}

/// Writes the intention to train.
pub(super) async fn insert(conn: &mut PgConnection, new: &NewTraining<'_>) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO trainings (id, run_id, provider, base_model, dataset_digest, validation_digest, trial,
                hyperparameters, expected_tokens, price_per_million, currency)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::numeric, $11)",
        new.id,
        new.run,
        new.provider,
        new.base_model,
        new.dataset_digest,
        new.validation_digest,
        new.trial,
        Json(new.hyperparameters) as _,
        new.expected_tokens,
        // As it is written: binary fractions have no place in money.
        new.price.map(|(amount, _)| amount.to_string()),
        new.price.map(|(_, currency)| currency),
    )
    .execute(&mut *conn)
    .await?;
    let event = AuditEvent {
        pipeline: Some(new.pipeline),
        after: Some(json!({
            "run": new.run, "provider": new.provider, "base_model": new.base_model, "dataset": new.dataset_digest,
            "hyperparameters": new.hyperparameters, "expected_tokens": new.expected_tokens,
        })),
        ..AuditEvent::new(Actor::Worker, "training.create", ("training", new.id))
    };
    audit::record(conn, event).await
}

/// Notes that a training's job is not to be followed any more: the provider does not know it.
pub(super) async fn give_up(conn: &mut PgConnection, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("UPDATE trainings SET finished_at = coalesce(finished_at, now()) WHERE id = $1", id)
        .execute(conn)
        .await?;
    Ok(())
}

/// The run's trainings by their place in the search; of one that was renewed, the newest.
pub(super) async fn newest_of_run(
    db: impl PgExecutor<'_>,
    run: Uuid,
) -> sqlx::Result<BTreeMap<i32, Training>> {
    let all = of_run(db, run).await?;
    Ok(all.into_iter().map(|training| (training.trial, training)).collect())
}

/// Makes a training the one that the run works on.
pub(super) async fn set_current(conn: &mut PgConnection, run: Uuid, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("UPDATE runs SET training_id = $2 WHERE id = $1", run, id).execute(conn).await?;
    Ok(())
}

/// What to look for; an absent condition matches everything.
#[derive(Debug, Default)]
struct Filter {
    id: Option<Uuid>,
    run: Option<Uuid>,
    job: Option<String>,
}

async fn select(db: impl PgExecutor<'_>, filter: Filter) -> sqlx::Result<Vec<Training>> {
    sqlx::query_as!(
        Training,
        r#"SELECT id, run_id, provider, base_model, dataset_digest, validation_digest, upload_sent_at,
                validation_sent_at, create_sent_at, uploads, validation_uploads, creates, provider_file_id,
                validation_file_id, provider_job_id, provider_status, fine_tuned_model, trained_tokens,
                final_loss, validation_loss, duplicates, trial,
                hyperparameters AS "hyperparameters: Json<Hyperparameters>", expected_tokens,
                expected_cost::double precision AS expected_cost, cost::double precision AS cost, currency,
                unchanged_looks, paused_since, paused_seconds, files_deleted_at, reports_owed, created_at, finished_at
           FROM trainings
          WHERE ($1::uuid IS NULL OR id = $1) AND ($2::uuid IS NULL OR run_id = $2)
            AND ($3::text IS NULL OR provider_job_id = $3)
          ORDER BY trial, created_at, id"#,
        filter.id,
        filter.run,
        filter.job,
    )
    .fetch_all(db)
    .await
}

/// The training with this id.
pub async fn by_id(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<Training>> {
    Ok(select(db, Filter { id: Some(id), ..Filter::default() }).await?.pop())
}

/// The trainings of a run by their place in the search; of one that was renewed, the oldest first.
pub async fn of_run(db: impl PgExecutor<'_>, run: Uuid) -> sqlx::Result<Vec<Training>> {
    select(db, Filter { run: Some(run), ..Filter::default() }).await
}

/// The training whose job has this id at its provider.
async fn by_job(db: impl PgExecutor<'_>, provider: &str, job: &str) -> sqlx::Result<Option<Training>> {
    let found = select(db, Filter { job: Some(job.to_owned()), ..Filter::default() }).await?;
    Ok(found.into_iter().find(|training| training.provider == provider))
}

/// Holds, until the transaction ends, whoever else is about to store this job's id or to keep a notice about it.
async fn hold_job(conn: &mut PgConnection, job: &str) -> sqlx::Result<()> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", job).execute(conn).await?;
    Ok(())
}

/// The run of a job that a notice is about. Where nobody has stored the job's id yet, the notice is kept for
/// who does; it may also be about a job of somebody else.
pub async fn run_or_keep_notice(
    conn: &mut PgConnection,
    provider: &str,
    job: &str,
) -> sqlx::Result<Option<Uuid>> {
    hold_job(conn, job).await?;
    if let Some(training) = by_job(&mut *conn, provider, job).await? {
        return Ok(Some(training.run_id));
    }
    // A create is answered, or its job found, long before.
    sqlx::query!("DELETE FROM early_notices WHERE received_at < now() - interval '6 hours'")
        .execute(&mut *conn)
        .await?;
    sqlx::query!(
        "INSERT INTO early_notices (provider, job_id) VALUES ($1, $2)
         ON CONFLICT (provider, job_id) DO UPDATE SET received_at = now()",
        provider,
        job,
    )
    .execute(conn)
    .await?;
    Ok(None)
}

/// Takes the notice about a job that came before its id was stored, in the transaction that stores it; whether
/// there was one.
pub(super) async fn take_notice(conn: &mut PgConnection, provider: &str, job: &str) -> sqlx::Result<bool> {
    hold_job(conn, job).await?;
    let taken = sqlx::query!("DELETE FROM early_notices WHERE provider = $1 AND job_id = $2", provider, job)
        .execute(conn)
        .await?;
    Ok(taken.rows_affected() > 0)
}

/// Notes that a call is about to be sent.
pub(super) async fn mark_sent(conn: &mut PgConnection, id: Uuid, call: Call) -> sqlx::Result<()> {
    match call {
        Call::Upload => {
            sqlx::query!(
                "UPDATE trainings SET upload_sent_at = clock_timestamp(), uploads = uploads + 1 WHERE id = $1",
                id
            )
        }
        Call::UploadValidation => {
            sqlx::query!(
                "UPDATE trainings SET validation_sent_at = clock_timestamp(),
                        validation_uploads = validation_uploads + 1 WHERE id = $1",
                id
            )
        }
        Call::Create => {
            sqlx::query!(
                "UPDATE trainings SET create_sent_at = clock_timestamp(), creates = creates + 1 WHERE id = $1",
                id
            )
        }
    }
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that the call that was sent was certainly not carried out.
pub(super) async fn mark_refused(conn: &mut PgConnection, id: Uuid, call: Call) -> sqlx::Result<()> {
    match call {
        Call::Upload => sqlx::query!(
            "UPDATE trainings SET upload_sent_at = NULL, uploads = uploads - 1 WHERE id = $1",
            id
        ),
        Call::UploadValidation => sqlx::query!(
            "UPDATE trainings SET validation_sent_at = NULL, validation_uploads = validation_uploads - 1
              WHERE id = $1",
            id
        ),
        Call::Create => sqlx::query!(
            "UPDATE trainings SET create_sent_at = NULL, creates = creates - 1 WHERE id = $1",
            id
        ),
    }
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets a call be sent once more where `most` went unanswered and a person has looked. What they made is
/// still looked for first.
pub(super) async fn allow_another_call(conn: &mut PgConnection, id: Uuid, most: i32) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE trainings
            SET upload_sent_at = CASE WHEN uploads >= $2 THEN NULL ELSE upload_sent_at END,
                validation_sent_at = CASE WHEN validation_uploads >= $2 THEN NULL ELSE validation_sent_at END,
                create_sent_at = CASE WHEN creates >= $2 THEN NULL ELSE create_sent_at END
          WHERE id = $1",
        id,
        most,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps the provider's id of a file.
pub(super) async fn set_file(conn: &mut PgConnection, id: Uuid, call: Call, file: &str) -> sqlx::Result<()> {
    let validation = call == Call::UploadValidation;
    sqlx::query!(
        "UPDATE trainings
            SET provider_file_id = CASE WHEN $3 THEN provider_file_id ELSE $2 END,
                upload_sent_at = CASE WHEN $3 THEN upload_sent_at END,
                validation_file_id = CASE WHEN $3 THEN $2 ELSE validation_file_id END,
                validation_sent_at = CASE WHEN $3 THEN NULL ELSE validation_sent_at END
          WHERE id = $1",
        id,
        file,
        validation,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps what the provider says of the job.
pub(super) async fn set_job(conn: &mut PgConnection, id: Uuid, job: &ProviderJob) -> sqlx::Result<()> {
    let before = sqlx::query!(
        "SELECT provider_job_id, provider_status, pipeline
           FROM trainings t JOIN runs r ON r.id = run_id WHERE t.id = $1 FOR NO KEY UPDATE OF t",
        id
    )
    .fetch_one(&mut *conn)
    .await?;
    // What it was asked for may be told at first, and what it came to later.
    let in_use = json!({"hyperparameters": job.hyperparameters, "seed": job.seed});
    sqlx::query!(
        "UPDATE trainings SET provider_job_id = $2, provider_status = $3, create_sent_at = NULL,
                fine_tuned_model = $4, trained_tokens = coalesce($5, trained_tokens), in_use = $7,
                finished_at = CASE WHEN $6 THEN coalesce(finished_at, now()) END
          WHERE id = $1",
        id,
        job.id,
        job.status.as_str(),
        job.fine_tuned_model,
        job.trained_tokens,
        job.status.is_terminal(),
        in_use,
    )
    .execute(&mut *conn)
    .await?;
    let (job_id, status) = (Some(job.id.as_str()), Some(job.status.as_str()));
    if (before.provider_job_id.as_deref(), before.provider_status.as_deref()) == (job_id, status) {
        return Ok(());
    }
    let event = AuditEvent {
        pipeline: Some(&before.pipeline),
        before: Some(json!({"job": before.provider_job_id, "status": before.provider_status})),
        after: Some(json!({"job": job_id, "status": status, "model": job.fine_tuned_model})),
        ..AuditEvent::new(Actor::Worker, "training.status", ("training", id))
    };
    audit::record(conn, event).await
}

/// Notes whether reports about a training are still to be read.
pub(super) async fn owe_reports(conn: &mut PgConnection, id: Uuid, owed: bool) -> sqlx::Result<()> {
    sqlx::query!("UPDATE trainings SET reports_owed = $2 WHERE id = $1", id, owed).execute(conn).await?;
    Ok(())
}

/// Gives the version that a training made the losses that became known after it was registered.
pub(super) async fn tell_version(conn: &mut PgConnection, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE model_versions v
            SET metrics = v.metrics || jsonb_strip_nulls(jsonb_build_object(
                    'final_loss', t.final_loss, 'validation_loss', t.validation_loss))
           FROM trainings t WHERE t.id = $1 AND v.training_id = t.id AND v.checkpoint_id IS NULL",
        id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes a look at the job: whether something had changed, and whether the provider holds it.
pub(super) async fn note_look(
    conn: &mut PgConnection,
    id: Uuid,
    status: &JobStatus,
    changed: bool,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE trainings
            SET unchanged_looks = CASE WHEN $2 THEN 0 ELSE unchanged_looks + 1 END,
                paused_seconds = paused_seconds
                    + CASE WHEN $3 OR paused_since IS NULL THEN 0 ELSE extract(epoch FROM now() - paused_since) END,
                paused_since = CASE WHEN $3 THEN coalesce(paused_since, now()) END
          WHERE id = $1",
        id,
        changed,
        *status == JobStatus::Paused,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The jobs of a training that are cancelled when they turn up, and that it never adopts.
pub(super) async fn discarded(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!("SELECT job_id FROM training_duplicates WHERE training_id = $1", id)
        .fetch_all(db)
        .await
}

/// Notes a job beside the one that the training follows; whether it was not known before.
pub(super) async fn note_duplicate(conn: &mut PgConnection, id: Uuid, job: &str) -> sqlx::Result<bool> {
    let noted = sqlx::query!(
        "INSERT INTO training_duplicates (training_id, job_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        id,
        job,
    )
    .execute(&mut *conn)
    .await?;
    let new = noted.rows_affected() > 0;
    if new {
        sqlx::query!("UPDATE trainings SET duplicates = duplicates + 1 WHERE id = $1", id)
            .execute(conn)
            .await?;
    }
    Ok(new)
}
