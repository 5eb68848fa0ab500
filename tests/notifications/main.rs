//! The chain over the audit trail, and webhooks that are sent of what it says: against receivers that fail, hang, die and come
//! back, and against somebody with all rights on the database.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

mod chain;
mod endpoints;
mod export;
#[path = "../harness/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod harness;
#[cfg(debug_assertions)]
mod killed;
#[cfg(debug_assertions)]
#[path = "../killed/process.rs"]
mod process;
mod receiver;
mod snippets;
mod tampering;
mod trail;
#[rustfmt::skip]
#[expect(unreachable_pub, reason = "as the documentation has it")]
mod verify;
mod webhooks;
mod world;
