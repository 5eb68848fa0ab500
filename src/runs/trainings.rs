//! Trainings: one paid job at a provider each, written down before the provider is called.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use crate::trainers::ProviderJob;

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
    /// Late duplicates that were cancelled.
    pub duplicates: i32,
}

impl Training {
    /// The name of a file at the provider, by which it is found again.
    pub(super) fn file_name(&self, call: Call) -> String {
        let part = if call == Call::UploadValidation { "-validation" } else { "" };
        format!("tuneloop-{}{part}.jsonl", self.id)
    }
}

/// A call whose effect is looked for before it is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Upload,
    UploadValidation,
    Create,
}

/// Writes the intention to train.
pub(super) async fn insert(
    conn: &mut PgConnection,
    id: Uuid,
    run: Uuid,
    provider: &str,
    base_model: &str,
    dataset_digest: &str,
    validation_digest: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO trainings (id, run_id, provider, base_model, dataset_digest, validation_digest)
         VALUES ($1, $2, $3, $4, $5, $6)",
        id,
        run,
        provider,
        base_model,
        dataset_digest,
        validation_digest,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("UPDATE runs SET training_id = $2 WHERE id = $1", run, id).execute(conn).await?;
    Ok(())
}

/// The training with this id.
pub async fn by_id(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<Training>> {
    sqlx::query_as!(
        Training,
        "SELECT id, run_id, provider, base_model, dataset_digest, validation_digest, upload_sent_at,
                validation_sent_at, create_sent_at, uploads, validation_uploads, creates, provider_file_id,
                validation_file_id, provider_job_id, provider_status, fine_tuned_model, trained_tokens,
                final_loss, duplicates
           FROM trainings WHERE id = $1",
        id,
    )
    .fetch_optional(db)
    .await
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
    sqlx::query!(
        "UPDATE trainings SET provider_job_id = $2, provider_status = $3, create_sent_at = NULL,
                fine_tuned_model = $4, trained_tokens = coalesce($5, trained_tokens),
                finished_at = CASE WHEN $6 THEN coalesce(finished_at, now()) END
          WHERE id = $1",
        id,
        job.id,
        job.status.as_str(),
        job.fine_tuned_model,
        job.trained_tokens,
        job.status.is_terminal(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps the training loss.
pub(super) async fn set_loss(conn: &mut PgConnection, id: Uuid, loss: f64) -> sqlx::Result<()> {
    sqlx::query!("UPDATE trainings SET final_loss = $2 WHERE id = $1", id, loss).execute(conn).await?;
    Ok(())
}

/// Counts late duplicates that were cancelled.
pub(super) async fn add_duplicates(conn: &mut PgConnection, id: Uuid, count: i32) -> sqlx::Result<()> {
    sqlx::query!("UPDATE trainings SET duplicates = duplicates + $2 WHERE id = $1", id, count)
        .execute(conn)
        .await?;
    Ok(())
}
