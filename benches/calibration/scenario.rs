//! The kinds of experiments that are simulated.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::StdRng;
use tuneloop::experiments::decision::{Evidence, Metric, Observed, Rules};
use tuneloop::experiments::statistics::planning::{PlanInput, power_after};
use tuneloop::experiments::statistics::{
    Arm, Assignment, Cell, Method, PerArm, Sampling, Units, Variability,
};

use crate::simulate::normal;

/// The share of the variance that lies between personas.
const INTRA_CLASS: f64 = 0.2;

/// Personas and posts.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    assignment: Assignment,
    pub(crate) personas: usize,
    /// The candidate's weight in each epoch, in basis points.
    weights: &'static [u32],
    /// Posts of each persona in each epoch.
    posts: u64,
    /// The standard deviation of a post, with a mean of 1: such that an effect of a fifth has a power of about
    /// four fifths.
    deviation: f64,
}

pub(crate) const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "50 sticky personas at 50/50",
        assignment: Assignment::Sticky,
        personas: 50,
        weights: &[5000],
        posts: 30,
        deviation: 0.5,
    },
    Scenario {
        name: "200 sticky personas at 90/10",
        assignment: Assignment::Sticky,
        personas: 200,
        weights: &[1000],
        posts: 30,
        deviation: 0.6,
    },
    Scenario {
        name: "per post, 50 personas at 90/10",
        assignment: Assignment::PerPost,
        personas: 50,
        weights: &[1000],
        posts: 30,
        deviation: 0.85,
    },
    Scenario {
        name: "200 sticky personas, 10, 25, 50 %",
        assignment: Assignment::Sticky,
        personas: 200,
        weights: &[1000, 2500, 5000],
        posts: 10,
        deviation: 0.6,
    },
];

/// A persona: what it likes, and where it falls among the shares.
struct Persona {
    taste: f64,
    bucket: u32,
}

impl Scenario {
    pub(crate) fn rules(&self) -> Rules {
        Rules { assignment: self.assignment, ..Rules::default() }
    }

    /// What the planner says of an effect; not where the split changes, which it does not know of.
    pub(crate) fn planned_power(&self, effect: f64) -> Option<f64> {
        let [weight] = *self.weights else { return None };
        let share = f64::from(weight) / 10_000.0;
        let variability = Variability {
            mean: 1.0,
            deviation: self.deviation,
            intra_cluster: INTRA_CLASS,
            clusters: self.personas as u64,
        };
        let input = PlanInput {
            variability,
            method: Method::of(self.assignment, Sampling::Clustered),
            effect,
            alpha: Rules::default().alpha,
            power: 0.8,
            candidate_share: share,
            outcomes_per_day: 0.0,
        };
        power_after(&input, self.personas as f64 * self.posts as f64 * share)
    }

    /// A whole experiment, with its decision due.
    pub(crate) fn evidence(&self, random: &mut StdRng, effect: f64) -> Evidence {
        let mut test = Running::new(self, random);
        for (epoch, &weight) in (1..).zip(self.weights) {
            test.serve(random, epoch, weight, self.posts, effect);
        }
        test.evidence()
    }

    /// The weight of the first epoch.
    pub(crate) fn first_weight(&self) -> u32 {
        self.weights[0]
    }
}

/// An experiment in course.
pub(crate) struct Running<'a> {
    scenario: &'a Scenario,
    personas: Vec<Persona>,
    cells: BTreeMap<(i64, Arm, usize), (u64, f64, f64)>,
    weights: BTreeMap<i64, u32>,
    units: PerArm<u64>,
}

impl<'a> Running<'a> {
    pub(crate) fn new(scenario: &'a Scenario, random: &mut StdRng) -> Self {
        let taste = INTRA_CLASS.sqrt() * scenario.deviation;
        let persona = |_| Persona { taste: taste * normal(random), bucket: random.random_range(0..10_000) };
        Self {
            scenario,
            personas: (0..scenario.personas).map(persona).collect(),
            cells: BTreeMap::new(),
            weights: BTreeMap::new(),
            units: PerArm::default(),
        }
    }

    /// So many posts of every persona.
    pub(crate) fn serve(&mut self, random: &mut StdRng, epoch: i64, weight: u32, posts: u64, effect: f64) {
        let own = (1.0 - INTRA_CLASS).sqrt() * self.scenario.deviation;
        let sticky = self.scenario.assignment == Assignment::Sticky;
        let first = self.weights.is_empty();
        self.weights.insert(epoch, weight);
        for (index, persona) in self.personas.iter().enumerate() {
            for post in 0..posts {
                let bucket = if sticky { persona.bucket } else { random.random_range(0..10_000) };
                let arm = if bucket < weight { Arm::Candidate } else { Arm::Baseline };
                // A unit is a persona or a post, and counts once.
                if !sticky || (first && post == 0) {
                    *self.units.get_mut(arm) += 1;
                }
                let shift = if arm == Arm::Candidate { effect } else { 0.0 };
                let y = 1.0 + shift + persona.taste + own * normal(random);
                let cell = self.cells.entry((epoch, arm, index)).or_default();
                *cell = (cell.0 + 1, cell.1 + y, cell.2 + y * y);
            }
        }
    }

    /// What was observed so far.
    pub(crate) fn metrics(&self, planned_standard_error: Option<f64>) -> BTreeMap<Metric, Observed> {
        let cells = self.cells.iter().map(|(&(epoch, arm, persona), &(n, sum, squares))| {
            Cell::average(epoch, arm, &format!("{persona:03}"), n, sum, squares)
        });
        let observed =
            Observed { sampling: Sampling::Clustered, cells: cells.collect(), planned_standard_error };
        BTreeMap::from([(Metric::Engagement, observed)])
    }

    fn evidence(&self) -> Evidence {
        let units = self.weights.iter().enumerate().map(|(index, (&epoch, &weight))| Units {
            epoch,
            weights: PerArm { baseline: 10_000 - weight, candidate: weight },
            counts: if index == 0 { self.units } else { PerArm::default() },
        });
        Evidence {
            hours_elapsed: 168.0,
            horizon_hours: Some(168.0),
            horizon_reached: true,
            extended: false,
            metrics: self.metrics(None),
            units: units.collect(),
            early_looks: Vec::new(),
        }
    }
}
