use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::traffic::WHOLE;

/// A vector of `docs/assignment.md`; what else `traffic` has there does not matter to an assignment.
#[derive(Debug, Deserialize)]
struct Vector {
    what: String,
    traffic: Published,
    pins: Vec<PublishedPin>,
    unit: String,
    bucket: i32,
    version: Version,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Published {
    salt: String,
    kill_switch: bool,
    weights: Vec<PublishedWeight>,
}

#[derive(Debug, Deserialize)]
struct PublishedWeight {
    version: Version,
    weight: i32,
}

#[derive(Debug, Deserialize)]
struct PublishedPin {
    unit: String,
    version: Version,
    in_effect: bool,
}

fn serving(version: Version) -> ServingVersion {
    let id = Uuid::from_u64_pair(version.major.unsigned_abs().into(), version.minor.unsigned_abs().into());
    ServingVersion { id, version, provider_model_id: format!("model {version}") }
}

fn traffic(salt: &str, weights: impl IntoIterator<Item = (Version, i32)>) -> PipelineTraffic {
    PipelineTraffic {
        revision: 1,
        experiment: None,
        kill_switch: false,
        salt: salt.to_owned(),
        shares: weights.into_iter().map(|(version, weight)| (serving(version), weight)).collect(),
        pins: Arc::default(),
        pinned_versions: HashMap::new(),
    }
}

impl Vector {
    fn traffic(&self) -> PipelineTraffic {
        let weights = self.traffic.weights.iter().map(|share| (share.version, share.weight));
        let pinned = |pin: &PublishedPin| (pin.unit.clone().into_boxed_str(), serving(pin.version).id);
        let in_effect = self.pins.iter().filter(|pin| pin.in_effect).map(|pin| serving(pin.version));
        PipelineTraffic {
            kill_switch: self.traffic.kill_switch,
            pins: Arc::new(Pins { revision: 1, versions: self.pins.iter().map(pinned).collect() }),
            pinned_versions: in_effect.map(|version| (version.id, version)).collect(),
            ..traffic(&self.traffic.salt, weights)
        }
    }
}

#[test]
fn units_are_assigned_as_the_vectors_of_the_specification_say() {
    let vectors: Vec<Vector> =
        serde_json::from_str(include_str!("../../../tests/assignment/vectors.json")).unwrap();
    assert!(vectors.len() >= 20);
    for vector in vectors {
        assert_eq!(bucket(&vector.traffic.salt, &vector.unit), vector.bucket, "{vector:?}");
        let traffic = vector.traffic();
        let (serving, by) = traffic.assign(&vector.unit).unwrap();
        let reason = match by {
            AssignedBy::Split => "split",
            AssignedBy::Pin => "pin",
            AssignedBy::KillSwitch => "kill_switch",
        };
        let said = (serving.version, reason);
        assert_eq!(said, (vector.version, vector.reason.as_str()), "{}: {}", vector.what, vector.unit);
    }
}

/// Weights of this many versions that sum to the whole, by where the whole is cut.
fn weights(versions: usize) -> impl Strategy<Value = Vec<i32>> {
    proptest::collection::vec(0..=WHOLE, versions - 1).prop_map(|mut cuts| {
        cuts.extend([0, WHOLE]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| pair[1] - pair[0]).collect()
    })
}

proptest! {
    #[test]
    fn a_larger_share_of_the_candidate_moves_no_unit_that_was_in_it(
        (before, after) in (2..6_usize).prop_flat_map(|versions| (weights(versions), weights(versions))),
        salt in "[a-z0-9-]{1,36}",
    ) {
        // The candidate is the newest and first, the baseline the oldest and last.
        let named = |weights: &[i32]| {
            let versions = (0..6).rev().map(|minor| Version { major: 1, minor, patch: 0 });
            traffic(&salt, versions.zip(weights.iter().copied()).collect::<Vec<_>>())
        };
        let (smaller, larger) =
            if before[0] <= after[0] { (named(&before), named(&after)) } else { (named(&after), named(&before)) };
        let candidate = smaller.shares[0].0.id;
        let mut in_smaller = 0;
        for unit in 0..500 {
            let unit = format!("unit-{unit}");
            if smaller.assign(&unit).unwrap().0.id == candidate {
                in_smaller += 1;
                prop_assert_eq!(larger.assign(&unit).unwrap().0.id, candidate);
            }
        }
        // Binomial(500, p): six standard deviations are at most 68 units.
        let expected = 500.0 * f64::from(smaller.shares[0].1) / f64::from(WHOLE);
        prop_assert!((f64::from(in_smaller) - expected).abs() < 68.0, "{} of {}", in_smaller, expected);
    }
}
