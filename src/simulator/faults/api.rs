//! `/simulator/faults` and `/simulator/counts`: only the simulator has them.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use super::super::Simulator;
use super::super::errors::ApiError;
use super::super::store::CreateCounts;
use super::super::timeline::JobStatus;
use super::{Fault, FaultPlan, Route};

/// `GET /simulator/faults`: the plan in force, with what is left of its scripts.
pub(in crate::simulator) async fn read(State(simulator): State<Simulator>) -> Json<FaultPlan> {
    Json(simulator.open().0.dealer.plan.clone())
}

/// `PUT /simulator/faults`: another plan, from its beginning.
pub(in crate::simulator) async fn replace(
    State(simulator): State<Simulator>,
    body: Bytes,
) -> Result<Json<FaultPlan>, ApiError> {
    let text = std::str::from_utf8(&body).map_err(|error| ApiError::bad(error.to_string()))?;
    let plan = FaultPlan::parse(text).map_err(ApiError::bad)?;
    simulator.set_faults(plan.clone());
    Ok(Json(plan))
}

/// `DELETE /simulator/faults`: from now on everything goes well.
pub(in crate::simulator) async fn clear(State(simulator): State<Simulator>) -> StatusCode {
    simulator.set_faults(FaultPlan::default());
    StatusCode::NO_CONTENT
}

/// What the simulator was asked for, and what it holds.
#[derive(Debug, Serialize)]
pub(in crate::simulator) struct Counts {
    /// Requests to upload and to create, refused ones included.
    asked: CreateCounts,
    /// Jobs that there are.
    jobs: usize,
    /// Those of them that were not cancelled.
    uncancelled_jobs: usize,
    /// Training and validation files that there are.
    files: usize,
    /// Calls by kind.
    calls: BTreeMap<Route, u64>,
    /// Faults dealt by kind.
    faults: BTreeMap<Fault, u64>,
}

/// `GET /simulator/counts`.
pub(in crate::simulator) async fn counts(State(simulator): State<Simulator>) -> Json<Counts> {
    let (store, now) = simulator.open();
    let uncancelled = store.jobs.iter().filter(|job| job.status(now) != JobStatus::Cancelled);
    Json(Counts {
        asked: store.creates,
        jobs: store.jobs.len(),
        uncancelled_jobs: uncancelled.count(),
        files: store.files.iter().filter(|file| file.purpose == "fine-tune").count(),
        calls: store.dealer.calls.clone(),
        faults: store.dealer.dealt.clone(),
    })
}
