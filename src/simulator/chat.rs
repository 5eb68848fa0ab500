//! `POST /chat/completions`: short texts that depend on the model and the prompt alone.

use std::convert::Infallible;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::request::JsonBody;
use super::validate::tokens;
use super::{Simulator, azure, ids, judge, models, text};

const FINGERPRINT: &str = "fp_simulator";

/// The part of `CreateChatCompletionRequest` that makes a difference here; the rest is accepted and ignored.
#[derive(Debug, Deserialize)]
pub(super) struct CreateCompletion {
    model: String,
    messages: Vec<Message>,
    #[serde(default)]
    n: Option<u64>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    response_format: Value,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Debug, Deserialize)]
struct Message {
    role: Role,
    #[serde(default)]
    content: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    Developer,
    System,
    User,
    Assistant,
    Tool,
    Function,
}

impl Message {
    /// The text of the message: its content, or the text parts of it.
    fn text(&self) -> String {
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => {
                parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join(" ")
            }
            _ => String::new(),
        }
    }
}

/// One generated text.
struct Choice {
    words: Vec<String>,
    finish_reason: &'static str,
}

/// A completion before it is put into one of its two forms.
struct Completion {
    /// What both forms have in common.
    head: Value,
    choices: Vec<Choice>,
    usage: Value,
}

impl CreateCompletion {
    fn check(&self) -> Result<(), ApiError> {
        if self.messages.is_empty() {
            let message = "Invalid 'messages': empty array. Expected an array with at least one message.";
            return Err(ApiError::bad(message).param("messages").code("empty_array"));
        }
        for (index, message) in self.messages.iter().enumerate() {
            if message.role != Role::Assistant && !(message.content.is_string() || message.content.is_array())
            {
                let param = format!("messages.[{index}].content");
                let text = format!("Invalid value for '{param}': expected a string or an array.");
                return Err(ApiError::bad(text).param(param));
            }
        }
        if self.n.is_some_and(|n| !(1..=128).contains(&n)) {
            return Err(ApiError::bad("Invalid 'n': expected a whole number from 1 to 128.").param("n"));
        }
        if self.limit() == Some(0) {
            return Err(ApiError::bad("Invalid 'max_tokens': expected a value >= 1.").param("max_tokens"));
        }
        Ok(())
    }

    fn limit(&self) -> Option<u64> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    /// Writes the texts. A word counts as one token when they are cut.
    fn complete(&self, id: &str, created: i64) -> Completion {
        let texts: Vec<String> = self.messages.iter().map(Message::text).collect();
        let prompt = texts.join("\n");
        let limit = self.limit().map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let choices: Vec<Choice> = (0..self.n.unwrap_or(1))
            .map(|index| {
                let text = match self.response_format["type"].as_str() {
                    Some("json_object") => judge::reply(texts.last().map_or("", String::as_str)),
                    _ => text::write(&self.model, &prompt, index),
                };
                let mut words: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
                let finish_reason = if words.len() > limit { "length" } else { "stop" };
                words.truncate(limit);
                Choice { words, finish_reason }
            })
            .collect();
        let prompt_tokens: u64 = 3 + texts.iter().map(|text| 4 + tokens(text)).sum::<u64>();
        let completion_tokens = choices.iter().map(|choice| choice.words.len() as u64).sum::<u64>();
        Completion {
            head: json!({
                "id": id,
                "created": created,
                "model": self.model,
                "service_tier": "default",
                "system_fingerprint": FINGERPRINT,
            }),
            choices,
            usage: json!({
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {
                    "reasoning_tokens": 0,
                    "audio_tokens": 0,
                    "accepted_prediction_tokens": 0,
                    "rejected_prediction_tokens": 0,
                },
            }),
        }
    }
}

impl Completion {
    /// `CreateChatCompletionResponse` in the specification.
    fn whole(self) -> Value {
        let choice = |(index, choice): (usize, &Choice)| {
            json!({
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": choice.words.concat(),
                    "refusal": null,
                    "annotations": [],
                },
                "logprobs": null,
                "finish_reason": choice.finish_reason,
            })
        };
        let mut answer = self.head;
        answer["object"] = json!("chat.completion");
        answer["choices"] = self.choices.iter().enumerate().map(choice).collect();
        answer["usage"] = self.usage;
        answer
    }

    /// The chunks of a stream, `CreateChatCompletionStreamResponse` each: the role, word by word, the end.
    fn chunks(self, include_usage: bool) -> Vec<Value> {
        let mut head = self.head;
        head["object"] = json!("chat.completion.chunk");
        if include_usage {
            head["usage"] = Value::Null;
        }
        let mut chunks = Vec::new();
        for (index, choice) in self.choices.into_iter().enumerate() {
            let mut add = |delta: Value, finish_reason: Option<&str>| {
                let mut chunk = head.clone();
                chunk["choices"] = json!([{"index": index, "delta": delta, "logprobs": null, "finish_reason": finish_reason}]);
                chunks.push(chunk);
            };
            add(json!({"role": "assistant", "content": "", "refusal": null}), None);
            for word in choice.words {
                add(json!({"content": word}), None);
            }
            add(json!({}), Some(choice.finish_reason));
        }
        if include_usage {
            head["choices"] = json!([]);
            head["usage"] = self.usage;
            chunks.push(head);
        }
        chunks
    }
}

/// `POST /chat/completions`, whole or as server-sent events.
pub(super) async fn create(
    State(simulator): State<Simulator>,
    body: Result<JsonBody<CreateCompletion>, ApiError>,
) -> Result<Response, ApiError> {
    answer(&simulator, body?.0)
}

/// As [`create`], at Azure: the model is named by its deployment.
pub(super) async fn create_deployed(
    State(simulator): State<Simulator>,
    body: Result<JsonBody<CreateCompletion>, ApiError>,
) -> Result<Response, ApiError> {
    let JsonBody(mut request) = body?;
    request.model = azure::deployed(&simulator.open().0, &request.model)?;
    answer(&simulator, request)
}

fn answer(simulator: &Simulator, request: CreateCompletion) -> Result<Response, ApiError> {
    request.check()?;
    let now = {
        let (store, now) = simulator.open();
        models::find(&store, &request.model, now)?;
        now
    };
    let completion = request.complete(&ids::random::<29>("chatcmpl-", simulator.clock()), now.timestamp());
    if !request.stream.unwrap_or_default() {
        return Ok(Json(completion.whole()).into_response());
    }
    let include_usage = request.stream_options.is_some_and(|options| options.include_usage);
    let chunks = completion.chunks(include_usage).into_iter().map(|chunk| chunk.to_string());
    let events =
        chunks.chain(["[DONE]".to_owned()]).map(|data| Ok::<_, Infallible>(Event::default().data(data)));
    Ok(Sse::new(stream::iter(events)).into_response())
}
