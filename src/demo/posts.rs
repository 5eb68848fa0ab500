//! Posts made up from a seed: the same seed and time give the same posts.

use chrono::{DateTime, TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::chance::{normal, pick};
use super::post::Post;
use super::words::{ENDINGS, HOOKS, INPUTS, MIDDLES, OPENINGS, TIME, TOPICS, Topic, WHO};

/// How many posts are made.
pub(super) const COUNT: usize = 5_000;
/// How far back they reach: more than the look-back of a week, so that some are too old.
pub(super) const DAYS: i64 = 10;
const PERSONAS: usize = 40;

/// Half of the posts have a rate below this.
const MEDIAN_RATE: f64 = 0.021;
/// Spread of the logarithm of rates between personas, and between posts of one persona.
const PERSONA_SPREAD: f64 = 0.3;
const POST_SPREAD: f64 = 0.62;
const HIGHEST_RATE: f64 = 0.45;

/// Makes [`COUNT`] posts of the days before `now`. Engagement is skewed as it is in life: most posts are below
/// 3 %, about one in sixteen is at or above 6 %.
pub(super) fn generate(seed: u64, now: DateTime<Utc>) -> Vec<Post> {
    let mut random = StdRng::seed_from_u64(seed);
    let personas: Vec<Persona> = (1..=PERSONAS).map(|number| Persona::new(number, &mut random)).collect();
    let newest = personas.first().map(|persona| persona.post(now, &mut random));
    let others = (1..COUNT).filter_map(|_| {
        let persona = personas.get(random.random_range(0..PERSONAS))?;
        let age = TimeDelta::milliseconds(random.random_range(0..DAYS * 86_400_000));
        Some(persona.post(now - age, &mut random))
    });
    newest.into_iter().chain(others).collect()
}

/// Who posts.
struct Persona {
    id: String,
    topics: [usize; 3],
    appeal: f64,
}

impl Persona {
    fn new(number: usize, random: &mut impl Rng) -> Self {
        Self {
            id: format!("persona-{number:02}"),
            topics: std::array::from_fn(|_| random.random_range(0..TOPICS.len())),
            appeal: PERSONA_SPREAD * normal(random),
        }
    }

    fn post(&self, created_at: DateTime<Utc>, random: &mut impl Rng) -> Post {
        let topic = &TOPICS[self.topics[random.random_range(0..self.topics.len())]];
        let story = Story::new(topic, random);
        let rate = MEDIAN_RATE * (self.appeal + POST_SPREAD * normal(random)).exp();
        // One in ten without an input, a few without a text: drafts that went out as a picture.
        let original_input = unless(random.random_bool(0.1), || story.tell(&INPUTS, random));
        let hook = unless(random.random_bool(0.01), || story.tell(&HOOKS, random));
        let body = unless(random.random_bool(0.02), || story.body(random));
        Post {
            persona_id: Some(self.id.clone()),
            original_input,
            hook,
            body,
            engagement_rate: Some((rate.min(HIGHEST_RATE) * 1e6).round() / 1e6),
            created_at,
        }
    }
}

fn unless(left_out: bool, text: impl FnOnce() -> String) -> String {
    if left_out { String::new() } else { text() }
}

/// What one post tells.
struct Story {
    slots: [(&'static str, String); 7],
}

impl Story {
    fn new(topic: &Topic, random: &mut impl Rng) -> Self {
        let mut one = |items: &[&'static str]| pick(random, items).unwrap_or_default().to_owned();
        Self {
            slots: [
                ("{who}", one(&WHO)),
                ("{doing}", one(&topic.doing)),
                ("{time}", one(&TIME)),
                ("{lesson}", one(&topic.lesson)),
                ("{result}", one(&topic.result)),
                ("{topic}", topic.name.to_owned()),
                ("{n}", random.random_range(3..20).to_string()),
            ],
        }
    }

    fn tell(&self, templates: &[&'static str], random: &mut impl Rng) -> String {
        let template = pick(random, templates).unwrap_or_default();
        let text = self.slots.iter().fold(template.to_owned(), |text, (slot, word)| text.replace(slot, word));
        capitalised(&text)
    }

    fn body(&self, random: &mut impl Rng) -> String {
        let mut sentences = vec![self.tell(&OPENINGS, random)];
        for _ in 0..random.random_range(2..5) {
            let next = self.tell(&MIDDLES, random);
            if !sentences.contains(&next) {
                sentences.push(next);
            }
        }
        sentences.push(self.tell(&ENDINGS, random));
        sentences.join(" ")
    }
}

/// With a capital letter at its start, behind an opening quotation mark as well.
fn capitalised(text: &str) -> String {
    let mut done = false;
    text.chars()
        .flat_map(|letter| {
            let first = !done && letter.is_alphabetic();
            done |= letter.is_alphanumeric();
            if first { letter.to_uppercase().collect::<Vec<_>>() } else { vec![letter] }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
    }

    #[test]
    fn a_seed_makes_the_same_posts_again_and_another_seed_others() {
        let posts = generate(7, now());
        assert_eq!(posts, generate(7, now()));
        assert_ne!(posts, generate(8, now()));
        assert_eq!(posts.len(), COUNT);
    }

    #[test]
    fn a_few_hundred_posts_of_the_week_are_at_or_above_six_percent() {
        for seed in 0..20 {
            let posts = generate(seed, now());
            let recent = posts.iter().filter(|post| post.created_at >= now() - TimeDelta::days(7));
            let good = recent.filter(|post| post.engagement_rate.is_some_and(|rate| rate >= 0.06)).count();
            assert!((130..500).contains(&good), "seed {seed}: {good}");
            let mut rates: Vec<f64> = posts.iter().filter_map(|post| post.engagement_rate).collect();
            rates.sort_by(f64::total_cmp);
            let (median, highest) = (rates[COUNT / 2], rates[COUNT - 1]);
            assert!((0.015..0.03).contains(&median), "seed {seed}: {median}");
            assert!((0.1..=HIGHEST_RATE).contains(&highest), "seed {seed}: {highest}");
        }
    }

    #[test]
    fn texts_differ_have_no_open_slots_and_are_sometimes_empty() {
        let posts = generate(1, now());
        let distinct = |text: fn(&Post) -> &str| {
            posts.iter().map(text).filter(|text| !text.is_empty()).collect::<HashSet<_>>().len()
        };
        assert!(distinct(|post| &post.hook) > 3_000, "{}", distinct(|post| &post.hook));
        assert!(distinct(|post| &post.body) > 4_500, "{}", distinct(|post| &post.body));
        let empty = |text: fn(&Post) -> &str| posts.iter().filter(|post| text(post).is_empty()).count();
        assert!((400..600).contains(&empty(|post| &post.original_input)));
        assert!((20..90).contains(&empty(|post| &post.hook)));
        for post in &posts {
            for text in [&post.original_input, &post.hook, &post.body] {
                assert!(!text.contains(['{', '}']), "{text}");
                assert!(!text.starts_with(char::is_lowercase), "{text}");
            }
        }
        let personas: HashSet<_> = posts.iter().map(|post| &post.persona_id).collect();
        assert_eq!(personas.len(), PERSONAS);
    }

    #[test]
    fn times_end_now_and_reach_beyond_the_look_back() {
        let posts = generate(1, now());
        assert_eq!(posts.iter().map(|post| post.created_at).max(), Some(now()));
        let old = posts.iter().filter(|post| post.created_at < now() - TimeDelta::days(7)).count();
        assert!((1_200..1_800).contains(&old), "{old}");
    }

    #[test]
    fn capitals_stand_at_the_start_only() {
        assert_eq!(capitalised("“be kind”, she says"), "“Be kind”, she says");
        assert_eq!(capitalised("7 things to know"), "7 things to know");
    }
}
