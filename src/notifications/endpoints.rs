//! Endpoints: where notifications are sent, and with which secret they are signed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgExecutor};
use utoipa::ToSchema;
use uuid::Uuid;

use super::events::Kind;
use super::{deliver, outbox};
use crate::audit::{self, AuditEvent, By};
use crate::clock::Clock;
use crate::config::Secret;
use crate::jobs;

/// The form of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[schema(as = WebhookForm)]
pub enum Form {
    /// `CloudEvents` 1.0 in JSON.
    #[default]
    Cloudevents,
    /// `{"text": "…"}`, as Slack's incoming webhooks take it.
    Slack,
}

/// What a person says of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSettings {
    /// Where it is.
    pub url: Url,
    /// What it is told; all of it where absent.
    pub events: Option<Vec<Kind>>,
    /// Of which pipelines; of all where absent.
    pub pipelines: Option<Vec<String>>,
    /// In which form.
    pub form: Form,
    /// Whether it is told anything.
    pub enabled: bool,
}

/// An endpoint, without its secrets.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Names it.
    pub id: Uuid,
    /// Where it is.
    pub url: String,
    /// What it is told; all of it where absent.
    pub events: Option<Vec<String>>,
    /// Of which pipelines; of all where absent.
    pub pipelines: Option<Vec<String>>,
    /// In which form.
    pub form: Form,
    /// Whether it is told anything.
    pub enabled: bool,
    /// Until when the secret before the present one signs as well.
    pub previous_until: Option<DateTime<Utc>>,
    /// Counts changes.
    pub version: i64,
    /// Attempts that failed since one last succeeded.
    pub failures: i32,
    /// Since when they fail.
    pub failing_since: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// An endpoint as the worker sees it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) url: String,
    pub(super) form: Form,
    /// The present secret, and the one before while it still signs.
    pub(super) secrets: Vec<Secret>,
    pub(super) failures: i32,
}

/// The origin of a URL: what may be told to everybody. The rest may be a password, as it is with Slack.
#[must_use]
pub fn shortened(url: &str) -> String {
    Url::parse(url).map_or_else(|_| "…".to_owned(), |url| format!("{}/…", url.origin().ascii_serialization()))
}

fn new_secret(clock: &Clock) -> Secret {
    Secret::new(format!("whsec_{}", STANDARD.encode(clock.bytes::<32>())))
}

/// Makes an endpoint and returns it with its secret, the only time that the secret is shown.
pub async fn insert(
    conn: &mut PgConnection,
    clock: &Clock,
    new: &EndpointSettings,
    by: &By,
) -> sqlx::Result<(Endpoint, Secret)> {
    let (id, secret) = (clock.uuid(), new_secret(clock));
    let events = names(new);
    sqlx::query!(
        "INSERT INTO webhook_endpoints (id, url, events, pipelines, form, enabled, secret)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        id,
        new.url.as_str(),
        events.as_deref(),
        new.pipelines.as_deref(),
        new.form as Form,
        new.enabled,
        secret.expose(),
    )
    .execute(&mut *conn)
    .await?;
    let endpoint = endpoint(&mut *conn, id).await?.ok_or(sqlx::Error::RowNotFound)?;
    let event = AuditEvent {
        after: Some(told(&endpoint)),
        ..by.event("webhook_endpoint.create", ("webhook_endpoint", id))
    };
    audit::record(conn, event).await?;
    Ok((endpoint, secret))
}

/// Gives an endpoint other settings. Hold it by [`endpoint_for_change`] before.
pub async fn update(
    conn: &mut PgConnection,
    before: &Endpoint,
    new: &EndpointSettings,
    by: &By,
) -> sqlx::Result<Endpoint> {
    let events = names(new);
    sqlx::query!(
        "UPDATE webhook_endpoints
            SET url = $2, events = $3, pipelines = $4, form = $5, enabled = $6, version = version + 1,
                updated_at = now()
          WHERE id = $1",
        before.id,
        new.url.as_str(),
        events.as_deref(),
        new.pipelines.as_deref(),
        new.form as Form,
        new.enabled,
    )
    .execute(&mut *conn)
    .await?;
    let after = endpoint(&mut *conn, before.id).await?.ok_or(sqlx::Error::RowNotFound)?;
    let mut changed = told(&after);
    // The part that is not told may be what changed.
    changed["url_changed"] = (before.url != after.url).into();
    let event = AuditEvent {
        before: Some(told(before)),
        after: Some(changed),
        ..by.event("webhook_endpoint.update", ("webhook_endpoint", before.id))
    };
    audit::record(conn, event).await?;
    // What waits may go out at once, to another address or because it was switched on.
    outbox::hurry(conn, before.id).await?;
    jobs::wake(conn, deliver::KIND, &before.id.to_string()).await?;
    Ok(after)
}

/// Gives an endpoint a new secret. The one it had signs as well for a day.
pub async fn rotate(
    conn: &mut PgConnection,
    clock: &Clock,
    id: Uuid,
    by: &By,
) -> sqlx::Result<Option<(Endpoint, Secret)>> {
    let secret = new_secret(clock);
    sqlx::query!(
        "UPDATE webhook_endpoints
            SET previous_secret = secret, previous_until = now() + interval '1 day', secret = $2,
                version = version + 1, updated_at = now()
          WHERE id = $1",
        id,
        secret.expose(),
    )
    .execute(&mut *conn)
    .await?;
    let Some(endpoint) = endpoint(&mut *conn, id).await? else { return Ok(None) };
    let event = AuditEvent {
        after: Some(json!({"previous_secret_until": endpoint.previous_until})),
        ..by.event("webhook_endpoint.rotate_secret", ("webhook_endpoint", id))
    };
    audit::record(conn, event).await?;
    Ok(Some((endpoint, secret)))
}

/// Deletes an endpoint with its deliveries. Its job ends by itself.
pub async fn delete(conn: &mut PgConnection, endpoint: &Endpoint, by: &By) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM webhook_endpoints WHERE id = $1", endpoint.id).execute(&mut *conn).await?;
    let event = AuditEvent {
        before: Some(told(endpoint)),
        ..by.event("webhook_endpoint.delete", ("webhook_endpoint", endpoint.id))
    };
    audit::record(conn, event).await
}

/// Holds an endpoint until the transaction ends. Taken before the row of its job.
pub(super) async fn lock(conn: &mut PgConnection, id: Uuid) -> sqlx::Result<bool> {
    let found = sqlx::query_scalar!("SELECT true FROM webhook_endpoints WHERE id = $1 FOR NO KEY UPDATE", id);
    Ok(found.fetch_optional(conn).await?.is_some())
}

/// The endpoint with this id, held until the transaction ends.
pub async fn endpoint_for_change(conn: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<Endpoint>> {
    if lock(conn, id).await? { endpoint(conn, id).await } else { Ok(None) }
}

/// The endpoint with this id.
pub async fn endpoint(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<Endpoint>> {
    Ok(select(db, Some(id), None, 1).await?.pop())
}

/// Endpoints by their ids, which is by age, from after `after` on.
pub async fn endpoints(
    db: impl PgExecutor<'_>,
    after: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Endpoint>> {
    select(db, None, after, limit).await
}

async fn select(
    db: impl PgExecutor<'_>,
    id: Option<Uuid>,
    after: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Endpoint>> {
    sqlx::query_as!(
        Endpoint,
        r#"SELECT id, url, events, pipelines, form AS "form: Form", enabled, version, failures, failing_since,
                  created_at, updated_at, CASE WHEN previous_until > now() THEN previous_until END AS previous_until
             FROM webhook_endpoints
            WHERE ($1::uuid IS NULL OR id = $1) AND ($2::uuid IS NULL OR id > $2)
            ORDER BY id LIMIT $3"#,
        id,
        after,
        limit,
    )
    .fetch_all(db)
    .await
}

/// What is needed to send something, unless the endpoint is off or gone.
pub(super) async fn target(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<Target>> {
    let row = sqlx::query!(
        r#"SELECT url, form AS "form: Form", failures, secret,
                  CASE WHEN previous_until > now() THEN previous_secret END AS previous_secret
             FROM webhook_endpoints WHERE id = $1 AND enabled"#,
        id,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Target {
        url: row.url,
        form: row.form,
        secrets: [Some(row.secret), row.previous_secret].into_iter().flatten().map(Secret::new).collect(),
        failures: row.failures,
    }))
}

fn names(settings: &EndpointSettings) -> Option<Vec<String>> {
    let events = settings.events.as_ref()?;
    Some(events.iter().map(|kind| kind.as_str().to_owned()).collect())
}

/// What the trail is told of an endpoint.
fn told(endpoint: &Endpoint) -> Value {
    json!({
        "url": shortened(&endpoint.url), "events": endpoint.events, "pipelines": endpoint.pipelines,
        "form": endpoint.form, "enabled": endpoint.enabled,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_only_the_origin_is_told() {
        assert_eq!(
            shortened("https://hooks.example:8443/services/T0/B0/secret?k=1"),
            "https://hooks.example:8443/…"
        );
        assert_eq!(shortened("nonsense"), "…");
    }

    #[test]
    fn a_secret_is_one_of_standard_webhooks() {
        let secret = new_secret(&Clock::fixed(DateTime::UNIX_EPOCH, 1));
        assert!(crate::standard_webhooks::WebhookSecret::new(secret.expose()).is_ok());
        assert_ne!(secret.expose(), new_secret(&Clock::fixed(DateTime::UNIX_EPOCH, 2)).expose());
    }
}
