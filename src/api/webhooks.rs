//! Notices of providers, which carry a signature in place of an API key.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ApiState;
use super::problem::{Problem, ProblemDetails};
use super::request_id;
use crate::audit::{self, Actor, AuditEvent};
use crate::jobs;
use crate::runs::{self, JOB_KIND};
use crate::standard_webhooks::Notice;

/// The provider whose notices these are, as pipelines name it.
const PROVIDER: &str = "openai";

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(receive_openai_webhook))
}

/// The part of a notice that is used. Whatever else it says is asked of the provider.
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    data: EventData,
}

#[derive(Debug, Default, Deserialize)]
struct EventData {
    #[serde(default)]
    id: String,
}

/// Take a notice of OpenAI
///
/// Signed after Standard Webhooks with the secret in `OPENAI_WEBHOOK_SECRET`, not more than five minutes old. A notice about a training of
/// ours wakes its run, which then asks the provider. One about a job that is not known is kept for six hours, because its id may not be
/// stored yet. Others are accepted and ignored, and so is one that came before.
#[utoipa::path(
    post, path = "/v1/webhooks/openai", tag = "operations",
    request_body(content = serde_json::Value, content_type = "application/json"),
    params(
        ("webhook-id" = String, Header, description = "The same when the notice is sent again."),
        ("webhook-timestamp" = String, Header, description = "Seconds since 1970."),
        ("webhook-signature" = String, Header, description = "`v1,` and base64."),
    ),
    responses(
        (status = 204, description = "Accepted."),
        (status = 400, description = "The signature or the time is not right.", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "No secret is configured.", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
async fn receive_openai_webhook(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let Some(secret) = &state.webhook_secret else {
        let missing = "secret for webhooks: set OPENAI_WEBHOOK_SECRET and start the service again; it";
        return Err(Problem::not_found(missing, PROVIDER));
    };
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let notice = Notice {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
        body: &body,
    };
    if let Err(refused) = secret.verify(notice, state.clock.now()) {
        state.metrics.webhook_received(PROVIDER, "refused");
        let title = "The notice is not signed as it should be";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "webhook-not-signed", title).detail(refused));
    }
    let what = take(&state, notice).await?;
    state.metrics.webhook_received(PROVIDER, what);
    Ok(StatusCode::NO_CONTENT)
}

/// Wakes the run that the notice is about. That it was here is remembered in the same transaction, so that
/// one that fails half-way is sent, and acted on, again.
async fn take(state: &ApiState, notice: Notice<'_>) -> Result<&'static str, Problem> {
    let event = serde_json::from_slice::<Event>(notice.body).ok();
    let event = event.filter(|event| event.r#type.starts_with("fine_tuning.job."));
    let Some(event) = event else { return Ok("ignored") };
    let mut tx = state.db.begin().await?;
    let fresh = sqlx::query!(
        "INSERT INTO webhook_receipts (provider, id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        PROVIDER,
        notice.id.replace('\0', ""),
    )
    .execute(&mut *tx)
    .await?;
    if fresh.rows_affected() == 0 {
        return Ok("replayed");
    }
    let job = event.data.id.replace('\0', "");
    let Some(run) = runs::run_or_keep_notice(&mut tx, PROVIDER, &job).await? else {
        tx.commit().await?;
        return Ok("kept");
    };
    let pipeline = sqlx::query_scalar!("SELECT pipeline FROM runs WHERE id = $1", run);
    let pipeline = pipeline.fetch_one(&mut *tx).await?;
    let request_id = request_id::current();
    let audit_event = AuditEvent {
        pipeline: Some(&pipeline),
        request_id: request_id.as_deref(),
        after: Some(json!({"job": job, "event": event.r#type.replace('\0', ""), "notice": notice.id})),
        ..AuditEvent::new(Actor::Provider(PROVIDER.to_owned()), "run.provider_notice", ("run", run))
    };
    audit::record(&mut tx, audit_event).await?;
    jobs::wake(&mut tx, JOB_KIND, &run.to_string()).await?;
    tx.commit().await?;
    tracing::info!(job, %run, event = event.r#type, "the provider gave notice");
    Ok("accepted")
}
