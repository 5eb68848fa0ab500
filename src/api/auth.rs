//! Who calls: bearer keys, of which only the SHA-256 is stored. A key has 256 bits of randomness, so a fast
//! hash is enough, and looking the hash up in an index tells an attacker nothing about a key by its timing.

use std::fmt;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::{Acquire, PgConnection, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

use super::problem::Problem;
use super::request_id;
use crate::audit::{self, Actor, AuditEvent, By};
use crate::clock::Clock;

/// What every key starts with, so that leaked ones are found by scanners.
const PREFIX: &str = "tl_";

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads and changes.
    Operator,
    /// As the operator, and manages access.
    Admin,
}

impl Role {
    /// The role as stored and as given on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no role.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no role; roles are viewer, operator and admin")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let roles = [Self::Viewer, Self::Operator, Self::Admin];
        roles.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// A new key, the only time that it is seen.
pub struct CreatedKey {
    /// Names the key from now on.
    pub id: Uuid,
    /// What the caller sends as `Authorization: Bearer <plaintext>`: `tl_` and 64 hexadecimal digits.
    pub plaintext: String,
}

/// Makes a key on behalf of `by`, in its own transaction or as part of the one that `conn` is in.
pub async fn create_key(
    conn: &mut PgConnection,
    clock: &Clock,
    name: &str,
    role: Role,
    by: Actor,
) -> sqlx::Result<CreatedKey> {
    let key =
        CreatedKey { id: clock.uuid(), plaintext: format!("{PREFIX}{}", hex::encode(clock.bytes::<32>())) };
    let mut tx = conn.begin().await?;
    sqlx::query!(
        "INSERT INTO api_keys (id, name, role, hash) VALUES ($1, $2, $3, $4)",
        key.id,
        name,
        role.as_str(),
        &hash(&key.plaintext)[..],
    )
    .execute(&mut *tx)
    .await?;
    let event = AuditEvent {
        after: Some(serde_json::json!({ "name": name, "role": role })),
        ..AuditEvent::new(by, "api_key.create", ("api_key", key.id))
    };
    audit::record(&mut tx, event).await?;
    tx.commit().await?;
    Ok(key)
}

/// Makes a key useless from now on. `false` when there is no such key or it was revoked before.
pub async fn revoke_key(conn: &mut PgConnection, id: Uuid, by: Actor) -> sqlx::Result<bool> {
    let mut tx = conn.begin().await?;
    let revoked =
        sqlx::query!("UPDATE api_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL", id)
            .execute(&mut *tx)
            .await?
            .rows_affected()
            == 1;
    if revoked {
        audit::record(&mut tx, AuditEvent::new(by, "api_key.revoke", ("api_key", id))).await?;
    }
    tx.commit().await?;
    Ok(revoked)
}

/// A key as it is listed: everything but the key.
#[derive(Debug)]
pub struct ListedKey {
    /// Names the key.
    pub id: Uuid,
    /// Who uses it.
    pub name: String,
    /// What it allows.
    pub role: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was made useless, if it was.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// All keys, oldest first.
pub async fn list_keys(db: &PgPool) -> sqlx::Result<Vec<ListedKey>> {
    sqlx::query_as!(ListedKey, "SELECT id, name, role, created_at, revoked_at FROM api_keys ORDER BY id")
        .fetch_all(db)
        .await
}

/// The caller of a request. As an extractor it is there on every route behind [`authenticate`].
#[derive(Debug, Clone)]
pub struct Principal {
    /// The key that was used.
    pub key_id: Uuid,
    /// The key's name.
    pub name: String,
    /// What the key allows.
    pub role: Role,
    /// The request it was used in.
    pub request_id: Option<String>,
}

impl Principal {
    /// The caller as the actor of an audit event.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::Key(self.name.clone())
    }

    /// The caller and this request, for the functions that change something.
    #[must_use]
    pub fn by(&self) -> By {
        By { actor: self.actor(), request_id: self.request_id.clone() }
    }

    /// An audit event of this caller and this request; add `before`, `after` and the rest with `..`.
    #[must_use]
    pub fn event<'a>(&'a self, action: &'a str, subject: (&'a str, impl fmt::Display)) -> AuditEvent<'a> {
        AuditEvent {
            request_id: self.request_id.as_deref(),
            ..AuditEvent::new(self.actor(), action, subject)
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(|| Problem::internal(&Unguarded))
    }
}

/// A handler asks for the principal of a route that lets everybody in.
#[derive(Debug, thiserror::Error)]
#[error("the route is not behind authentication")]
struct Unguarded;

/// Middleware: lets in whoever has a valid key, and viewers for safe methods only.
pub async fn authenticate(
    State(db): State<PgPool>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let principal = principal(&db, request.headers()).await?;
    if principal.role == Role::Viewer && !request.method().is_safe() {
        return Err(Problem::forbidden("A key with the role viewer reads only; use an operator's key."));
    }
    request.extensions_mut().insert(principal);
    Ok(next.run(request).await)
}

/// Whether a request has a valid key, asked of the database.
pub(super) async fn verify(db: &PgPool, headers: &HeaderMap) -> Result<(), Problem> {
    principal(db, headers).await.map(drop)
}

async fn principal(db: &PgPool, headers: &HeaderMap) -> Result<Principal, Problem> {
    let key = bearer(headers)?;
    let row = sqlx::query!(
        "SELECT id, name, role FROM api_keys WHERE hash = $1 AND revoked_at IS NULL",
        &hash(key)[..]
    )
    .fetch_optional(db)
    .await?;
    let row = row.ok_or_else(refused)?;
    let role = row.role.parse().map_err(|error: UnknownRole| Problem::internal(&error))?;
    Ok(Principal { key_id: row.id, name: row.name, role, request_id: request_id::current() })
}

/// The answer to a key that lets nobody in.
pub(super) fn refused() -> Problem {
    let challenge = r#"Bearer realm="tuneloop", error="invalid_token""#;
    Problem::unauthorized(challenge, "The API key is unknown or was revoked; use another one.")
}

/// The key that was sent.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match value.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Ok(key.trim()),
        _ => {
            let challenge = r#"Bearer realm="tuneloop""#;
            Err(Problem::unauthorized(challenge, "Send an API key as `Authorization: Bearer tl_…`."))
        }
    }
}

/// What is stored of a key.
pub(super) fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    fn sent(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn only_the_bearer_scheme_carries_a_key() {
        assert_eq!(bearer(&sent("Bearer tl_1")).unwrap(), "tl_1");
        assert_eq!(bearer(&sent("bearer  tl_1")).unwrap(), "tl_1");
        for headers in [HeaderMap::new(), sent("Basic dGw6"), sent("tl_1"), sent("Bearer")] {
            assert_eq!(bearer(&headers).unwrap_err().status(), StatusCode::UNAUTHORIZED);
        }
    }

    #[test]
    fn roles_are_read_as_they_are_printed() {
        for role in [Role::Viewer, Role::Operator, Role::Admin] {
            assert_eq!(role.to_string().parse::<Role>().unwrap(), role);
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        assert!("root".parse::<Role>().unwrap_err().to_string().contains("viewer, operator and admin"));
    }

    #[tokio::test]
    async fn a_principal_is_never_made_up() {
        let (mut parts, ()) = axum::http::Request::new(()).into_parts();
        let problem = Principal::from_request_parts(&mut parts, &()).await.unwrap_err();
        assert_eq!(problem.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
