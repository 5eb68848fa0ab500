//! Refusals, in the words of a real API server.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

#[derive(Debug)]
pub(super) struct Status {
    code: u16,
    reason: &'static str,
    message: String,
    details: Value,
}

impl Status {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: json!({}) }
    }

    pub(super) fn not_found(resource: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} \"{name}\" not found"))
    }

    pub(super) fn modified(resource: &str, name: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {resource} \"{name}\": the object has been modified; please apply your changes \
             to the latest version and try again"
        );
        let details = json!({"name": name, "kind": resource});
        Self { details, ..Self::new(409, "Conflict", message) }
    }

    /// Each conflict is a manager, as it is written, and its field.
    pub(super) fn conflicts(conflicts: &[(String, String)]) -> Self {
        let causes: Vec<_> = conflicts
            .iter()
            .map(|(manager, field)| {
                json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": field})
            })
            .collect();
        let message = if let [(manager, field)] = conflicts {
            format!("Apply failed with 1 conflict: conflict with {manager}: {field}")
        } else {
            let mut message = format!("Apply failed with {} conflicts:", conflicts.len());
            let mut last = "";
            for (manager, field) in conflicts {
                if manager != last {
                    message = format!("{message} conflicts with {manager}:");
                    last = manager;
                }
                message = format!("{message}\n- {field}");
            }
            message
        };
        Self { details: json!({"causes": causes}), ..Self::new(409, "Conflict", message) }
    }

    pub(super) fn body(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": self.code,
            "reason": self.reason, "message": self.message, "details": self.details,
        })
    }
}

impl IntoResponse for Status {
    fn into_response(self) -> Response {
        (StatusCode::from_u16(self.code).unwrap(), Json(self.body())).into_response()
    }
}
