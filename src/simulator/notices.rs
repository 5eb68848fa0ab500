//! Notices of jobs that have ended, as OpenAI's webhooks send them.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::{Client, Url};
use serde_json::json;

use super::timeline::JobStatus;
use super::{JobSummary, Simulator, ids};
use crate::outbound;
use crate::standard_webhooks::WebhookSecret;

/// Time between two looks for jobs that have ended.
const LOOK: Duration = Duration::from_millis(50);
/// How long a notice may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Sends a notice of each job that ends, again until it is taken.
pub(super) async fn send(simulator: &Simulator, target: Url, secret: &WebhookSecret) {
    let client = match outbound::client(&target, LIMIT) {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "notices cannot be sent");
            return std::future::pending().await;
        }
    };
    let mut taken = HashSet::new();
    loop {
        for job in simulator.jobs() {
            let Some(kind) = kind(job.status) else { continue };
            if !taken.contains(&job.id) && deliver(simulator, &client, &target, secret, &job, kind).await {
                taken.insert(job.id);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn kind(status: JobStatus) -> Option<&'static str> {
    match status {
        JobStatus::Succeeded => Some("fine_tuning.job.succeeded"),
        JobStatus::Failed => Some("fine_tuning.job.failed"),
        JobStatus::Cancelled => Some("fine_tuning.job.cancelled"),
        JobStatus::ValidatingFiles | JobStatus::Queued | JobStatus::Running => None,
    }
}

/// Whether the notice was taken.
async fn deliver(
    simulator: &Simulator,
    client: &Client,
    target: &Url,
    secret: &WebhookSecret,
    job: &JobSummary,
    kind: &str,
) -> bool {
    let now = simulator.clock().now().timestamp();
    let event = json!({
        "object": "event", "id": ids::derived("evt_", &[&job.id, kind]), "type": kind, "created_at": now,
        "data": {"id": job.id},
    });
    // The same when it is sent again.
    let (id, timestamp, body) = (ids::derived("wh_", &[&job.id, kind]), now.to_string(), event.to_string());
    let request = client
        .post(target.clone())
        .timeout(LIMIT)
        .header("content-type", "application/json")
        .header("webhook-id", &id)
        .header("webhook-timestamp", &timestamp)
        .header("webhook-signature", secret.sign(&id, &timestamp, body.as_bytes()))
        .body(body);
    match request.send().await {
        Ok(answer) if answer.status().is_success() => true,
        Ok(answer) => {
            tracing::warn!(job = job.id, status = answer.status().as_u16(), "a notice was refused");
            false
        }
        Err(error) => {
            tracing::warn!(job = job.id, error = %error.without_url(), "a notice did not arrive");
            false
        }
    }
}
