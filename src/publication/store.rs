//! How far each place of a pipeline is, in the database. Locks in the order pipeline, publication, job.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgExecutor};

use crate::audit::{self, AuditEvent, By};
use crate::jobs;
use crate::pipelines::Pipeline;
use crate::traffic::{PUBLISH, publication_subject};

/// How far a place is.
#[derive(Debug, Clone)]
pub struct PublicationState {
    /// The pipeline.
    pub pipeline: String,
    /// What the configuration calls it.
    pub target: String,
    /// `config_map`, `file` or `http`.
    pub kind: String,
    /// The place in words.
    pub place: String,
    /// The revision in force.
    pub current_revision: i64,
    /// How often a person asked for it to be published again, and up to which request that was done.
    pub requests: i32,
    /// See `requests`.
    pub answered: i32,
    /// The revision that was written last and read back as written.
    pub published_revision: Option<i64>,
    /// When.
    pub published_at: Option<DateTime<Utc>>,
    /// SHA-256 of what was written.
    pub digest: Option<String>,
    /// Attempts that failed since the last that did not.
    pub failures: i32,
    /// Why the last failed, while it is so.
    pub last_error: Option<String>,
    /// When.
    pub failed_at: Option<DateTime<Utc>>,
    /// How often somebody changed what was published.
    pub drifts: i64,
    /// What stands there now in place of it.
    pub drift: Option<String>,
    /// SHA-256 of that.
    pub drift_digest: Option<String>,
    /// When it was found.
    pub drifted_at: Option<DateTime<Utc>>,
    /// When it was last found as it should be, or read at all.
    pub checked_at: Option<DateTime<Utc>>,
    /// What Deployments were restarted for last.
    pub restarted_for: Option<String>,
}

/// A revision that was published at a place.
#[derive(Debug, Clone)]
pub struct HistoryEntry {
    /// Grows with time.
    pub id: i64,
    /// The revision.
    pub revision: i64,
    /// The place in words.
    pub place: String,
    /// SHA-256 of what was written.
    pub digest: String,
    /// When it had been read back.
    pub published_at: DateTime<Utc>,
}

/// Makes the places of a pipeline those of its configuration, within the transaction that saves it, and has all of them
/// looked at. A place that is no longer named is left as it is.
pub async fn changed(conn: &mut PgConnection, pipeline: &Pipeline, by: &By) -> sqlx::Result<()> {
    let targets = &pipeline.config.publication.targets;
    let (mut names, mut kinds, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for target in targets {
        let Some(place) = target.place() else { continue };
        names.push(target.name.clone());
        kinds.push(target.kind_name().to_owned());
        places.push(place);
    }
    let removed = sqlx::query_scalar!(
        "UPDATE publications SET active = false WHERE pipeline = $1 AND active AND target <> ALL($2) RETURNING target",
        pipeline.name,
        &names,
    )
    .fetch_all(&mut *conn)
    .await?;
    for target in removed {
        record(conn, by, "publication.removed", (&pipeline.name, &target), None, None, None).await?;
    }
    let added = sqlx::query!(
        r#"INSERT INTO publications (pipeline, target, kind, place)
           SELECT $1, target, kind, place FROM unnest($2::text[], $3::text[], $4::text[]) AS named (target, kind, place)
            ORDER BY target
           ON CONFLICT (pipeline, target) DO UPDATE
              SET kind = excluded.kind, place = excluded.place, active = true, published_revision = NULL, published_at = NULL, digest = NULL,
                  failures = 0, last_error = NULL, failed_at = NULL, drift = NULL, drift_digest = NULL,
                  drifted_at = NULL, checked_at = NULL, restarted_for = NULL, answered = publications.requests
            WHERE NOT publications.active OR publications.place <> excluded.place
           RETURNING target, place"#,
        pipeline.name,
        &names,
        &kinds,
        &places,
    )
    .fetch_all(&mut *conn)
    .await?;
    for row in added {
        let after = json!({"place": row.place});
        record(conn, by, "publication.added", (&pipeline.name, &row.target), None, Some(after), None).await?;
    }
    for name in names {
        jobs::wake(conn, PUBLISH, &publication_subject(&pipeline.name, &name)).await?;
    }
    Ok(())
}

/// Asks for a place to be published again at once, whatever stands there. `false` where the pipeline has no such target.
pub async fn request(conn: &mut PgConnection, pipeline: &str, target: &str, by: &By) -> sqlx::Result<bool> {
    let found = sqlx::query!(
        "UPDATE publications SET requests = requests + 1 WHERE pipeline = $1 AND target = $2 AND active",
        pipeline,
        target,
    )
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if found == 0 {
        return Ok(false);
    }
    record(conn, by, "publication.requested", (pipeline, target), None, None, None).await?;
    jobs::wake(conn, PUBLISH, &publication_subject(pipeline, target)).await?;
    Ok(true)
}

/// The places of a pipeline by name.
pub async fn states(db: impl PgExecutor<'_>, pipeline: &str) -> sqlx::Result<Vec<PublicationState>> {
    select(db, pipeline, None).await
}

/// One place of a pipeline; `None` where its configuration has none of this name.
pub async fn state(
    db: impl PgExecutor<'_>,
    pipeline: &str,
    target: &str,
) -> sqlx::Result<Option<PublicationState>> {
    Ok(select(db, pipeline, Some(target)).await?.pop())
}

async fn select(
    db: impl PgExecutor<'_>,
    pipeline: &str,
    target: Option<&str>,
) -> sqlx::Result<Vec<PublicationState>> {
    sqlx::query_as!(
        PublicationState,
        r#"SELECT s.pipeline, s.target, s.kind, s.place, p.traffic_revision AS current_revision, s.requests, s.answered,
                  s.published_revision, s.published_at, s.digest, s.failures, s.last_error, s.failed_at, s.drifts,
                  s.drift, s.drift_digest, s.drifted_at, s.checked_at, s.restarted_for
             FROM publications s JOIN pipelines p ON p.name = s.pipeline
            WHERE s.pipeline = $1 AND s.active AND ($2::text IS NULL OR s.target = $2)
            ORDER BY s.target"#,
        pipeline,
        target,
    )
    .fetch_all(db)
    .await
}

/// What was published at a place, newest first.
pub async fn history(
    db: impl PgExecutor<'_>,
    pipeline: &str,
    target: &str,
    below: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<HistoryEntry>> {
    sqlx::query_as!(
        HistoryEntry,
        "SELECT id, revision, place, digest, published_at FROM publication_history
          WHERE pipeline = $1 AND target = $2 AND ($3::bigint IS NULL OR id < $3)
          ORDER BY id DESC LIMIT $4",
        pipeline,
        target,
        below,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Pipelines and targets whose job is missing: it ended, because it could not even say that it failed. A place that cannot be
/// read has none once it is published.
pub(super) async fn without_job(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<(String, String)>> {
    let rows = sqlx::query!(
        "SELECT s.pipeline, s.target FROM publications s JOIN pipelines p ON p.name = s.pipeline
          WHERE s.active AND (s.kind <> 'http' OR s.published_revision IS NULL OR s.published_revision < p.traffic_revision
                              OR s.failures > 0 OR s.answered < s.requests)
            AND NOT EXISTS (SELECT FROM jobs j WHERE j.kind = $1 AND j.subject = s.pipeline || '/' || s.target
                                                 AND j.state IN ('ready', 'leased'))",
        PUBLISH,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.pipeline, row.target)).collect())
}

/// What was read back as written.
#[derive(Debug)]
pub(super) struct Published<'a> {
    pub(super) revision: i64,
    pub(super) digest: &'a str,
    /// What somebody had changed, where it was written over that.
    pub(super) corrected: Option<&'a str>,
}

/// Records a publication and returns how many seconds after its revision it is.
pub(super) async fn published(
    conn: &mut PgConnection,
    state: &PublicationState,
    published: &Published<'_>,
) -> sqlx::Result<f64> {
    sqlx::query!(
        "UPDATE publications
            SET published_revision = $3, published_at = clock_timestamp(), digest = $4, checked_at = clock_timestamp(),
                drift = NULL, drift_digest = NULL, drifted_at = NULL
          WHERE pipeline = $1 AND target = $2",
        state.pipeline,
        state.target,
        published.revision,
        published.digest,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "INSERT INTO publication_history (pipeline, revision, target, place, digest) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (pipeline, target, revision, place) DO NOTHING",
        state.pipeline,
        published.revision,
        state.target,
        state.place,
        published.digest,
    )
    .execute(&mut *conn)
    .await?;
    let reason = published.corrected;
    let action = if reason.is_some() { "publication.corrected" } else { "publication.published" };
    let before = json!({"revision": state.published_revision, "digest": state.digest});
    let after = json!({"revision": published.revision, "digest": published.digest, "place": state.place});
    let subject = (state.pipeline.as_str(), state.target.as_str());
    record(conn, &By::worker(), action, subject, Some(before), Some(after), reason).await?;
    sqlx::query_scalar!(
        r#"SELECT extract(epoch FROM clock_timestamp() - created_at)::double precision AS "seconds!"
             FROM traffic_revisions WHERE pipeline = $1 AND revision = $2"#,
        state.pipeline,
        published.revision,
    )
    .fetch_one(conn)
    .await
}

/// Records that somebody changed what was published. The same change is recorded once.
pub(super) async fn drifted(
    conn: &mut PgConnection,
    state: &PublicationState,
    drift: &str,
    digest: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE publications
            SET drifts = drifts + 1, drift = $3, drift_digest = $4, drifted_at = clock_timestamp(),
                checked_at = clock_timestamp()
          WHERE pipeline = $1 AND target = $2",
        state.pipeline,
        state.target,
        drift,
        digest,
    )
    .execute(&mut *conn)
    .await?;
    let before = json!({"revision": state.published_revision, "digest": state.digest});
    let after = json!({"digest": digest, "place": state.place});
    let subject = (state.pipeline.as_str(), state.target.as_str());
    record(conn, &By::worker(), "publication.drift", subject, Some(before), Some(after), Some(drift)).await
}

/// Records that an attempt failed. The same error again is counted and not told anew.
pub(super) async fn failed(conn: &mut PgConnection, state: &PublicationState, why: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE publications SET failures = failures + 1, last_error = $3, failed_at = clock_timestamp()
          WHERE pipeline = $1 AND target = $2",
        state.pipeline,
        state.target,
        why,
    )
    .execute(&mut *conn)
    .await?;
    if state.last_error.as_deref() == Some(why) {
        return Ok(());
    }
    let subject = (state.pipeline.as_str(), state.target.as_str());
    record(conn, &By::worker(), "publication.failed", subject, None, None, Some(why)).await
}

/// What an attempt led to that went well.
#[derive(Debug)]
pub(super) struct Settled {
    /// Whether what should stand there does.
    pub(super) in_place: bool,
    /// Whether this attempt has recorded a publication.
    pub(super) recorded: bool,
    /// What Deployments were restarted for.
    pub(super) restarted_for: Option<String>,
}

/// Records that a look at the place, and what followed of it, went well.
pub(super) async fn settled(
    conn: &mut PgConnection,
    state: &PublicationState,
    settled: &Settled,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE publications
            SET failures = 0, last_error = NULL, failed_at = NULL, answered = $3, checked_at = clock_timestamp(),
                restarted_for = coalesce($4, restarted_for),
                drift = CASE WHEN $5 THEN NULL ELSE drift END,
                drift_digest = CASE WHEN $5 THEN NULL ELSE drift_digest END,
                drifted_at = CASE WHEN $5 THEN NULL ELSE drifted_at END
          WHERE pipeline = $1 AND target = $2",
        state.pipeline,
        state.target,
        state.requests,
        settled.restarted_for,
        settled.in_place,
    )
    .execute(&mut *conn)
    .await?;
    let before = match (&state.drift, &state.last_error) {
        _ if settled.recorded => return Ok(()),
        (Some(drift), _) if settled.in_place => drift,
        (_, Some(error)) => error,
        _ => return Ok(()),
    };
    let before = Value::from(before.as_str());
    let subject = (state.pipeline.as_str(), state.target.as_str());
    record(conn, &By::worker(), "publication.recovered", subject, Some(before), None, None).await
}

async fn record(
    conn: &mut PgConnection,
    by: &By,
    action: &str,
    (pipeline, target): (&str, &str),
    before: Option<Value>,
    after: Option<Value>,
    reason: Option<&str>,
) -> sqlx::Result<()> {
    let subject = ("publication", publication_subject(pipeline, target));
    let event = AuditEvent { pipeline: Some(pipeline), before, after, reason, ..by.event(action, subject) };
    audit::record(conn, event).await
}
