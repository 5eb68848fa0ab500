//! May a run go on and cost what it is expected to cost?

use sqlx::PgConnection;

use super::report::ExpectedCost;
use crate::pipelines::config::{BudgetSettings, OverBudget};

/// What the budget says of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// It may go on.
    Open,
    /// A person decides; a code and a sentence.
    Ask(&'static str, String),
    /// It is skipped; why.
    Skip(String),
}

/// What a pipeline has spent in this calendar month (UTC).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spending {
    /// The cost of evaluations and of scores of live outcomes as far as it is known, and the actual cost of trainings where the provider has told the billed tokens, else the expected cost of what was begun or is about
    /// to be.
    pub amount: f64,
    /// Trainings whose cost is not known in this currency.
    pub unpriced: i64,
}

/// Sums up the month. The caller holds the pipeline's lock, so that two runs cannot both have what is left.
pub async fn spending(conn: &mut PgConnection, pipeline: &str, currency: &str) -> sqlx::Result<Spending> {
    let spent = sqlx::query_as!(
        Spending,
        r#"SELECT (coalesce(sum(coalesce(t.cost, t.expected_cost)) FILTER (WHERE t.currency = $2), 0)
                      + (SELECT coalesce(sum(u.cost), 0) FROM evaluation_usage u JOIN runs e ON e.id = u.run_id
                          WHERE e.pipeline = $1 AND u.currency = $2
                            AND u.created_at >= date_trunc('month', now(), 'UTC'))
                      + (SELECT coalesce(sum(j.cost), 0) FROM outcome_judge_usage j
                          WHERE j.pipeline = $1 AND j.currency = $2
                            AND j.day >= date_trunc('month', now() AT TIME ZONE 'UTC')))::double precision AS "amount!",
                  count(*) FILTER (WHERE t.currency IS DISTINCT FROM $2) AS "unpriced!"
             FROM trainings t JOIN runs r ON r.id = t.run_id
            WHERE r.pipeline = $1
              AND t.created_at >= date_trunc('month', now(), 'UTC')
              AND (t.creates > 0
                   OR r.finished_at IS NULL AND t.finished_at IS NULL AND t.files_deleted_at IS NULL)"#,
        pipeline,
        currency,
    )
    .fetch_one(conn)
    .await?;
    Ok(spent)
}

/// What the budget says of a run with this expected cost.
#[must_use]
pub fn gate(budget: &BudgetSettings, cost: &ExpectedCost, spent: Spending) -> Gate {
    let over = over(budget, cost, spent);
    match (over, budget.over_budget) {
        (Some(reason), OverBudget::Skip) => Gate::Skip(reason),
        (Some(reason), OverBudget::WaitForApproval) => Gate::Ask("budget_exceeded", reason),
        (None, _) if budget.require_approval => Gate::Ask(
            "approval_required",
            format!("the pipeline's budget asks for approval; {}", words(cost)),
        ),
        (None, _) => Gate::Open,
    }
}

/// Why the run is over a budget, if it is.
fn over(budget: &BudgetSettings, cost: &ExpectedCost, spent: Spending) -> Option<String> {
    let limits = [budget.per_run, budget.per_month];
    let (amount, currency) = match cost {
        ExpectedCost::Estimate { amount, currency, .. } => (*amount, currency),
        ExpectedCost::Unknown { reason } => {
            let limited = limits.iter().any(Option::is_some);
            return limited
                .then(|| format!("what the run costs is not known, so no budget allows it: {reason}"));
        }
    };
    if let Some(limit) = budget.per_run.filter(|limit| exceeds(amount, *limit)) {
        return Some(format!(
            "the run would cost {amount:.2} {currency}, and budget.per_run allows {limit:.2}"
        ));
    }
    if budget.per_month.is_some() && spent.unpriced > 0 {
        return Some(format!(
            "{} trainings of this month have no known cost in {currency}, so what budget.per_month leaves is not known",
            spent.unpriced
        ));
    }
    let limit = budget.per_month.filter(|limit| exceeds(spent.amount + amount, *limit))?;
    Some(format!(
        "the run would cost {amount:.2} {currency} after {:.2} in this month, and budget.per_month allows {limit:.2}",
        spent.amount
    ))
}

/// Whether an amount is above a limit by more than binary fractions are off.
fn exceeds(amount: f64, limit: f64) -> bool {
    amount - limit > 1e-9 * limit.max(1.0)
}

fn words(cost: &ExpectedCost) -> String {
    match cost {
        ExpectedCost::Estimate { amount, currency, .. } => {
            format!("the run is expected to cost {amount:.2} {currency}")
        }
        ExpectedCost::Unknown { reason } => format!("what the run costs is not known: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(amount: f64) -> ExpectedCost {
        ExpectedCost::Estimate { amount, currency: "USD".into(), price_per_million_tokens: 1.0 }
    }

    fn spent(amount: f64) -> Spending {
        Spending { amount, unpriced: 0 }
    }

    #[test]
    fn decimals_are_compared_as_decimals() {
        assert_eq!(gate(&budget(None, Some(0.3)), &estimate(0.2), spent(0.1)), Gate::Open);
    }

    #[test]
    fn a_month_with_trainings_of_unknown_cost_has_no_known_rest() {
        let unpriced = Spending { amount: 0.0, unpriced: 1 };
        assert!(matches!(
            gate(&budget(None, Some(9.0)), &estimate(1.0), unpriced),
            Gate::Ask("budget_exceeded", _)
        ));
        assert_eq!(gate(&budget(Some(9.0), None), &estimate(1.0), unpriced), Gate::Open);
    }

    fn budget(per_run: Option<f64>, per_month: Option<f64>) -> BudgetSettings {
        BudgetSettings { per_run, per_month, ..BudgetSettings::default() }
    }

    #[test]
    fn a_run_within_its_budgets_goes_on() {
        assert_eq!(gate(&budget(None, None), &estimate(1e9), spent(1e9)), Gate::Open);
        assert_eq!(
            gate(&budget(Some(5.0), Some(10.0)), &estimate(5.0), spent(5.0)),
            Gate::Open,
            "the limit itself is allowed"
        );
    }

    #[test]
    fn a_run_over_either_budget_waits_or_is_skipped() {
        for limited in [budget(Some(4.99), None), budget(None, Some(9.99))] {
            assert!(matches!(gate(&limited, &estimate(5.0), spent(5.0)), Gate::Ask("budget_exceeded", _)));
            let skipping = BudgetSettings { over_budget: OverBudget::Skip, ..limited };
            assert!(matches!(gate(&skipping, &estimate(5.0), spent(5.0)), Gate::Skip(_)));
        }
    }

    #[test]
    fn an_unknown_cost_is_over_every_budget_and_over_none_where_there_is_none() {
        let unknown = ExpectedCost::Unknown { reason: "no price".into() };
        assert_eq!(gate(&budget(None, None), &unknown, spent(0.0)), Gate::Open);
        assert!(matches!(
            gate(&budget(Some(1e9), None), &unknown, spent(0.0)),
            Gate::Ask("budget_exceeded", _)
        ));
        assert!(matches!(
            gate(&budget(None, Some(1e9)), &unknown, spent(0.0)),
            Gate::Ask("budget_exceeded", _)
        ));
    }

    #[test]
    fn approval_can_be_asked_for_always() {
        let asking = BudgetSettings { require_approval: true, ..budget(None, None) };
        assert!(matches!(gate(&asking, &estimate(0.0), spent(0.0)), Gate::Ask("approval_required", _)));
    }
}
