//! The end of the demo: what came of the run.

use std::io::{self, Write};

use super::answers::{DecisionPart, Harm, Live, RunAnswer};
use super::plan::DemoPipeline;
use super::screen::{Screen, Style};
use super::traffic::Tally;
use crate::dataset::{Counts, DatasetSettings};
use crate::experiments::decision::{Verdict, thousands};
use crate::experiments::statistics::{Estimate, Interval};
use crate::runs::RunStatus;

/// What the summary tells of.
pub(super) struct Summary<'a> {
    pub(super) pipeline: DemoPipeline,
    pub(super) settings: &'a DatasetSettings,
    pub(super) run: &'a RunAnswer,
    pub(super) before: &'a Live,
    pub(super) now: &'a Live,
    pub(super) tally: &'a Tally,
}

impl Summary<'_> {
    pub(super) fn show<W: Write>(&self, screen: &mut Screen<W>) -> io::Result<()> {
        screen.heading("Summary")?;
        let run = self.run;
        if let Some(dataset) = &run.dataset {
            let counts = dataset.counts;
            let size = format!(
                "{} examples ({} bytes) from {} posts",
                thousands(counts.examples),
                thousands(dataset.bytes),
                thousands(counts.posts)
            );
            screen.fact("Dataset", &size, Style::Plain)?;
            screen.fact("", &left_out(counts, self.settings, self.pipeline), Style::Plain)?;
        }
        if let Some(training) = &run.training
            && let Some(job) = &training.job_id
        {
            let loss = training.final_loss.map_or_else(String::new, |loss| format!(", final loss {loss:.3}"));
            let tokens = training.trained_tokens.map_or_else(String::new, |tokens| {
                format!(", {} tokens trained", thousands(tokens.unsigned_abs()))
            });
            screen.fact(
                "Training",
                &format!("{job} on {}{loss}{tokens}", training.base_model),
                Style::Plain,
            )?;
        }
        self.decision(screen)?;
        if let Some(harm) = run.harm() {
            let live = format!("{}@{}", self.pipeline.name(), self.now.version);
            let found = match harm {
                Harm::Test => "found by the test, which stopped; the candidate is rejected",
                Harm::Watch => "found by the watch, which rolled the candidate back",
            };
            screen.fact("Harm", &format!("{found}, and {live} serves everything again"), Style::Strong)?;
        }
        screen.fact("Run", &outcome(run), Style::Plain)?;
        let name = |live: &Live| format!("{}@{} ({})", self.pipeline.name(), live.version, live.model_id);
        screen.fact("Live before", &name(self.before), Style::Plain)?;
        screen.fact("Live now", &name(self.now), Style::Strong)?;
        let lost = match self.tally.lost() {
            0 => String::new(),
            lost => format!(", {} lost", thousands(lost)),
        };
        let (assigned, accepted) = (self.tally.assigned(), self.tally.accepted());
        let served = format!(
            "{} simulated posts assigned, {} outcomes recorded so far{lost}",
            thousands(assigned),
            thousands(accepted)
        );
        screen.fact("Traffic", &served, Style::Plain)
    }

    fn decision<W: Write>(&self, screen: &mut Screen<W>) -> io::Result<()> {
        let Some(decision) = &self.run.decision else {
            return screen.fact("Decision", "none: the run ended before its test", Style::Poor);
        };
        if let Some(effect) = decision.estimate.as_ref().and_then(effect) {
            screen.fact("Effect", &effect, Style::Plain)?;
        }
        let style = if decision.verdict == Verdict::Promote { Style::Good } else { Style::Poor };
        screen.fact("Decision", &sentence(decision), style)
    }
}

/// `left out: 1,496 older than 7 days, 3,276 below 6 % engagement`.
fn left_out(counts: Counts, settings: &DatasetSettings, pipeline: DemoPipeline) -> String {
    let days = settings.lookback_seconds / 86_400.0;
    let threshold = settings.engagement_threshold * 100.0;
    let reasons = [
        (counts.below_threshold, format!("below {threshold} % engagement")),
        (counts.too_old, format!("older than {days} days")),
        (counts.empty, format!("without a {}", pipeline.name())),
        (counts.duplicates, "said before".to_owned()),
        (counts.near_duplicates, "nearly said before".to_owned()),
        (counts.personal_data, "with personal data".to_owned()),
        (counts.too_short, "too short".to_owned()),
        (counts.too_young, "still young".to_owned()),
        (counts.few_impressions, "seen too rarely".to_owned()),
        (counts.over_persona, "beyond the most of one persona".to_owned()),
        (counts.over_maximum, "beyond the most examples".to_owned()),
    ];
    let told: Vec<String> = reasons
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, reason)| format!("{} {reason}", thousands(count)))
        .collect();
    if told.is_empty() { "none left out".to_owned() } else { format!("left out: {}", told.join(", ")) }
}

/// `+25.3 % engagement, 95 % interval +18.0 % to +32.6 %`.
fn effect(estimate: &Estimate) -> Option<String> {
    let relative = estimate.relative?;
    let interval = estimate.relative_interval.map_or_else(String::new, |Interval { lower, upper }| {
        format!(
            ", {:.0} % interval {:+.1} % to {:+.1} %",
            estimate.level * 100.0,
            lower * 100.0,
            upper * 100.0
        )
    });
    Some(format!("{:+.1} % engagement{interval}", relative * 100.0))
}

fn sentence(decision: &DecisionPart) -> String {
    let word = match decision.verdict {
        Verdict::Collecting => "collecting",
        Verdict::Promote => "promote",
        Verdict::Reject => "reject",
        Verdict::Inconclusive => "inconclusive",
        Verdict::Extend => "extend",
        Verdict::StopForHarm => "stop for harm",
        Verdict::Invalid => "invalid",
    };
    format!("{word}. {}", decision.reason)
}

/// How the run ended; its reason is repeated only where no decision tells it.
pub(super) fn outcome(run: &RunAnswer) -> String {
    let why = match (&run.decision, &run.reason) {
        (None, Some(reason)) => format!(": {reason}"),
        (Some(_), Some(reason)) if run.status != RunStatus::Succeeded => format!(": {reason}"),
        _ => String::new(),
    };
    let word = run.status.as_str().replace('_', " ");
    format!("{} {word} in step {}{why}", run.id, run.step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_told_with_its_reasons() {
        let counts =
            Counts { posts: 5_506, below_threshold: 5_320, empty: 7, examples: 179, ..Counts::default() };
        assert_eq!(
            left_out(counts, &DatasetSettings::default(), DemoPipeline::Hook),
            "left out: 5,320 below 6 % engagement, 7 without a hook"
        );
        let counts = Counts { posts: 10, too_old: 4, examples: 6, ..Counts::default() };
        assert_eq!(
            left_out(counts, &DatasetSettings::default(), DemoPipeline::Body),
            "left out: 4 older than 7 days"
        );
    }
}
