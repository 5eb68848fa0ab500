//! `Idempotency-Key`: a request that is sent again is answered again, and not done again.
//!
//! A handler has two phases, and does all its work in the transaction between them:
//!
//! ```ignore
//! async fn create(state, principal: Principal, request: Idempotent<NewRun>) -> Result<Reply, Problem> {
//!     let mut tx = match idempotency::begin(&state.db, &principal, &request.key).await? {
//!         Begin::Replay(reply) => return Ok(reply),
//!         Begin::Fresh(tx) => tx,
//!     };
//!     …                                                     // work on &mut tx, and on nothing else
//!     tx.commit(Reply::created(location, body)).await
//! }
//! ```
//!
//! The key's row and the effects are committed together. A second request with the same key waits at the
//! unique index until the first has ended: if that committed, its reply is sent again; if it was rolled back
//! (by an error, a time limit, a crash), the second does the work.

use std::ops::{Deref, DerefMut};

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{ObjectBuilder, Required, Type};
use uuid::Uuid;

use super::auth::Principal;
use super::extract::{parse_body, read_body};
use super::problem::{FieldError, Place, Problem};
use super::reply::Reply;

/// The header that carries the key.
pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key.
const MAX_LENGTH: usize = 255;

/// A body together with the key of its request. `Idempotent<()>` takes no body, `Idempotent<Option<T>>` an
/// optional one; otherwise as [`super::extract::Json`].
#[derive(Debug)]
pub struct Idempotent<T> {
    /// The body.
    pub body: T,
    /// What [`begin`] needs.
    pub key: RequestKey,
}

/// The `Idempotency-Key` of a request with the fingerprint of the request, or that no key was sent.
#[derive(Debug)]
pub struct RequestKey(Option<Keyed>);

#[derive(Debug)]
struct Keyed {
    key: String,
    /// SHA-256 of method, path, query and body.
    fingerprint: Vec<u8>,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Idempotent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let RawIdempotent { headers, body, key } = RawIdempotent::from_request(request, state).await?;
        Ok(Self { body: parse_body(&headers, &body)?, key })
    }
}

/// As [`Idempotent`], for a handler that reads the body itself.
#[derive(Debug)]
pub struct RawIdempotent {
    /// The headers of the request.
    pub headers: HeaderMap,
    /// The body as it was sent.
    pub body: Bytes,
    /// What [`begin`] needs.
    pub key: RequestKey,
}

impl<S: Send + Sync> FromRequest<S> for RawIdempotent {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let head = parts.clone();
        let body = read_body(Request::from_parts(parts, body), state).await?;
        let key = key(&head)?.map(|key| Keyed { key, fingerprint: fingerprint(&head, &body) });
        Ok(Self { headers: head.headers, body, key: RequestKey(key) })
    }
}

fn key(head: &Parts) -> Result<Option<String>, Problem> {
    let Some(value) = head.headers.get(HEADER) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=MAX_LENGTH).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(Problem::invalid([FieldError::new(
            Place::Header,
            "Idempotency-Key",
            format_args!("must be 1 to {MAX_LENGTH} printable ASCII characters"),
        )])),
    }
}

fn fingerprint(head: &Parts, body: &[u8]) -> Vec<u8> {
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    // Neither a method nor a target contains a line break, so no two requests read the same.
    let digest = Sha256::new()
        .chain_update(head.method.as_str())
        .chain_update("\n")
        .chain_update(target)
        .chain_update("\n")
        .chain_update(body);
    digest.finalize().to_vec()
}

/// How a request goes on.
pub enum Begin {
    /// It was answered before: send this.
    Replay(Reply),
    /// It is new: do the work in this transaction.
    Fresh(Effect),
}

/// The transaction of a request's effects, to be used as a connection. Dropped without [`Effect::commit`] it
/// leaves no trace.
pub struct Effect {
    tx: Transaction<'static, Postgres>,
    /// The row that the reply belongs into.
    stored: Option<(Uuid, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredHeaders {
    location: Option<String>,
    etag: Option<String>,
}

/// Opens the transaction of a request and claims its key, if it has one. Waits for an earlier request with the same
/// key. 422 when the key belongs to a different request.
pub async fn begin(db: &PgPool, principal: &Principal, request: &RequestKey) -> Result<Begin, Problem> {
    let mut tx = db.begin().await?;
    let Some(Keyed { key, fingerprint }) = &request.0 else {
        return Ok(Begin::Fresh(Effect { tx, stored: None }));
    };
    let claimed = sqlx::query!(
        "INSERT INTO idempotency_keys AS stored (api_key_id, key, fingerprint) VALUES ($1, $2, $3)
         ON CONFLICT (api_key_id, key) DO UPDATE
            SET fingerprint = excluded.fingerprint, created_at = now(),
                status = NULL, headers = NULL, body = NULL
          WHERE stored.created_at < now() - interval '24 hours'",
        principal.key_id,
        key,
        fingerprint,
    )
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if claimed == 1 {
        return Ok(Begin::Fresh(Effect { tx, stored: Some((principal.key_id, key.clone())) }));
    }
    // The conflict has locked the row, so it is still there.
    let row = sqlx::query!(
        r#"SELECT fingerprint, status AS "status!", headers AS "headers!: Json<StoredHeaders>", body
             FROM idempotency_keys WHERE api_key_id = $1 AND key = $2"#,
        principal.key_id,
        key,
    )
    .fetch_one(&mut *tx)
    .await?;
    if row.fingerprint != *fingerprint {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "The idempotency key belongs to another request",
        )
        .detail("The Idempotency-Key was sent before with another method, path or body; use a new key.")
        .error(FieldError::new(Place::Header, "Idempotency-Key", "was used for another request")));
    }
    let status = u16::try_from(row.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    Ok(Begin::Replay(Reply {
        status: status.ok_or_else(|| Problem::internal(&Unreadable))?,
        location: row.headers.0.location,
        etag: row
            .headers
            .0
            .etag
            .map(|etag| etag.parse())
            .transpose()
            .map_err(|_| Problem::internal(&Unreadable))?,
        body: Ok(row.body),
        replayed: true,
    }))
}

/// A stored reply is not one that this code stores.
#[derive(Debug, thiserror::Error)]
#[error("a stored reply cannot be read")]
struct Unreadable;

impl Effect {
    /// Stores the reply with its key and commits it with the effects.
    pub async fn commit(mut self, reply: Reply) -> Result<Reply, Problem> {
        let body = reply.body.map_err(|error| Problem::internal(&error))?;
        if let Some((api_key_id, key)) = self.stored {
            let headers = StoredHeaders {
                location: reply.location.clone(),
                etag: reply.etag.map(|etag| etag.to_string()),
            };
            sqlx::query!(
                "UPDATE idempotency_keys SET status = $3, headers = $4, body = $5
                  WHERE api_key_id = $1 AND key = $2",
                api_key_id,
                key,
                i16::try_from(reply.status.as_u16()).map_err(|error| Problem::internal(&error))?,
                Json(headers) as _,
                body,
            )
            .execute(&mut *self.tx)
            .await?;
        }
        self.tx.commit().await?;
        Ok(Reply { body: Ok(body), ..reply })
    }
}

impl Deref for Effect {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.tx
    }
}

impl DerefMut for Effect {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}

/// Deletes the keys that are older than a day, and tells how many they were.
pub async fn expire(db: &PgPool) -> sqlx::Result<u64> {
    let deleted = sqlx::query!("DELETE FROM idempotency_keys WHERE created_at < now() - interval '24 hours'")
        .execute(db);
    Ok(deleted.await?.rows_affected())
}

/// Documents the header: `params(RequestKey)`.
impl IntoParams for RequestKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let schema =
            ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(MAX_LENGTH));
        let parameter = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(
                "Makes it safe to send the request again: for 24 hours the same key with the same request gets \
                 the same answer, with `Idempotency-Replayed: true`, and nothing is done twice.",
            ))
            .schema(Some(schema));
        vec![parameter.build()]
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn head(method: &str, uri: &str) -> Parts {
        Request::builder().method(method).uri(uri).body(Body::empty()).unwrap().into_parts().0
    }

    #[test]
    fn the_fingerprint_tells_method_path_query_and_body_apart() {
        let original = fingerprint(&head("POST", "/a?dry_run=true"), b"{}");
        assert_eq!(original, fingerprint(&head("POST", "http://host/a?dry_run=true"), b"{}"));
        for (method, uri, body) in [
            ("PUT", "/a?dry_run=true", "{}"),
            ("POST", "/b?dry_run=true", "{}"),
            ("POST", "/a?dry_run=false", "{}"),
            ("POST", "/a?dry_run=true", "{ }"),
        ] {
            assert_ne!(original, fingerprint(&head(method, uri), body.as_bytes()), "{method} {uri} {body}");
        }
    }

    #[tokio::test]
    async fn keys_have_a_length() {
        for (length, accepted) in [(0, false), (1, true), (255, true), (256, false)] {
            let request = Request::builder().header(HEADER, "k".repeat(length)).body(Body::empty()).unwrap();
            let read = Idempotent::<()>::from_request(request, &()).await;
            assert_eq!(read.is_ok(), accepted, "{length}");
        }
        let without = Idempotent::<()>::from_request(Request::new(Body::empty()), &()).await.unwrap();
        assert!(without.key.0.is_none());
    }
}
