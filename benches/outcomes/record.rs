//! The product: clients send batches to the API, which records them and folds them into sums.

use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tuneloop::clock::Clock;

use crate::api::Api;
use crate::experiment::PERSONAS;
use crate::{ROWS, Result};

/// Outcomes of one call.
const BATCH: u32 = 10_000;
/// Calls under way at once.
const CLIENTS: usize = 4;

/// Sends the batches, and returns how many outcomes were recorded per second.
pub(crate) async fn rows_per_second(api: &Api, bodies: Vec<String>) -> Result<f64> {
    let begun = Instant::now();
    let calls: Vec<_> = bodies.into_iter().map(|body| send(api, body)).collect();
    let accepted: Vec<u64> = stream::iter(calls).buffer_unordered(CLIENTS).try_collect().await?;
    let seconds = begun.elapsed().as_secs_f64();
    if accepted.iter().sum::<u64>() != u64::from(ROWS) {
        return Err("some outcomes were not accepted".into());
    }
    Ok(f64::from(ROWS) / seconds)
}

async fn send(api: &Api, body: String) -> Result<u64> {
    let response = api.post("/v1/outcomes", body).send().await?;
    let answer: Value = serde_json::from_slice(&response.bytes().await?)?;
    answer["accepted"].as_u64().ok_or_else(|| format!("the API answered {answer}").into())
}

/// The batches of a turn, as they are sent.
pub(crate) fn bodies(turn: u32) -> Result<Vec<String>> {
    let served_at = Clock::system().now();
    let outcome = |number: u32| {
        json!({
            "id": format!("{turn}-{number}"), "pipeline": "hook", "revision": 2, "served_at": served_at,
            "version": if number.is_multiple_of(10) { "1.0.0" } else { "0.0.0" },
            "unit": format!("post-{turn}-{number}"), "persona": format!("persona-{}", number % PERSONAS),
            "engagement_rate": f64::from(10 + number % 89) / 1000.0, "engagements": number % 90, "impressions": 1000,
            "cost": f64::from(10 + number % 17) / 10_000.0, "quality": f64::from(10 + number % 83) / 100.0,
            "latency_ms": 200 + number % 700, "failed": false,
        })
    };
    (0..ROWS / BATCH)
        .map(|batch| {
            let outcomes: Vec<Value> = (batch * BATCH..(batch + 1) * BATCH).map(outcome).collect();
            Ok(serde_json::to_string(&outcomes)?)
        })
        .collect()
}
