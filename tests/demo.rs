//! The demo as a newcomer runs it: the real program, nothing configured.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

/// Runs `tuneloop demo --exit` on a free port with an empty environment but for the paths that programs need.
fn demo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tuneloop"));
    command.args(["demo", "--exit", "--listen", "127.0.0.1:0"]).args(arguments).env_clear();
    for name in ["PATH", "HOME", "TMPDIR", "TUNELOOP_POSTGRES_BIN"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.output().unwrap()
}

/// What was printed, in single spaces, so that line breaks do not matter.
fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn it_goes_from_made_up_posts_to_a_promoted_and_watched_model() {
    let output = demo(&[]);
    let shown = words(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", words(&output.stderr));
    for part in [
        "Simulated: the provider that trains, and the readers",
        "Decision promote.",
        "Live before hook@0.0.0",
        "Live now hook@1.0.0",
        "succeeded in step watch",
    ] {
        assert!(shown.contains(part), "{part:?} is not in: {shown}");
    }
}

#[test]
fn a_worse_candidate_is_stopped_and_the_former_model_serves_everything_again() {
    let output = demo(&["--harm"]);
    let shown = words(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", words(&output.stderr));
    for part in ["% worse", "which is harm", "hook@0.0.0 serves everything again", "Live now hook@0.0.0"] {
        assert!(shown.contains(part), "{part:?} is not in: {shown}");
    }
}

#[test]
fn it_trains_on_real_posts_at_or_above_six_percent() {
    let posts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/posts_2013.csv.gz");
    if !posts.exists() {
        println!("no real posts at hand; this test has nothing to do");
        return;
    }
    let output = demo(&["--posts", posts.to_str().unwrap()]);
    let shown = words(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", words(&output.stderr));
    assert!(shown.contains("Dataset 142 examples"), "{shown}");
    assert!(shown.contains("from 5,506 posts"), "{shown}");
}

#[test]
fn too_few_posts_are_told_and_end_with_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let posts = directory.path().join("posts.csv");
    let row = "p1,About cats,A hook,A body,0.09,2026-01-02T03:04:05Z\n";
    let header = "persona_id,original_input,hook,body,engagement_rate,created_at\n";
    // Equal but for their texts: the same post twice is one example.
    let rows: String = (0..12).map(|n| row.replace("A hook", &format!("A hook of {n}"))).collect();
    std::fs::write(&posts, format!("{header}{rows}")).unwrap();
    let output = demo(&["--posts", posts.to_str().unwrap()]);
    let shown = format!("{} {}", words(&output.stdout), words(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("12 examples are fewer than the 100"), "{shown}");
}
