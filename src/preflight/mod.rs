//! Before anything is uploaded: what a run would train on, what is wrong with it, and what it would cost.
//!
//! [`examine`] reads a stored snapshot once, chunk by chunk; memory does not grow with it.

mod budget;
mod cost;
mod distribution;
mod epochs;
mod examine;
mod lines;
mod prices;
mod report;
mod tokens;

pub use budget::{Gate, Spending, gate, spending};
pub use cost::{MonthlyCost, MonthlyCostKey, monthly_costs};
pub use distribution::Distribution;
pub use epochs::Epochs;
pub use examine::{Plan, examine};
pub use prices::{InferencePrice, PriceTable, PriceTableError};
pub use report::{ExpectedCost, ExpectedTraining, FoundFault, OverLimit, PartReport, PreflightReport};
