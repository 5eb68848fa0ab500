//! Refused requests.

use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Value, json};

use super::harness::{Answer, Harness, examples};
use crate::simulator::Settings;

#[tokio::test]
async fn jobs_are_refused_for_their_parameters() {
    let harness = Harness::new();
    let file = harness.file(&examples(10)).await;
    let other = harness.upload(&[("purpose", "batch"), ("file", "x")]).await.ok();
    let long = |length: usize| "x".repeat(length);
    let crowd: Value = (0..17).map(|index| (index.to_string(), json!("x"))).collect();
    let cases = [
        (json!({"model": "gpt-9"}), "model", json!("model_not_available")),
        (json!({"model": "gpt-4o"}), "model", json!("model_not_available")),
        (json!({"training_file": "file-none"}), "training_file", json!("file_not_found")),
        (json!({"training_file": other["id"]}), "training_file", json!("invalid_file_purpose")),
        (json!({"validation_file": "file-none"}), "validation_file", json!("file_not_found")),
        (json!({"suffix": long(65)}), "suffix", Value::Null),
        (json!({"suffix": "a:b"}), "suffix", Value::Null),
        (json!({"seed": -1}), "seed", Value::Null),
        (json!({"metadata": crowd}), "metadata", Value::Null),
        (json!({"metadata": {long(65): "x"}}), "metadata", Value::Null),
        (json!({"metadata": {"k": long(513)}}), "metadata.k", Value::Null),
        (json!({"hyperparameters": {"n_epochs": 51}}), "hyperparameters.n_epochs", Value::Null),
        (json!({"method": {"type": "reinforcement"}}), "method.type", Value::Null),
        (json!({"method": {"type": "dpo", "supervised": {}}}), "method", Value::Null),
        (json!({"integrations": ["wandb"]}), "integrations", Value::Null),
    ];
    for (change, param, code) in cases {
        let mut body = json!({"model": "gpt-4o-2024-08-06", "training_file": file});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = harness.post("/fine_tuning/jobs", &body).await;
        assert_eq!(answer.error(), (400, json!(param), code), "{change}");
    }
    for body in [json!({"model": "gpt-4o-2024-08-06"}), json!([]), json!({"model": 1, "training_file": file})]
    {
        assert_eq!(harness.post("/fine_tuning/jobs", &body).await.error().0, 400);
    }
    let unknown = json!({"model": "gpt-4o-2024-08-06", "training_file": file, "epochs": 3});
    let answer = harness.post("/fine_tuning/jobs", &unknown).await;
    assert!(answer.text.contains("epochs"), "{}", answer.text);
    assert!(harness.simulator.jobs().is_empty());
    assert_eq!(harness.simulator.creates().jobs, 19);

    let most: Value = (0..16).map(|index| (format!("{index:064}"), json!("x".repeat(512)))).collect();
    let body =
        json!({"model": "gpt-4o-2024-08-06", "training_file": file, "metadata": most, "suffix": long(64)});
    assert_eq!(harness.post("/fine_tuning/jobs", &body).await.ok()["metadata"], most);
}

#[tokio::test]
async fn uploads_are_refused_for_their_parts() {
    let harness = Harness::new();
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[("purpose", "fine-tune")], "file"),
        (&[("file", "x")], "purpose"),
        (&[("file", "x"), ("purpose", "fun")], "purpose"),
        (&[("file", "x"), ("purpose", "batch"), ("note", "x")], "note"),
        (&[("file", "x"), ("purpose", "batch"), ("expires_after[anchor]", "created_at")], "expires_after"),
        (
            &[
                ("file", "x"),
                ("purpose", "batch"),
                ("expires_after[anchor]", "created_at"),
                ("expires_after[seconds]", "1"),
            ],
            "expires_after.seconds",
        ),
    ];
    for (fields, param) in cases {
        assert_eq!(harness.upload(fields).await.error(), (400, json!(param), Value::Null));
    }
    assert_eq!(harness.post("/files", &json!({})).await.error().0, 400);
    assert!(harness.simulator.files().is_empty());
    assert_eq!(harness.simulator.creates().files, 7);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let harness = Harness::new();
    let job = (404, json!("fine_tuning_job_id"), json!("fine_tune_not_found"));
    for path in ["", "/events", "/checkpoints"] {
        assert_eq!(harness.get(&format!("/fine_tuning/jobs/none{path}")).await.error(), job);
    }
    for action in ["cancel", "pause", "resume"] {
        assert_eq!(harness.post(&format!("/fine_tuning/jobs/none/{action}"), &json!({})).await.error(), job);
    }
    assert_eq!(harness.get("/files/none").await.error(), (404, json!("id"), Value::Null));
    assert_eq!(harness.delete("/files/none").await.error().0, 404);
    assert_eq!(harness.get("/models/none").await.error(), (404, json!("model"), json!("model_not_found")));
    assert_eq!(harness.delete("/models/gpt-4o").await.error().0, 403);
    assert_eq!(harness.get("/nothing").await.error().0, 404);
}

#[tokio::test]
async fn methods_bodies_and_parameters_are_checked() {
    let harness = Harness::new();
    let wrong_method = (405, Value::Null, json!("method_not_supported"));
    assert_eq!(harness.delete("/models").await.error(), wrong_method);
    assert_eq!(harness.post("/files/file-1/content", &json!({})).await.error(), wrong_method);
    let broken = Request::post("/v1/chat/completions").body(Body::from("{")).unwrap();
    assert_eq!(harness.send(broken).await.error().0, 400);
    for query in ["limit=0", "limit=-1", "limit=many", "limit=10001", "order=up"] {
        assert_eq!(harness.get(&format!("/files?{query}")).await.error().0, 400, "{query}");
    }
    assert_eq!(harness.get("/files/%ff").await.error().0, 400);

    let message = json!([{"role": "user", "content": "a"}]);
    let cases = [
        (json!({"messages": message, "model": "gpt-9"}), 404),
        (json!({"messages": [], "model": "gpt-4o"}), 400),
        (json!({"messages": [{"role": "user"}], "model": "gpt-4o"}), 400),
        (json!({"messages": [{"role": "bot", "content": "a"}], "model": "gpt-4o"}), 400),
        (json!({"messages": message, "model": "gpt-4o", "n": 0}), 400),
        (json!({"messages": message, "model": "gpt-4o", "max_tokens": 0}), 400),
    ];
    for (body, status) in cases {
        assert_eq!(harness.post("/chat/completions", &body).await.error().0, status, "{body}");
    }
}

#[tokio::test]
async fn a_key_is_asked_for_if_one_is_set() {
    let harness = Harness::with(Settings { api_key: Some("sk-right".into()), ..Settings::default() });
    let with = async |value: &str| -> Answer {
        let request = Request::get("/v1/models").header(header::AUTHORIZATION, value);
        harness.send(request.body(Body::empty()).unwrap()).await
    };
    with("Bearer sk-right").await.ok();
    assert_eq!(with("Bearer sk-wrong").await.error(), (401, Value::Null, json!("invalid_api_key")));
    assert_eq!(with("sk-right").await.error().0, 401);
    assert_eq!(harness.get("/models").await.error(), (401, Value::Null, Value::Null));
    assert_eq!(harness.get("/nothing").await.error().0, 401);
}
