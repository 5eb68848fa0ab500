//! The endpoints under `/files`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::multipart::MultipartRejection;
use axum::extract::{Multipart, State};
use axum::http::{HeaderName, header};
use chrono::TimeDelta;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::request::{Id, Params};
use super::store::StoredFile;
use super::{Simulator, ids};

/// The purposes of an upload. The specification also lets `evals` in, but has no file of that purpose.
const PURPOSES: [&str; 5] = ["assistants", "batch", "fine-tune", "vision", "user_data"];

/// The parts of an upload.
#[derive(Default)]
struct Upload {
    file: Option<(String, Bytes)>,
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
}

impl Upload {
    async fn read(mut form: Multipart) -> Result<Self, ApiError> {
        let mut upload = Self::default();
        while let Some(field) = form.next_field().await? {
            match field.name() {
                Some("file") => {
                    let filename = field.file_name().unwrap_or("file").to_owned();
                    upload.file = Some((filename, field.bytes().await?));
                }
                Some("purpose") => upload.purpose = Some(field.text().await?),
                Some("expires_after[anchor]") => upload.anchor = Some(field.text().await?),
                Some("expires_after[seconds]") => upload.seconds = Some(field.text().await?),
                other => {
                    let name = other.unwrap_or_default().to_owned();
                    let message = format!("Unrecognized request argument supplied: {name}.");
                    return Err(ApiError::bad(message).param(name));
                }
            }
        }
        Ok(upload)
    }

    /// How long the file lives, if it was given a time to expire.
    fn lifetime(&self) -> Result<Option<TimeDelta>, ApiError> {
        match (self.anchor.as_deref(), self.seconds.as_deref()) {
            (None, None) => Ok(None),
            (Some("created_at"), Some(seconds)) => {
                let seconds = seconds.parse().ok().filter(|seconds| (3_600..=2_592_000).contains(seconds));
                seconds.map(|seconds| Some(TimeDelta::seconds(seconds))).ok_or_else(|| {
                    ApiError::bad(
                        "Invalid 'expires_after.seconds': expected a whole number from 3600 to 2592000.",
                    )
                    .param("expires_after.seconds")
                })
            }
            _ => Err(ApiError::bad("Invalid 'expires_after': expected the anchor 'created_at' and seconds.")
                .param("expires_after")),
        }
    }
}

/// `POST /files`.
pub(super) async fn create(
    State(simulator): State<Simulator>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Json<Value>, ApiError> {
    simulator.open().0.creates.files += 1;
    let form = form.map_err(|rejection| ApiError::bad(rejection.body_text()))?;
    let upload = Upload::read(form).await?;
    let lifetime = upload.lifetime()?;
    let required = |name: &str| ApiError::bad(format!("Missing required parameter: '{name}'.")).param(name);
    let (filename, content) = upload.file.ok_or_else(|| required("file"))?;
    let purpose = upload.purpose.ok_or_else(|| required("purpose"))?;
    if !PURPOSES.contains(&purpose.as_str()) {
        let message = format!("Invalid 'purpose': '{purpose}' is not one of '{}'.", PURPOSES.join("', '"));
        return Err(ApiError::bad(message).param("purpose"));
    }
    let (mut store, now) = simulator.open();
    let file = StoredFile {
        id: ids::random::<22>("file-", simulator.clock()),
        filename,
        purpose,
        content,
        created_at: now,
        expires_at: lifetime.map(|lifetime| now + lifetime),
    };
    let answer = file.json();
    store.files.push(file);
    store.uploaded += 1;
    Ok(Json(answer))
}

/// `GET /files`, newest first unless `order=asc`.
pub(super) async fn list(
    State(simulator): State<Simulator>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let (store, now) = simulator.open();
    let purpose = params.get("purpose");
    let mut files: Vec<&StoredFile> = store
        .files
        .iter()
        .filter(|file| store.dealer.shows(file.created_at, now))
        .filter(|file| purpose.is_none_or(|purpose| file.purpose == purpose))
        .collect();
    match params.get("order") {
        Some("asc") => {}
        None | Some("desc") => files.reverse(),
        Some(other) => {
            let message = format!("Invalid 'order': '{other}' is not 'asc' or 'desc'.");
            return Err(ApiError::bad(message).param("order"));
        }
    }
    let (page, has_more) = params.page(files, |file| file.id.as_str(), 10_000, Some(10_000))?;
    // The specification wants strings here, also for an empty list.
    let id = |file: Option<&&StoredFile>| file.map(|file| file.id.clone()).unwrap_or_default();
    Ok(Json(json!({
        "object": "list",
        "first_id": id(page.first()),
        "last_id": id(page.last()),
        "has_more": has_more,
        "data": page.iter().map(|file| file.json()).collect::<Vec<_>>(),
    })))
}

/// `GET /files/{file_id}`.
pub(super) async fn retrieve(
    State(simulator): State<Simulator>,
    Id(id): Id,
) -> Result<Json<Value>, ApiError> {
    simulator.open().0.file(&id).map(|file| Json(file.json())).ok_or_else(|| missing(&id))
}

/// `GET /files/{file_id}/content`: the bytes as they were uploaded.
pub(super) async fn content(
    State(simulator): State<Simulator>,
    Id(id): Id,
) -> Result<([(HeaderName, &'static str); 1], Bytes), ApiError> {
    let content =
        simulator.open().0.file(&id).map(|file| file.content.clone()).ok_or_else(|| missing(&id))?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], content))
}

/// `DELETE /files/{file_id}`. Jobs that train on the file go on: they have read it.
pub(super) async fn delete(State(simulator): State<Simulator>, Id(id): Id) -> Result<Json<Value>, ApiError> {
    let (mut store, _) = simulator.open();
    let at = store.files.iter().position(|file| file.id == id).ok_or_else(|| missing(&id))?;
    store.files.remove(at);
    Ok(Json(json!({"object": "file", "id": id, "deleted": true})))
}

fn missing(id: &str) -> ApiError {
    ApiError::missing(format!("No such File object: {id}")).param("id")
}
