//! A Kubernetes ConfigMap: the live model's id under one key and the traffic document under another, by server-side apply
//! with a field manager of our own, so that what others have in the same ConfigMap is theirs.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::PublishError;
use super::kubernetes::{Kubernetes, Refusal};
use super::payload::{Content, Payload};
use super::place::{Found, Place, Writing};
use crate::pipelines::config::ConfigMapTarget;

pub(super) struct ConfigMapPlace<'a> {
    kubernetes: &'a Kubernetes,
    target: &'a ConfigMapTarget,
    api: Api<ConfigMap>,
    manager: String,
    model_key: String,
    document_key: String,
}

/// The object and its version as they were read; `None` where there was none.
#[derive(Debug)]
pub(super) struct Identity {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl From<ConfigMap> for Identity {
    fn from(object: ConfigMap) -> Self {
        Self { uid: object.metadata.uid, resource_version: object.metadata.resource_version }
    }
}

impl<'a> ConfigMapPlace<'a> {
    pub(super) async fn new(
        kubernetes: &'a Kubernetes,
        pipeline: &str,
        target: &'a ConfigMapTarget,
    ) -> Result<Self, PublishError> {
        let api = Api::namespaced(kubernetes.client().await?, &target.namespace);
        Ok(Self {
            kubernetes,
            target,
            api,
            manager: field_manager(pipeline, target),
            model_key: target.key.clone().unwrap_or_else(|| variable(pipeline)),
            document_key: format!("{pipeline}.traffic.json"),
        })
    }

    fn name(&self) -> String {
        format!("the ConfigMap {}/{}", self.target.namespace, self.target.name)
    }

    async fn get(&self) -> Result<Option<ConfigMap>, PublishError> {
        let doing = format!("read {}", self.name());
        Ok(self.kubernetes.call(&doing, self.api.get_opt(&self.target.name)).await?)
    }

    fn content(&self, object: Option<&ConfigMap>) -> Content {
        let data = object.and_then(|object| object.data.as_ref());
        let ours = [&self.model_key, &self.document_key];
        let found = ours.into_iter().filter_map(|key| Some((key.clone(), data?.get(key)?.clone())));
        Content(found.collect())
    }

    /// Makes an empty ConfigMap. Whoever makes it first wins; what a slower worker knew is void then.
    async fn create(&self) -> Result<Identity, PublishError> {
        let metadata = ObjectMeta { name: Some(self.target.name.clone()), ..ObjectMeta::default() };
        let object = ConfigMap { metadata, ..ConfigMap::default() };
        let how = PostParams { field_manager: Some(self.manager.clone()), ..PostParams::default() };
        let doing = format!("make {}", self.name());
        Ok(self.kubernetes.call(&doing, self.api.create(&how, &object)).await?.into())
    }
}

impl Place for ConfigMapPlace<'_> {
    type Held = Option<Identity>;

    fn wanted(&self, payload: &Payload) -> Content {
        Content(
            [
                (self.model_key.clone(), payload.model_id.clone()),
                (self.document_key.clone(), payload.document.clone()),
            ]
            .into(),
        )
    }

    async fn read(&self) -> Result<Found<Option<Identity>>, PublishError> {
        let object = self.get().await?;
        Ok(Found {
            content: self.content(object.as_ref()),
            changed_by: object.as_ref().and_then(|object| {
                last_owner(&object.metadata, &[&self.model_key, &self.document_key], &self.manager)
            }),
            held: object.map(Identity::from),
        })
    }

    async fn write(
        &self,
        found: &Found<Option<Identity>>,
        wanted: &Content,
        how: Writing,
    ) -> Result<(), PublishError> {
        let made;
        let identity = if let Some(identity) = &found.held {
            identity
        } else {
            made = self.create().await?;
            &made
        };
        // With what was read: what was written since, or deleted, makes the API refuse.
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": self.target.name, "uid": identity.uid, "resourceVersion": identity.resource_version,
            },
            "data": wanted.0,
        });
        let apply = PatchParams::apply(&self.manager);
        let apply = if how.overridden { apply.force() } else { apply };
        let doing = format!("change {}", self.name());
        let patch = Patch::Apply(&object);
        match self.kubernetes.call(&doing, self.api.patch(&self.target.name, &apply, &patch)).await {
            Ok(_) => Ok(()),
            // It was deleted since.
            Err(Refusal::Missing(_)) => Err(PublishError::Overtaken),
            Err(Refusal::Owned(fields)) => Err(PublishError::failed(self.told_owners(&fields))),
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn read_back(&self) -> Result<Content, PublishError> {
        Ok(self.content(self.get().await?.as_ref()))
    }
}

impl ConfigMapPlace<'_> {
    fn told_owners(&self, fields: &[(String, String)]) -> String {
        let fields: Vec<_> = fields.iter().map(|(field, words)| format!("{field} ({words})")).collect();
        format!(
            "another field manager owns fields of {}: {}; remove the fields there, or take them over: by POST \
             …/publish once, by publication.correct_drift always",
            self.name(),
            fields.join(" and ")
        )
    }
}

/// Under which name the fields of a pipeline are owned.
pub(super) fn field_manager(pipeline: &str, target: &ConfigMapTarget) -> String {
    target.field_manager.clone().unwrap_or_else(|| format!("tuneloop-{pipeline}"))
}

/// The environment variable that names a pipeline's model: `HOOK_MODEL`.
fn variable(pipeline: &str) -> String {
    format!("{}_MODEL", pipeline.to_ascii_uppercase().replace('-', "_"))
}

/// The manager other than ours that wrote one of the keys last.
fn last_owner(metadata: &ObjectMeta, keys: &[&String], ours: &str) -> Option<String> {
    let owns = |fields: &Value| {
        let data = fields.get("f:data");
        keys.iter().any(|key| data.and_then(|data| data.get(format!("f:{key}"))).is_some())
    };
    let others = metadata.managed_fields.iter().flatten().filter(|entry| {
        entry.manager.as_deref() != Some(ours)
            && entry.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0))
    });
    others.max_by_key(|entry| entry.time.as_ref().map(|time| time.0)).and_then(|entry| entry.manager.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_pipelines_environment_variable() {
        assert_eq!(variable("hook"), "HOOK_MODEL");
        assert_eq!(variable("long-form_2"), "LONG_FORM_2_MODEL");
    }

    #[test]
    fn who_changed_a_key_is_its_last_other_owner() {
        let entry = |manager: &str, time: &str, key: &str| {
            json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "time": time, "fieldsType": "FieldsV1",
                   "fieldsV1": {"f:data": {".": {}, (format!("f:{key}")): {}}}})
        };
        let metadata = |entries: &[Value]| -> ObjectMeta {
            serde_json::from_value(json!({"managedFields": entries})).unwrap()
        };
        let key = "HOOK_MODEL".to_owned();
        let last = |entries: &[Value]| last_owner(&metadata(entries), &[&key], "tuneloop-hook");
        let entries = [
            entry("kubectl-edit", "2026-11-01T10:00:00Z", "HOOK_MODEL"),
            entry("helm", "2026-11-02T10:00:00Z", "HOOK_MODEL"),
            entry("other", "2026-11-03T10:00:00Z", "BODY_MODEL"),
            entry("tuneloop-hook", "2026-11-04T10:00:00Z", "HOOK_MODEL"),
        ];
        assert_eq!(last(&entries).as_deref(), Some("helm"));
        assert_eq!(last(&entries[2..]), None);
    }
}
