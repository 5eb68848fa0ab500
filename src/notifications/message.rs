//! What is sent: a notification as a `CloudEvent` (version 1.0, structured JSON) or as one line for Slack. Pure.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::endpoints::Form;

/// Names the service where its public address is not known.
const NAMELESS: &str = "urn:tuneloop";

/// How notifications are sent.
#[derive(Debug, Clone, Default)]
pub struct NotificationSettings {
    /// Where people reach the service, without a slash at its end.
    pub public_url: Option<String>,
}

/// A notification, as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Notification {
    pub(super) id: Uuid,
    pub(super) kind: String,
    pub(super) subject: String,
    pub(super) at: DateTime<Utc>,
    pub(super) summary: String,
    pub(super) data: Value,
}

/// The body of a request, and its content type.
pub(super) fn body(
    form: Form,
    notification: &Notification,
    public_url: Option<&str>,
) -> (&'static str, Vec<u8>) {
    match form {
        Form::Cloudevents => {
            let event = cloud_event(notification, public_url.unwrap_or(NAMELESS));
            ("application/cloudevents+json", event.to_string().into_bytes())
        }
        Form::Slack => {
            let text = json!({"text": line(notification, public_url)});
            ("application/json", text.to_string().into_bytes())
        }
    }
}

fn cloud_event(notification: &Notification, source: &str) -> Value {
    let mut data = notification.data.clone();
    data["summary"] = notification.summary.clone().into();
    json!({
        "specversion": "1.0",
        "id": notification.id,
        "source": source,
        "type": notification.kind,
        "subject": notification.subject,
        "time": notification.at.to_rfc3339_opts(SecondsFormat::Micros, true),
        "datacontenttype": "application/json",
        "data": data,
    })
}

/// One line in Slack's own markup, in which three characters have a meaning.
fn line(notification: &Notification, public_url: Option<&str>) -> String {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let summary = notification.summary.split_whitespace().collect::<Vec<_>>().join(" ");
    let link =
        public_url.map(|url| format!(" <{}/v1/{}|Details>", escaped(url), escaped(&notification.subject)));
    format!("{}{}", escaped(&summary), link.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification() -> Notification {
        Notification {
            id: Uuid::nil(),
            kind: "tuneloop.model.promoted".to_owned(),
            subject: "pipelines/hook".to_owned(),
            at: DateTime::UNIX_EPOCH,
            summary: "hook: 1.0.0 is live.\n<better> & cheaper".to_owned(),
            data: json!({"live": "1.0.0"}),
        }
    }

    #[test]
    fn a_cloud_event_has_its_attributes() {
        let (content_type, body) = body(Form::Cloudevents, &notification(), Some("https://t.example"));
        assert_eq!(content_type, "application/cloudevents+json");
        let expected = json!({
            "specversion": "1.0", "id": "00000000-0000-0000-0000-000000000000", "source": "https://t.example",
            "type": "tuneloop.model.promoted", "subject": "pipelines/hook", "time": "1970-01-01T00:00:00.000000Z",
            "datacontenttype": "application/json",
            "data": {"live": "1.0.0", "summary": "hook: 1.0.0 is live.\n<better> & cheaper"},
        });
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
        assert_eq!(cloud_event(&notification(), NAMELESS)["source"], "urn:tuneloop");
    }

    #[test]
    fn slack_gets_one_line_with_a_link_where_there_is_one() {
        let (content_type, body) = body(Form::Slack, &notification(), None);
        assert_eq!(content_type, "application/json");
        let text = "hook: 1.0.0 is live. &lt;better&gt; &amp; cheaper";
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), json!({ "text": text }));
        let linked = line(&notification(), Some("https://t.example"));
        assert_eq!(linked, format!("{text} <https://t.example/v1/pipelines/hook|Details>"));
    }
}
