//! Rolling restarts of Deployments, as `kubectl rollout restart` does them: by an annotation of the pods' template.
//!
//! The annotation's value is what the pods were restarted for, so that the same restart asked for twice happens once.

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::PublishError;
use super::config_map::field_manager;
use super::kubernetes::Kubernetes;
use super::payload::Payload;
use crate::pipelines::config::{ConfigMapTarget, RestartOn};

/// What the Deployments of a target are restarted for; `None` where it has none.
pub(super) fn cause(target: &ConfigMapTarget, payload: &Payload) -> Option<String> {
    if target.restart_deployments.is_empty() {
        return None;
    }
    Some(match target.restart_on {
        RestartOn::LiveModel => payload.model_id.clone(),
        RestartOn::Traffic => format!("revision {}", payload.revision),
    })
}

/// Restarts all of them, as far as they have not been for this cause.
pub(super) async fn restart(
    kubernetes: &Kubernetes,
    pipeline: &str,
    target: &ConfigMapTarget,
    cause: &str,
) -> Result<(), PublishError> {
    let api: Api<Deployment> = Api::namespaced(kubernetes.client().await?, &target.namespace);
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {(annotation(pipeline)): cause}}}}});
    let how = PatchParams { field_manager: Some(field_manager(pipeline, target)), ..PatchParams::default() };
    for name in &target.restart_deployments {
        let doing = format!("restart the Deployment {}/{name}", target.namespace);
        kubernetes.call(&doing, api.patch(name, &how, &Patch::Merge(&patch))).await?;
    }
    Ok(())
}

/// Names of pipelines may end with what names of annotations may not.
fn annotation(pipeline: &str) -> String {
    format!("tuneloop/{}", pipeline.trim_end_matches(['-', '_']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_restarted_for_what_they_read_at_their_start() {
        let payload = Payload {
            pipeline: "hook".into(),
            revision: 7,
            model_id: "ft:a".into(),
            document: String::new(),
        };
        let target = |deployments: &[&str], on: &str| -> ConfigMapTarget {
            let target =
                json!({"namespace": "a", "name": "b", "restart_deployments": deployments, "restart_on": on});
            serde_json::from_value(target).unwrap()
        };
        assert_eq!(cause(&target(&[], "traffic"), &payload), None);
        assert_eq!(cause(&target(&["web"], "live_model"), &payload).as_deref(), Some("ft:a"));
        assert_eq!(cause(&target(&["web"], "traffic"), &payload).as_deref(), Some("revision 7"));
        assert_eq!(annotation("hook_"), "tuneloop/hook");
    }
}
