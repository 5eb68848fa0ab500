//! The parts of the API that need a database: keys, idempotency, audit trail, paging, readiness.

mod idempotency;
mod keys;
mod readiness;
mod service;
mod trail;
