//! A stand-in for the Kubernetes API: objects of the kinds ConfigMap and Deployment in one namespace, kept in memory.
//!
//! What it does as a real API server does: `GET`, `POST` and server-side apply with managed fields (shared ownership of equal
//! values, conflicts that name manager and field, `force`, fields that are given up are removed, a change by another kind
//! of write takes ownership), merge patches, `resourceVersion` and `uid` as preconditions, no new version for what changes
//! nothing, and the statuses 401, 403, 404, 409, 415 and 503 with the words and details of the real ones.
//!
//! What it does not do: watch, list, pagination, subresources, other content types (strategic merge, JSON patch), schemas and
//! their validation and defaults (any field is taken), lists as anything but one value, versions of an API, quotas,
//! admission, and `metadata` other than names, labels, annotations, `uid`, `resourceVersion`, `generation` and
//! `managedFields`. A Deployment has no pods; that its template has changed shows in `generation`.

mod fields;
mod object;
mod server;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub(crate) use object::Object;

/// The one namespace there is.
pub(crate) const NAMESPACE: &str = "shop";
/// What the one user there is sends.
const TOKEN: &str = "a-token";

/// What is wrong with the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 503 to everything.
    Unavailable,
    /// Nobody's token is accepted.
    Unauthorized,
    /// No patch of anything is allowed.
    PatchForbidden,
    /// Somebody changes each ConfigMap as soon as it was patched.
    Meddler,
    /// Patches are answered as if they had worked and are lost.
    Forgetful,
    /// Nothing is answered.
    Silent,
}

#[derive(Clone)]
pub(crate) struct Kubernetes {
    inner: Arc<Inner>,
    address: String,
}

struct Inner {
    state: Mutex<State>,
    /// Patches wait while it is true.
    held: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// By resource and name.
    objects: BTreeMap<(String, String), Object>,
    version: u64,
    fault: Option<Fault>,
    calls: Vec<String>,
    waiting: usize,
}

impl Kubernetes {
    /// An API with an empty namespace, on a free port of this machine.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let kubernetes = Self {
            inner: Arc::new(Inner { state: Mutex::default(), held: watch::Sender::new(false) }),
            address,
        };
        let router = server::router(kubernetes.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        kubernetes
    }

    /// What a user has in `~/.kube/config`.
    pub(crate) fn kubeconfig(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": self.address}}],
            "users": [{"name": "me", "user": {"token": TOKEN}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        })
    }

    pub(crate) async fn config(&self) -> Config {
        let kubeconfig: Kubeconfig = serde_json::from_value(self.kubeconfig()).unwrap();
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap()
    }

    pub(crate) fn fault(&self, fault: impl Into<Option<Fault>>) {
        self.state().fault = fault.into();
    }

    /// Has patches wait from now on, or lets them all go.
    pub(crate) fn hold_patches(&self, held: bool) {
        self.inner.held.send_replace(held);
    }

    /// How many patches wait.
    pub(crate) fn waiting(&self) -> usize {
        self.state().waiting
    }

    /// Every call so far, as verb and resource, without those that were refused before they were looked at.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// The kinds of calls so far.
    pub(crate) fn kinds_of_calls(&self) -> BTreeSet<String> {
        self.calls().into_iter().collect()
    }

    /// The calls of one kind so far.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.calls().iter().filter(|call| *call == kind).count()
    }

    /// The object, as a `GET` shows it.
    pub(crate) fn object(&self, resource: &str, name: &str) -> Option<Value> {
        self.state().objects.get(&(resource.to_owned(), name.to_owned())).map(Object::show)
    }

    /// The data of a ConfigMap; `null` where there is none.
    pub(crate) fn data(&self, name: &str) -> Value {
        self.object("configmaps", name).map(|object| object["data"].clone()).unwrap_or_default()
    }

    /// The traffic document of a pipeline in a ConfigMap; `null` where there is none.
    pub(crate) fn traffic(&self, name: &str, pipeline: &str) -> Value {
        let data = self.data(name);
        let text = data[format!("{pipeline}.traffic.json")].as_str();
        text.map(|text| serde_json::from_str(text).unwrap()).unwrap_or_default()
    }

    /// Makes an object, as `kubectl create` does.
    pub(crate) fn create(&self, resource: &str, body: &Value) {
        self.state().create(resource, body, "kubectl-create").unwrap();
    }

    /// Changes an object, as `kubectl edit` does. What is null is removed.
    pub(crate) fn edit(&self, resource: &str, name: &str, change: &Value) {
        self.state().merge(resource, name, change, "kubectl-edit").unwrap();
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, resource: &str, name: &str) {
        self.state().objects.remove(&(resource.to_owned(), name.to_owned())).unwrap();
    }
}

/// That the stand-in itself keeps to the rules that the tests rely on.
mod tests {
    use super::server::Apply;
    use super::*;

    fn apply(state: &mut State, manager: &str, data: &Value, force: bool) -> Result<Value, Value> {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data});
        let how = Apply { manager: manager.into(), force };
        state
            .apply("configmaps", "m", &body, &how)
            .map(|object| object.show())
            .map_err(|status| status.body())
    }

    #[test]
    fn equal_values_are_shared_and_different_ones_conflict_unless_forced() {
        let mut state = State::default();
        apply(&mut state, "one", &json!({"a": "1", "b": "2"}), false).unwrap();
        apply(&mut state, "two", &json!({"a": "1"}), false).unwrap();
        let conflict = apply(&mut state, "two", &json!({"a": "9"}), false).unwrap_err();
        assert_eq!(conflict["message"], "Apply failed with 1 conflict: conflict with \"one\": .data.a");
        assert_eq!(conflict["details"]["causes"][0]["field"], ".data.a");
        let forced = apply(&mut state, "two", &json!({"a": "9"}), true).unwrap();
        assert_eq!(forced["data"], json!({"a": "9", "b": "2"}));
        // What one gives up goes, as far as nobody else has it.
        assert_eq!(apply(&mut state, "one", &json!({}), false).unwrap()["data"], json!({"a": "9"}));
        assert_eq!(apply(&mut state, "two", &json!({}), false).unwrap()["data"], Value::Null);
    }

    #[test]
    fn an_edit_takes_ownership_and_what_changes_nothing_makes_no_version() {
        let mut state = State::default();
        let first = apply(&mut state, "one", &json!({"a": "1"}), false).unwrap();
        let same = apply(&mut state, "one", &json!({"a": "1"}), false).unwrap();
        assert_eq!(first["metadata"]["resourceVersion"], same["metadata"]["resourceVersion"]);
        state.merge("configmaps", "m", &json!({"data": {"a": "2"}}), "kubectl-edit").unwrap();
        let conflict = apply(&mut state, "one", &json!({"a": "1"}), false).unwrap_err();
        assert_eq!(
            conflict["message"],
            "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using v1: .data.a"
        );
    }

    #[test]
    fn an_old_version_and_another_object_are_refused() {
        let mut state = State::default();
        apply(&mut state, "one", &json!({"a": "1"}), false).unwrap();
        let mut with = |metadata: Value| {
            let body = json!({"metadata": metadata, "data": {"a": "2"}});
            let how = Apply { manager: "one".into(), force: true };
            state.apply("configmaps", "m", &body, &how).map(|_| ()).map_err(|status| status.body())
        };
        let refused = with(json!({"resourceVersion": "0"})).unwrap_err();
        assert!(refused["message"].as_str().unwrap().contains("the object has been modified"), "{refused}");
        assert_eq!(with(json!({"uid": "another"})).unwrap_err()["code"], 409);
        with(json!({"resourceVersion": "1"})).unwrap();
    }

    #[tokio::test]
    async fn tokens_namespaces_and_faults_are_told_as_statuses() {
        let kubernetes = Kubernetes::start().await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let get = |namespace: &str, token: &str| {
            let url = format!("{}/api/v1/namespaces/{namespace}/configmaps/m", kubernetes.address);
            let request = client.get(url).bearer_auth(token);
            async move { request.send().await.unwrap().status().as_u16() }
        };
        assert_eq!(get(NAMESPACE, TOKEN).await, 404);
        assert_eq!(get(NAMESPACE, "another").await, 401);
        kubernetes.fault(Fault::Unavailable);
        assert_eq!(get(NAMESPACE, TOKEN).await, 503);
        kubernetes.fault(Fault::Unauthorized);
        assert_eq!(get(NAMESPACE, TOKEN).await, 401);
    }
}
