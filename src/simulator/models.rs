//! Models: the ones that are always there, and the ones that jobs made.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::Simulator;
use super::errors::ApiError;
use super::events;
use super::job::ORGANIZATION;
use super::request::Id;
use super::store::Store;

/// A model that is always there.
struct BaseModel {
    id: &'static str,
    /// Seconds since 1970.
    created: i64,
    /// The snapshot that is trained when this model is asked for; `None` if it cannot be fine-tuned.
    trains: Option<&'static str>,
}

const fn base(id: &'static str, created: i64, trains: Option<&'static str>) -> BaseModel {
    BaseModel { id, created, trains }
}

/// As at the real service, snapshots can be fine-tuned, and some of the names that point to one.
const BASE_MODELS: [BaseModel; 10] = [
    base("gpt-3.5-turbo", 1_677_610_602, Some("gpt-3.5-turbo-0125")),
    base("gpt-3.5-turbo-0125", 1_706_048_358, Some("gpt-3.5-turbo-0125")),
    base("gpt-4o", 1_715_367_049, None),
    base("gpt-4o-mini", 1_721_172_741, Some("gpt-4o-mini-2024-07-18")),
    base("gpt-4o-mini-2024-07-18", 1_721_172_717, Some("gpt-4o-mini-2024-07-18")),
    base("gpt-4o-2024-08-06", 1_722_814_719, Some("gpt-4o-2024-08-06")),
    base("gpt-4.1", 1_744_316_542, None),
    base("gpt-4.1-2025-04-14", 1_744_315_746, Some("gpt-4.1-2025-04-14")),
    base("gpt-4.1-mini", 1_744_318_173, None),
    base("gpt-4.1-mini-2025-04-14", 1_744_317_547, Some("gpt-4.1-mini-2025-04-14")),
];

/// A model that came out of a job.
#[derive(Debug)]
pub(super) struct TunedModel {
    pub(super) id: String,
    pub(super) created_at: DateTime<Utc>,
}

impl TunedModel {
    fn json(&self) -> Value {
        model_json(&self.id, self.created_at.timestamp(), ORGANIZATION)
    }
}

/// A model that may be trained further.
pub(super) struct Tunable {
    /// What the job says that it trains.
    pub(super) id: String,
    /// The snapshot that everything started from.
    pub(super) root: String,
}

/// Finds the model that a job on `id` trains.
pub(super) fn tunable(store: &Store, id: &str) -> Option<Tunable> {
    if store.dealer.plan.model(id).gone {
        return None;
    }
    if let Some(model) = BASE_MODELS.iter().find(|model| model.id == id) {
        return model.trains.map(|snapshot| Tunable { id: snapshot.into(), root: snapshot.into() });
    }
    // `ft:<root>:<organization>:<suffix>:<name>`
    let root = store.models.iter().find(|model| model.id == id)?.id.split(':').nth(1)?;
    Some(Tunable { id: id.into(), root: root.into() })
}

/// The model named `id`: a base model, a tuned one, or a checkpoint of a tuned one. What the plan of faults says is gone is not
/// found, and the day of its end stands in the answer where the plan has one.
pub(super) fn find(store: &Store, id: &str, now: DateTime<Utc>) -> Result<Value, ApiError> {
    let fate = store.dealer.plan.model(id);
    if fate.gone {
        return Err(missing(id));
    }
    let mut model = find_any(store, id, now)?;
    if let Some(date) = fate.shutdown_date {
        model["shutdown_date"] = json!(date);
    }
    Ok(model)
}

fn find_any(store: &Store, id: &str, now: DateTime<Utc>) -> Result<Value, ApiError> {
    if let Some(model) = BASE_MODELS.iter().find(|model| model.id == id) {
        return Ok(model_json(model.id, model.created, "system"));
    }
    let tuned = |id: &str| store.models.iter().find(|model| model.id == id);
    if let Some(model) = tuned(id) {
        return Ok(model.json());
    }
    if let Some((parent, _)) = id.split_once(":ckpt-step-")
        && let Some(model) = tuned(parent)
        && let Some(job) = store.jobs.iter().find(|job| job.tuned_model == parent)
        && events::checkpoints(job, now).iter().any(|checkpoint| checkpoint.model == id)
    {
        return Ok(model_json(id, model.created_at.timestamp(), ORGANIZATION));
    }
    Err(missing(id))
}

fn missing(id: &str) -> ApiError {
    let message = format!("The model `{id}` does not exist or you do not have access to it.");
    ApiError::missing(message).param("model").code("model_not_found")
}

/// `GET /models`.
pub(super) async fn list(State(simulator): State<Simulator>) -> Json<Value> {
    let (store, now) = simulator.open();
    let base = BASE_MODELS.iter().map(|model| model.id);
    let ids = base.chain(store.models.iter().map(|model| model.id.as_str()));
    let data: Vec<Value> = ids.filter_map(|id| find(&store, id, now).ok()).collect();
    Json(json!({"object": "list", "data": data}))
}

/// `GET /models/{model}`.
pub(super) async fn retrieve(
    State(simulator): State<Simulator>,
    Id(id): Id,
) -> Result<Json<Value>, ApiError> {
    let (store, now) = simulator.open();
    find(&store, &id, now).map(Json)
}

/// `DELETE /models/{model}`; only tuned models can be deleted.
pub(super) async fn delete(State(simulator): State<Simulator>, Id(id): Id) -> Result<Json<Value>, ApiError> {
    let (mut store, now) = simulator.open();
    find(&store, &id, now)?;
    let Some(at) = store.models.iter().position(|model| model.id == id) else {
        let message = format!("The model `{id}` cannot be deleted: only tuned models can.");
        return Err(ApiError::new(StatusCode::FORBIDDEN, message).param("model"));
    };
    store.models.remove(at);
    Ok(Json(json!({"object": "model", "id": id, "deleted": true})))
}

/// `Model` in the specification.
fn model_json(id: &str, created: i64, owned_by: &str) -> Value {
    json!({"object": "model", "id": id, "created": created, "owned_by": owned_by})
}
