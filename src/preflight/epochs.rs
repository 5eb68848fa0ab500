//! How often the examples are passed over.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Passes that a provider aims for where it may choose. Source: OpenAI's cookbook, "Data preparation and analysis for chat model
/// fine-tuning".
const TARGET: u64 = 3;
/// With fewer examples in all passes together there are more passes.
const FEWEST_EXAMPLES: u64 = 100;
/// With more there are fewer.
const MOST_EXAMPLES: u64 = 25_000;
/// There are never more passes.
const MOST: u64 = 25;

/// Passes over the examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Epochs {
    /// How many.
    pub count: u64,
    /// The provider chooses, and this is what it is expected to choose.
    pub estimated: bool,
}

impl Epochs {
    /// As asked for, or as the provider is expected to choose.
    pub(super) fn of(asked: Option<u32>, examples: u64) -> Self {
        match asked {
            Some(count) => Self { count: count.into(), estimated: false },
            None => Self { count: expected(examples.max(1)), estimated: true },
        }
    }
}

fn expected(examples: u64) -> u64 {
    if examples * TARGET < FEWEST_EXAMPLES {
        (FEWEST_EXAMPLES / examples).min(MOST)
    } else if examples * TARGET > MOST_EXAMPLES {
        (MOST_EXAMPLES / examples).max(1)
    } else {
        TARGET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_examples_are_passed_over_more_often_and_many_less() {
        for (examples, count) in [
            (1, 25),
            (4, 25),
            (10, 10),
            (33, 3),
            (34, 3),
            (8_333, 3),
            (8_334, 2),
            (12_500, 2),
            (12_501, 1),
            (1_000_000, 1),
        ] {
            assert_eq!(Epochs::of(None, examples), Epochs { count, estimated: true }, "{examples}");
        }
        assert_eq!(Epochs::of(Some(7), 10), Epochs { count: 7, estimated: false });
    }
}
