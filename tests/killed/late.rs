//! A job that nobody knew of turns up at the provider while another is trained.

use serde_json::json;
use tuneloop::runs::RunStatus;
use tuneloop::simulator::JobStatus;

use crate::expectations::settled;
use crate::world::{Shape, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_that_turns_up_late_is_cancelled_and_counted() {
    let mut world = World::new(Shape { training_seconds: 5.0, ..Shape::default() }).await;
    let run = world.trigger().await;
    world.halted("train.creating").await.kill();
    let second = world.worker();
    world.until("the job is created anew", async || world.provider.creates().jobs == 1).await;
    // What the killed worker had sent, as far as anybody can tell.
    let training = world.training(run).await;
    let job = json!({
        "model": training.base_model, "training_file": training.provider_file_id,
        "metadata": {"training_id": training.id},
    });
    let url = format!("{}/fine_tuning/jobs", world.provider_url);
    let created = reqwest::Client::new().post(url).bearer_auth("sk-test").json(&job).send().await.unwrap();
    assert!(created.status().is_success(), "{}", created.text().await.unwrap());

    assert_eq!(world.ended(run).await, RunStatus::Succeeded);
    second.stop().await;
    let jobs: Vec<JobStatus> = world.provider.jobs().iter().map(|job| job.status).collect();
    assert_eq!(jobs, [JobStatus::Succeeded, JobStatus::Cancelled]);
    let training = world.training(run).await;
    assert_eq!(training.provider_job_id.as_ref(), Some(&world.provider.jobs()[0].id));
    assert_eq!(training.duplicates, 1);
    settled(&world).await;
}
