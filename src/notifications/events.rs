//! Which audit events are told, and in which words. Pure.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::audit::SealedEvent;

/// What applications can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = WebhookEvent)]
pub enum Kind {
    /// A run has come to its end, whichever.
    #[serde(rename = "tuneloop.run.finished")]
    RunFinished,
    /// A run waits for somebody to approve or reject its model.
    #[serde(rename = "tuneloop.run.approval_needed")]
    ApprovalNeeded,
    /// Another version is live.
    #[serde(rename = "tuneloop.model.promoted")]
    Promoted,
    /// An earlier version is live again.
    #[serde(rename = "tuneloop.model.rolled_back")]
    RolledBack,
    /// A test or a watch found that the new model does harm.
    #[serde(rename = "tuneloop.harm.found")]
    HarmFound,
    /// The provider will shut a model down.
    #[serde(rename = "tuneloop.model.end_of_life")]
    EndOfLife,
    /// The provider does not have a model any more.
    #[serde(rename = "tuneloop.model.unavailable")]
    Unavailable,
    /// Somebody tries an endpoint. Sent whatever the endpoint asks for.
    #[serde(rename = "tuneloop.test")]
    Test,
}

impl Kind {
    /// As it is sent and stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RunFinished => "tuneloop.run.finished",
            Self::ApprovalNeeded => "tuneloop.run.approval_needed",
            Self::Promoted => "tuneloop.model.promoted",
            Self::RolledBack => "tuneloop.model.rolled_back",
            Self::HarmFound => "tuneloop.harm.found",
            Self::EndOfLife => "tuneloop.model.end_of_life",
            Self::Unavailable => "tuneloop.model.unavailable",
            Self::Test => "tuneloop.test",
        }
    }
}

/// Something to tell.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct News {
    pub(super) kind: Kind,
    /// What it is about: a path under `/v1`.
    pub(super) subject: String,
    pub(super) pipeline: Option<String>,
    pub(super) at: DateTime<Utc>,
    /// One sentence, for people.
    pub(super) summary: String,
    pub(super) data: Value,
}

/// What an audit event is worth telling.
pub(super) fn of(sealed: &SealedEvent) -> Vec<News> {
    let event = &sealed.event;
    let after = parsed(event.after.as_deref());
    let before = parsed(event.before.as_deref());
    let pipeline = event.pipeline.as_deref().unwrap_or_default();
    let reason = event.reason.as_deref().unwrap_or_default();
    let news = |kind, subject: String, what: String, data: Value| News {
        kind,
        subject,
        pipeline: event.pipeline.clone(),
        at: sealed.at,
        summary: sentence(pipeline, &what, reason),
        data: common(data, sealed),
    };
    let run = || format!("runs/{}", event.subject_id);
    match event.action.as_str() {
        "run.finish" => {
            let status = text(&after, "status");
            let data =
                json!({"run": event.subject_id, "status": status, "reason_code": after["reason_code"]});
            let what = format!("run {} ended as {status}", event.subject_id);
            let mut all = vec![news(Kind::RunFinished, run(), what, data.clone())];
            let harm = [("rolled_back", "harm"), ("failed", "nothing_to_roll_back_to")];
            if harm.iter().any(|(ended, code)| *ended == status && after["reason_code"] == *code) {
                all.push(news(Kind::HarmFound, run(), "the new model did harm".to_owned(), data));
            }
            all
        }
        "run.status" if after["status"] == "waiting_approval" => {
            let what = format!("run {} asks for approval", event.subject_id);
            vec![news(Kind::ApprovalNeeded, run(), what, json!({"run": event.subject_id}))]
        }
        "experiment.decide" if after["verdict"] == "stop_for_harm" => {
            let data = json!({"experiment": event.subject_id, "reason_code": after["reason_code"]});
            let what = "the test was stopped for harm".to_owned();
            vec![news(Kind::HarmFound, format!("experiments/{}", event.subject_id), what, data)]
        }
        "traffic.promotion" | "traffic.rollback" => {
            let (kind, verb) = match event.action.as_str() {
                "traffic.promotion" => (Kind::Promoted, "promoted"),
                _ => (Kind::RolledBack, "rolled back"),
            };
            let data = json!({
                "revision": after["revision"], "live": after["live"], "before": before["live"],
                "weights": after["weights"],
            });
            let what =
                format!("{verb}: {} is live, before it was {}", text(&after, "live"), text(&before, "live"));
            vec![news(kind, format!("pipelines/{pipeline}"), what, data)]
        }
        "model.end_of_life" => {
            let data = json!({
                "version": event.subject_id, "shutdown_date": after["shutdown_date"], "days_left": after["days_left"],
            });
            let days = after["days_left"].as_i64().map_or_else(|| "some".to_owned(), |days| days.to_string());
            let what = format!("the provider shuts {} down in {days} days", event.subject_id);
            vec![news(Kind::EndOfLife, version(&event.subject_id), what, data)]
        }
        "model.unavailable" => {
            let what = format!("the provider does not have {} any more", event.subject_id);
            let data = json!({"version": event.subject_id});
            vec![news(Kind::Unavailable, version(&event.subject_id), what, data)]
        }
        _ => Vec::new(),
    }
}

/// What all news carry besides.
fn common(mut data: Value, sealed: &SealedEvent) -> Value {
    let event = &sealed.event;
    data["pipeline"] = event.pipeline.clone().into();
    data["actor"] = event.actor.clone().into();
    data["reason"] = event.reason.clone().into();
    data["audit_event"] = event.id.into();
    data
}

fn sentence(pipeline: &str, what: &str, reason: &str) -> String {
    let start = if pipeline.is_empty() { String::new() } else { format!("{pipeline}: ") };
    let end = if reason.is_empty() { String::new() } else { format!(". {reason}") };
    format!("{start}{what}{end}")
}

/// The path of a version that is named `hook@1.4.0`.
fn version(name: &str) -> String {
    match name.split_once('@') {
        Some((pipeline, version)) => format!("pipelines/{pipeline}/models/{version}"),
        None => format!("models/{name}"),
    }
}

/// What an event says of a change. It was JSON when it was recorded.
fn parsed(text: Option<&str>) -> Value {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{CanonicalEvent, Hash};

    fn sealed(action: &str, subject: (&str, &str), before: &str, after: &str) -> SealedEvent {
        let event = CanonicalEvent {
            action: action.to_owned(),
            actor: "worker".to_owned(),
            after: Some(after.to_owned()),
            at: "2026-11-26T17:00:00.000000Z".to_owned(),
            before: Some(before.to_owned()),
            id: 5,
            pipeline: Some("hook".to_owned()),
            reason: Some("it is better".to_owned()),
            request_id: None,
            subject_id: subject.1.to_owned(),
            subject_kind: subject.0.to_owned(),
            trace_id: None,
        };
        SealedEvent { seq: 1, previous: Hash::START, hash: Hash::START, at: DateTime::UNIX_EPOCH, event }
    }

    fn kinds(sealed: &SealedEvent) -> Vec<Kind> {
        of(sealed).iter().map(|news| news.kind).collect()
    }

    #[test]
    fn a_promotion_says_what_is_live_and_what_was() {
        let before = r#"{"live": "0.0.0"}"#;
        let after = r#"{"revision": 4, "live": "1.0.0", "weights": {"1.0.0": 10000}}"#;
        let news = of(&sealed("traffic.promotion", ("pipeline", "hook"), before, after)).remove(0);
        assert_eq!((news.kind, news.subject.as_str()), (Kind::Promoted, "pipelines/hook"));
        assert_eq!(news.summary, "hook: promoted: 1.0.0 is live, before it was 0.0.0. it is better");
        let expected = json!({
            "revision": 4, "live": "1.0.0", "before": "0.0.0", "weights": {"1.0.0": 10000}, "pipeline": "hook",
            "actor": "worker", "reason": "it is better", "audit_event": 5,
        });
        assert_eq!(news.data, expected);
        assert_eq!(
            kinds(&sealed("traffic.rollback", ("pipeline", "hook"), before, after)),
            [Kind::RolledBack]
        );
        assert_eq!(kinds(&sealed("traffic.ramp", ("pipeline", "hook"), before, after)), []);
    }

    #[test]
    fn a_run_that_ends_for_harm_is_told_twice() {
        let finish = |after| kinds(&sealed("run.finish", ("run", "7"), "{}", after));
        assert_eq!(finish(r#"{"status": "skipped", "reason_code": "run_active"}"#), [Kind::RunFinished]);
        let harm = finish(r#"{"status": "rolled_back", "reason_code": "harm"}"#);
        assert_eq!(harm, [Kind::RunFinished, Kind::HarmFound]);
    }

    #[test]
    fn of_the_other_events_some_are_told() {
        let told = |action, after| kinds(&sealed(action, ("run", "7"), "{}", after));
        assert_eq!(told("run.status", r#"{"status": "waiting_approval"}"#), [Kind::ApprovalNeeded]);
        assert_eq!(told("run.status", r#"{"status": "running"}"#), []);
        assert_eq!(told("experiment.decide", r#"{"verdict": "stop_for_harm"}"#), [Kind::HarmFound]);
        assert_eq!(told("experiment.decide", r#"{"verdict": "promote"}"#), []);
        assert_eq!(told("pipeline.update", "{}"), []);
        assert_eq!(told("run.status", "not JSON"), []);
    }

    #[test]
    fn a_dying_model_is_named_with_its_path() {
        let after = r#"{"shutdown_date": "2026-12-24", "days_left": 28}"#;
        let news = of(&sealed("model.end_of_life", ("model_version", "hook@1.4.0"), "{}", after)).remove(0);
        assert_eq!(news.subject, "pipelines/hook/models/1.4.0");
        assert_eq!(news.summary, "hook: the provider shuts hook@1.4.0 down in 28 days. it is better");
        let gone = sealed("model.unavailable", ("model_version", "hook@1.4.0"), "{}", "{}");
        assert_eq!(kinds(&gone), [Kind::Unavailable]);
    }

    #[test]
    fn kinds_are_stored_as_they_are_sent() {
        for kind in [
            Kind::RunFinished,
            Kind::ApprovalNeeded,
            Kind::Promoted,
            Kind::RolledBack,
            Kind::HarmFound,
            Kind::EndOfLife,
            Kind::Unavailable,
            Kind::Test,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
