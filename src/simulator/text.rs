//! The texts that the simulated models write: a frame and a few words of the prompt.

use super::ids;

/// Tuned models open like a post that people stop at.
const TUNED_OPENINGS: [&str; 4] = [
    "Nobody tells you this about {}:",
    "I changed my mind about {}.",
    "Three lessons that {} taught me this week:",
    "What if {} is simpler than it looks?",
];
/// Base models open like a helpful answer.
const BASE_OPENINGS: [&str; 4] = [
    "Here is a short text about {}.",
    "Let us take a closer look at {}.",
    "There is a lot to say about {}.",
    "{} matters more and more today.",
];
const MIDDLES: [&str; 4] = [
    "start small, and look at what people do rather than at what they say.",
    "the first attempt is rarely the best one, so plan for a second.",
    "what works is usually what is easiest to repeat.",
    "one clear idea beats five clever ones.",
];
const CLOSINGS: [&str; 4] =
    ["What would you add?", "Try it for a week.", "The rest is practice.", "Tell me where I am wrong."];

/// Writes a text that depends on the model, the prompt and the number of the choice alone.
pub(super) fn write(model: &str, prompt: &str, choice: u64) -> String {
    let choice = choice.to_string();
    let pick = |what: &str, from: &[&'static str; 4]| {
        let fraction = ids::fraction(&[model, prompt, &choice, what]);
        let index = [0.25, 0.5, 0.75].iter().filter(|bound| fraction >= **bound).count();
        from[index]
    };
    let openings = if model.starts_with("ft:") { &TUNED_OPENINGS } else { &BASE_OPENINGS };
    let opening = pick("opening", openings).replace("{}", &subject(prompt));
    format!("{opening} {} {}", capitalized(pick("middle", &MIDDLES)), pick("closing", &CLOSINGS))
}

/// Whether a text opens as those of tuned models do.
pub(super) fn is_tuned(text: &str) -> bool {
    TUNED_OPENINGS.iter().any(|opening| {
        let (before, after) = opening.split_once("{}").unwrap_or((opening, ""));
        text.starts_with(before) && text.contains(after)
    })
}

/// The two longest words of the prompt, in the prompt's order.
fn subject(prompt: &str) -> String {
    let mut words: Vec<(usize, &str)> = Vec::new();
    for (at, word) in prompt.split(|letter: char| !letter.is_alphanumeric()).enumerate() {
        if !word.is_empty() && !words.iter().any(|(_, known)| known.eq_ignore_ascii_case(word)) {
            words.push((at, word));
        }
    }
    words.sort_by_key(|(at, word)| (std::cmp::Reverse(word.chars().count()), *at));
    words.truncate(2);
    words.sort_unstable();
    match words.as_slice() {
        [] => "this".into(),
        words => words.iter().map(|(_, word)| word.to_lowercase()).collect::<Vec<_>>().join(" and "),
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_depends_on_model_prompt_and_choice() {
        let text = |model: &str, prompt: &str, choice| write(model, prompt, choice);
        let first = text("gpt-4o", "Write about gardening in winter", 0);
        assert_eq!(first, text("gpt-4o", "Write about gardening in winter", 0));
        assert!(first.to_lowercase().contains("gardening and winter"), "{first}");
        assert_ne!(
            first,
            text("ft:gpt-4o-2024-08-06:tuneloop::abcdefgh", "Write about gardening in winter", 0)
        );
        let choices: std::collections::BTreeSet<_> =
            (0..32).map(|choice| text("gpt-4o", "a", choice)).collect();
        assert!(choices.len() > 8, "{choices:?}");
    }

    #[test]
    fn an_empty_prompt_still_gives_a_text() {
        assert!(write("gpt-4o", "", 0).to_lowercase().contains("this"));
    }
}
