//! Comparing the new model with the live one. Each comparison returns why the run should not go on, if it should not.

use super::super::super::machine::StepContext;
use super::super::broken;
use super::asking::{Asked, ask, judge};
use crate::evaluation::{Evaluation, JudgeComparison, LossComparison, Question};
use crate::halt;
use crate::jobs::JobError;
use crate::models::{self, ModelVersion};
use crate::pipelines::config::{JudgeSettings, NoData};
use crate::traffic;

/// Why the run should not go on: a code and a sentence.
pub(super) type Refusal = (&'static str, String);

/// The new model is worse than it may be.
const BELOW_FLOOR: &str = "below_floor";

async fn live_version(context: &StepContext<'_>) -> Result<ModelVersion, JobError> {
    let mut conn = context.services.db.acquire().await?;
    let live = traffic::current(&mut conn, &context.run.pipeline).await?;
    let live = live.ok_or_else(|| broken("its pipeline"))?;
    models::by_id(&mut *conn, live.live_version_id).await?.ok_or_else(|| broken("the live version"))
}

pub(super) async fn by_loss(
    context: &StepContext<'_>,
    candidate: &ModelVersion,
    maximum_increase: Option<f64>,
    no_data: NoData,
    found: &mut Evaluation,
) -> Result<Option<Refusal>, JobError> {
    let live = live_version(context).await?;
    let loss = |version: &ModelVersion| version.metrics["validation_loss"].as_f64();
    let compared = LossComparison::of(loss(candidate), loss(&live));
    let increase = compared.increase();
    found.loss = Some(compared);
    Ok(match (increase, maximum_increase) {
        (Some(increase), Some(most)) if increase > most => Some((
            BELOW_FLOOR,
            format!(
                "the validation loss of {} is {increase:.4} above that of {}, and maximum_increase allows {most}",
                candidate.name(),
                live.name()
            ),
        )),
        (None, _) if no_data == NoData::Reject => Some((
            "no_data",
            format!(
                "{} cannot be compared with {} by loss: one of them has none; set some examples aside, or let \
                 evaluation.comparison.no_data be go_on",
                candidate.name(),
                live.name()
            ),
        )),
        _ => None,
    })
}

pub(super) async fn by_judge(
    context: &StepContext<'_>,
    candidate: &ModelVersion,
    settings: &JudgeSettings,
    questions: &[Question],
    found: &mut Evaluation,
) -> Result<Option<Refusal>, JobError> {
    let live = live_version(context).await?;
    if let Asked::NotServed(why) = ask(context, &live, questions).await? {
        return Err(JobError::Fatal {
            code: "model_not_found".into(),
            message: format!("the live version {} cannot be compared with: {why}", live.name()),
        });
    }
    halt::point("evaluate", "judging");
    let candidates = judge(context, candidate, settings, questions).await?;
    let lives = judge(context, &live, settings, questions).await?;
    let mut pairs = Vec::with_capacity(questions.len());
    for question in questions {
        pairs.extend(candidates.get(&question.line).copied().zip(lives.get(&question.line).copied()));
    }
    let compared = JudgeComparison::of_pairs(&settings.model, &pairs);
    // A comparison by a handful of what was asked for would look better founded than it is.
    let Some(compared) = compared.filter(|_| pairs.len() * 2 >= questions.len()) else {
        return Err(JobError::Fatal {
            code: "judge_unusable".into(),
            message: format!(
                "the judge {} scored both answers to {} of {} prompts only; name another model in \
                 evaluation.comparison.model, or make its criteria clearer",
                settings.model,
                pairs.len(),
                questions.len()
            ),
        });
    };
    let below = settings.floor.filter(|floor| compared.candidate < *floor);
    let refused = below.map(|floor| {
        let reason = format!(
            "the quality of {} is {:.3} by the judge {}, below the floor of {floor}",
            candidate.name(),
            compared.candidate,
            settings.model
        );
        (BELOW_FLOOR, reason)
    });
    found.judge = Some(compared);
    Ok(refused)
}
