//! MLflow's REST interface, as far as it is used. Every call is sent once: whoever calls looks before creating.

use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::MlflowError;
use super::record::{Input, Point};
use super::settings::{MlflowAccess, MlflowSettings};
use super::wire::{
    Experiment, ExperimentAnswer, FoundVersion, Refusal, RegisteredModel, RegisteredModelAnswer, RunAnswer,
    RunInfo, RunsAnswer, VersionAnswer, VersionsAnswer,
};
use crate::causes;
use crate::outbound;

/// The largest answer that is read.
const LARGEST_ANSWER: usize = 8 << 20;
/// The longest message that is kept, in characters.
const LONGEST_MESSAGE: usize = 300;
/// Whether a call went well, and what it gave.
type Answer<T> = Result<T, MlflowError>;

/// Names and values, as MLflow takes parameters and tags.
#[derive(Serialize)]
struct Entry<'a> {
    key: &'a str,
    value: &'a str,
}

fn entries<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Entry<'a>> {
    pairs.into_iter().map(|(key, value)| Entry { key, value }).collect()
}

/// What is found by a name or made under it.
#[derive(Debug)]
pub(super) struct NewModelVersion<'a> {
    pub(super) model: &'a str,
    pub(super) source: &'a str,
    pub(super) run_id: Option<&'a str>,
    pub(super) description: &'a str,
    pub(super) tags: Vec<(&'a str, &'a str)>,
}

/// A client of one server.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    settings: MlflowSettings,
}

impl Client {
    pub(super) fn new(settings: MlflowSettings) -> reqwest::Result<Self> {
        let http = outbound::client(&settings.url, MlflowSettings::connect_timeout())?;
        Ok(Self { http, settings })
    }

    /// The server's address: where another is met, nothing is known of what was told.
    pub(super) fn server(&self) -> &str {
        self.settings.url.as_str().trim_end_matches('/')
    }

    pub(super) fn settle(&self) -> std::time::Duration {
        self.settings.settle
    }

    /// The experiment of this name.
    pub(super) async fn experiment(&self, name: &str) -> Answer<Option<Experiment>> {
        let found: Option<ExperimentAnswer> =
            present(self.get("experiments/get-by-name", &[("experiment_name", name)]).await)?;
        Ok(found.map(|answer| answer.experiment))
    }

    /// Creates an experiment; that it is there already is as good.
    pub(super) async fn create_experiment(&self, name: &str, tags: &[(&str, &str)]) -> Answer<()> {
        let tags = entries(tags.iter().copied());
        created(self.post("experiments/create", json!({"name": name, "tags": tags})).await)
    }

    /// Runs of an experiment with this tag, those that were deleted among them.
    pub(super) async fn runs_with_tag(
        &self,
        experiment: &str,
        tag: &str,
        value: &str,
    ) -> Answer<Vec<RunInfo>> {
        let body = json!({
            "experiment_ids": [experiment], "filter": format!("tags.`{tag}` = '{value}'"), "max_results": 10,
            "run_view_type": "ALL", "order_by": ["attributes.start_time ASC"],
        });
        let answer: RunsAnswer = read(self.post("runs/search", body).await)?;
        Ok(answer.runs.into_iter().map(|run| run.info).collect())
    }

    /// The run with MLflow's key.
    pub(super) async fn run(&self, id: &str) -> Answer<Option<RunInfo>> {
        let found: Option<RunAnswer> = present(self.get("runs/get", &[("run_id", id)]).await)?;
        Ok(found.map(|answer| answer.run.info))
    }

    /// Creates a run, and another one each time it is called.
    pub(super) async fn create_run(
        &self,
        experiment: &str,
        name: &str,
        start_time: i64,
        tags: &[(&str, &str)],
    ) -> Answer<RunInfo> {
        let body = json!({
            "experiment_id": experiment, "run_name": name, "start_time": start_time,
            "tags": entries(tags.iter().copied()),
        });
        let answer: RunAnswer = read(self.post("runs/create", body).await)?;
        Ok(answer.run.info)
    }

    /// Adds parameters, at most 100. One that is there with the same value stays.
    pub(super) async fn log_params(&self, run: &str, params: &[(&str, &str)]) -> Answer<()> {
        let body = json!({"run_id": run, "params": entries(params.iter().copied())});
        done(self.post("runs/log-batch", body).await)
    }

    /// Sets tags, at most 100.
    pub(super) async fn set_tags(&self, run: &str, tags: &[(&str, &str)]) -> Answer<()> {
        let body = json!({"run_id": run, "tags": entries(tags.iter().copied())});
        done(self.post("runs/log-batch", body).await)
    }

    /// Adds points to metrics, at most 1,000. A point that is there stays: a server with a database knows each by its key,
    /// step, time and value.
    pub(super) async fn log_metrics(&self, run: &str, points: &[(&str, &Point)]) -> Answer<()> {
        let metrics: Vec<_> = points
            .iter()
            .map(|(key, point)| json!({"key": key, "value": point.value, "timestamp": point.at, "step": point.step}))
            .collect();
        done(self.post("runs/log-batch", json!({"run_id": run, "metrics": metrics})).await)
    }

    /// Notes what a run has read. What is noted already stays.
    pub(super) async fn log_input(&self, run: &str, input: &Input) -> Answer<()> {
        let dataset = json!({
            "name": input.name, "digest": input.short_digest(), "source_type": "tuneloop",
            "source": json!({"digest": input.digest}).to_string(), "profile": input.profile.to_string(),
        });
        let tags = entries([("mlflow.data.context", input.context)]);
        let body = json!({"run_id": run, "datasets": [{"dataset": dataset, "tags": tags}]});
        done(self.post("runs/log-inputs", body).await)
    }

    /// Sets a run's status and, where it has ended, when.
    pub(super) async fn update_run(&self, run: &str, status: &str, end_time: Option<i64>) -> Answer<()> {
        let mut body = json!({"run_id": run, "status": status});
        if let Some(end_time) = end_time {
            body["end_time"] = end_time.into();
        }
        done(self.post("runs/update", body).await)
    }

    /// Writes an artifact through the server. `path` is what follows the scheme in the run's `artifact_uri`, and the file's name.
    pub(super) async fn put_artifact(&self, path: &str, content: Vec<u8>) -> Answer<()> {
        let url = self.url(&format!("api/2.0/mlflow-artifacts/artifacts/{path}"));
        let request = self.http.request(Method::PUT, url).header("content-type", "application/json");
        done(self.send(request.body(content)).await)
    }

    /// The registered model of this name.
    pub(super) async fn model(&self, name: &str) -> Answer<Option<RegisteredModel>> {
        let found: Option<RegisteredModelAnswer> =
            present(self.get("registered-models/get", &[("name", name)]).await)?;
        Ok(found.map(|answer| answer.registered_model))
    }

    /// Registers a model; that it is there already is as good.
    pub(super) async fn create_model(
        &self,
        name: &str,
        description: &str,
        tags: &[(&str, &str)],
    ) -> Answer<()> {
        let tags = entries(tags.iter().copied());
        let body = json!({"name": name, "description": description, "tags": tags});
        created(self.post("registered-models/create", body).await)
    }

    /// Versions of a model with this tag.
    pub(super) async fn versions_with_tag(
        &self,
        model: &str,
        tag: &str,
        value: &str,
    ) -> Answer<Vec<FoundVersion>> {
        let filter = format!("name = '{model}' and tags.`{tag}` = '{value}'");
        let query = [("filter", filter.as_str()), ("max_results", "10")];
        let answer: VersionsAnswer = read(self.get("model-versions/search", &query).await)?;
        Ok(answer.model_versions)
    }

    /// Creates a version of a model, and another one each time it is called.
    pub(super) async fn create_version(&self, new: &NewModelVersion<'_>) -> Answer<FoundVersion> {
        let mut body = json!({
            "name": new.model, "source": new.source, "description": new.description,
            "tags": entries(new.tags.iter().copied()),
        });
        if let Some(run_id) = new.run_id {
            body["run_id"] = run_id.into();
        }
        let answer: VersionAnswer = read(self.post("model-versions/create", body).await)?;
        Ok(answer.model_version)
    }

    /// Sets a tag of a version.
    pub(super) async fn set_version_tag(
        &self,
        model: &str,
        version: &str,
        key: &str,
        value: &str,
    ) -> Answer<()> {
        let body = json!({"name": model, "version": version, "key": key, "value": value});
        done(self.post("model-versions/set-tag", body).await)
    }

    /// Sets the description of a version.
    pub(super) async fn describe_version(&self, model: &str, version: &str, description: &str) -> Answer<()> {
        let body = json!({"name": model, "version": version, "description": description});
        done(self.call(Method::PATCH, "model-versions/update", &body).await)
    }

    /// Points an alias at a version, wherever it pointed before.
    pub(super) async fn set_alias(&self, model: &str, alias: &str, version: &str) -> Answer<()> {
        let body = json!({"name": model, "alias": alias, "version": version});
        done(self.post("registered-models/alias", body).await)
    }

    /// Takes an alias away.
    pub(super) async fn delete_alias(&self, model: &str, alias: &str) -> Answer<()> {
        let body = json!({"name": model, "alias": alias});
        done(self.call(Method::DELETE, "registered-models/alias", &body).await)
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Answer<Vec<u8>> {
        let mut url = self.url(&format!("api/2.0/mlflow/{path}"));
        url.query_pairs_mut().extend_pairs(query);
        self.send(self.http.get(url)).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer<Vec<u8>> {
        self.call(Method::POST, path, &body).await
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Answer<Vec<u8>> {
        self.send(self.http.request(method, self.url(&format!("api/2.0/mlflow/{path}"))).json(body)).await
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.settings.url.clone();
        let whole = format!("{}/{path}", url.path().trim_end_matches('/'));
        url.set_path(&whole);
        url
    }

    async fn send(&self, request: RequestBuilder) -> Answer<Vec<u8>> {
        let request = match &self.settings.access {
            MlflowAccess::Open => request,
            MlflowAccess::Password(user, password) => request.basic_auth(user, Some(password.expose())),
            MlflowAccess::Token(token) => request.bearer_auth(token.expose()),
        };
        let response = request.timeout(self.settings.timeout).send().await.map_err(failure)?;
        let status = response.status();
        tracing::debug!(path = response.url().path(), status = status.as_u16(), "MLflow answered");
        let body = body(response).await;
        if status.is_success() {
            return body;
        }
        // A refusal whose body is lost is still a refusal.
        let body = body.unwrap_or_default();
        let read = serde_json::from_slice(&body).ok().filter(|read: &Refusal| !read.message.is_empty());
        let refusal = read.unwrap_or_else(|| Refusal {
            error_code: String::new(),
            message: String::from_utf8_lossy(&body).into_owned(),
        });
        Err(MlflowError::Refused {
            status,
            code: refusal.error_code,
            message: self.presentable(&refusal.message),
        })
    }

    /// One line, not too long, without the credentials should the server repeat them.
    fn presentable(&self, message: &str) -> String {
        let mut message = message.replace(char::is_control, " ");
        if let MlflowAccess::Password(_, secret) | MlflowAccess::Token(secret) = &self.settings.access {
            message = message.replace(secret.expose(), "[redacted]");
        }
        message.trim().trim_end_matches('.').chars().take(LONGEST_MESSAGE).collect()
    }
}

/// Only a connection that was never made is certain not to have carried the request.
fn failure(error: reqwest::Error) -> MlflowError {
    let error = error.without_url();
    let cause = causes::last(&error);
    match (error.is_connect() || error.is_builder(), error.is_timeout()) {
        (true, true) => MlflowError::NotSent("connecting took too long".to_owned()),
        (true, false) => MlflowError::NotSent(cause),
        (false, true) => MlflowError::NoAnswer("the time limit passed".to_owned()),
        (false, false) => MlflowError::NoAnswer(cause),
    }
}

async fn body(mut response: Response) -> Answer<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failure)? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(MlflowError::Malformed(format!("it is larger than {LARGEST_ANSWER} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn read<T: DeserializeOwned>(answer: Answer<Vec<u8>>) -> Answer<T> {
    serde_json::from_slice(&answer?).map_err(|error| MlflowError::Malformed(error.to_string()))
}

/// Reads what may be missing.
fn present<T: DeserializeOwned>(answer: Answer<Vec<u8>>) -> Answer<Option<T>> {
    match answer {
        Err(error) if error.is_missing() => Ok(None),
        answer => read(answer).map(Some),
    }
}

/// An answer that says nothing but that it was done. Whatever stands before MLflow may answer everything with a page of its own.
fn done(answer: Answer<Vec<u8>>) -> Answer<()> {
    let body = answer?;
    if body.is_empty() { Ok(()) } else { read::<serde::de::IgnoredAny>(Ok(body)).map(|_| ()) }
}

fn created(answer: Answer<Vec<u8>>) -> Answer<()> {
    match answer {
        Err(error) if error.exists_already() => Ok(()),
        answer => done(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn client(url: &str, access: MlflowAccess) -> Client {
        Client::new(MlflowSettings::new(Url::parse(url).unwrap(), access)).unwrap()
    }

    #[test]
    fn a_path_in_front_of_mlflows_own_is_kept() {
        for url in ["https://host/ml/flow", "https://host/ml/flow/"] {
            let client = client(url, MlflowAccess::Open);
            assert_eq!(client.url("api/2.0/x").as_str(), "https://host/ml/flow/api/2.0/x");
            assert_eq!(client.server(), "https://host/ml/flow");
        }
        assert_eq!(client("http://host:1", MlflowAccess::Open).url("api").as_str(), "http://host:1/api");
    }

    #[test]
    fn credentials_appear_neither_in_messages_nor_in_debug() {
        for access in [
            MlflowAccess::Password("ann".into(), Secret::new("s3cret")),
            MlflowAccess::Token(Secret::new("s3cret")),
        ] {
            let client = client("http://host", access);
            assert_eq!(client.presentable("no\ns3cret here."), "no [redacted] here");
            assert!(!format!("{client:?}").contains("s3cret"));
        }
    }

    #[test]
    fn a_page_of_something_else_is_no_answer_of_mlflow() {
        assert!(matches!(done(Ok(b"<html>".to_vec())), Err(MlflowError::Malformed(_))));
        assert!(done(Ok(b"{}".to_vec())).is_ok() && done(Ok(Vec::new())).is_ok());
    }
}
