//! What the tests stand on: a database each, and the whole service in the test's own process.

pub(crate) mod client;
pub(crate) mod database;
pub(crate) mod outcomes;
pub(crate) mod service;
