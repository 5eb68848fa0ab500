//! What an evaluation found.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::smoke::Fault;

/// What a new model showed before it met traffic.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Evaluation {
    /// The smoke test; absent where it is switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoke: Option<SmokeTest>,
    /// The comparison by loss, where it is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossComparison>,
    /// The comparison by a judge, where it is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeComparison>,
}

/// A few answers that were looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SmokeTest {
    /// How many.
    pub prompts: u32,
    /// What was wrong; a model passes where nothing is.
    pub faults: Vec<SmokeFault>,
}

/// An answer that no user should see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SmokeFault {
    /// The line of the dataset with the prompt, from 1.
    pub line: i64,
    /// What is wrong with the answer.
    pub fault: Fault,
}

/// The losses on the validation set at the end of training. Each model's is on the set of its own run; the split keeps a group on its
/// side from run to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LossComparison {
    /// The new model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<f64>,
    /// The live model's; absent where it was not trained here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<f64>,
    /// Whether there was anything to compare.
    #[serde(default)]
    pub outcome: Compared,
}

/// Whether a comparison was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// Both figures were there.
    #[default]
    Compared,
    /// A figure was missing: nothing is known.
    NoData,
}

impl LossComparison {
    /// Puts the losses beside each other, as far as there are any.
    #[must_use]
    pub fn of(candidate: Option<f64>, live: Option<f64>) -> Self {
        let outcome = if candidate.and(live).is_some() { Compared::Compared } else { Compared::NoData };
        Self { candidate, live, outcome }
    }

    /// How much the new model's loss is above the live one's.
    #[must_use]
    pub fn increase(&self) -> Option<f64> {
        Some(self.candidate? - self.live?)
    }
}

/// The judge's scores, from 0 to 1, of both models' answers to the same prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JudgeComparison {
    /// The model that judged.
    pub model: String,
    /// Prompts of which both answers were scored.
    pub examples: u32,
    /// The new model's mean score: its quality.
    pub candidate: f64,
    /// The live model's mean score.
    pub live: f64,
    /// Standard error of the mean difference of the pairs; absent with fewer than two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
}

impl JudgeComparison {
    /// Compares pairs of scores, candidate first; `None` where there are none.
    #[must_use]
    pub fn of_pairs(model: &str, pairs: &[(f64, f64)]) -> Option<Self> {
        let examples = u32::try_from(pairs.len()).ok().filter(|count| *count > 0)?;
        let count = f64::from(examples);
        let mean = |score: fn(&(f64, f64)) -> f64| pairs.iter().map(score).sum::<f64>() / count;
        let (candidate, live) = (mean(|pair| pair.0), mean(|pair| pair.1));
        let squares: f64 = pairs.iter().map(|pair| (pair.0 - pair.1 - (candidate - live)).powi(2)).sum();
        let standard_error = (examples > 1).then(|| (squares / (count - 1.0) / count).sqrt());
        Some(Self { model: model.to_owned(), examples, candidate, live, standard_error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_compared_as_pairs() {
        // Differences 0.1, 0.3, 0.2: mean 0.2, standard deviation 0.1, standard error 0.1 / sqrt(3).
        let compared = JudgeComparison::of_pairs("j", &[(0.5, 0.4), (0.9, 0.6), (0.4, 0.2)]).unwrap();
        assert_eq!(compared.examples, 3);
        assert!((compared.candidate - 0.6).abs() < 1e-12 && (compared.live - 0.4).abs() < 1e-12);
        assert!((compared.standard_error.unwrap() - 0.057_735_026_918_962_58).abs() < 1e-12);
        assert_eq!(JudgeComparison::of_pairs("j", &[]), None);
        assert_eq!(JudgeComparison::of_pairs("j", &[(1.0, 0.0)]).unwrap().standard_error, None);
    }

    #[test]
    fn a_loss_without_its_counterpart_is_not_compared() {
        let loss = |candidate, live| LossComparison::of(candidate, live).increase();
        let outcome = |candidate, live| LossComparison::of(candidate, live).outcome;
        assert_eq!(outcome(Some(1.5), Some(1.0)), Compared::Compared);
        for (candidate, live) in [(None, Some(1.0)), (Some(1.0), None), (None, None)] {
            assert_eq!(outcome(candidate, live), Compared::NoData);
        }
        assert_eq!(loss(Some(1.5), Some(1.0)), Some(0.5));
        assert_eq!((loss(None, Some(1.0)), loss(Some(1.0), None)), (None, None));
    }
}
