//! What is true after a run, whatever happened to its workers.

use tuneloop::runs::{RunStatus, Step};
use tuneloop::simulator::JobStatus;
use uuid::Uuid;

use crate::world::World;

/// The run ended as it would have with nobody killed: everything was done, and done once.
pub(crate) async fn everything_once(world: &World, id: Uuid) {
    promoted_once(world, id, RunStatus::Succeeded, "watch_ended").await;
}

/// The run promoted its version once and ended with this status and this traffic revision.
pub(crate) async fn promoted_once(world: &World, id: Uuid, status: RunStatus, last_revision: &str) {
    let run = world.run(id).await;
    assert_eq!(run.status, status, "{run:?}");
    assert_eq!(run.step, Step::Watch);

    assert_eq!((world.provider.uploaded(), world.provider.creates().jobs), (2, 1));
    let jobs = world.provider.jobs();
    let job = &jobs[0];
    assert_eq!((jobs.len(), job.status), (1, JobStatus::Succeeded));
    let training = world.training(id).await;
    assert_eq!(job.metadata["training_id"], training.id.to_string());
    assert_eq!(training.provider_job_id.as_ref(), Some(&job.id));
    assert_eq!(training.provider_file_id.as_ref(), Some(&job.training_file));
    assert_eq!(training.validation_file_id, job.validation_file);
    assert_eq!(training.duplicates, 0);

    let count = async |query: &str| world.number(&format!("SELECT count(*) FROM {query}")).await;
    assert_eq!(count("model_versions WHERE run_id IS NOT NULL").await, 1);
    assert_eq!(count("trainings").await, 1);
    assert_eq!(count("experiments WHERE status = 'decided'").await, 1);
    assert_eq!(count("experiments").await, 1);
    assert_eq!(count("decisions WHERE verdict = 'promote'").await, 1);
    assert_eq!(count("decisions").await, 1);
    // Three prompts put to two models; each answer is judged once.
    assert_eq!(count("evaluation_answers WHERE score IS NOT NULL").await, 6);
    let kinds: Vec<String> =
        sqlx::query_scalar("SELECT kind FROM traffic_revisions WHERE pipeline = 'hook' ORDER BY revision")
            .fetch_all(&world.database.pool)
            .await
            .unwrap();
    assert_eq!(kinds, ["created", "test_started", "promotion", last_revision]);

    for step in Step::ALL {
        let of_step = format!("run_events WHERE kind = 'entered' AND step = '{step}'");
        assert_eq!(count(&of_step).await, 1, "{step} is entered once");
    }
    assert_eq!(count("run_events WHERE kind = 'progress'").await, 9);
    assert_eq!(count("run_events WHERE kind = 'finished'").await, 1);
    assert_eq!(count("run_steps WHERE finished_at IS NOT NULL").await, 10);
    for (action, times) in [
        ("run.trigger", 1),
        ("run.step", 9),
        ("run.finish", 1),
        ("model.register", 2),
        // In test, live, and the former one held back and retired.
        ("model.status", if last_revision == "rollback" { 5 } else { 4 }),
        ("experiment.start", 1),
        ("experiment.decide", 1),
        ("traffic.test_started", 1),
        ("traffic.promotion", 1),
        (&format!("traffic.{last_revision}"), 1),
    ] {
        let of_action = format!("audit_events WHERE action = '{action}' AND pipeline = 'hook'");
        assert_eq!(count(&of_action).await, times, "{action} is in the audit trail");
    }
    settled(world).await;
    let left = world.provider.files().iter().filter(|file| file.purpose == "fine-tune").count();
    assert_eq!(left, 0, "files at the provider that nobody needs");
}

/// Nothing is left to do, and the traffic is whole.
pub(crate) async fn settled(world: &World) {
    let unfinished = "SELECT count(*) FROM jobs WHERE state <> 'done'";
    assert_eq!(world.number(unfinished).await, 0, "unfinished jobs");
    let split = "SELECT count(*) FROM (SELECT 1 FROM traffic_weights GROUP BY pipeline, revision
                 HAVING sum(weight) <> 10000) AS broken";
    assert_eq!(world.number(split).await, 0, "revisions whose weights are not 10000");
    let open = "SELECT count(*) FROM runs WHERE place IS NOT NULL OR request IS NOT NULL";
    assert_eq!(world.number(open).await, 0, "runs that keep a place or a request");
}

/// The live version serves everything, and nothing is under test.
pub(crate) async fn only_the_first_version_serves(world: &World) {
    let live =
        "SELECT w.weight::bigint FROM traffic_weights w JOIN model_versions v ON v.id = w.model_version_id
                  JOIN pipelines p ON p.name = w.pipeline AND p.traffic_revision = w.revision
                 WHERE p.name = 'hook' AND v.major = 0 AND v.status = 'live'";
    assert_eq!(world.number(live).await, 10_000);
    assert_eq!(world.number("SELECT count(*) FROM model_versions WHERE status = 'testing'").await, 0);
    assert_eq!(world.number("SELECT count(*) FROM experiments WHERE status = 'running'").await, 0);
}
