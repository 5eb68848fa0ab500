//! The simulator on a socket, called by a client that knows nothing of it.

use std::time::Duration;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::types::files::{CreateFileRequest, FileInput, FilePurpose};
use async_openai::types::finetuning::CreateFineTuningJobRequest;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::harness::examples;
use crate::clock::Clock;
use crate::simulator::{JobStatus, Settings, Simulator};

#[tokio::test]
async fn a_client_of_openai_trains_a_model() {
    let settings =
        Settings { training_time: Duration::ZERO, api_key: Some("sk-test".into()), ..Settings::default() };
    let simulator = Simulator::new(settings, Clock::system());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn({
        let simulator = simulator.clone();
        async move { simulator.serve(listener, async { drop(stopped.await) }).await }
    });

    let config = OpenAIConfig::new().with_api_base(format!("http://{address}/v1")).with_api_key("sk-test");
    let client = Client::with_config(config);
    let file = client
        .files()
        .create(CreateFileRequest {
            file: FileInput::from_vec_u8("hook.jsonl".into(), examples(10).into_bytes()),
            purpose: FilePurpose::FineTune,
            expires_after: None,
        })
        .await
        .unwrap();
    assert_eq!(simulator.file_content(&file.id).unwrap(), examples(10).into_bytes());
    let request: CreateFineTuningJobRequest =
        serde_json::from_value(json!({"model": "gpt-4o-2024-08-06", "training_file": file.id})).unwrap();
    let job = client.fine_tuning().create(request).await.unwrap();
    let job = client.fine_tuning().retrieve(&job.id).await.unwrap();
    let summary = simulator.jobs().pop().unwrap();
    assert_eq!((summary.status, &summary.id), (JobStatus::Succeeded, &job.id));
    assert_eq!(summary.fine_tuned_model, job.fine_tuned_model);
    let events = client.fine_tuning().list_events(&job.id).await.unwrap();
    assert_eq!(events.data[0].message, "The job has successfully completed");
    let models = client.models().list().await.unwrap();
    assert!(models.data.iter().any(|model| Some(&model.id) == job.fine_tuned_model.as_ref()));

    drop(stop);
    server.await.unwrap().unwrap();
}
