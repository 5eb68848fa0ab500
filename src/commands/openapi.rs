//! `tuneloop openapi`: the OpenAPI document of the API.

use super::{Failure, print};
use crate::api;

/// Prints the document as it is committed under `openapi/`.
pub(super) fn run() -> Result<(), Failure> {
    let document = api::openapi().to_pretty_json()?;
    Ok(print(&document)?)
}
