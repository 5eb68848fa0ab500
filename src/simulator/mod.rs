//! A provider that speaks OpenAI's protocol: files, fine-tuning jobs, models and chat completions. It stands
//! in for the real one in the demo and in tests.
//!
//! Nothing is trained. Everything is kept in memory and nothing runs in the background: what a job has come
//! to follows from its creation and the [`Clock`] alone, so that a test that moves a fixed clock moves the
//! jobs. Answers conform to OpenAI's published specification; error messages follow those of the real service.
//! A [`FaultPlan`] makes calls fail on their way and jobs misbehave.

mod auth;
mod azure;
mod chat;
mod create;
mod errors;
mod events;
mod faults;
mod files;
mod ids;
mod job;
mod jobs;
mod judge;
mod method;
mod metrics;
mod models;
mod notices;
mod request;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod text;
mod timeline;
mod validate;

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post, put};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Url;
use tokio::net::TcpListener;

pub use self::faults::{Fault, FaultPlan, FaultRates, JobFaults, ModelFaults, Route, Script};
pub use self::job::{JobError, JobSummary};
pub use self::settings::Settings;
pub use self::store::{CreateCounts, FileSummary};
pub use self::timeline::JobStatus;

use self::store::Store;
use crate::clock::Clock;
use crate::standard_webhooks::WebhookSecret;

/// The largest body of a request, as at the real service: 512 MB, and a little for the form around a file.
const LARGEST_BODY: usize = 513 * 1024 * 1024;

/// The simulated provider. Cheap to clone; clones share their state.
#[derive(Clone, Debug)]
pub struct Simulator(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    clock: Clock,
    store: Mutex<Store>,
}

impl Simulator {
    /// A provider without files and jobs.
    #[must_use]
    pub fn new(settings: Settings, clock: Clock) -> Self {
        let mut store = Store::default();
        store.dealer.start(settings.faults.clone());
        Self(Arc::new(Shared { settings, clock, store: Mutex::new(store) }))
    }

    /// The endpoints: OpenAI's under `/v1`, Azure's under `/openai/v1`, and those of the simulator alone.
    pub fn router(&self) -> Router {
        let openai = protocol("/v1").route("/v1/chat/completions", post(chat::create));
        let azure = protocol(azure::PREFIX)
            .route(&format!("{}/chat/completions", azure::PREFIX), post(chat::create_deployed));
        openai
            .merge(azure)
            .fallback(errors::unknown_url)
            .method_not_allowed_fallback(errors::wrong_method)
            .layer(DefaultBodyLimit::max(LARGEST_BODY))
            .layer(middleware::from_fn_with_state(self.clone(), auth::guard))
            .layer(middleware::from_fn_with_state(self.clone(), faults::deal))
            .route("/simulator/faults", get(faults::read).put(faults::replace).delete(faults::clear))
            .route("/simulator/deployments", get(azure::list))
            .route("/simulator/deployments/{id}", put(azure::deploy).delete(azure::delete))
            .route("/simulator/counts", get(faults::counts))
            .with_state(self.clone())
    }

    /// Tells `target` of jobs that end, signed after Standard Webhooks, for as long as it is polled. A notice that is not taken is
    /// sent again.
    pub async fn send_notices(&self, target: Url, secret: WebhookSecret) {
        notices::send(self, target, &secret).await;
    }

    /// Answers requests until `shutdown` resolves and the requests at hand are answered.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let served = axum::serve(listener, self.router()).with_graceful_shutdown(shutdown);
        let settings = self.settings();
        let Some((target, secret)) = settings.webhook_url.clone().zip(settings.webhook_secret.clone()) else {
            return served.await;
        };
        tokio::select! {
            ended = served => ended,
            () = self.send_notices(target, secret) => Ok(()),
        }
    }

    /// Makes the next job that would have succeeded fail in the middle of its training. Calls add up: two of
    /// them are for two jobs.
    pub fn fail_next_job(&self, code: impl Into<String>, message: impl Into<String>) {
        let error = JobError { code: code.into(), message: message.into(), param: None };
        self.open().0.next_failures.push_back(error);
    }

    /// Starts a plan of faults; what was asked and counted before stays.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.open().0.dealer.start(plan);
    }

    /// All jobs, oldest first, as they are now.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobSummary> {
        let (store, now) = self.open();
        store.jobs.iter().map(|job| job.summary(now)).collect()
    }

    /// All files, oldest first.
    #[must_use]
    pub fn files(&self) -> Vec<FileSummary> {
        self.open().0.files.iter().map(store::StoredFile::summary).collect()
    }

    /// The bytes of a file; `None` if there is none with this id.
    #[must_use]
    pub fn file_content(&self, id: &str) -> Option<Vec<u8>> {
        self.open().0.file(id).map(|file| file.content.to_vec())
    }

    /// How often files and jobs were asked for, refused requests included.
    #[must_use]
    pub fn creates(&self) -> CreateCounts {
        self.open().0.creates
    }

    /// How many calls of a kind came, whatever became of them.
    #[must_use]
    pub fn calls(&self, route: Route) -> u64 {
        self.open().0.dealer.calls(route)
    }

    /// How many files were taken; deleted ones count as well.
    #[must_use]
    pub fn uploaded(&self) -> u64 {
        self.open().0.uploaded
    }

    /// Deploys a model under a name, as an operator does at Azure.
    pub fn deploy(&self, name: impl Into<String>, model: impl Into<String>) {
        self.open().0.deployments.insert(name.into(), model.into());
    }

    /// The state, brought up to the present moment, and that moment.
    fn open(&self) -> (MutexGuard<'_, Store>, DateTime<Utc>) {
        let mut store = self.0.store.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.0.clock.now();
        store.settle(now);
        (store, now)
    }

    fn settings(&self) -> &Settings {
        &self.0.settings
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The time that a job takes, at most a year so that its end is always a date.
    fn training_time(&self) -> TimeDelta {
        let longest = TimeDelta::days(365);
        TimeDelta::from_std(self.settings().training_time).map_or(longest, |time| time.min(longest))
    }
}

/// What both services have, under their prefix.
fn protocol(prefix: &str) -> Router<Simulator> {
    let path = |rest: &str| format!("{prefix}{rest}");
    let job = |rest: &str| format!("{prefix}/fine_tuning/jobs/{{id}}{rest}");
    Router::new()
        .route(&path("/files"), get(files::list).post(files::create))
        .route(&path("/files/{id}"), get(files::retrieve).delete(files::delete))
        .route(&path("/files/{id}/content"), get(files::content))
        .route(&path("/fine_tuning/jobs"), get(jobs::list).post(jobs::create))
        .route(&job(""), get(jobs::retrieve))
        .route(&job("/cancel"), post(jobs::cancel))
        .route(&job("/pause"), post(jobs::pause))
        .route(&job("/resume"), post(jobs::resume))
        .route(&job("/events"), get(jobs::events))
        .route(&job("/checkpoints"), get(jobs::checkpoints))
        .route(&path("/models"), get(models::list))
        .route(&path("/models/{id}"), get(models::retrieve).delete(models::delete))
}
