//! Every answer of every operation conforms to OpenAI's specification.

use serde_json::{Value, json};

use super::harness::{Answer, Harness, examples};
use super::spec::{Spec, events};
use crate::simulator::FaultPlan;

/// Calls operations and has the specification judge each answer.
struct Judged {
    harness: Harness,
    spec: Spec,
}

impl Judged {
    async fn get(&self, path: &str, id: &str) -> Answer {
        let (template, query) = path.split_once('?').unwrap_or((path, ""));
        let answer = self.harness.get(&format!("{}?{query}", filled(template, id))).await;
        self.spec.check("get", template, &answer);
        answer
    }

    async fn post(&self, path: &str, id: &str, body: &Value) -> Answer {
        let answer = self.harness.post(&filled(path, id), body).await;
        self.spec.check("post", path, &answer);
        answer
    }

    async fn delete(&self, path: &str, id: &str) -> Answer {
        let answer = self.harness.delete(&filled(path, id)).await;
        self.spec.check("delete", path, &answer);
        answer
    }

    async fn upload(&self, fields: &[(&str, &str)]) -> Answer {
        let answer = self.harness.upload(fields).await;
        self.spec.check("post", "/files", &answer);
        answer
    }

    /// Looks at a job from all sides.
    async fn look(&self, id: &str) -> Value {
        self.get(&format!("{JOB}/events?limit=1000"), id).await.ok();
        self.get(&format!("{JOB}/checkpoints"), id).await.ok();
        self.get(JOBS, "").await.ok();
        self.get(JOB, id).await.ok()
    }
}

const JOBS: &str = "/fine_tuning/jobs";
const JOB: &str = "/fine_tuning/jobs/{fine_tuning_job_id}";

/// Puts an id into the one place that a path has for it.
fn filled(template: &str, id: &str) -> String {
    match template.split_once('{') {
        None => template.into(),
        Some((start, rest)) => format!("{start}{id}{}", rest.split_once('}').unwrap().1),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test]
async fn every_answer_of_every_operation_conforms_to_the_specification() {
    let Some(spec) = Spec::load() else { return };
    let judged = Judged { harness: Harness::new(), spec };
    judged.get("/files", "").await.ok();
    judged.get(JOBS, "").await.ok();
    let file = judged.upload(&[("purpose", "fine-tune"), ("file", &examples(120))]).await.ok();
    let file = text(&file["id"]);
    let expiring = [("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "3600")];
    judged.upload(&[&[("purpose", "user_data"), ("file", "text")], &expiring[..]].concat()).await.ok();
    judged.upload(&[("file", "text")]).await.error();

    let jobs = [
        json!({"model": "gpt-4o-2024-08-06", "training_file": file}),
        json!({
            "model": "gpt-4o-mini", "training_file": file, "validation_file": file, "suffix": "hook", "seed": 1,
            "metadata": {"training_id": "1"},
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
        }),
        json!({"model": "gpt-4o-2024-08-06", "training_file": file, "method": {"type": "dpo"}}),
    ];
    let mut ids = Vec::new();
    for body in &jobs {
        ids.push(text(&judged.post(JOBS, "", body).await.ok()["id"]).to_owned());
    }
    judged.post(JOBS, "", &json!({"model": "gpt-9", "training_file": file})).await.error();
    let mut statuses = Vec::new();
    for _ in 0..11 {
        for id in &ids {
            statuses.push(text(&judged.look(id).await["status"]).to_owned());
        }
        judged.harness.pass(10);
    }
    statuses.sort();
    statuses.dedup();
    assert_eq!(statuses, ["failed", "queued", "running", "succeeded", "validating_files"]);

    let paused = text(&judged.post(JOBS, "", &jobs[0]).await.ok()["id"]).to_owned();
    judged.harness.pass(30);
    for action in ["pause", "pause", "resume", "resume", "cancel", "cancel"] {
        judged.post(&format!("{JOB}/{action}"), &paused, &json!({})).await;
        judged.look(&paused).await;
    }

    models(&judged, text(&judged.look(&ids[1]).await["fine_tuned_model"])).await;
    for path in ["/files?order=asc&limit=1", "/files?purpose=fine-tune-results", "/files?limit=0"] {
        judged.get(path, "").await;
    }
    for path in ["/files/{file_id}", "/files/{file_id}/content"] {
        judged.get(path, file).await;
        judged.get(path, "file-none").await.error();
    }
    judged.delete("/files/{file_id}", file).await.ok();
    judged.delete("/files/{file_id}", file).await.error();
    for rest in ["", "/events", "/checkpoints"] {
        judged.get(&format!("{JOB}{rest}"), "ftjob-none").await.error();
    }

    assert_eq!(judged.spec.exercised(), judged.spec.operations());
}

/// The operations on models, of which `tuned` is one.
async fn models(judged: &Judged, tuned: &str) {
    judged.get("/models", "").await.ok();
    for model in [tuned, "gpt-4o"] {
        judged.get("/models/{model}", model).await.ok();
        let mut body =
            json!({"model": model, "messages": [{"role": "user", "content": "Hello there"}], "n": 2});
        judged.post("/chat/completions", "", &body).await.ok();
        body["stream"] = json!(true);
        let plain = judged.post("/chat/completions", "", &body).await;
        body["stream_options"] = json!({"include_usage": true});
        let counted = judged.post("/chat/completions", "", &body).await;
        assert_eq!(events(&plain).len() + 1, events(&counted).len());
    }
    judged.post("/chat/completions", "", &json!({"model": "gpt-9", "messages": []})).await.error();
    let plan = FaultPlan::parse(r#"{"models": {"gpt-4o": {"shutdown_date": "2027-01-31"}}}"#).unwrap();
    judged.harness.simulator.set_faults(plan);
    assert_eq!(judged.get("/models/{model}", "gpt-4o").await.ok()["shutdown_date"], "2027-01-31");
    judged.get("/models", "").await.ok();
    judged.delete("/models/{model}", "gpt-4o").await.error();
    judged.delete("/models/{model}", tuned).await.ok();
    judged.get("/models/{model}", tuned).await.error();
}

#[test]
fn the_judge_finds_faults() {
    let Some(spec) = Spec::load() else { return };
    let schema = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let model = json!({"id": "m", "object": "model", "created": 1, "owned_by": "me"});
    assert!(spec.faults(&schema("Model"), &model).is_empty());
    for (key, value) in [("object", json!("file")), ("created", json!("now")), ("owner", json!("me"))] {
        let mut wrong = model.clone();
        wrong[key] = value;
        assert!(!spec.faults(&schema("Model"), &wrong).is_empty(), "{wrong}");
    }
    let error = json!({"error": {"message": "no", "type": "t", "param": null}});
    assert!(!spec.faults(&schema("ErrorResponse"), &error).is_empty());
    assert!(!spec.faults(&schema("FineTuningJob"), &json!({})).is_empty());
}
