//! How a call of MLflow fails.

use reqwest::StatusCode;
use thiserror::Error;

/// How a call of MLflow failed.
#[derive(Debug, Error)]
pub(super) enum MlflowError {
    /// Nothing was sent.
    #[error("MLflow cannot be reached ({0}): check MLFLOW_TRACKING_URI and whether the server runs")]
    NotSent(String),
    /// Sent, at least in part, and no answer came.
    #[error("MLflow did not answer: {0}")]
    NoAnswer(String),
    /// Answered with success, but not as MLflow does.
    #[error("the answer is not MLflow's ({0}): check that MLFLOW_TRACKING_URI names an MLflow server")]
    Malformed(String),
    /// Answered with something other than success.
    #[error("{}", refusal(*.status, .code, .message))]
    Refused {
        /// The answer's status.
        status: StatusCode,
        /// MLflow's `error_code`, empty where the answer has none.
        code: String,
        /// What it says.
        message: String,
    },
}

impl MlflowError {
    /// Whether the server certainly did nothing of what was asked.
    pub(super) fn changed_nothing(&self) -> bool {
        match self {
            Self::NotSent(_) => true,
            Self::Refused { status, .. } => status.is_client_error(),
            Self::NoAnswer(_) | Self::Malformed(_) => false,
        }
    }

    /// Whether it is about what was asked for. Everything else is about the server, and the next call would meet the same.
    pub(super) fn is_about_the_content(&self) -> bool {
        match self {
            // MLflow itself says what it does not find.
            Self::Refused { status: StatusCode::NOT_FOUND, code, .. } if code.is_empty() => false,
            Self::Refused { status, .. } => matches!(
                *status,
                StatusCode::BAD_REQUEST
                    | StatusCode::NOT_FOUND
                    | StatusCode::CONFLICT
                    | StatusCode::PAYLOAD_TOO_LARGE
                    | StatusCode::UNPROCESSABLE_ENTITY
            ),
            _ => false,
        }
    }

    /// Whether what was asked for is not there.
    pub(super) fn is_missing(&self) -> bool {
        self.has_code("RESOURCE_DOES_NOT_EXIST")
    }

    /// Whether what was to be created is there.
    pub(super) fn exists_already(&self) -> bool {
        self.has_code("RESOURCE_ALREADY_EXISTS")
    }

    /// Whether the server was started without passing artifacts on.
    pub(super) fn does_not_serve_artifacts(&self) -> bool {
        matches!(self, Self::Refused { status, message, .. }
            if *status == StatusCode::SERVICE_UNAVAILABLE && message.contains("serve-artifacts"))
    }

    fn has_code(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == wanted)
    }
}

fn refusal(status: StatusCode, code: &str, message: &str) -> String {
    match status {
        StatusCode::NOT_FOUND if code.is_empty() => {
            "what answers at MLFLOW_TRACKING_URI does not know a path that MLflow has (404): check that it names an MLflow \
             server, with its path prefix if it has one"
                .to_owned()
        }
        StatusCode::UNAUTHORIZED => {
            "MLflow does not accept the credentials: check MLFLOW_TRACKING_USERNAME and \
             MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
                .to_owned()
        }
        StatusCode::FORBIDDEN if message.contains("Host header") => {
            "MLflow refuses the host name in MLFLOW_TRACKING_URI: start its server with --allowed-hosts"
                .to_owned()
        }
        StatusCode::FORBIDDEN => {
            format!(
                "MLflow does not allow this to the user of MLFLOW_TRACKING_USERNAME or MLFLOW_TRACKING_TOKEN: {message}"
            )
        }
        _ if status.is_redirection() => {
            format!(
                "MLflow answered {status}, and redirects are not followed: set MLFLOW_TRACKING_URI to where it leads"
            )
        }
        _ => format!("MLflow answered {status}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str) -> MlflowError {
        MlflowError::Refused {
            status: StatusCode::from_u16(status).unwrap(),
            code: code.into(),
            message: "Invalid Host header".into(),
        }
    }

    #[test]
    fn what_is_about_the_content_does_not_hold_up_the_rest() {
        for (status, about_the_content) in
            [(400, true), (404, false), (401, false), (403, false), (429, false), (500, false), (302, false)]
        {
            assert_eq!(refused(status, "").is_about_the_content(), about_the_content, "{status}");
        }
        assert!(refused(404, "").to_string().contains("MLFLOW_TRACKING_URI"));
        assert!(refused(404, "RESOURCE_DOES_NOT_EXIST").is_about_the_content());
        assert!(!MlflowError::NotSent(String::new()).is_about_the_content());
    }

    #[test]
    fn only_an_unsent_or_refused_call_has_certainly_changed_nothing() {
        assert!(MlflowError::NotSent(String::new()).changed_nothing() && refused(400, "").changed_nothing());
        assert!(!MlflowError::NoAnswer(String::new()).changed_nothing());
        assert!(
            !refused(502, "").changed_nothing() && !MlflowError::Malformed(String::new()).changed_nothing()
        );
    }

    #[test]
    fn the_sentence_names_what_to_change() {
        assert!(refused(401, "").to_string().contains("MLFLOW_TRACKING_PASSWORD"));
        assert!(refused(403, "").to_string().contains("--allowed-hosts"));
        assert!(refused(308, "").to_string().contains("MLFLOW_TRACKING_URI"));
        assert!(refused(404, "RESOURCE_DOES_NOT_EXIST").is_missing());
        assert!(refused(400, "RESOURCE_ALREADY_EXISTS").exists_already());
    }
}
