use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// Words that do not repeat, so that the similarity of two texts is known exactly.
fn text(words: impl Iterator<Item = usize>) -> String {
    words.map(|word| format!("w{word}")).collect::<Vec<_>>().join(" ")
}

fn jaccard(a: &str, b: &str) -> f64 {
    let pairs = |text: &str| {
        let words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        words.windows(2).map(|pair| pair.join(" ")).collect::<HashSet<_>>()
    };
    let (a, b) = (pairs(a), pairs(b));
    a.intersection(&b).count() as f64 / a.union(&b).count() as f64
}

/// How many of 2,000 copies with this many of 200 words changed at the end are found, and their similarity.
fn found(changed: usize) -> (f64, usize) {
    let mut near = NearDuplicates::new(7, Remember::New);
    let mut similarity = 0.0;
    let mut hits = 0;
    for case in 0..2_000 {
        let start = case * 1_000;
        let original = text(start..start + 200);
        let copy = text((start..start + 200 - changed).chain(start + 500..start + 500 + changed));
        similarity = jaccard(&original, &copy);
        assert_eq!(near.insert(&original), Nearness::New);
        let number = u32::try_from(case * 2).unwrap();
        match near.insert(&copy) {
            Nearness::Near(of) => {
                assert_eq!(of, number);
                assert_eq!(near.cluster(number + 1), number);
                hits += 1;
            }
            Nearness::New => assert_eq!(near.cluster(number + 1), number + 1),
        }
    }
    (similarity, hits)
}

#[test]
fn similar_texts_are_found_and_others_are_not() {
    let (similarity, hits) = found(10);
    assert!(similarity > 0.89 && hits >= 1_980, "{hits} of 2000 at {similarity}");
    let (similarity, hits) = found(5);
    assert!(similarity > 0.94 && hits >= 1_998, "{hits} of 2000 at {similarity}");
    let (similarity, hits) = found(67);
    assert!((0.48..0.5).contains(&similarity) && hits <= 2, "{hits} of 2000 at {similarity}");
    let (similarity, hits) = found(23);
    assert!((0.78..0.8).contains(&similarity) && (500..1_500).contains(&hits), "{hits} at {similarity}");
}

#[test]
fn a_changed_word_does_not_hide_a_copy() {
    let mut near = NearDuplicates::new(1, Remember::New);
    let headline = "You won't believe what this tiny cat did next to a very big and very angry dog in Rome";
    assert_eq!(near.insert(headline), Nearness::New);
    assert_eq!(
        near.insert(
            "you won’t believe: what this tiny CAT did next, to a very big and very angry dog in Rome!"
        ),
        Nearness::Near(0)
    );
    assert_eq!(
        near.insert(
            "You won't believe what this tiny cat did next to a very big and very angry dog in Paris"
        ),
        Nearness::Near(0)
    );
    assert_eq!(near.insert("What happens when a senator reads the bill"), Nearness::New);
    assert_eq!(near.insert("Wow"), Nearness::New);
    assert_eq!(near.insert("wow!"), Nearness::Near(4));
    assert_eq!(near.insert("!?"), Nearness::New);
    assert_eq!(near.insert("!?"), Nearness::New);
}

#[test]
fn texts_without_spaces_are_compared_by_character() {
    let mut near = NearDuplicates::new(1, Remember::New);
    assert_eq!(near.insert("これは私たちが毎日使っている非常に小さな猫の写真です"), Nearness::New);
    assert_eq!(near.insert("これは私たちが毎日使っている非常に小さな猫の写真だ"), Nearness::Near(0));
    assert_eq!(near.insert("明日の天気は晴れのち曇りで風が強くなるでしょう"), Nearness::New);
}

#[test]
fn a_chain_is_one_cluster_only_where_all_are_remembered() {
    // Each differs from the one before by 4 of 100 words, the last from the first by 40.
    let chain = |remember| {
        let mut near = NearDuplicates::new(3, remember);
        let kinds: Vec<_> = (0..11).map(|step| near.insert(&text(step * 4..step * 4 + 100))).collect();
        (kinds, near.cluster(10))
    };
    let (kinds, cluster) = chain(Remember::All);
    assert!(kinds[1..].iter().all(|kind| *kind != Nearness::New));
    assert_eq!(cluster, 0);
    let (kinds, cluster) = chain(Remember::New);
    assert!(kinds.iter().filter(|kind| **kind == Nearness::New).count() >= 2);
    assert_ne!(cluster, 0);
}

#[test]
fn memory_is_bounded_and_what_was_forgotten_is_told() {
    let mut near = NearDuplicates::new(1, Remember::New);
    near.limit = 2;
    for (start, kind) in [
        (0, Nearness::New),
        (1_000, Nearness::New),
        (2_000, Nearness::New),
        (2_000, Nearness::New),
        (1_000, Nearness::Near(1)),
    ] {
        assert_eq!(near.insert(&text(start..start + 20)), kind);
    }
    assert_eq!(near.forgotten(), 2);
}

proptest! {
    #[test]
    fn a_repeated_text_is_near_itself(texts in prop::collection::vec("\\PC{0,60}", 1..10), seed: u64) {
        let mut near = NearDuplicates::new(seed, Remember::New);
        for text in &texts {
            near.insert(text);
        }
        for text in &texts {
            if text.chars().any(char::is_alphanumeric) {
                prop_assert_ne!(near.insert(text), Nearness::New);
            }
        }
    }
}
