//! The job that tells one endpoint what waits for it, one delivery after the other.
//!
//! First attempts are made in the order of the events. One that fails is attempted again later and does not hold up those after
//! it. An attempt is written down after its answer: a worker that dies in between leaves it to be made again, with the
//! same `webhook-id`.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Response, StatusCode, Url};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::endpoints::{self, Target};
use super::message;
use super::outbox::{self, After, Attempt, DeliveryStatus, Due};
use crate::audit::{self, Actor, AuditEvent};
use crate::causes;
use crate::clock::Clock;
use crate::halt;
use crate::jobs::{Done, Handler, JobError, Lease, backoff};
use crate::outbound::{Targets, retry_after};
use crate::standard_webhooks::WebhookSecret;
use crate::telemetry::metrics::Metrics;

/// The kind of the job; its subject is the endpoint. One endpoint never waits for another.
pub const KIND: &str = "deliver_webhook";
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Deliveries made before the job lets others have its place.
const BATCH: usize = 20;
/// Bytes kept of an answer.
const EXCERPT: usize = 1_000;
/// The wait before the second attempt; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_hours(1);
/// So many attempts in a row fail before an endpoint counts as away: what waits is attempted at once when it is back.
const AWAY: i32 = 3;

/// Handles the job.
#[derive(Debug)]
pub(crate) struct Deliver {
    pub(crate) db: PgPool,
    pub(crate) clock: Clock,
    pub(crate) targets: Targets,
    pub(crate) public_url: Option<String>,
    pub(crate) metrics: Metrics,
}

impl Handler for Deliver {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn run<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Done, JobError>> {
        self.batch(lease).boxed()
    }
}

impl Deliver {
    async fn batch(&self, lease: &Lease) -> Result<Done, JobError> {
        let Ok(endpoint) = lease.subject.parse::<Uuid>() else { return Ok(Done::Finished) };
        for _ in 0..BATCH {
            let Some(target) = endpoints::target(&self.db, endpoint).await? else {
                return Ok(Done::Finished);
            };
            let Some(due) = outbox::due(&self.db, endpoint).await? else {
                return self.rest(lease, endpoint).await;
            };
            lease.check_deadline()?;
            let sent = lease.keep(&self.db, self.send(&target, &due)).await?;
            halt::point("deliver_webhook", "sent");
            if !self.record(lease, endpoint, &target, &due, sent).await? {
                return Ok(Done::Committed);
            }
        }
        let mut tx = self.db.begin().await?;
        lease.reschedule(&mut tx, Duration::ZERO).await?;
        tx.commit().await?;
        Ok(Done::Committed)
    }

    /// Ends the job, or puts it off until the next attempt.
    async fn rest(&self, lease: &Lease, endpoint: Uuid) -> Result<Done, JobError> {
        let mut tx = self.db.begin().await?;
        lease.fence(&mut tx).await?;
        match outbox::until_due(&mut tx, endpoint).await? {
            Some(wait) => lease.reschedule(&mut tx, wait).await?,
            None => lease.finish(&mut tx).await?,
        }
        tx.commit().await?;
        Ok(Done::Committed)
    }

    /// Writes down what came of an attempt; whether the job goes on. After a failure it pauses, longer from failure to failure, so
    /// that an endpoint which is away takes little of the workers' time.
    async fn record(
        &self,
        lease: &Lease,
        endpoint: Uuid,
        target: &Target,
        due: &Due,
        sent: Sent,
    ) -> Result<bool, JobError> {
        let mut tx = self.db.begin().await?;
        // Its row before the job's, as whoever changes it does.
        if !endpoints::lock(&mut tx, endpoint).await? {
            return Ok(true);
        }
        lease.fence(&mut tx).await?;
        let after = match &sent.attempt.status {
            Some(200..=299) => After::Delivered,
            Some(410) => After::Gone,
            _ => After::Again(self.wait(due.tries, sent.retry_after)),
        };
        let delivered = matches!(after, After::Delivered);
        let status = outbox::keep(&mut tx, due.delivery, &sent.attempt, after).await?;
        sqlx::query!(
            "UPDATE webhook_endpoints
                SET failures = CASE WHEN $2 THEN 0 ELSE failures + 1 END,
                    failing_since = CASE WHEN $2 THEN NULL ELSE coalesce(failing_since, now()) END
              WHERE id = $1 AND NOT ($2 AND failures = 0)",
            endpoint,
            delivered,
        )
        .execute(&mut *tx)
        .await?;
        if status == Some(DeliveryStatus::Failed) {
            let reason = match sent.attempt.status {
                Some(410) => "the endpoint said that it is gone (410)",
                _ => "no attempt of 24 hours succeeded",
            };
            let event = AuditEvent {
                before: Some(json!({ "status": DeliveryStatus::Pending })),
                after: Some(json!({"status": DeliveryStatus::Failed, "endpoint": endpoint})),
                reason: Some(reason),
                ..AuditEvent::new(Actor::Worker, "webhook_delivery.fail", ("webhook_delivery", due.delivery))
            };
            audit::record(&mut tx, event).await?;
        }
        if delivered {
            if target.failures >= AWAY {
                outbox::hurry(&mut tx, endpoint).await?;
            }
            tx.commit().await?;
            self.count(endpoint, status);
            return Ok(true);
        }
        tracing::warn!(%endpoint, delivery = %due.delivery, status = sent.attempt.status, error = sent.attempt.error, "a webhook was not taken");
        let failures = u32::try_from(target.failures).unwrap_or_default().saturating_add(1);
        let pause = backoff::delay(failures, None, &self.clock);
        let pause = outbox::until_due(&mut tx, endpoint).await?.map(|wait| wait.max(pause));
        match pause {
            Some(pause) => lease.reschedule(&mut tx, pause).await?,
            None => lease.finish(&mut tx).await?,
        }
        tx.commit().await?;
        self.count(endpoint, status);
        Ok(false)
    }

    /// Counts an attempt, unless its delivery was deleted meanwhile.
    fn count(&self, endpoint: Uuid, status: Option<DeliveryStatus>) {
        let Some(status) = status else { return };
        let result = match status {
            DeliveryStatus::Delivered => "delivered",
            DeliveryStatus::Pending => "retried",
            DeliveryStatus::Failed => "failed",
        };
        self.metrics.webhook_attempted(&endpoint.to_string(), result);
    }

    /// Exponential, half of it random, up to an hour; longer where the endpoint asks for it, up to the same.
    fn wait(&self, tries: i32, asked: Option<Duration>) -> Duration {
        let doubled = 2_u32.saturating_pow(u32::try_from(tries).unwrap_or_default());
        let step = FIRST_WAIT.saturating_mul(doubled).min(LONGEST_WAIT);
        let jittered = step.mul_f64(0.5 + 0.5 * self.clock.fraction());
        jittered.max(asked.unwrap_or_default().min(LONGEST_WAIT))
    }

    async fn send(&self, target: &Target, due: &Due) -> Sent {
        let at = self.clock.now();
        let began = Instant::now();
        let answered = tokio::time::timeout(TIMEOUT, self.post(target, due, at)).await;
        let latency_ms = i32::try_from(began.elapsed().as_millis()).unwrap_or(i32::MAX);
        let attempt = Attempt { at, latency_ms, status: None, answer: None, error: None };
        match answered {
            Ok(Ok(answer)) => Sent {
                attempt: Attempt {
                    status: Some(answer.status.as_u16().into()),
                    answer: Some(answer.excerpt),
                    ..attempt
                },
                retry_after: answer.retry_after,
            },
            Ok(Err(error)) => Sent { attempt: Attempt { error: Some(error), ..attempt }, retry_after: None },
            Err(_) => {
                let error = format!("no answer within {} seconds", TIMEOUT.as_secs());
                Sent { attempt: Attempt { error: Some(error), ..attempt }, retry_after: None }
            }
        }
    }

    async fn post(&self, target: &Target, due: &Due, at: DateTime<Utc>) -> Result<Answer, String> {
        let url = Url::parse(&target.url).map_err(|error| error.to_string())?;
        let client = self.targets.client(&url).map_err(|refused| refused.to_string())?;
        let id = due.notification.id.to_string();
        let timestamp = at.timestamp().to_string();
        let (content_type, body) = message::body(target.form, &due.notification, self.public_url.as_deref());
        let mut signatures = Vec::new();
        for secret in &target.secrets {
            let secret = WebhookSecret::new(secret.expose()).map_err(|error| error.to_string())?;
            signatures.push(secret.sign(&id, &timestamp, &body));
        }
        let request = client
            .post(url)
            .header(CONTENT_TYPE, content_type)
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures.join(" "))
            .body(body);
        // The URL may hold a password, which does not belong into logs.
        let response = request.send().await.map_err(|error| causes::in_one_line(&error.without_url()))?;
        Ok(Answer::read(response, &self.clock).await)
    }
}

/// What came of an attempt.
struct Sent {
    attempt: Attempt,
    retry_after: Option<Duration>,
}

struct Answer {
    status: StatusCode,
    excerpt: String,
    retry_after: Option<Duration>,
}

impl Answer {
    /// Reads no more than is kept: what an endpoint says is not for us to hold.
    async fn read(mut response: Response, clock: &Clock) -> Self {
        let status = response.status();
        let retry_after = retry_after(response.headers(), clock);
        let mut bytes = Vec::new();
        // The status has been said: that the rest broke off changes nothing.
        while let Ok(Some(chunk)) = response.chunk().await {
            bytes.extend_from_slice(&chunk);
            if bytes.len() >= EXCERPT {
                bytes.truncate(EXCERPT);
                break;
            }
        }
        Self { status, excerpt: String::from_utf8_lossy(&bytes).replace('\0', ""), retry_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::TargetRules;

    #[tokio::test]
    async fn waits_grow_and_end_at_an_hour() {
        let db = PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/nothing").unwrap();
        let clock = Clock::fixed(DateTime::UNIX_EPOCH, 3);
        let targets = Targets::new(TargetRules::default(), Duration::from_secs(1)).unwrap();
        let deliver = Deliver { db, clock, targets, public_url: None, metrics: Metrics::new().unwrap() };
        let mut total = Duration::ZERO;
        let mut attempts = 1;
        while total < Duration::from_hours(24) {
            let full = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(attempts - 1)).min(LONGEST_WAIT);
            let wait = deliver.wait(i32::try_from(attempts).unwrap() - 1, None);
            assert!(wait >= full / 2 && wait <= full, "attempt {attempts}: {wait:?} of {full:?}");
            total += wait;
            attempts += 1;
        }
        assert!((30..=60).contains(&attempts), "{attempts} attempts in 24 hours");
        let asked = deliver.wait(0, Some(Duration::from_mins(2)));
        assert_eq!(asked, Duration::from_mins(2));
        assert_eq!(deliver.wait(0, Some(Duration::from_hours(9))), LONGEST_WAIT);
    }
}
