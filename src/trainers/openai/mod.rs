//! OpenAI, and services that speak its protocol, through async-openai.
//!
//! The crate's typed structs refuse what real services send, so its `byot` calls bring JSON, which
//! [`wire`] reads leniently; [`http`] takes the place of its retrying HTTP service; [`errors`] gives
//! failures their meaning.

mod content;
mod dialect;
mod errors;
mod http;
mod pages;
mod reasons;
pub(super) mod rules;
mod settings;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;
use std::ops::ControlFlow;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::traits::RequestOptionsBuilder;
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Body, multipart};
use serde_json::Value;
use uuid::{Uuid, Version};

pub use dialect::Dialect;
pub use settings::{ApiKey, OPENAI_BASE_URL, OpenAiSettings, OpenAiSettingsError};

use super::{
    Checkpoint, Completion, CompletionRequest, FileId, ModelState, ProviderJob, RejectReason, Result,
    Trainer, TrainerError, TrainingEvent, TrainingFile, TrainingRequest,
};
use crate::clock::Clock;
use crate::outbound::{self, CircuitBreaker};
use content::ContentFault;
use errors::Operation;
use http::{Failure, Transport, redacted};

const FILES_PER_PAGE: usize = 1000;
const JOBS_PER_PAGE: usize = 100;
const EVENTS_PER_PAGE: usize = 100;
const CHECKPOINTS_PER_PAGE: usize = 100;
/// How far the provider's clock may be behind ours before a job of ours is taken for an older one.
const CLOCK_SKEW: TimeDelta = TimeDelta::days(1);

/// A client of OpenAI's fine-tuning. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct OpenAiTrainer {
    dialect: Dialect,
    base_url: String,
    calls: Client<OpenAIConfig>,
    /// With the time limit of uploads, which do not go through async-openai: it would hold the whole file.
    uploads: Transport,
}

impl fmt::Debug for OpenAiTrainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiTrainer")
            .field("dialect", &self.dialect)
            .field("base_url", &self.base_url)
            .finish_non_exhaustive()
    }
}

impl OpenAiTrainer {
    /// Makes a client; nothing is sent yet.
    pub fn new(settings: &OpenAiSettings, clock: &Clock) -> std::result::Result<Self, OpenAiSettingsError> {
        let url = settings.checked_base_url()?;
        let base_url = url.as_str().trim_end_matches('/').to_owned();
        let client = outbound::client(&url, settings.connect_timeout);
        let client = client.map_err(|error| OpenAiSettingsError::HttpClient(error.to_string()))?;
        settings.check_api_key()?;
        let dialect = settings.dialect;
        // Every value is set, so that none comes from the environment. The key is set by the transport.
        let config =
            OpenAIConfig::new().with_api_base(&base_url).with_api_key("").with_org_id("").with_project_id("");
        let calls = Transport {
            client: client.clone(),
            timeout: settings.total_timeout,
            dialect,
            api_key: settings.api_key.clone(),
            clock: clock.clone(),
            breaker: settings
                .breaker
                .clone()
                .unwrap_or_else(|| CircuitBreaker::new(dialect.provider(), clock.clone())),
        };
        let uploads = Transport { timeout: settings.upload_timeout, ..calls.clone() };
        let calls = Client::build(client, config).with_http_service(calls);
        Ok(Self { dialect, base_url, calls, uploads })
    }

    async fn files_page(&self, after: Option<String>) -> Result<Value> {
        let mut query = page_query(FILES_PER_PAGE, after);
        query.push(("purpose".to_owned(), "fine-tune".to_owned()));
        query.push(("order".to_owned(), "asc".to_owned()));
        let list = async { self.calls.files().query(&query)?.list_byot().await };
        list.await.map_err(|error| Operation::ListFiles.error(error.into()))
    }

    async fn jobs_page(&self, training_id: Uuid, after: Option<String>) -> Result<Value> {
        let mut query = page_query(JOBS_PER_PAGE, after);
        if self.dialect.filters_by_metadata() {
            query.push(("metadata[training_id]".to_owned(), training_id.to_string()));
        }
        let list = async { self.calls.fine_tuning().query(&query)?.list_paginated_byot().await };
        list.await.map_err(|error| Operation::ListJobs.error(error.into()))
    }

    async fn checkpoints_page(&self, job_id: &str, after: Option<String>) -> Result<Value> {
        let query = page_query(CHECKPOINTS_PER_PAGE, after);
        let list = async { self.calls.fine_tuning().query(&query)?.list_checkpoints_byot(job_id).await };
        list.await.map_err(|error| Operation::Checkpoints.error(error.into()))
    }

    async fn events_page(&self, job_id: &str, after: Option<String>) -> Result<Value> {
        let query = page_query(EVENTS_PER_PAGE, after);
        let list = async { self.calls.fine_tuning().query(&query)?.list_events_byot(job_id).await };
        list.await.map_err(|error| Operation::Events.error(error.into()))
    }

    fn read_job(
        &self,
        operation: Operation,
        answer: std::result::Result<Value, Failure>,
    ) -> Result<ProviderJob> {
        let answer = answer.map_err(|failure| operation.error(failure))?;
        let mut job = self.dialect.read_job(&answer).map_err(|why| operation.malformed(why))?;
        self.redact(&mut job);
        Ok(job)
    }

    /// Takes keys out of what a job failed with.
    fn redact(&self, job: &mut ProviderJob) {
        let Some(error) = &mut job.error else { return };
        for text in [&mut error.code, &mut error.message, &mut error.param].into_iter().flatten() {
            *text = redacted(text, &self.uploads.api_key);
        }
    }
}

impl Trainer for OpenAiTrainer {
    async fn upload(&self, file: TrainingFile) -> Result<FileId> {
        let fault = ContentFault::default();
        let content = Body::wrap_stream(fault.watch(file.content));
        let content = multipart::Part::stream_with_length(content, file.bytes);
        let form =
            multipart::Form::new().text("purpose", "fine-tune").part("file", content.file_name(file.name));
        let request = self.uploads.client.post(format!("{}/files", self.base_url));
        let answer = match request.multipart(form).build() {
            Ok(request) => self.uploads.execute(request, self.uploads.timeout, &fault).await,
            Err(error) => Err(Failure::NotSent(error.to_string())),
        };
        let answer = answer.map_err(|failure| Operation::Upload.error(failure))?;
        let answer =
            answer.json::<Value>().await.map_err(|error| Operation::Upload.malformed(error.to_string()))?;
        let id = wire::text(&answer, "id");
        id.map(FileId::new).ok_or_else(|| Operation::Upload.malformed("the file's id is missing"))
    }

    async fn find_file(&self, name: &str, bytes: u64) -> Result<Option<FileId>> {
        let bytes = i64::try_from(bytes).ok();
        let mut oldest: Option<(Option<DateTime<Utc>>, String)> = None;
        let fetch = |after| self.files_page(after);
        pages::walk(Operation::ListFiles, FILES_PER_PAGE, fetch, |files| {
            let found = files.iter().filter(|file| is_usable_file(file, name, bytes));
            let found =
                found.filter_map(|file| Some((wire::time(file, "created_at"), wire::text(file, "id")?)));
            oldest = oldest.take().into_iter().chain(found).min();
            ControlFlow::Continue(())
        })
        .await?;
        Ok(oldest.map(|(_, id)| FileId::new(id)))
    }

    async fn create(&self, request: &TrainingRequest) -> Result<ProviderJob> {
        let answer = self.calls.fine_tuning().create_byot(self.dialect.create_body(request)).await;
        self.read_job(Operation::Create, answer.map_err(Failure::from))
    }

    /// Asks the provider to filter, and filters again, since some ignore what they do not know; Azure is not
    /// asked, since it may hide jobs whose metadata it did not keep. Where jobs are listed newest first, a
    /// `training_id` made by [`Clock::uuid`] carries its time, so that the search ends where all are older.
    async fn find_jobs(&self, training_id: Uuid) -> Result<Vec<ProviderJob>> {
        let ordered = self.dialect.lists_newest_first();
        let earliest = made_at(training_id).filter(|_| ordered).map(|time| time - CLOCK_SKEW);
        let wanted = training_id.to_string();
        let mut found = Vec::new();
        let fetch = |after| self.jobs_page(training_id, after);
        pages::walk(Operation::ListJobs, JOBS_PER_PAGE, fetch, |jobs| {
            let of_training = jobs.iter().filter(|job| self.dialect.is_of_training(job, &wanted));
            found.extend(of_training.map(|job| self.dialect.read_job(job)));
            let is_older = |job| wire::time(job, "created_at").is_some_and(|time| Some(time) < earliest);
            if jobs.iter().all(is_older) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .await?;
        let found: std::result::Result<Vec<_>, _> = found.into_iter().collect();
        let mut found = found.map_err(|why| Operation::ListJobs.malformed(why))?;
        for job in &mut found {
            self.redact(job);
        }
        found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        found.dedup_by(|a, b| a.id == b.id);
        Ok(found)
    }

    async fn poll(&self, job_id: &str) -> Result<ProviderJob> {
        let answer = self.calls.fine_tuning().retrieve_byot(segment(job_id)).await;
        self.read_job(Operation::Poll, answer.map_err(Failure::from))
    }

    async fn cancel(&self, job_id: &str) -> Result<ProviderJob> {
        let answer = self.calls.fine_tuning().cancel_byot(segment(job_id)).await.map_err(Failure::from);
        let ended = match &answer {
            Err(Failure::Refused(refusal)) if matches!(refusal.status.as_u16(), 400 | 409 | 422) => {
                Some(self.poll(job_id).await?).filter(|job| job.status.is_terminal())
            }
            _ => None,
        };
        ended.map_or_else(|| self.read_job(Operation::Cancel, answer), Ok)
    }

    async fn events(&self, job_id: &str, after: Option<&str>) -> Result<Vec<TrainingEvent>> {
        let job = segment(job_id);
        let mut events = Vec::new();
        // The protocol lists the newest first, and its own `after` leads to older ones.
        let fetch = |cursor| self.events_page(&job, cursor);
        pages::walk(Operation::Events, EVENTS_PER_PAGE, fetch, |page| {
            for event in &page {
                if after.is_some() && wire::text(event, "id").as_deref() == after {
                    return ControlFlow::Break(());
                }
                events.push(wire::event(event));
            }
            ControlFlow::Continue(())
        })
        .await?;
        let events: std::result::Result<Vec<_>, _> = events.into_iter().rev().collect();
        let mut events = events.map_err(|why| Operation::Events.malformed(why))?;
        events.sort_by_key(|event| event.created_at);
        for event in &mut events {
            event.message = redacted(&event.message, &self.uploads.api_key);
        }
        Ok(events)
    }

    async fn checkpoints(&self, job_id: &str) -> Result<Vec<Checkpoint>> {
        let job = segment(job_id);
        let mut checkpoints = Vec::new();
        let fetch = |cursor| self.checkpoints_page(&job, cursor);
        pages::walk(Operation::Checkpoints, CHECKPOINTS_PER_PAGE, fetch, |page| {
            checkpoints.extend(page.iter().map(|checkpoint| self.dialect.read_checkpoint(checkpoint)));
            ControlFlow::Continue(())
        })
        .await?;
        let checkpoints: std::result::Result<Vec<_>, _> = checkpoints.into_iter().collect();
        let mut checkpoints = checkpoints.map_err(|why| Operation::Checkpoints.malformed(why))?;
        checkpoints.sort_by(|a, b| (a.step, &a.id).cmp(&(b.step, &b.id)));
        Ok(checkpoints)
    }

    async fn is_ready(&self, file: &FileId) -> Result<bool> {
        if !self.dialect.processes_files() {
            return Ok(true);
        }
        let answer = self.calls.files().retrieve_byot::<_, Value>(segment(file.as_str())).await;
        let answer = answer.map_err(|error| Operation::File.error(error.into()))?;
        match wire::text(&answer, "status").as_deref() {
            None | Some("processed" | "succeeded" | "uploaded") => Ok(true),
            Some(status) if is_lost(status) => Err(TrainerError::rejected(
                RejectReason::InvalidTrainingFile,
                format!(
                    "The provider could not process the file {file} ({status}); correct the dataset and start a new run."
                ),
            )),
            Some(_) => Ok(false),
        }
    }

    async fn delete_file(&self, file: &FileId) -> Result<()> {
        let answer = self.calls.files().delete_byot::<_, Value>(segment(file.as_str())).await;
        match answer.map_err(Failure::from) {
            Ok(_) => Ok(()),
            Err(Failure::Refused(refusal)) if refusal.is_unknown_object() => Ok(()),
            Err(failure) => Err(Operation::DeleteFile.error(failure)),
        }
    }

    async fn complete(&self, request: &CompletionRequest) -> Result<Completion> {
        let answer = self.calls.chat().create_byot(wire::completion_body(request)).await;
        let answer: Value = answer.map_err(|error| Operation::Complete.error(error.into()))?;
        wire::completion(&answer).map_err(|why| Operation::Complete.malformed(why))
    }

    async fn model(&self, model_id: &str) -> Result<Option<ModelState>> {
        // Azure describes models that nobody has deployed, too: only an answer proves that one serves.
        if self.dialect == Dialect::Azure
            && known(self.calls.chat().create_byot(wire::short_question(model_id)).await)?.is_none()
        {
            return Ok(None);
        }
        let described = known(self.calls.models().retrieve_byot::<_, Value>(segment(model_id)).await);
        match (self.dialect, described) {
            // It answers under the name of a deployment; that its model is not described speaks against nothing.
            (Dialect::Azure, Ok(None) | Err(TrainerError::Rejected { .. })) => {
                Ok(Some(ModelState::default()))
            }
            (_, described) => Ok(described?.as_ref().map(wire::model)),
        }
    }
}

/// The answer to a question about a model; `None` where there is no such model.
fn known(answer: std::result::Result<Value, OpenAIError>) -> Result<Option<Value>> {
    match answer.map_err(|error| Operation::Model.error(error.into())) {
        Ok(answer) => Ok(Some(answer)),
        Err(TrainerError::Rejected { reason: RejectReason::ModelNotFound, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn page_query(limit: usize, after: Option<String>) -> Vec<(String, String)> {
    let mut query = vec![("limit".to_owned(), limit.to_string())];
    query.extend(after.map(|after| ("after".to_owned(), after)));
    query
}

/// A size that is not known yet does not speak against a file whose name is right; a failed upload does.
fn is_usable_file(file: &Value, name: &str, bytes: Option<i64>) -> bool {
    let is = |field: &str, wanted: &str| wire::text(file, field).as_deref() == Some(wanted);
    let size = wire::integer(file, "bytes");
    is("filename", name)
        && is("purpose", "fine-tune")
        && !wire::text(file, "status").is_some_and(|status| is_lost(&status))
        && (size.is_none() || size == bytes)
}

/// Whether a file with this status can never be trained on.
fn is_lost(status: &str) -> bool {
    matches!(status, "error" | "failed" | "cancelled" | "deleting" | "deleted")
}

/// When a version 7 identifier was made; others do not say.
fn made_at(id: Uuid) -> Option<DateTime<Utc>> {
    let (seconds, _) = id.get_timestamp().filter(|_| id.get_version() == Some(Version::SortRand))?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0)
}

/// An id as one segment of a path: percent-encoded, except for the characters that need none.
fn segment(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte);
    let write = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    id.bytes().map(write).collect()
}
