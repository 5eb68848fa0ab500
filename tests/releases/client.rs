//! A client that asks for changes at random, and remembers what it was told.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::World;

const VERSIONS: [&str; 6] = ["0.0.0", "1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"];

/// What a client asks for.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Promote { version: &'static str, force: bool },
    RollBack { to: Option<&'static str> },
    Split { weights: Vec<(&'static str, i32)>, etag: String },
    Switch { enabled: bool },
}

/// What became of a request, as far as its client knows.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// It was carried out, and this is the traffic that the answer told.
    Done(Value),
    /// It was refused, and changed nothing.
    Refused(u16),
    /// No answer came: it may have been carried out.
    Unknown,
}

/// A request that was sent, perhaps more than once. Its reason is its own, so that the history names it.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) reason: String,
    pub(crate) actor: String,
    pub(crate) action: Action,
    key: Option<String>,
    pub(crate) outcome: Outcome,
}

pub(crate) struct Client {
    http: reqwest::Client,
    urls: [Arc<RwLock<String>>; 2],
    key: String,
    name: String,
    chance: StdRng,
    pub(crate) sent: Vec<Sent>,
}

impl Client {
    pub(crate) async fn new(world: &World, name: &str, seed: u64) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(40)).build().unwrap();
        let (urls, key, chance) = (world.urls(), world.key(name).await, StdRng::seed_from_u64(seed));
        Self { http, urls, key, name: name.to_owned(), chance, sent: Vec::new() }
    }

    /// What nothing speaks against.
    pub(crate) async fn promote_the_winner(&mut self) {
        let action = Action::Promote { version: "1.0.0", force: false };
        let sent = self.new_request(action, Some("the winner".to_owned()));
        let outcome = self.send(&sent).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        self.sent.push(Sent { outcome, ..sent });
    }

    /// Asks for something, or for something again.
    pub(crate) async fn act(&mut self) {
        // Only what has a key, or names the traffic that it changes, is safe to send again.
        let repeatable = |sent: &Sent| sent.key.is_some() || matches!(sent.action, Action::Split { .. });
        let earlier: Vec<usize> =
            (0..self.sent.len()).filter(|&index| repeatable(&self.sent[index])).collect();
        if self.chance.random_bool(0.2)
            && let Some(&index) = earlier.choose(&mut self.chance)
        {
            return self.again(index).await;
        }
        let action = self.action().await;
        let keyed = self.chance.random_bool(0.6);
        let key = keyed.then(|| format!("key-{}", self.sent.len()));
        let sent = self.new_request(action, key);
        let outcome = if self.chance.random_bool(0.2) {
            // Gives up: the connection is closed, whatever the service is doing.
            let patience = Duration::from_micros(self.chance.random_range(0..30_000));
            tokio::time::timeout(patience, self.send(&sent)).await.unwrap_or(Outcome::Unknown)
        } else {
            self.send(&sent).await
        };
        self.sent.push(Sent { outcome, ..sent });
    }

    fn new_request(&self, action: Action, key: Option<String>) -> Sent {
        let reason = format!("{} asks for change {}", self.name, self.sent.len());
        Sent { reason, actor: format!("key:{}", self.name), action, key, outcome: Outcome::Unknown }
    }

    async fn action(&mut self) -> Action {
        let version = *VERSIONS.choose(&mut self.chance).unwrap();
        match self.chance.random_range(0..10) {
            0..4 => Action::Promote { version, force: self.chance.random_bool(0.6) },
            4..6 => Action::RollBack { to: self.chance.random_bool(0.4).then_some(version) },
            6..8 => self.split().await,
            _ => Action::Switch { enabled: self.chance.random_bool(0.4) },
        }
    }

    /// A split with the live version in it, as its client has just read it.
    async fn split(&mut self) -> Action {
        let mut read = ("\"1\"".to_owned(), json!("0.0.0"));
        if let Ok(answer) = self.request(Method::GET, "traffic").send().await
            && answer.status() == StatusCode::OK
        {
            let etag = answer.headers()["etag"].to_str().unwrap().to_owned();
            if let Ok(traffic) = answer.json::<Value>().await {
                read = (etag, traffic["live"].clone());
            }
        }
        let (etag, live) = read;
        let live = VERSIONS.into_iter().find(|version| live == *version).unwrap();
        let other = *VERSIONS.choose(&mut self.chance).unwrap();
        let part = self.chance.random_range(0..=10_000);
        let weights =
            if other == live { vec![(live, 10_000)] } else { vec![(live, 10_000 - part), (other, part)] };
        Action::Split { weights, etag }
    }

    /// Sends what was sent before.
    async fn again(&mut self, index: usize) {
        let sent = self.sent[index].clone();
        let split = matches!(sent.action, Action::Split { .. });
        let outcome = self.send(&sent).await;
        let known = match (sent.outcome.clone(), outcome) {
            (Outcome::Done(before), Outcome::Done(again)) => {
                assert!(!split, "a stale split was set: {sent:?}");
                assert_eq!(before, again, "the same key has the same answer");
                Outcome::Done(before)
            }
            (Outcome::Done(before), Outcome::Refused(status)) => {
                assert!(split && status == 412, "{sent:?} is answered {status} when it is sent again");
                Outcome::Done(before)
            }
            (Outcome::Done(before), Outcome::Unknown) => Outcome::Done(before),
            (Outcome::Unknown, Outcome::Refused(_)) => Outcome::Unknown,
            (_, now) => now,
        };
        self.sent[index].outcome = known;
    }

    fn request(&mut self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = self.urls.choose(&mut self.chance).unwrap().read().unwrap().clone();
        self.http.request(method, format!("{url}/v1/pipelines/hook/{path}")).bearer_auth(&self.key)
    }

    async fn send(&mut self, sent: &Sent) -> Outcome {
        let reason = &sent.reason;
        let (method, path, body) = match &sent.action {
            Action::Promote { version, force } => {
                (Method::POST, format!("models/{version}/promote"), json!({"reason": reason, "force": force}))
            }
            Action::RollBack { to } => {
                (Method::POST, "rollback".to_owned(), json!({"reason": reason, "version": to}))
            }
            Action::Split { weights, .. } => {
                let weights: serde_json::Map<String, Value> =
                    weights.iter().map(|(version, weight)| ((*version).to_owned(), json!(weight))).collect();
                (Method::PUT, "traffic".to_owned(), json!({"reason": reason, "weights": weights}))
            }
            Action::Switch { enabled } => {
                (Method::PUT, "kill-switch".to_owned(), json!({"reason": reason, "enabled": enabled}))
            }
        };
        let answer = loop {
            let mut request = self.request(method.clone(), &path).header("content-type", "application/json");
            if let Some(key) = &sent.key {
                request = request.header("idempotency-key", key);
            }
            if let Action::Split { etag, .. } = &sent.action {
                request = request.header("if-match", etag);
            }
            match request.body(body.to_string()).send().await {
                Ok(answer) => break answer,
                // Nothing was sent: the process is being started again.
                Err(error) if error.is_connect() => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(_) => return Outcome::Unknown,
            }
        };
        let status = answer.status().as_u16();
        let Ok(mut body) = answer.json::<Value>().await else { return Outcome::Unknown };
        match status {
            200 if matches!(sent.action, Action::Promote { .. }) => Outcome::Done(body["traffic"].take()),
            200 => Outcome::Done(body),
            404 | 409 | 412 | 422 => Outcome::Refused(status),
            // Another may have had the pipeline for too long, or the process is about to end.
            503 => Outcome::Unknown,
            _ => panic!("{sent:?} is answered {status}: {body}"),
        }
    }
}
