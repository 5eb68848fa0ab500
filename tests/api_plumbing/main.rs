//! The parts of the API that need a database: keys, idempotency, audit trail, paging, readiness.
//!
//! `TUNELOOP_TEST_DATABASE_URL` names a database that the tests may write to: an empty one, or one that was
//! migrated before.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod idempotency;
mod keys;
mod readiness;
mod service;
mod trail;
