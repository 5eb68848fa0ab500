//! Counting tokens as OpenAI's tokeniser tiktoken does.

use bpe_openai::Tokenizer;

/// What stands around each message: `<|start|>role<|message|>…<|end|>` less the role, which is counted as text. Source: OpenAI's
/// cookbook, "How to count tokens with tiktoken", `tokens_per_message`.
const PER_MESSAGE: usize = 3;
/// What leads over to the answer; counted once for an example by the same source.
const PER_EXAMPLE: usize = 3;

/// The tokeniser of a base model.
#[derive(Clone, Copy)]
pub(super) struct Tokens {
    tokeniser: &'static Tokenizer,
    /// Its name at OpenAI.
    pub(super) name: &'static str,
    /// Whether it is known to be the model's.
    pub(super) known: bool,
}

impl Tokens {
    /// The tokeniser of a model; a fine-tuned one has that of its base. Models that nobody here knows get the newest.
    pub(super) fn of(model: &str) -> Self {
        let base = model.strip_prefix("ft:").unwrap_or(model);
        let begins = |families: &[&str]| families.iter().any(|family| base.starts_with(family));
        let newest = Self { tokeniser: bpe_openai::o200k_base(), name: "o200k_base", known: true };
        if begins(&["gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "o1", "o3", "o4"]) {
            newest
        } else if begins(&["gpt-4", "gpt-3.5", "gpt-35"]) {
            Self { tokeniser: bpe_openai::cl100k_base(), name: "cl100k_base", known: true }
        } else {
            Self { known: false, ..newest }
        }
    }

    pub(super) fn of_text(&self, text: &str) -> usize {
        self.tokeniser.count(text)
    }

    /// Tokens of a conversation of messages with role and text.
    pub(super) fn of_messages<'a>(&self, messages: impl Iterator<Item = (&'a str, &'a str)>) -> usize {
        // Every role is one token in both tokenisers.
        PER_EXAMPLE + messages.map(|(_, text)| PER_MESSAGE + 1 + self.of_text(text)).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_their_tokeniser() {
        for (model, name, known) in [
            ("gpt-4o-mini-2024-07-18", "o200k_base", true),
            ("ft:gpt-4o-2024-08-06:acme::abc", "o200k_base", true),
            ("gpt-3.5-turbo-0125", "cl100k_base", true),
            ("gpt-4-0613", "cl100k_base", true),
            ("llama-3", "o200k_base", false),
        ] {
            let tokens = Tokens::of(model);
            assert_eq!((tokens.name, tokens.known), (name, known), "{model}");
        }
    }

    /// The counts are tiktoken's.
    #[test]
    fn texts_have_the_tokens_that_tiktoken_counts() {
        let text = "Straße 北京 🚀 don't\n\n  x=1234567";
        assert_eq!(Tokens::of("gpt-4o").of_text(text), 13);
        assert_eq!(Tokens::of("gpt-4o").of_text("hello world"), 2);
        for model in ["gpt-4o", "gpt-4"] {
            for role in ["system", "user", "assistant"] {
                assert_eq!(Tokens::of(model).of_text(role), 1, "a role is one token");
            }
        }
    }

    #[test]
    fn a_conversation_has_its_frame() {
        let counted =
            Tokens::of("gpt-4o").of_messages([("user", "hello world"), ("assistant", "hello")].into_iter());
        assert_eq!(counted, 3 + (3 + 1 + 2) + (3 + 1 + 1));
    }
}
