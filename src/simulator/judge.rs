//! A model that judges: asked for a JSON object, every model of the simulator answers with a score.

use serde_json::{Value, json};

use super::{ids, text};

/// What separates a text that opens like a tuned model's from others.
const BONUS: f64 = 0.25;

/// The score of the text in the field `answer` of the question, else of the whole question: it depends on the text alone, between 0.25
/// and 0.75, and a quarter more for what opens like the text of a tuned model.
pub(super) fn reply(question: &str) -> String {
    let data: Option<Value> = serde_json::from_str(question).ok();
    let answer = data.as_ref().and_then(|data| data["answer"].as_str()).unwrap_or(question);
    let bonus = if text::is_tuned(answer) { BONUS } else { 0.0 };
    let score = 0.25 + 0.5 * ids::fraction(&["judge", answer]) + bonus;
    let reason = if bonus > 0.0 { "It opens like a post that people stop at." } else { "It is an answer." };
    json!({"score": (score * 1e3).round() / 1e3, "reason": reason}).to_string()
}
