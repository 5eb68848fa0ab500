//! The simulated readers: what they make of a post that a version of the model wrote.
//!
//! Nothing here knows of the test's statistics. The candidate is better or worse because the simulation says so, by
//! its [`Candidate::effect`], and the decision has to find that out through the noise.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::chance::normal;
use super::plan::Candidate;

/// The personas whose posts are read. A persona's posts resemble each other in how well they do.
const PERSONAS: usize = 40;
/// The rate of an average post of the untrained model.
const BASE_RATE: f64 = 0.045;
/// Spreads of the logarithm of the rate: between personas, of the lift between personas, between posts.
const PERSONA_SPREAD: f64 = 0.25;
const LIFT_SPREAD: f64 = 0.05;
const POST_SPREAD: f64 = 0.35;
const IMPRESSIONS: std::ops::Range<i64> = 200..1_000;

/// What became of one post.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Engagement {
    pub(super) impressions: i64,
    pub(super) engagements: i64,
}

impl Engagement {
    /// Engagements per impression.
    pub(super) fn rate(self) -> f64 {
        self.engagements as f64 / self.impressions as f64
    }
}

struct Persona {
    /// Factor on the rate, and on it again for a trained version.
    appeal: f64,
    lift: f64,
}

/// All readers, with their own source of chance.
pub(super) struct Readers {
    random: StdRng,
    personas: Vec<Persona>,
}

impl Readers {
    /// The same seed makes the same readers, who like any trained version as the candidate is to be liked.
    pub(super) fn new(seed: u64, candidate: Candidate) -> Self {
        // Another stream than that of the posts, which use the seed itself.
        let mut random = StdRng::seed_from_u64(!seed);
        let persona = |_| Persona {
            appeal: (PERSONA_SPREAD * normal(&mut random)).exp(),
            lift: (1.0 + candidate.effect()) * (LIFT_SPREAD * normal(&mut random)).exp(),
        };
        let personas = (0..PERSONAS).map(persona).collect();
        Self { random, personas }
    }

    /// The persona who posts next.
    pub(super) fn next_persona(&mut self) -> usize {
        self.random.random_range(0..PERSONAS)
    }

    /// Readers see a post of that persona, written by a trained version or by the model that nobody trained.
    pub(super) fn respond(&mut self, persona: usize, trained: bool) -> Engagement {
        let Persona { appeal, lift } = self.personas[persona % PERSONAS];
        let noise = (POST_SPREAD * normal(&mut self.random)).exp();
        let rate = (BASE_RATE * appeal * if trained { lift } else { 1.0 } * noise).min(0.9);
        let impressions = self.random.random_range(IMPRESSIONS);
        // Each reader engages or not: a binomial number, by its normal approximation.
        let mean = rate * impressions as f64;
        let drawn = mean + (mean * (1.0 - rate)).sqrt() * normal(&mut self.random);
        #[expect(clippy::cast_possible_truncation, reason = "clamped to the impressions")]
        let engagements = drawn.round().clamp(0.0, impressions as f64) as i64;
        Engagement { impressions, engagements }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::demo::plan;
    use crate::experiments::decision::{Evidence, Metric, Observed, Rules, Verdict, decide};
    use crate::experiments::statistics::{Arm, Cell, PerArm, Sampling, Units};
    use crate::traffic::assignment::{bucket, share_of};

    /// What the service's queries would make of `count` posts, read under one revision of a test.
    fn evidence(seed: u64, count: u32, candidate: Option<Candidate>) -> Evidence {
        let mut readers = Readers::new(seed, candidate.unwrap_or(Candidate::Better));
        let weight = plan::CANDIDATE_WEIGHT;
        let salt = format!("experiment {seed}");
        let mut sums: BTreeMap<(Arm, usize), (u64, f64, f64)> = BTreeMap::new();
        let mut counts = PerArm::<u64>::default();
        for post in 0..count {
            let persona = readers.next_persona();
            let share = share_of(bucket(&salt, &format!("post-{post}")), [weight, 10_000 - weight]);
            let arm = if share == Some(0) { Arm::Candidate } else { Arm::Baseline };
            let rate = readers.respond(persona, candidate.is_some() && arm == Arm::Candidate).rate();
            let sum = sums.entry((arm, persona)).or_default();
            *sum = (sum.0 + 1, sum.1 + rate, sum.2 + rate * rate);
            *counts.get_mut(arm) += 1;
        }
        let cells = sums.into_iter().map(|((arm, persona), (n, sum, squares))| {
            Cell::average(2, arm, &format!("persona-{persona}"), n, sum, squares)
        });
        let cells = cells.collect();
        let observed = Observed { sampling: Sampling::Clustered, cells, planned_standard_error: None };
        let weight = u32::try_from(weight).unwrap();
        let weights = PerArm { baseline: 10_000 - weight, candidate: weight };
        Evidence {
            hours_elapsed: 0.002,
            horizon_hours: None,
            horizon_reached: true,
            extended: false,
            metrics: BTreeMap::from([(Metric::Engagement, observed)]),
            units: vec![Units { epoch: 2, weights, counts }],
            early_looks: Vec::new(),
        }
    }

    fn verdicts(
        seeds: std::ops::Range<u64>,
        count: u32,
        candidate: Option<Candidate>,
        rules: &Rules,
    ) -> Vec<Verdict> {
        seeds.map(|seed| decide(&evidence(seed, count, candidate), rules).verdict).collect()
    }

    /// A part of what is served until the horizon.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
    fn posts(part: f64) -> u32 {
        (plan::TEST_SECONDS * f64::from(plan::READS_PER_SECOND) * part) as u32
    }

    #[test]
    fn the_demo_promotes_whatever_the_seed_with_two_thirds_of_its_traffic() {
        let found = verdicts(0..60, posts(2.0 / 3.0), Some(Candidate::Better), &plan::rules());
        assert!(found.iter().all(|verdict| *verdict == Verdict::Promote), "{found:?}");
    }

    #[test]
    fn a_worse_candidate_is_stopped_for_harm_whatever_the_seed_with_half_of_its_traffic() {
        let found = verdicts(0..60, posts(0.5), Some(Candidate::Worse), &plan::rules());
        assert!(found.iter().all(|verdict| *verdict == Verdict::StopForHarm), "{found:?}");
    }

    #[test]
    fn without_a_lift_the_same_readers_promote_nothing_but_by_error() {
        let found = verdicts(0..100, 800, None, &plan::rules());
        let promoted = found.iter().filter(|verdict| **verdict == Verdict::Promote).count();
        // One-sided level 0.025: 2.5 expected, 5 standard deviations are 7.8.
        assert!(promoted <= 10, "{promoted} of 100");
    }

    #[test]
    fn the_effect_is_that_of_the_simulation() {
        for candidate in [Candidate::Better, Candidate::Worse] {
            let evidence = evidence(5, 40_000, Some(candidate));
            let relative = decide(&evidence, &plan::rules()).estimate.unwrap().relative.unwrap();
            assert!((relative - candidate.effect()).abs() < 0.05, "{relative}");
        }
    }
}
