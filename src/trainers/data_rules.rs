//! What a provider asks of training data. Known without a key, so that every process can tell.

use super::{LineFault, Method, openai};

/// The rules of a provider for training data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataRules {
    /// Those of OpenAI's protocol.
    OpenAi,
}

impl DataRules {
    /// The rules of the provider with this name; `None` for one that nobody here knows.
    #[must_use]
    pub fn of(provider: &str) -> Option<Self> {
        super::PROVIDERS.contains(&provider).then_some(Self::OpenAi)
    }

    /// Everything that is wrong with a line of a training file.
    #[must_use]
    pub fn check_line(self, method: Method, line: &[u8]) -> Vec<LineFault> {
        match self {
            Self::OpenAi => openai::rules::check_line(method, line),
        }
    }

    /// Whether a supervised example that consists of these messages, with role and content and nothing else, has no fault. Cheaper
    /// than [`check_line`](Self::check_line), which says what the faults are.
    #[must_use]
    pub fn accepts<T: AsRef<str>>(self, messages: &[(T, T)]) -> bool {
        match self {
            Self::OpenAi => openai::rules::accepts(messages),
        }
    }

    /// The most tokens of an example that a base model is trained on; `None` where that is not known.
    #[must_use]
    pub fn example_limit(self, base_model: &str) -> Option<u32> {
        match self {
            Self::OpenAi => openai::rules::example_limit(base_model),
        }
    }
}
