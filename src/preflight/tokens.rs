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
    /// The tokeniser of a model, which takes a moment the first time; a fine-tuned one has that of its base. Models that nobody here knows get the newest.
    pub(super) fn of(model: &str) -> Self {
        let base = model.strip_prefix("ft:").unwrap_or(model);
        let begins = |families: &[&str]| families.iter().any(|family| base.starts_with(family));
        let newest = |known| Self { tokeniser: bpe_openai::o200k_base(), name: "o200k_base", known };
        if begins(&["gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "o1", "o3", "o4"]) {
            newest(true)
        } else if begins(&["gpt-4", "gpt-3.5", "gpt-35"]) {
            Self { tokeniser: bpe_openai::cl100k_base(), name: "cl100k_base", known: true }
        } else {
            newest(false)
        }
    }
}

/// Counts tokens and remembers those of words. Texts are made of few words that come again and again; to split and encode each of them
/// anew would take longer than everything else that is done with a text.
pub(super) struct Counter {
    tokens: Tokens,
    /// Words with their tokens, each at the place that its hash gives, where the last one stays.
    words: Vec<(Word, u32)>,
}

/// The bytes of a word, which has no NUL.
type Word = u128;

/// Places for words: enough for the vocabulary of a language, in 1 MB.
const PLACES: usize = 1 << 15;

impl Counter {
    pub(super) fn new(tokens: Tokens) -> Self {
        Self { tokens, words: vec![(0, 0); PLACES] }
    }

    fn of_text(&mut self, text: &str) -> usize {
        let (mut rest, mut count) = (text, 0);
        while !rest.is_empty() {
            let length = if let Some(length) = word_length(rest.as_bytes()) {
                count += self.of_word(&rest[..length]);
                length
            } else {
                // What comes next does not depend on what came before: no pattern of a tokeniser looks back.
                let Some(piece) = self.tokens.tokeniser.split(rest).next() else { break };
                count += self.tokens.tokeniser.bpe.count(piece.as_bytes());
                piece.len()
            };
            rest = &rest[length..];
        }
        count
    }

    fn of_word(&mut self, word: &str) -> usize {
        let count = || self.tokens.tokeniser.bpe.count(word.as_bytes());
        if word.len() > size_of::<Word>() {
            return count();
        }
        let key = word.bytes().fold(0, |key: Word, byte| key << 8 | Word::from(byte));
        // Multiplying by 2^128 divided by the golden ratio spreads keys over the upper bits (Knuth, The Art of Computer Programming 6.4).
        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
            >> (Word::BITS - PLACES.trailing_zeros());
        let place = usize::try_from(hash).unwrap_or_default();
        if self.words[place].0 != key {
            self.words[place] = (key, u32::try_from(count()).unwrap_or(u32::MAX));
        }
        self.words[place].1 as usize
    }

    /// Tokens of a conversation of messages with these texts.
    pub(super) fn of_messages<'a>(&mut self, texts: impl Iterator<Item = &'a str>) -> usize {
        // Every role is one token in both tokenisers.
        PER_EXAMPLE + texts.map(|text| PER_MESSAGE + 1 + self.of_text(text)).sum::<usize>()
    }
}

/// The length of a word at the start of a text that every tokeniser here takes for a piece: a space or none, and ASCII letters of which
/// at most the first is a capital, up to the end or an ASCII character that is neither a letter nor an apostrophe.
///
/// Source: the patterns of `o200k_base` and `cl100k_base` in tiktoken, whose first alternative for words takes one character
/// before the letters, and whose letters may be followed by `'s` and the like.
fn word_length(text: &[u8]) -> Option<usize> {
    let begin = usize::from(text.first() == Some(&b' '));
    let begin = begin + usize::from(text.get(begin)?.is_ascii_uppercase());
    let length = text[begin..].iter().take_while(|byte| byte.is_ascii_lowercase()).count();
    let end = begin + length;
    let ends =
        text.get(end).is_none_or(|next| next.is_ascii() && !next.is_ascii_alphabetic() && *next != b'\'');
    (length > 0 && ends).then_some(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(model: &str, text: &str) -> usize {
        Counter::new(Tokens::of(model)).of_text(text)
    }

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
        assert_eq!(count("gpt-4o", text), 13);
        assert_eq!(count("gpt-4o", "hello world"), 2);
        for model in ["gpt-4o", "gpt-4"] {
            for role in ["system", "user", "assistant"] {
                assert_eq!(count(model, role), 1, "a role is one token");
            }
        }
    }

    #[test]
    fn a_conversation_has_its_frame() {
        let counted = Counter::new(Tokens::of("gpt-4o")).of_messages(["hello world", "hello"].into_iter());
        assert_eq!(counted, 3 + (3 + 1 + 2) + (3 + 1 + 1));
    }

    proptest! {
        #[test]
        fn words_that_are_remembered_have_the_tokens_of_the_tokeniser(
            texts in prop::collection::vec(prop_oneof![
                "\\PC{0,30}",
                "([ ]{0,2}[A-Za-z]{1,20}('s|'T|'|[.,!?;:-]|\n|\r\n|[0-9]{1,4}|é|\u{301}|字|)){0,12}[ \n]{0,2}",
                "( ?(the|cat|Sat|cats|internationalisation|x)[ ,.]){0,20}",
            ], 1..6),
        ) {
            for model in ["gpt-4o", "gpt-4"] {
                let tokens = Tokens::of(model);
                let mut counter = Counter::new(tokens);
                for text in texts.iter().chain(&texts) {
                    prop_assert_eq!(counter.of_text(text), tokens.tokeniser.count(text.as_str()), "{:?}", text);
                }
            }
        }
    }
}
