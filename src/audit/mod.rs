//! Who did what to what, when and why. Written in the transaction of the change, never altered afterwards, and sealed
//! in a chain of hashes soon after.

mod canonical;
mod chain;
mod export;
mod verify;

use std::fmt;

use opentelemetry::trace::TraceContextExt;
use serde_json::Value;
use sqlx::PgConnection;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

pub use canonical::{CanonicalEvent, Hash, HashError};
pub use chain::{Head, SealedEvent, head, seal, unsealed};
pub use export::{Filter, Line, lines};
pub use verify::{Expectation, Fault, Verified, VerifyError, verify};

/// Who acted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A caller of the API, by the name of its key.
    Key(String),
    /// A worker that advances runs.
    Worker,
    /// The scheduler that starts runs by cron.
    Scheduler,
    /// A provider that gave notice, by its name.
    Provider(String),
    /// The process itself or its command line: seeding, migrating, creating keys.
    System,
}

/// Prints the actor as stored: `key:<name>`, `provider:<name>`, `worker`, `scheduler` or `system`.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(name) => write!(f, "key:{name}"),
            Self::Provider(name) => write!(f, "provider:{name}"),
            Self::Worker => f.write_str("worker"),
            Self::Scheduler => f.write_str("scheduler"),
            Self::System => f.write_str("system"),
        }
    }
}

/// Who acts, and by which request: what the functions that change something are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// Who acts.
    pub actor: Actor,
    /// The API request, where there is one.
    pub request_id: Option<String>,
}

impl By {
    /// The worker, advancing a run by itself.
    #[must_use]
    pub fn worker() -> Self {
        Self { actor: Actor::Worker, request_id: None }
    }

    /// The scheduler.
    #[must_use]
    pub fn scheduler() -> Self {
        Self { actor: Actor::Scheduler, request_id: None }
    }

    /// The process itself or its command line.
    #[must_use]
    pub fn system() -> Self {
        Self { actor: Actor::System, request_id: None }
    }

    /// An event of this actor and request; add `before`, `after` and the rest with `..`.
    #[must_use]
    pub fn event<'a>(&'a self, action: &'a str, subject: (&'a str, impl fmt::Display)) -> AuditEvent<'a> {
        AuditEvent {
            request_id: self.request_id.as_deref(),
            ..AuditEvent::new(self.actor.clone(), action, subject)
        }
    }
}

/// One change, as it will be told. Start from [`AuditEvent::new`] and fill in what applies:
///
/// ```
/// # use tuneloop::audit::{Actor, AuditEvent};
/// let event = AuditEvent {
///     pipeline: Some("hook"),
///     reason: Some("the test period is over"),
///     ..AuditEvent::new(Actor::Worker, "run.finish", ("run", 7))
/// };
/// # assert_eq!(event.subject, ("run", "7".to_owned()));
/// ```
#[derive(Debug, Clone)]
pub struct AuditEvent<'a> {
    /// Who acted.
    pub actor: Actor,
    /// What was done, as `<subject kind>.<verb>`: `run.cancel`, `traffic.set`.
    pub action: &'a str,
    /// What it was done to, as kind and identifier: `("run", "<uuid>")`.
    pub subject: (&'a str, String),
    /// The pipeline it concerns.
    pub pipeline: Option<&'a str>,
    /// The part that changed, before the change.
    pub before: Option<Value>,
    /// The part that changed, after the change.
    pub after: Option<Value>,
    /// Why, in the words of the person or the rule that acted.
    pub reason: Option<&'a str>,
    /// The API request it was done by.
    pub request_id: Option<&'a str>,
}

impl<'a> AuditEvent<'a> {
    /// An event with nothing but its actor, action and subject.
    #[must_use]
    pub fn new(actor: Actor, action: &'a str, (kind, id): (&'a str, impl fmt::Display)) -> Self {
        Self {
            actor,
            action,
            subject: (kind, id.to_string()),
            pipeline: None,
            before: None,
            after: None,
            reason: None,
            request_id: None,
        }
    }
}

/// Records `event` on `conn`, which should be the transaction that makes the change. The identifier of the
/// current trace, if there is one, is stored with it.
pub async fn record(conn: &mut PgConnection, event: AuditEvent<'_>) -> sqlx::Result<()> {
    let (subject_kind, subject_id) = event.subject;
    sqlx::query!(
        "INSERT INTO audit_events
             (actor, action, subject_kind, subject_id, pipeline, before, after, reason, request_id, trace_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        event.actor.to_string(),
        event.action,
        subject_kind,
        subject_id,
        event.pipeline,
        event.before,
        event.after,
        event.reason,
        event.request_id,
        current_trace_id(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The trace that the current span belongs to, as 32 hexadecimal digits; `None` when spans are not traced.
fn current_trace_id() -> Option<String> {
    let context = Span::current().context();
    let span = context.span();
    let span_context = span.span_context();
    span_context.is_valid().then(|| span_context.trace_id().to_string())
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn actors_print_as_they_are_stored() {
        let (key, provider) = (Actor::Key("ci".to_owned()), Actor::Provider("openai".to_owned()));
        let actors = [key, provider, Actor::Worker, Actor::Scheduler, Actor::System];
        let stored = ["key:ci", "provider:openai", "worker", "scheduler", "system"];
        assert_eq!(actors.map(|actor| actor.to_string()), stored);
    }

    #[test]
    fn the_trace_id_is_that_of_the_current_span() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            assert_eq!(current_trace_id(), None);
            tracing::info_span!("step").in_scope(|| {
                let id = current_trace_id().expect("a traced span has an id");
                assert_eq!(id.len(), 32);
                assert_eq!(current_trace_id(), Some(id));
            });
        });
    }
}
