//! The engine beside gbstats, statsmodels and `SciPy`, on random cases and on real tests of headlines.
//!
//! `TUNELOOP_PEERS_PYTHON` names the Python that has them. Without it the tests are skipped, and fail where
//! `TUNELOOP_PEERS` is set.

#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod headlines;

use std::io::Write;
use std::process::{Command, Stdio};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tuneloop::experiments::statistics::{Arm, Cell, Method, PerArm, Units, estimate, holm, sample_ratio};

const CASES: usize = 150;

/// What the peers say, or nothing where they are not installed.
fn ask(cases: &[Value]) -> Option<Vec<Vec<f64>>> {
    let Some(python) = std::env::var_os("TUNELOOP_PEERS_PYTHON") else {
        assert!(
            std::env::var_os("TUNELOOP_PEERS").is_none(),
            "the peers are missing: set TUNELOOP_PEERS_PYTHON"
        );
        println!("skipped: TUNELOOP_PEERS_PYTHON does not name a Python with gbstats, statsmodels and SciPy");
        return None;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/peers.py");
    let mut child = Command::new(python)
        .args(["-W", "ignore", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = cases.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Vec<f64>> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), cases.len());
    Some(answers)
}

#[track_caller]
fn assert_agree(found: &[f64], peer: &[f64], scale: f64, case: &Value) {
    assert_eq!(found.len(), peer.len());
    for (one, other) in found.iter().zip(peer) {
        assert!((one - other).abs() <= 1e-8 * other.abs() + 1e-12 * scale, "{found:?} {peer:?} {case}");
    }
}

#[test]
fn random_cases_agree_with_the_peers() {
    let mut random = StdRng::seed_from_u64(20_131);
    let (mut cases, mut found) = (Vec::new(), Vec::new());
    for _ in 0..CASES {
        for (case, figures) in
            [welch(&mut random), clustered(&mut random), split(&mut random), several(&mut random)]
        {
            cases.push(case);
            found.push(figures);
        }
    }
    assert!(cases.len() >= 500);
    let Some(answers) = ask(&cases) else { return };
    for ((case, figures), answer) in cases.iter().zip(&found).zip(&answers) {
        assert_agree(figures, answer, 1.0, case);
    }
    println!("{} random cases agree", cases.len());
}

fn welch(random: &mut StdRng) -> (Value, Vec<f64>) {
    let mut arm = |which| {
        let n = random.random_range(2..5000_u64);
        let (mean, deviation) = (random.random_range(0.01..2.0), random.random_range(0.01..1.0));
        let sum = mean * n as f64;
        let squares = deviation * deviation * (n as f64 - 1.0) + sum * mean;
        (Cell::average(1, which, "", n, sum, squares), json!([n, sum, squares]))
    };
    let (baseline, candidate) = (arm(Arm::Baseline), arm(Arm::Candidate));
    let found = estimate(&[baseline.0, candidate.0], Method::Welch, 1.0, 0.95).unwrap();
    let interval = found.interval.unwrap();
    let figures =
        [found.difference, interval.lower, interval.upper, found.p_two_sided.unwrap(), found.standard_error];
    (json!({"kind": "welch", "arms": [baseline.1, candidate.1]}), figures.into())
}

fn clustered(random: &mut StdRng) -> (Value, Vec<f64>) {
    let groups = random.random_range(4..30_u32);
    let (mut cells, mut y, mut treated, mut group) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for persona in 0..groups {
        let taste = random.random::<f64>();
        // Two at least, so that each arm has two clusters.
        for post in 0..random.random_range(2..12_u32) {
            let value = taste + random.random::<f64>();
            let arm = if post == 0 || random.random_bool(0.3) { Arm::Candidate } else { Arm::Baseline };
            let arm = if post == 1 { Arm::Baseline } else { arm };
            cells.push(Cell::average(1, arm, &persona.to_string(), 1, value, value * value));
            y.push(value);
            treated.push(u8::from(arm == Arm::Candidate));
            group.push(persona);
        }
    }
    let found = estimate(&cells, Method::ClusteredPerPost, 1.0, 0.95).unwrap();
    let figures = [found.difference, found.standard_error, found.p_two_sided.unwrap()];
    (json!({"kind": "clustered", "y": y, "treated": treated, "group": group}), figures.into())
}

fn split(random: &mut StdRng) -> (Value, Vec<f64>) {
    let weight = random.random_range(500..9500_u32);
    let weights = PerArm { baseline: 10_000 - weight, candidate: weight };
    let total = random.random_range(100..20_000_u64);
    let candidate =
        (total as f64 * (f64::from(weight) / 10_000.0 + random.random_range(-0.02..0.02))).max(1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least 1 and below the total"
    )]
    let candidate = candidate as u64;
    let counts = PerArm { baseline: total - candidate, candidate };
    let p = sample_ratio::p_value(&[Units { epoch: 1, weights, counts }]).unwrap();
    let case = json!({
        "kind": "ratio", "counts": [counts.baseline, counts.candidate],
        "weights": [weights.baseline, weights.candidate],
    });
    (case, vec![p])
}

fn several(random: &mut StdRng) -> (Value, Vec<f64>) {
    let count = random.random_range(1..8_usize);
    let p: Vec<f64> = (0..count).map(|_| random.random::<f64>().powi(3)).collect();
    let adjusted = holm::adjusted(&p.iter().copied().map(Some).collect::<Vec<_>>());
    (json!({"kind": "holm", "p": p}), adjusted.into_iter().flatten().collect())
}
