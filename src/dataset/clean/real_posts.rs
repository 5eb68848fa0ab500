//! Cleaning, duplicates and the split on real posts, where they are at hand.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use regex::Regex;

use super::*;
use crate::dataset::duplicates::Duplicates;
use crate::dataset::near_duplicates::{NearDuplicates, Nearness, Remember};
use crate::dataset::split::{GroupCount, Grouping, Side, Split, SplitSettings};

struct Post {
    story: String,
    input: String,
    hook: String,
    body: String,
}

fn posts() -> Option<Vec<Post>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    if !folder.exists() {
        return None;
    }
    let file = std::fs::File::open(folder.join("data/posts_2013.csv.gz")).unwrap();
    let mut reader = csv::Reader::from_reader(flate2::read::MultiGzDecoder::new(file));
    let posts = reader.deserialize::<HashMap<String, String>>().map(|row| {
        let mut row = row.unwrap();
        let mut take = |name| row.remove(name).unwrap();
        Post {
            story: take("story_id"),
            input: take("original_input"),
            hook: take("hook"),
            body: take("body"),
        }
    });
    Some(posts.collect())
}

#[test]
fn real_bodies_have_no_markup_left() {
    let Some(posts) = posts() else { return };
    let cleaner = Cleaner::new(&CleaningSettings::default());
    let left = Regex::new(r"</?[A-Za-z][^>]*>|&(?:[A-Za-z]+|#x?[0-9A-Fa-f]+);").unwrap();
    let mut changed: BTreeMap<(&str, Step), usize> = BTreeMap::new();
    let mut findings = Findings::default();
    let mut redacted = HashSet::new();
    for post in &posts {
        for (column, text) in [("input", &post.input), ("hook", &post.hook), ("body", &post.body)] {
            let after = cleaner.text(text);
            assert!(!left.is_match(&after.text), "{}", after.text);
            for step in after.changed.iter() {
                *changed.entry((column, step)).or_default() += 1;
            }
            findings += after.findings;
            if after.findings.total() > 0 {
                redacted.insert((column, after.text.into_owned()));
            }
        }
    }
    println!("{} posts, texts changed: {changed:#?}", posts.len());
    println!("{findings:?} in {} distinct texts: {redacted:#?}", redacted.len());
    assert!(changed[&("body", Step::Html)] > 3_000 && !changed.contains_key(&("hook", Step::Html)));
    // Headlines of 2013 have years, prices and counts, and nothing personal.
    assert_eq!(findings.total(), 0);
}

#[test]
fn no_real_story_stands_on_both_sides() {
    let Some(posts) = posts() else { return };
    let mut count = GroupCount::default();
    for post in &posts {
        count.add(Some(&post.story));
    }
    assert_eq!(count.grouping(), Grouping::Group);
    let split = Split::new(&SplitSettings::default(), "hook");
    let (mut train, mut validation) = (HashSet::new(), HashSet::new());
    let mut rows = 0;
    for post in &posts {
        match split.side(Grouping::Group.id(Some(&post.story), &post.input)) {
            Side::Train => train.insert(&post.story),
            Side::Validation => {
                rows += 1;
                validation.insert(&post.story)
            }
        };
    }
    assert!(train.is_disjoint(&validation));
    let share = validation.len() as f64 / (train.len() + validation.len()) as f64;
    println!("{share:.3} of stories, {rows} of {} posts validate", posts.len());
    assert!((0.07..0.13).contains(&share));
}

#[test]
fn real_duplicates_are_found() {
    let Some(posts) = posts() else { return };
    let cleaner = Cleaner::new(&CleaningSettings::default());
    for (name, parts) in [
        ("hook", (|post: &Post| (post.input.clone(), post.hook.clone())) as fn(&Post) -> (String, String)),
        ("body", |post| (post.hook.clone(), post.body.clone())),
    ] {
        let mut exact = Duplicates::new();
        let mut near = NearDuplicates::new(0, Remember::New);
        let mut kept: Vec<String> = Vec::new();
        let (mut exact_count, mut near_count) = (0, 0);
        for post in &posts {
            let (prompt, completion) = parts(post);
            let completion = cleaner.text(&completion).text.into_owned();
            if cleaner.too_short(&completion) {
                continue;
            }
            if !exact.first(&prompt, &completion) {
                exact_count += 1;
                continue;
            }
            if let Nearness::Near(of) = near.insert(&completion) {
                near_count += 1;
                if name == "hook" && near_count % 10 == 1 {
                    println!("near: {completion}\n  of: {}", kept[of as usize]);
                }
            }
            kept.push(completion);
        }
        println!("{name}: {exact_count} exact and {near_count} near duplicates; {} examples", kept.len());
        assert!(kept.len() > 3_000 && near_count > 0);
    }
}
