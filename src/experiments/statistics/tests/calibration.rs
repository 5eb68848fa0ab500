//! False positives, by simulation with fixed seeds. The full calibration is a bench.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::{Arm, Cell, Method, estimate};

const EXPERIMENTS: u32 = 600;
const LEVEL: f64 = 0.025;
/// The share of the variance that lies between personas.
const BETWEEN: f64 = 0.2;

/// Uniform with mean 0 and variance 1.
fn noise(random: &mut StdRng) -> f64 {
    (random.random::<f64>() - 0.5) * 12.0_f64.sqrt()
}

/// An experiment without any effect: each epoch of `candidates` puts so many of the personas into the
/// candidate, which are never moved back.
fn null_experiment(random: &mut StdRng, personas: usize, candidates: &[usize], posts: u64) -> Vec<Cell> {
    let mut cells = Vec::new();
    for persona in 0..personas {
        let taste = BETWEEN.sqrt() * noise(random);
        for (epoch, &limit) in (1..).zip(candidates) {
            let arm = if persona < limit { Arm::Candidate } else { Arm::Baseline };
            let (mut sum, mut sum_sq) = (0.0, 0.0);
            for _ in 0..posts {
                let y = 5.0 + taste + (1.0 - BETWEEN).sqrt() * noise(random);
                sum += y;
                sum_sq += y * y;
            }
            cells.push(Cell::average(epoch, arm, &format!("{persona}"), posts, sum, sum_sq));
        }
    }
    cells
}

/// The share of experiments in which each method finds the candidate better.
fn false_positives(seed: u64, personas: usize, candidates: &[usize], posts: u64) -> (f64, f64) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut clustered, mut plain) = (0, 0);
    for _ in 0..EXPERIMENTS {
        let cells = null_experiment(&mut random, personas, candidates, posts);
        let found = |method| {
            let found = estimate(&cells, method, 1.0, 0.95).expect("an estimate");
            u32::from(found.p_greater.expect("a p-value") < LEVEL)
        };
        clustered += found(Method::ClusteredSticky);
        plain += found(Method::Welch);
    }
    (f64::from(clustered) / f64::from(EXPERIMENTS), f64::from(plain) / f64::from(EXPERIMENTS))
}

#[test]
fn sticky_personas_do_not_inflate_false_positives() {
    let (clustered, plain) = false_positives(1, 100, &[10], 30);
    assert!(clustered > 0.005 && clustered < 0.05, "{clustered}");
    assert!(plain > 0.2, "the same data fools a test that ignores personas: {plain}");
}

#[test]
fn a_split_that_is_raised_twice_does_not_inflate_false_positives() {
    let (clustered, plain) = false_positives(2, 200, &[20, 50, 100], 10);
    assert!(clustered > 0.005 && clustered < 0.05, "{clustered}");
    assert!(plain > 0.1, "the same data fools a test that ignores personas: {plain}");
}
