//! The endpoints under `/fine_tuning/jobs`.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::create::CreateJob;
use super::errors::ApiError;
use super::events::{self, Checkpoint};
use super::job::Job;
use super::request::{Id, JsonBody, Params};
use super::store::Store;
use super::timeline::Timeline;
use super::{Simulator, azure};

type Answer = Result<Json<Value>, ApiError>;

/// `POST /fine_tuning/jobs`.
pub(super) async fn create(
    State(simulator): State<Simulator>,
    uri: Uri,
    body: Result<JsonBody<CreateJob>, ApiError>,
) -> Answer {
    let (mut store, now) = simulator.open();
    store.creates.jobs += 1;
    if !store.dealer.jobs().training_available {
        let message = "Fine-tuning is not available for this organization.";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message).code("training_not_available"));
    }
    let JsonBody(request) = body?;
    let is_azure = uri.path().starts_with(azure::PREFIX);
    let job = request.into_job(&mut store, simulator.training_time(), simulator.clock(), now, is_azure)?;
    let answer = job.json(now);
    store.jobs.push(job);
    Ok(Json(answer))
}

/// `GET /fine_tuning/jobs`, newest first; `metadata[k]=v` selects, `metadata=null` wants none.
pub(super) async fn list(State(simulator): State<Simulator>, params: Params) -> Answer {
    let (store, now) = simulator.open();
    let without_metadata = params.get("metadata") == Some("null");
    let selected = |job: &&Job| {
        if !store.dealer.shows(job.timeline.created_at(), now) {
            return false;
        }
        let metadata = job.metadata.as_ref().filter(|metadata| !metadata.is_empty());
        let has = |(key, value): (&str, &str)| {
            metadata.and_then(|metadata| metadata.get(key)).is_some_and(|found| found == value)
        };
        (!without_metadata || metadata.is_none()) && params.map("metadata").all(has)
    };
    let jobs: Vec<&Job> = store.jobs.iter().rev().filter(selected).collect();
    let (page, has_more) = params.page(jobs, |job| job.id.as_str(), 20, None)?;
    let data: Vec<Value> = page.iter().map(|job| job.json(now)).collect();
    Ok(Json(json!({"object": "list", "data": data, "has_more": has_more})))
}

/// `GET /fine_tuning/jobs/{id}`.
pub(super) async fn retrieve(State(simulator): State<Simulator>, Id(id): Id) -> Answer {
    let (store, now) = simulator.open();
    find(&store, &id).map(|job| Json(job.json(now)))
}

/// `POST /fine_tuning/jobs/{id}/cancel`.
pub(super) async fn cancel(State(simulator): State<Simulator>, Id(id): Id) -> Answer {
    act(&simulator, &id, "cancelled", Timeline::cancel)
}

/// `POST /fine_tuning/jobs/{id}/pause`.
pub(super) async fn pause(State(simulator): State<Simulator>, Id(id): Id) -> Answer {
    act(&simulator, &id, "paused", Timeline::pause)
}

/// `POST /fine_tuning/jobs/{id}/resume`.
pub(super) async fn resume(State(simulator): State<Simulator>, Id(id): Id) -> Answer {
    act(&simulator, &id, "resumed", Timeline::resume)
}

/// `GET /fine_tuning/jobs/{id}/events`, newest first.
pub(super) async fn events(State(simulator): State<Simulator>, Id(id): Id, params: Params) -> Answer {
    let (store, now) = simulator.open();
    let events = events::events(find(&store, &id)?, now);
    let (page, has_more) = params.page(events, |event| event.id.as_str(), 20, None)?;
    Ok(Json(json!({"object": "list", "data": page, "has_more": has_more})))
}

/// `GET /fine_tuning/jobs/{id}/checkpoints`, newest first.
pub(super) async fn checkpoints(State(simulator): State<Simulator>, Id(id): Id, params: Params) -> Answer {
    let (store, now) = simulator.open();
    let checkpoints = events::checkpoints(find(&store, &id)?, now);
    let (page, has_more) = params.page(checkpoints, |checkpoint| checkpoint.id.as_str(), 10, None)?;
    let id = |checkpoint: Option<&Checkpoint>| checkpoint.map(|checkpoint| checkpoint.id.clone());
    Ok(Json(json!({
        "object": "list",
        "first_id": id(page.first()),
        "last_id": id(page.last()),
        "has_more": has_more,
        "data": page,
    })))
}

/// Changes a job from outside, if its state allows that.
fn act(
    simulator: &Simulator,
    id: &str,
    done: &str,
    change: fn(&mut Timeline, DateTime<Utc>) -> bool,
) -> Answer {
    let (mut store, now) = simulator.open();
    let job = store.jobs.iter_mut().find(|job| job.id == id).ok_or_else(|| missing(id))?;
    if !change(&mut job.timeline, now) {
        let status = job.json(now)["status"].as_str().unwrap_or_default().to_owned();
        let paused = if job.timeline.is_paused() { ", paused" } else { "" };
        let message = format!("The job {id} cannot be {done}: its status is {status}{paused}.");
        return Err(ApiError::bad(message));
    }
    Ok(Json(job.json(now)))
}

fn find<'a>(store: &'a Store, id: &str) -> Result<&'a Job, ApiError> {
    store.jobs.iter().find(|job| job.id == id).ok_or_else(|| missing(id))
}

fn missing(id: &str) -> ApiError {
    let message = format!("Could not find fine tune: {id}");
    ApiError::missing(message).param("fine_tuning_job_id").code("fine_tune_not_found")
}
