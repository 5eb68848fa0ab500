//! What a test of a pipeline would take: outcomes, days and the best split.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::ApiState;
use super::auth::Principal;
use super::extract::{Json, Path};
use super::problem::{FieldError, Problem};
use super::responses::NotFound;
use crate::experiments::decision::{Metric, Rules};
use crate::experiments::statistics::planning::{Needed, Plan, PlanInput, best_split, plan};
use crate::experiments::statistics::{Method, Sampling, Variability};
use crate::experiments::{self, DEFAULT_POWER, History, HistorySource};
use crate::pipelines::config::ExperimentSettings;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(plan_pipeline))
}

/// What to plan for. What is left out comes from the pipeline's configuration and history.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct PlanRequest {
    /// The metric; the primary of the pipeline unless told.
    metric: Option<Metric>,
    /// The effect to be found, relative to the mean: 0.05 is 5 %. The pipeline's minimum effect unless told, or
    /// 0.05 where that is 0.
    #[schema(exclusive_minimum = 0, maximum = 100, example = 0.05)]
    effect: Option<f64>,
    /// The chance to find it; 0.8 unless told.
    #[schema(minimum = 0.5, exclusive_maximum = 1)]
    power: Option<f64>,
    /// One-sided level of the test; that of the pipeline's rules unless told.
    #[schema(exclusive_minimum = 0, exclusive_maximum = 0.5)]
    alpha: Option<f64>,
    /// The candidate's share in basis points; the pipeline's unless told.
    #[schema(minimum = 1, maximum = 9999)]
    candidate_weight: Option<u32>,
    /// The metric's mean.
    #[schema(exclusive_minimum = 0)]
    mean: Option<f64>,
    /// The standard deviation of one outcome.
    #[schema(exclusive_minimum = 0)]
    deviation: Option<f64>,
    /// The share of the variance that lies between clusters.
    #[schema(minimum = 0, maximum = 1)]
    intra_cluster: Option<f64>,
    /// Clusters (personas) at hand. Where given, outcomes are taken to be clustered.
    #[schema(minimum = 1)]
    clusters: Option<u64>,
    /// Outcomes of both arms a day.
    #[schema(minimum = 0)]
    outcomes_per_day: Option<f64>,
}

/// What a test would take.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TestPlan)]
struct PlanView {
    /// The metric.
    metric: Metric,
    /// Where the figures come from that the request does not give; absent where it gives all.
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<HistorySource>,
    /// The experiment that they come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    experiment_id: Option<Uuid>,
    /// All that the plan rests on.
    input: PlanInput,
    /// What the split takes. `unreachable` says the smallest effect that can be found with these clusters.
    plan: Plan,
    /// How long the pipeline's tests run, in days.
    horizon_days: f64,
    /// Whether the plan is done within them; absent where the days are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    within_horizon: Option<bool>,
    /// The fastest split, absent where none reaches the effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    best_split: Option<BestSplit>,
}

/// The split that needs the fewest outcomes in all, and so the fewest days.
#[derive(Debug, Serialize, ToSchema)]
struct BestSplit {
    /// The candidate's share in basis points.
    candidate_weight: u32,
    /// What it takes.
    needed: Needed,
}

/// Show what a test would take
///
/// Outcomes and days for an effect, by the test that the pipeline's decisions use. Figures that are left out come from
/// the newest experiment or, where there was none, from the live version's outcomes of the last 28 days; 422 names those
/// that neither has. Starts and keeps nothing.
#[utoipa::path(
    post, path = "/v1/pipelines/{pipeline}/plan", tag = "experiments",
    params(("pipeline" = String, Path)), request_body = Option<PlanRequest>,
    responses(
        (status = 200, description = "The plan.", body = PlanView),
        (status = 404, response = NotFound),
    ),
)]
async fn plan_pipeline(
    State(state): State<ApiState>,
    _principal: Principal,
    Path(name): Path<String>,
    Json(request): Json<Option<PlanRequest>>,
) -> Result<Json<PlanView>, Problem> {
    let request = request.unwrap_or_default();
    request.check()?;
    let settings = super::pipelines::find(&state, &name).await?.config.experiment;
    let metric = request.metric.unwrap_or(settings.rules.primary);
    let history = if request.is_complete() {
        None
    } else {
        let mut conn = state.db.acquire().await?;
        let now = sqlx::query_scalar!(r#"SELECT now() AS "now!""#).fetch_one(&mut *conn).await?;
        Some(experiments::history(&mut conn, &name, metric, None, now).await?)
    };
    let input = request.input(&settings, history.as_ref())?;
    let plan = plan(&input);
    let horizon_days = settings.horizon_seconds / 86_400.0;
    let within_horizon = match &plan {
        Plan::Reachable(needed) => needed.days.map(|days| days <= horizon_days),
        Plan::Unreachable { .. } => Some(false),
        Plan::Unknown => None,
    };
    Ok(Json(PlanView {
        metric,
        experiment_id: history.as_ref().and_then(|history| history.experiment_id),
        history: history.map(|history| history.source),
        input,
        plan,
        horizon_days,
        within_horizon,
        best_split: best_split(&input).map(|(share, needed)| BestSplit {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "whole percent, below 100"
            )]
            candidate_weight: (share * 100.0).round() as u32 * 100,
            needed,
        }),
    }))
}

impl PlanRequest {
    fn check(&self) -> Result<(), Problem> {
        let number = |value: Option<f64>| value.unwrap_or(0.5);
        let deviation = number(self.deviation);
        let checks = [
            ("effect", "above 0 and at most 100", {
                let effect = number(self.effect);
                effect > 0.0 && effect <= 100.0
            }),
            ("power", "at least 0.5 and below 1", (0.5..1.0).contains(&number(self.power))),
            ("alpha", "above 0 and below 0.5", {
                let alpha = self.alpha.unwrap_or(0.025);
                alpha > 0.0 && alpha < 0.5
            }),
            (
                "candidate_weight",
                "1 to 9999 basis points",
                self.candidate_weight.is_none_or(|weight| (1..10_000).contains(&weight)),
            ),
            ("mean", "above 0", number(self.mean) > 0.0 && number(self.mean).is_finite()),
            ("deviation", "above 0", deviation > 0.0 && deviation.is_finite()),
            ("intra_cluster", "0 to 1", (0.0..=1.0).contains(&number(self.intra_cluster))),
            ("clusters", "1 or more", self.clusters.is_none_or(|clusters| clusters >= 1)),
            ("outcomes_per_day", "0 or more", {
                let a_day = number(self.outcomes_per_day);
                a_day.is_finite() && a_day >= 0.0
            }),
        ];
        let faults = checks.into_iter().filter(|(_, _, accepted)| !accepted);
        let faults: Vec<_> = faults
            .map(|(field, accepts, _)| {
                FieldError::body(format!("/{field}"), format_args!("must be {accepts}"))
            })
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(Problem::invalid(faults)) }
    }

    /// Whether no history is needed.
    fn is_complete(&self) -> bool {
        let clusters = self.clusters.is_some() && self.intra_cluster.is_some();
        self.mean.is_some() && self.deviation.is_some() && self.outcomes_per_day.is_some() && clusters
    }

    /// The request, with what it leaves out taken from elsewhere.
    fn input(&self, settings: &ExperimentSettings, history: Option<&History>) -> Result<PlanInput, Problem> {
        let rules: &Rules = &settings.rules;
        let known = history.and_then(|history| history.variability);
        let mean = self.mean.or(known.map(|known| known.mean)).filter(|mean| *mean != 0.0);
        let deviation =
            self.deviation.or(known.map(|known| known.deviation)).filter(|deviation| *deviation > 0.0);
        let clustered = self.clusters.is_some()
            || self.intra_cluster.is_some()
            || known.is_some() && history.is_some_and(|history| history.sampling == Sampling::Clustered);
        let clusters = self.clusters.or(known.filter(|_| clustered).map(|known| known.clusters));
        let intra_cluster = self.intra_cluster.or(known.map(|known| known.intra_cluster));
        let method =
            Method::of(rules.assignment, if clustered { Sampling::Clustered } else { Sampling::Independent });
        // Only where a cluster is in one arm at a time does it matter how alike its outcomes are.
        let alike_matters = method == Method::ClusteredSticky;
        let missing = [
            ("/mean", mean.is_none()),
            ("/deviation", deviation.is_none()),
            ("/clusters", clustered && clusters.is_none()),
            ("/intra_cluster", alike_matters && intra_cluster.is_none()),
        ];
        let why = "must be given: the pipeline has no outcomes that tell it, in an experiment or of its live version";
        let missing = missing.into_iter().filter(|(_, missing)| *missing);
        let missing: Vec<_> = missing.map(|(field, _)| FieldError::body(field, why)).collect();
        let (Some(mean), Some(deviation), true) = (mean, deviation, missing.is_empty()) else {
            return Err(Problem::invalid(missing));
        };
        let weight = self.candidate_weight.map_or(f64::from(settings.candidate_weight), f64::from);
        let a_day = self.outcomes_per_day.or(history.and_then(|history| history.outcomes_per_day));
        Ok(PlanInput {
            variability: Variability {
                mean,
                deviation,
                intra_cluster: intra_cluster.unwrap_or_default(),
                clusters: clusters.unwrap_or_default(),
            },
            method,
            effect: self.effect.unwrap_or_else(|| experiments::default_effect(rules)),
            alpha: self.alpha.unwrap_or_else(|| rules.horizon_alpha()),
            power: self.power.unwrap_or(DEFAULT_POWER),
            candidate_share: weight / 10_000.0,
            outcomes_per_day: a_day.unwrap_or_default(),
        })
    }
}
