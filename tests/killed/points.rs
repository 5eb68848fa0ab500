//! A worker killed with SIGKILL in every step: before it does anything, around each side effect, before its
//! commit and after it.

use std::collections::BTreeSet;
use std::path::Path;

use tuneloop::runs::Step;

use crate::expectations::everything_once;
use crate::parallel;
use crate::world::{Shape, World};

/// Scenarios at once: most of their time they wait for a lease to run out.
const AT_ONCE: usize = 16;

/// Points that only some steps have, on the way of a run that succeeds.
const OWN: [&str; 17] = [
    "collect.collected",
    "collect.stored",
    "upload.sending",
    "upload.sent",
    "preflight.examined",
    "train.creating",
    "train.created",
    "train.polled",
    "evaluate.answered",
    "evaluate.judging",
    "cleanup.deleting",
    "cleanup.deleted",
    "test.starting",
    "test.ending",
    "decide.recorded",
    "promote.promoted",
    "watch.ending",
];
/// Those on other ways, killed at in files of their own.
const ELSEWHERE: [&str; 6] = [
    "train.found",
    "test.ramping",
    "watch.rolling_out",
    "watch.rolling_back",
    "cancel.sending",
    "cancel.sent",
];

fn points() -> Vec<String> {
    // Those first that take longest.
    let of_all = Step::ALL
        .into_iter()
        .flat_map(|step| ["begun", "committing", "committed"].map(|moment| format!("{step}.{moment}")));
    OWN.into_iter().map(str::to_owned).chain(of_all).collect()
}

#[test]
fn a_worker_killed_in_any_step_leaves_a_run_that_ends_as_it_would_have() {
    parallel::each(points(), AT_ONCE, killed_at);
}

async fn killed_at(point: &str) {
    // Longer than the lease, so that the next worker comes while the call may still be carried out.
    let unanswered = ["upload.sending", "train.creating"].contains(&point);
    let settle_seconds = if unanswered { 10.0 } else { Shape::default().settle_seconds };
    let mut world = World::new(Shape { settle_seconds, ..Shape::default() }).await;
    let run = world.trigger().await;
    world.halted(point).await.kill();

    let second = world.worker();
    world.ended(run).await;
    second.stop().await;
    everything_once(&world, run).await;
    if unanswered {
        let waited =
            "SELECT count(*) FROM run_events WHERE kind = 'waiting' AND message LIKE '%was not answered%'";
        assert_eq!(world.number(waited).await, 1, "the next worker looks before it sends again");
    }
}

#[test]
fn every_point_in_the_source_is_killed_at() {
    let known: BTreeSet<String> = OWN.into_iter().chain(ELSEWHERE).map(str::to_owned).collect();
    let mut found = BTreeSet::new();
    collect_points(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    // Those are killed at where their other side is: in `tests/mlflow`, `tests/publication` and `tests/notifications`.
    found.retain(|point| {
        !["tracking.", "publish.", "deliver_webhook."].iter().any(|kind| point.starts_with(kind))
    });
    assert_eq!(found, known);
}

fn collect_points(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_points(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for call in text.split("halt::point(\"").skip(1) {
            let arguments = call.split_once("\")").unwrap().0;
            found.insert(arguments.replace("\", \"", "."));
        }
    }
}
