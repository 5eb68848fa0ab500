//! The trainer against small stand-ins of the provider.

mod azure;
mod content;
mod create;
mod errors;
mod follow;
mod lists;
mod models;
mod reasons;
mod stand_in;

use std::time::Duration;

use axum::body::Bytes;
use chrono::{DateTime, TimeDelta};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::trainers::{Hyperparameters, JobStatus, Method};
use stand_in::{Reply, Seen, StandIn};

const KEY: &str = "sk-test-0123456789abcdef";

fn clock() -> Clock {
    Clock::fixed(DateTime::UNIX_EPOCH + TimeDelta::seconds(1_700_000_000), 7)
}

fn settings(base_url: &str) -> OpenAiSettings {
    // Long, so that a busy machine does not turn an answer into a time-out.
    let timeout = Duration::from_mins(1);
    OpenAiSettings {
        connect_timeout: timeout,
        total_timeout: timeout,
        upload_timeout: timeout,
        ..OpenAiSettings::new(base_url, ApiKey::new(KEY))
    }
}

fn trainer(base_url: &str) -> OpenAiTrainer {
    OpenAiTrainer::new(&settings(base_url), &clock()).expect("valid settings")
}

fn file(name: &str, content: &'static [u8]) -> TrainingFile {
    // In pieces, as from a store.
    let pieces = content.chunks(3).map(|piece| Ok(Bytes::from_static(piece)));
    TrainingFile { name: name.to_owned(), bytes: content.len() as u64, content: stream::iter(pieces).boxed() }
}

fn request() -> TrainingRequest {
    TrainingRequest {
        training_id: Uuid::from_u128(1),
        run_id: Uuid::from_u128(2),
        base_model: "gpt-4o-mini-2024-07-18".to_owned(),
        training_file: FileId::new("file-1"),
        validation_file: None,
        suffix: None,
        hyperparameters: Hyperparameters::default(),
        seed: None,
        method: Method::Supervised,
        training_type: None,
        integrations: Vec::new(),
    }
}

fn job(id: &str, created_at: i64, metadata: Value) -> Value {
    let mut job =
        json!({ "id": id, "object": "fine_tuning.job", "status": "queued", "created_at": created_at });
    job["metadata"] = metadata;
    job
}

fn of_training(training_id: Uuid) -> Value {
    json!({ "training_id": training_id.to_string() })
}

/// A page of `items` behind the request's `after`, of at most `limit` items.
fn page(seen: &Seen, items: &[Value], limit: usize) -> Reply {
    let after = seen.query("after");
    let start = match after {
        Some(after) => 1 + items.iter().position(|item| item["id"] == after).expect("a known cursor"),
        None => 0,
    };
    let data: Vec<_> = items.iter().skip(start).take(limit).collect();
    let has_more = start + data.len() < items.len();
    Reply::json(200, &json!({ "object": "list", "data": data, "has_more": has_more }))
}
