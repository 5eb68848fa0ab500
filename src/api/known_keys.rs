//! The keys that are in force, in memory: who may read what is answered without the database.

use std::collections::HashSet;

use axum::http::HeaderMap;
use sqlx::PgExecutor;

use super::auth::{bearer, hash};
use super::problem::Problem;

/// The SHA-256 of every key that was not revoked, as of one moment.
#[derive(Debug, Default)]
pub(super) struct KnownKeys(HashSet<[u8; 32]>);

impl KnownKeys {
    pub(super) async fn load(db: impl PgExecutor<'_>) -> sqlx::Result<Self> {
        let hashes =
            sqlx::query_scalar!("SELECT hash FROM api_keys WHERE revoked_at IS NULL").fetch_all(db).await?;
        Ok(Self(hashes.into_iter().filter_map(|hash| hash.try_into().ok()).collect()))
    }

    /// Whether the request carries one of them; a problem when it carries no key at all. A key has 256 bits of
    /// randomness and what is compared is its hash, so timing tells nothing of use.
    pub(super) fn let_in(&self, headers: &HeaderMap) -> Result<bool, Problem> {
        Ok(self.0.contains(&hash(bearer(headers)?)))
    }
}
