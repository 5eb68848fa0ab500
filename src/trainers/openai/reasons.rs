//! What the provider's error objects mean, wherever they stand: in an HTTP error or in a failed job.
//!
//! The code says most; where it says nothing that is known, the type, then the words of the message, then the parameter.

use super::http::ErrorObject;
use crate::trainers::RejectReason;

impl ErrorObject {
    /// The reason, where anything in the object tells it.
    pub(super) fn reason(&self) -> Option<RejectReason> {
        let message = self.message.to_lowercase();
        match by_code(&self.code).or_else(|| by_code(&self.kind)) {
            // OpenAI gives this code to files that its safety checks refuse, too.
            Some(RejectReason::InvalidTrainingFile) if breaks_policies(&message) => {
                Some(RejectReason::ModerationBlocked)
            }
            Some(reason) => Some(reason),
            // A failure of the provider's own; what its message names is not at fault.
            None if is_servers(&self.code) || is_servers(&self.kind) => None,
            None => by_message(&message).or_else(|| self.by_param()),
        }
    }

    fn by_param(&self) -> Option<RejectReason> {
        match self.param.as_str() {
            "model" if says_nothing(&self.code) => Some(RejectReason::ModelNotFound),
            "training_file" | "validation_file" | "file" => Some(RejectReason::InvalidTrainingFile),
            _ => None,
        }
    }
}

/// Codes and types, also as Azure writes them: `DeploymentNotFound` for `deployment_not_found`.
fn by_code(code: &str) -> Option<RejectReason> {
    let code = snake_case(code);
    match code.as_str() {
        "training_not_available" | "fine_tuning_not_available" => Some(RejectReason::TrainingNotAvailable),
        "insufficient_quota"
        | "exceeded_quota"
        | "quota_exceeded"
        | "billing_hard_limit_reached"
        | "billing_not_active" => Some(RejectReason::InsufficientQuota),
        "model_not_found" | "model_not_available" | "invalid_model" | "deployment_not_found" => {
            Some(RejectReason::ModelNotFound)
        }
        "invalid_training_file" | "invalid_validation_file" | "invalid_file" | "invalid_file_format" => {
            Some(RejectReason::InvalidTrainingFile)
        }
        "invalid_api_key" => Some(RejectReason::InvalidApiKey),
        code if ["moderation", "content_policy", "content_filter", "safety"]
            .iter()
            .any(|word| code.contains(word)) =>
        {
            Some(RejectReason::ModerationBlocked)
        }
        _ => None,
    }
}

/// Words of messages that are known, in lower case.
fn by_message(message: &str) -> Option<RejectReason> {
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&[
        "exceeded your current quota",
        "insufficient quota",
        "billing hard limit",
        "billing is not active",
    ]) {
        Some(RejectReason::InsufficientQuota)
    } else if breaks_policies(message) || has(&["moderation", "safety", "content policy"]) {
        Some(RejectReason::ModerationBlocked)
    } else if has(&["incorrect api key", "invalid api key", "invalid subscription key"]) {
        Some(RejectReason::InvalidApiKey)
    } else if has(&[
        "fine-tuning is not available",
        "fine-tuning is not enabled",
        "training is not available",
        "access to fine-tuning",
    ]) {
        Some(RejectReason::TrainingNotAvailable)
    } else if has(&["model", "deployment"])
        && has(&["does not exist", "not available for fine-tuning", "cannot be fine-tuned"])
        && !has(&["file"])
    {
        Some(RejectReason::ModelNotFound)
    } else if has(&[
        "invalid training file",
        "invalid validation file",
        "invalid file format",
        "unexpected file format",
    ]) {
        Some(RejectReason::InvalidTrainingFile)
    } else {
        None
    }
}

fn breaks_policies(message: &str) -> bool {
    ["usage policies", "unsafe training file", "our moderation"].iter().any(|words| message.contains(words))
}

/// Whether a code or type tells of a failure of the provider's own servers.
fn is_servers(code: &str) -> bool {
    matches!(snake_case(code).as_str(), "server_error" | "internal_error" | "internal_server_error")
}

/// Whether a code leaves open what is wrong with the parameter.
fn says_nothing(code: &str) -> bool {
    matches!(snake_case(code).as_str(), "" | "invalid_value" | "invalid_request_error" | "not_found")
}

fn snake_case(code: &str) -> String {
    let mut snake = String::with_capacity(code.len() + 4);
    let mut after_lower = false;
    for letter in code.chars() {
        if letter.is_ascii_uppercase() && after_lower {
            snake.push('_');
        }
        after_lower = letter.is_ascii_lowercase();
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
