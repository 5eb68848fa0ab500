//! The routes, and what a write does.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State as Shared};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tuneloop::clock::Clock;

use super::fields::{self, leaves};
use super::object::{Object, Operation};
use super::status::Status;
use super::{Fault, Kubernetes, NAMESPACE, State, TOKEN};

pub(super) fn router(kubernetes: Kubernetes) -> Router {
    let mut router = Router::new();
    for prefix in ["/api/v1", "/apis/apps/v1"] {
        router =
            router.route(&format!("{prefix}/namespaces/{{namespace}}/{{resource}}"), post(create)).route(
                &format!("{prefix}/namespaces/{{namespace}}/{{resource}}/{{name}}"),
                get(read).patch(patch),
            );
    }
    router.with_state(kubernetes)
}

#[derive(Debug, Deserialize)]
struct How {
    #[serde(rename = "fieldManager")]
    manager: Option<String>,
    #[serde(default)]
    force: bool,
}

/// How a server-side apply is asked for.
pub(super) struct Apply {
    pub(super) manager: String,
    pub(super) force: bool,
}

impl Kubernetes {
    /// Whether the caller may do this, as things stand.
    async fn admit(&self, verb: &str, headers: &HeaderMap, resource: &str, name: &str) -> Result<(), Status> {
        while self.is(Fault::Silent) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let fault = self.state().fault;
        if fault == Some(Fault::Unavailable) {
            let message = "the server is currently unable to handle the request";
            return Err(Status::new(503, "ServiceUnavailable", message));
        }
        let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if fault == Some(Fault::Unauthorized) || token != Some(&format!("Bearer {TOKEN}")) {
            return Err(Status::new(401, "Unauthorized", "Unauthorized"));
        }
        if fault == Some(Fault::PatchForbidden) && verb == "patch" {
            let message = format!(
                "{resource} \"{name}\" is forbidden: User \"me\" cannot patch resource \"{resource}\" in API group \"\" in the \
                 namespace \"{NAMESPACE}\""
            );
            return Err(Status::new(403, "Forbidden", message));
        }
        self.state().calls.push(format!("{verb} {resource}"));
        Ok(())
    }

    fn is(&self, fault: Fault) -> bool {
        self.state().fault == Some(fault)
    }

    /// Waits while patches are held.
    async fn pass(&self) {
        let mut held = self.inner.held.subscribe();
        self.state().waiting += 1;
        held.wait_for(|held| !held).await.unwrap();
        self.state().waiting -= 1;
    }
}

async fn read(
    Shared(kubernetes): Shared<Kubernetes>,
    Path((namespace, resource, name)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Status> {
    kubernetes.admit("get", &headers, &resource, &name).await?;
    let object = kubernetes.object(&resource, &name).filter(|_| namespace == NAMESPACE);
    Ok(Json(object.ok_or_else(|| Status::not_found(&resource, &name))?).into_response())
}

async fn create(
    Shared(kubernetes): Shared<Kubernetes>,
    Path((namespace, resource)): Path<(String, String)>,
    Query(how): Query<How>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Result<Response, Status> {
    kubernetes.admit("create", &headers, &resource, "").await?;
    if namespace != NAMESPACE {
        return Err(Status::not_found("namespaces", &namespace));
    }
    let object = kubernetes.state().create(&resource, &body, how.manager.as_deref().unwrap_or("unknown"))?;
    Ok((StatusCode::CREATED, Json(object.show())).into_response())
}

async fn patch(
    Shared(kubernetes): Shared<Kubernetes>,
    Path((namespace, resource, name)): Path<(String, String, String)>,
    Query(how): Query<How>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Status> {
    kubernetes.admit("patch", &headers, &resource, &name).await?;
    kubernetes.pass().await;
    if namespace != NAMESPACE {
        return Err(Status::not_found("namespaces", &namespace));
    }
    let body: Value = serde_json::from_slice(&body)
        .map_err(|error| Status::new(400, "BadRequest", format!("error decoding patch: {error}")))?;
    let mut state = kubernetes.state();
    if state.fault == Some(Fault::Forgetful) {
        return Ok(Json(body).into_response());
    }
    let object = match headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) {
        Some("application/apply-patch+yaml") => {
            let manager = how.manager.ok_or_else(|| {
                let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
                Status::new(422, "Invalid", message)
            })?;
            state.apply(&resource, &name, &body, &Apply { manager, force: how.force })?
        }
        Some("application/merge-patch+json") => {
            state.merge(&resource, &name, &body, how.manager.as_deref().unwrap_or("unknown"))?
        }
        other => {
            let message = format!("the body of the request was in an unknown format: {other:?}");
            return Err(Status::new(415, "UnsupportedMediaType", message));
        }
    };
    if state.fault == Some(Fault::Meddler) && resource == "configmaps" {
        state.merge(&resource, &name, &json!({"data": {"HOOK_MODEL": "meddled"}}), "meddler")?;
    }
    Ok(Json(object.show()).into_response())
}

impl State {
    pub(super) fn create(&mut self, resource: &str, body: &Value, manager: &str) -> Result<Object, Status> {
        let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if self.objects.contains_key(&(resource.to_owned(), name.clone())) {
            let message = format!("{resource} \"{name}\" already exists");
            return Err(Status::new(409, "AlreadyExists", message));
        }
        let fields = leaves(body).into_keys().collect();
        let mut object = blank(resource, &name);
        merge_into(&mut object.value, body);
        object.own(manager, Operation::Update, fields);
        Ok(self.store(resource, &name, None, object))
    }

    /// Server-side apply.
    pub(super) fn apply(
        &mut self,
        resource: &str,
        name: &str,
        body: &Value,
        how: &Apply,
    ) -> Result<Object, Status> {
        let before = self.objects.get(&(resource.to_owned(), name.to_owned())).cloned();
        let mut object = before.clone().unwrap_or_else(|| blank(resource, name));
        let (live, applied) = (leaves(&object.value), leaves(body));
        let mut conflicts = Vec::new();
        for (field, _) in applied.iter().filter(|(field, value)| live.get(*field) != Some(value)) {
            let others = object.managers.iter().filter(|manager| {
                (manager.name.as_str(), manager.operation) != (&how.manager, Operation::Apply)
                    && manager.fields.contains(field)
            });
            for other in others {
                let using = match other.operation {
                    Operation::Update => format!(" using {}", object.value["apiVersion"].as_str().unwrap()),
                    Operation::Apply => String::new(),
                };
                conflicts.push((format!("\"{}\"{using}", other.name), fields::written(field)));
            }
        }
        if !conflicts.is_empty() && !how.force {
            return Err(Status::conflicts(&conflicts));
        }
        for (given, present) in ["resourceVersion", "uid"].map(|key| (&body["metadata"][key], key)) {
            let present = before.as_ref().map_or(&Value::Null, |before| &before.value["metadata"][present]);
            if !given.is_null() && given != present {
                return Err(Status::modified(resource, name));
            }
        }
        let wanted: BTreeSet<_> = applied.keys().cloned().collect();
        for given_up in object.owned(&how.manager, Operation::Apply).difference(&wanted) {
            let shared =
                object.managers.iter().filter(|manager| manager.fields.contains(given_up)).count() > 1;
            if !shared {
                fields::remove(&mut object.value, given_up);
            }
        }
        for (field, value) in applied {
            if live.get(&field) != Some(&value) {
                object.take(&field, &how.manager, Operation::Apply);
                fields::set(&mut object.value, &field, value);
            }
        }
        object.own(&how.manager, Operation::Apply, wanted);
        Ok(self.store(resource, name, before.as_ref(), object))
    }

    /// A JSON merge patch: whoever changes a field by it owns it alone.
    pub(super) fn merge(
        &mut self,
        resource: &str,
        name: &str,
        change: &Value,
        manager: &str,
    ) -> Result<Object, Status> {
        let before = self.objects.get(&(resource.to_owned(), name.to_owned())).cloned();
        let before = before.ok_or_else(|| Status::not_found(resource, name))?;
        let mut object = before.clone();
        merge_into(&mut object.value, change);
        let (old, new) = (leaves(&before.value), leaves(&object.value));
        let mut owned = object.owned(manager, Operation::Update);
        for field in old.keys().filter(|field| !new.contains_key(*field)) {
            object.take(field, "", Operation::Update);
            owned.remove(field);
        }
        for (field, _) in new.iter().filter(|(field, value)| old.get(*field) != Some(value)) {
            object.take(field, manager, Operation::Update);
            owned.insert(field.clone());
        }
        object.own(manager, Operation::Update, owned);
        Ok(self.store(resource, name, Some(&before), object))
    }

    /// Keeps the object, with a new version if anything has changed.
    fn store(&mut self, resource: &str, name: &str, before: Option<&Object>, mut object: Object) -> Object {
        if let Some(before) = before {
            let shown = (before.show(), object.show());
            if shown.0 == shown.1 {
                return object;
            }
            if before.value["spec"] != object.value["spec"] {
                let generation = object.value["metadata"]["generation"].as_u64().unwrap_or_default();
                object.value["metadata"]["generation"] = (generation + 1).into();
            }
        }
        self.version += 1;
        object.value["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert((resource.to_owned(), name.to_owned()), object.clone());
        object
    }
}

/// An object without fields of its own.
fn blank(resource: &str, name: &str) -> Object {
    let (version, kind) = match resource {
        "deployments" => ("apps/v1", "Deployment"),
        _ => ("v1", "ConfigMap"),
    };
    let metadata =
        json!({"name": name, "namespace": NAMESPACE, "uid": Clock::system().uuid(), "generation": 1});
    Object { value: json!({"apiVersion": version, "kind": kind, "metadata": metadata}), managers: Vec::new() }
}

/// RFC 7396.
fn merge_into(target: &mut Value, change: &Value) {
    let Some(members) = change.as_object() else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in members {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merge_into(&mut target[name.as_str()], value);
        }
    }
}
