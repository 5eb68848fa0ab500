//! What Azure OpenAI has beside the protocol: a model answers under the name of a deployment that an operator made.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::errors::ApiError;
use super::request::{Id, JsonBody};
use super::store::Store;
use super::{Simulator, models};

/// Where Azure's version 1 of the protocol begins.
pub(super) const PREFIX: &str = "/openai/v1";
/// The longest name of a deployment.
const LONGEST_NAME: usize = 64;

/// What is deployed.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deployment {
    /// The model that answers.
    model: String,
}

/// `GET /simulator/deployments`: models by the name of their deployment.
pub(super) async fn list(State(simulator): State<Simulator>) -> Json<BTreeMap<String, String>> {
    Json(simulator.open().0.deployments.clone())
}

/// `PUT /simulator/deployments/{name}`: what a person does in Azure's portal.
pub(super) async fn deploy(
    State(simulator): State<Simulator>,
    Id(name): Id,
    body: Result<JsonBody<Deployment>, ApiError>,
) -> Result<Json<Deployment>, ApiError> {
    let JsonBody(deployment) = body?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.len() > LONGEST_NAME || !name.bytes().all(fits) {
        let message = "The name of a deployment has up to 64 letters, digits, '-', '_' and '.'.";
        return Err(ApiError::bad(message).param("name"));
    }
    let (mut store, now) = simulator.open();
    models::find(&store, &deployment.model, now)?;
    store.deployments.insert(name, deployment.model.clone());
    Ok(Json(deployment))
}

/// `DELETE /simulator/deployments/{name}`.
pub(super) async fn delete(State(simulator): State<Simulator>, Id(name): Id) -> Result<StatusCode, ApiError> {
    match simulator.open().0.deployments.remove(&name) {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(missing()),
    }
}

/// The model that is deployed under a name.
pub(super) fn deployed(store: &Store, name: &str) -> Result<String, ApiError> {
    store.deployments.get(name).cloned().ok_or_else(missing)
}

fn missing() -> ApiError {
    ApiError::missing("The API deployment for this resource does not exist.").code("DeploymentNotFound")
}
