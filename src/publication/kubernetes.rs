//! The Kubernetes API: how it is found, and what its refusals are called here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kube::core::Status;
use kube::{Client, Config};
use tokio::sync::Mutex;

use super::PublishError;
use crate::causes;

/// How long a connection and a call may take.
const CONNECT: Duration = Duration::from_secs(10);
const CALL: Duration = Duration::from_secs(20);

/// The way to the Kubernetes API: a kubeconfig or the pod's service account, looked for when the first ConfigMap is to be
/// written, not before. Clones share their client.
#[derive(Clone, Default)]
pub struct Kubernetes {
    given: Option<Config>,
    client: Arc<Mutex<Option<Client>>>,
}

impl fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kubernetes")
    }
}

impl Kubernetes {
    /// Reached in this way, whatever the environment says.
    #[must_use]
    pub fn at(config: Config) -> Self {
        Self { given: Some(config), client: Arc::default() }
    }

    pub(super) async fn client(&self) -> Result<Client, PublishError> {
        let mut client = self.client.lock().await;
        if let Some(client) = client.as_ref() {
            return Ok(client.clone());
        }
        let mut config = match &self.given {
            Some(config) => config.clone(),
            None => Config::infer().await.map_err(|error| {
                tracing::warn!(%error, "the Kubernetes API cannot be found");
                PublishError::failed(
                    "there is neither a kubeconfig (KUBECONFIG or ~/.kube/config) nor a service account of a pod that can be \
                     used: give the workers one of them, or remove the ConfigMap from publication.targets",
                )
            })?,
        };
        // What was not answered may have been done: the job looks before it sends again.
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(CALL);
        config.reset_reader_on_write = true;
        let made = Client::try_from(config).map_err(|error| {
            PublishError::failed(format!(
                "the Kubernetes API cannot be used as configured: {}",
                causes::in_one_line(&error)
            ))
        })?;
        Ok(client.insert(made).clone())
    }

    /// Makes one call, within its time. `doing` ends the sentence "Kubernetes did not let us …".
    pub(super) async fn call<T>(
        &self,
        doing: &str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Refusal> {
        let error = match tokio::time::timeout(CALL, call).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => {
                return Err(Refusal::Other(PublishError::failed(format!(
                    "the Kubernetes API did not answer within {} seconds, asked to {doing}",
                    CALL.as_secs()
                ))));
            }
        };
        let refusal = refusal(doing, &error);
        if matches!(refusal, Refusal::Unauthorized(_)) {
            // The next attempt reads the credentials again.
            *self.client.lock().await = None;
        }
        Err(refusal)
    }
}

/// What came back in place of an answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There is no such object.
    Missing(PublishError),
    /// There is one already.
    Exists,
    /// The object has changed since it was read.
    Changed,
    /// Other managers own fields: each field with the words of the API.
    Owned(Vec<(String, String)>),
    /// The credentials are not accepted.
    Unauthorized(PublishError),
    /// Anything else.
    Other(PublishError),
}

impl From<Refusal> for PublishError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing(error) | Refusal::Unauthorized(error) | Refusal::Other(error) => error,
            Refusal::Exists | Refusal::Changed => Self::Overtaken,
            Refusal::Owned(fields) => {
                let fields: Vec<_> =
                    fields.into_iter().map(|(field, words)| format!("{field} ({words})")).collect();
                Self::failed(format!("others own {}", fields.join(" and ")))
            }
        }
    }
}

fn refusal(doing: &str, error: &kube::Error) -> Refusal {
    let kube::Error::Api(status) = error else {
        let message =
            format!("the Kubernetes API cannot be reached to {doing}: {}", causes::in_one_line(error));
        return Refusal::Other(PublishError::failed(message));
    };
    let said = |words: &str| PublishError::failed(format!("{words}: {}", said(status)));
    match (status.code, status.reason.as_str()) {
        (404, _) => Refusal::Missing(said(&format!("Kubernetes cannot {doing}"))),
        (409, "AlreadyExists") => Refusal::Exists,
        (409, _) => owned(status).map_or(Refusal::Changed, Refusal::Owned),
        (401, _) => Refusal::Unauthorized(said(
            "Kubernetes does not accept the credentials of the worker, from its kubeconfig or service account",
        )),
        (403, _) => Refusal::Other(said(&format!(
            "Kubernetes does not allow the worker to {doing}; give it the Role of docs/publication.md"
        ))),
        (code, _) => {
            let after = status.details.as_ref().map(|details| details.retry_after_seconds);
            Refusal::Other(PublishError::Failed {
                message: format!("Kubernetes answered {code}, asked to {doing}: {}", self::said(status)),
                retry_after: after.filter(|after| *after > 0).map(|after| Duration::from_secs(after.into())),
            })
        }
    }
}

/// The fields that others own, where this is why the call was refused.
fn owned(status: &Status) -> Option<Vec<(String, String)>> {
    let causes = &status.details.as_ref()?.causes;
    let fields: Vec<_> = causes
        .iter()
        .filter(|cause| cause.reason == "FieldManagerConflict")
        .map(|cause| (cause.field.trim_start_matches('.').to_owned(), cause.message.clone()))
        .collect();
    (!fields.is_empty()).then_some(fields)
}

/// The words of the API, without those it adds for programs.
fn said(status: &Status) -> String {
    let mut words = if status.message.is_empty() { status.reason.clone() } else { status.message.clone() };
    if let Some((end, _)) = words.char_indices().nth(500) {
        words.truncate(end);
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(status: serde_json::Value) -> Refusal {
        let status: Status = serde_json::from_value(status).unwrap();
        refusal("patch the ConfigMap shop/models", &kube::Error::Api(status.boxed()))
    }

    /// As a real API server answers.
    #[test]
    fn a_field_of_another_manager_is_told_apart_from_a_change_since_the_reading() {
        let refusal = refused(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 409, "reason": "Conflict",
            "message": "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using v1: .data.HOOK_MODEL",
            "details": {"causes": [{"reason": "FieldManagerConflict", "field": ".data.HOOK_MODEL",
                                    "message": "conflict with \"kubectl-edit\" using v1"}]},
        }));
        let Refusal::Owned(fields) = refusal else { panic!("{refusal:?}") };
        assert_eq!(
            fields,
            [("data.HOOK_MODEL".to_owned(), "conflict with \"kubectl-edit\" using v1".to_owned())]
        );
        let refusal = refused(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 409, "reason": "Conflict",
            "message": "Operation cannot be fulfilled on configmaps \"models\": the object has been modified; please apply your changes to the latest version and try again",
            "details": {"name": "models", "kind": "configmaps"},
        }));
        assert!(matches!(refusal, Refusal::Changed), "{refusal:?}");
    }

    #[test]
    fn what_is_forbidden_names_the_role_and_a_wait_asked_for_is_kept() {
        let refusal = refused(json!({
            "status": "Failure", "code": 403, "reason": "Forbidden", "message": "configmaps \"models\" is forbidden",
        }));
        let sentence = PublishError::from(refusal).to_string();
        assert_eq!(
            sentence,
            "Kubernetes does not allow the worker to patch the ConfigMap shop/models; give it the Role of \
             docs/publication.md: configmaps \"models\" is forbidden"
        );
        let refusal = refused(json!({
            "status": "Failure", "code": 429, "reason": "TooManyRequests", "message": "too many requests",
            "details": {"retryAfterSeconds": 7},
        }));
        let PublishError::Failed { retry_after, .. } = refusal.into() else { panic!("it failed") };
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
    }
}
