//! Pairs of a better and a worse answer to the same prompt, for training by preference (DPO).
//!
//! Examples come highest engagement first and are written down; of each some dozen bytes stay in memory. Once all are known, the best
//! answer to a prompt is paired with the worst, the second best with the second worst, and so on while the gap is wide
//! enough: the widest gaps come first and no post is in two pairs.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use sha2::{Digest, Sha256};

use super::divide::{Divided, Draft};
use super::duplicates::{normalised, prefix};
use super::near_duplicates::NearDuplicates;
use super::split::{GroupCount, GroupId, Grouping, Split, TiedGroups};
use super::{Example, PairSettings};

/// Examples that may become halves of pairs.
#[derive(Debug)]
pub(super) struct PairDraft {
    out: BufWriter<File>,
    at: u64,
    entries: Vec<Entry>,
    settings: PairSettings,
    /// The better half has at least this engagement.
    threshold: f64,
    maximum: u64,
}

/// An example that was written down.
#[derive(Debug, Clone, Copy)]
struct Entry {
    prompt: GroupId,
    group: GroupId,
    /// Whether it has a group of its own.
    grouped: bool,
    /// Tells answers apart.
    answer: [u8; 8],
    engagement: f64,
    /// Its number among the examples that were compared.
    number: u32,
    at: u64,
    prompt_length: u32,
    answer_length: u32,
}

/// What became of the examples.
pub(super) struct Paired {
    pub(super) divided: Divided,
    pub(super) pairs: u64,
    /// Examples that are in no pair.
    pub(super) unpaired: u64,
    /// Examples whose pairs are beyond the most that are wanted.
    pub(super) over_maximum: u64,
}

impl PairDraft {
    pub(super) fn new(settings: &PairSettings, threshold: f64, maximum: u64) -> io::Result<Self> {
        Ok(Self {
            out: BufWriter::with_capacity(1 << 18, tempfile::tempfile()?),
            at: 0,
            entries: Vec::new(),
            settings: settings.clone(),
            threshold,
            maximum,
        })
    }

    /// Writes an example down.
    pub(super) fn add(
        &mut self,
        group: Option<&str>,
        engagement: f64,
        number: u32,
        example: &Example,
    ) -> io::Result<()> {
        let (prompt, answer) = example.halves()?;
        let length = |bytes: &[u8]| {
            u32::try_from(bytes.len())
                .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "an example of 4 GiB"))
        };
        let mut hash = [0; 8];
        hash.copy_from_slice(&prefix(&Sha256::digest(normalised(&example.assistant)))[..8]);
        let asked = match &example.system {
            Some(system) => format!("{system}\n{}", example.user),
            None => example.user.clone(),
        };
        self.entries.push(Entry {
            prompt: Grouping::Prompt.id(None, &asked),
            group: Grouping::Group.id(group, &example.user),
            grouped: group.is_some_and(|group| !group.is_empty()),
            answer: hash,
            engagement,
            number,
            at: self.at,
            prompt_length: length(&prompt)?,
            answer_length: length(&answer)?,
        });
        self.out.write_all(&prompt)?;
        self.out.write_all(&answer)?;
        self.at += (prompt.len() + answer.len()) as u64;
        Ok(())
    }

    /// Pairs the examples and divides the pairs. What two posts of a pair, or nearly the same posts, belong to is on one side.
    pub(super) fn divide(
        self,
        split: Split,
        wanted: bool,
        mut near: Option<NearDuplicates>,
    ) -> io::Result<Paired> {
        let mut pairs = self.pairs();
        let paired = 2 * pairs.len();
        pairs.truncate(usize::try_from(self.maximum).unwrap_or(usize::MAX));
        let mut groups = GroupCount::default();
        for entry in pairs.iter().flat_map(|(better, worse)| [*better, *worse]) {
            // One without a group is in that of its prompt, which is none to count.
            let entry = self.entries[entry];
            if entry.grouped {
                groups.add_id(entry.group);
            }
        }
        let grouping = groups.grouping();
        let mut ties = TiedGroups::default();
        let mut clusters = HashMap::new();
        for (place, entry) in (0..).zip(pairs.iter().flat_map(|(better, worse)| [*better, *worse])) {
            let entry = self.entries[entry];
            ties.add(match grouping {
                Grouping::Group => entry.group,
                Grouping::Prompt => entry.prompt,
            });
            if place % 2 == 1 {
                ties.tie(place, place - 1);
            }
            if let Some(near) = &mut near {
                let first = *clusters.entry(near.cluster(entry.number)).or_insert(place);
                ties.tie(place, first);
            }
        }
        let mut file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let mut draft = Draft::of_groups(split, wanted, groups)?;
        let mut line = Vec::new();
        for (index, (better, worse)) in (0..).zip(&pairs) {
            write_pair(&mut file, &self.entries[*better], &self.entries[*worse], &mut line)?;
            draft.add_line(ties.id(2 * index), &line)?;
        }
        Ok(Paired {
            divided: draft.divide(None, 0)?,
            pairs: pairs.len() as u64,
            unpaired: (self.entries.len() - paired) as u64,
            over_maximum: (paired - 2 * pairs.len()) as u64,
        })
    }

    /// The places of the better and the worse half of each pair, in the order of the better ones.
    fn pairs(&self) -> Vec<(usize, usize)> {
        // By prompt, and within a prompt in their order: less memory than a list for each prompt.
        let mut places: Vec<usize> = (0..self.entries.len()).collect();
        places.sort_unstable_by_key(|place| (self.entries[*place].prompt, *place));
        let most = self.settings.maximum_per_prompt as usize;
        let same_prompt =
            |one: &usize, other: &usize| self.entries[*one].prompt == self.entries[*other].prompt;
        let mut pairs = Vec::new();
        for places in places.chunk_by(same_prompt) {
            pairs.extend(self.of_prompt(places.to_vec()).take(most));
        }
        pairs.sort_unstable();
        pairs
    }

    /// The pairs of one prompt, whose examples stand at these places: each example from the best on with the worst that says something
    /// else and is in no pair yet.
    fn of_prompt(&self, places: Vec<usize>) -> impl Iterator<Item = (usize, usize)> {
        // Rates are decimals, which binary fractions miss by a little.
        let gap = self.settings.minimum_gap * (1.0 - 1e-9);
        let mut places = VecDeque::from(places);
        // An answer that found no other one finds none among fewer.
        let mut alone = None;
        std::iter::from_fn(move || {
            loop {
                let place = places.pop_front()?;
                let better = &self.entries[place];
                let wide = |worse: &Entry| better.engagement - worse.engagement >= gap;
                if better.engagement < self.threshold || !wide(&self.entries[*places.back()?]) {
                    return None;
                }
                if alone == Some(better.answer) {
                    continue;
                }
                let mut behind =
                    places.iter().rposition(|worse| self.entries[*worse].answer != better.answer);
                behind = behind.filter(|worse| wide(&self.entries[places[*worse]]));
                match behind.and_then(|worse| places.remove(worse)) {
                    Some(worse) => return Some((place, worse)),
                    None => alone = Some(better.answer),
                }
            }
        })
    }
}

/// A line of the protocol's preference format (`FineTunePreferenceRequestInput`).
fn write_pair(file: &mut File, better: &Entry, worse: &Entry, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    line.extend_from_slice(b"{\"input\":");
    append(file, better.at, better.prompt_length, line)?;
    line.extend_from_slice(b",\"preferred_output\":[");
    append(file, better.at + u64::from(better.prompt_length), better.answer_length, line)?;
    line.extend_from_slice(b"],\"non_preferred_output\":[");
    append(file, worse.at + u64::from(worse.prompt_length), worse.answer_length, line)?;
    line.extend_from_slice(b"]}\n");
    Ok(())
}

fn append(file: &mut File, at: u64, length: u32, line: &mut Vec<u8>) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    let begin = line.len();
    line.resize(begin + length as usize, 0);
    file.read_exact(&mut line[begin..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::dataset::split::SplitSettings;

    /// Prompt, persona, answer and engagement in hundredths.
    type Post = (u8, u8, u8, u32);

    fn lines(posts: &[Post], most: u32, share: f64) -> (Vec<Value>, Vec<Value>, u64) {
        let settings = PairSettings { minimum_gap: 0.1, maximum_per_prompt: most };
        let mut draft = PairDraft::new(&settings, 0.5, u64::MAX).unwrap();
        let mut posts: Vec<_> = posts.to_vec();
        posts.sort_by_key(|post| (std::cmp::Reverse(post.3), *post));
        for (prompt, persona, answer, engagement) in posts {
            let example = Example {
                system: None,
                user: format!("prompt {prompt}"),
                assistant: format!("p{persona} a{answer} e{engagement}"),
            };
            draft.add(Some(&format!("p{persona}")), f64::from(engagement) / 100.0, 0, &example).unwrap();
        }
        let split = Split::new(&SplitSettings { validation_share: share }, "hook");
        let paired = draft.divide(split, share > 0.0, None).unwrap();
        let read = |spooled: &super::super::Spooled| -> Vec<Value> {
            let mut file = spooled.file.try_clone().unwrap();
            let mut text = String::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_string(&mut text).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let validation = paired.divided.validation.as_ref().map(read).unwrap_or_default();
        (read(&paired.divided.train), validation, paired.unpaired)
    }

    fn answers(line: &Value) -> [&str; 2] {
        ["preferred_output", "non_preferred_output"].map(|half| line[half][0]["content"].as_str().unwrap())
    }

    fn engagement(answer: &str) -> u32 {
        answer.split_once(" e").unwrap().1.parse().unwrap()
    }

    #[test]
    fn the_best_is_paired_with_the_worst_and_so_on_while_the_gap_is_wide() {
        let posts =
            [(1, 1, 1, 90), (1, 2, 2, 80), (1, 3, 3, 75), (1, 4, 4, 20), (1, 5, 5, 10), (2, 1, 1, 90)];
        let (pairs, _, unpaired) = lines(&posts, 9, 0.0);
        let halves: Vec<_> = pairs.iter().map(|pair| answers(pair).map(engagement)).collect();
        assert_eq!((halves, unpaired), (vec![[90, 10], [80, 20]], 2));
        assert_eq!(lines(&posts, 1, 0.0).0.len(), 1);
        assert_eq!(pairs[0]["input"]["messages"][0]["content"], "prompt 1");
    }

    #[test]
    fn what_is_too_close_not_good_enough_or_the_same_makes_no_pair() {
        assert!(lines(&[(1, 1, 1, 60), (1, 2, 2, 51)], 1, 0.0).0.is_empty(), "too close");
        assert!(lines(&[(1, 1, 1, 49), (1, 2, 2, 10)], 1, 0.0).0.is_empty(), "below the threshold");
        assert_eq!(lines(&[(1, 1, 1, 50), (1, 2, 2, 40)], 1, 0.0).0.len(), 1);
    }

    #[test]
    fn where_the_best_and_the_worst_say_the_same_the_next_are_tried() {
        let pairs = |answers: &[&str], maximum: u64| {
            let settings = PairSettings { minimum_gap: 0.1, maximum_per_prompt: 9 };
            let mut draft = PairDraft::new(&settings, 0.5, maximum).unwrap();
            for (place, answer) in (0_u32..).zip(answers) {
                let example = Example { system: None, user: "ask".into(), assistant: (*answer).to_owned() };
                draft.add(None, 0.9 - f64::from(place) / 10.0, 0, &example).unwrap();
            }
            let pairs = draft.pairs();
            let paired = draft.divide(Split::new(&SplitSettings::default(), "hook"), false, None).unwrap();
            assert_eq!(2 * paired.pairs + paired.unpaired + paired.over_maximum, answers.len() as u64);
            (pairs, paired.over_maximum)
        };
        assert_eq!(pairs(&["a", "b", "c", "A"], 9), (vec![(0, 2), (1, 3)], 0));
        assert_eq!(pairs(&["a", "a", "b", "a"], 9), (vec![(0, 2)], 0));
        assert_eq!(pairs(&["a", "a", "a"], 9), (vec![], 0));
        assert_eq!(
            pairs(&["a", "b", "c", "d"], 1),
            (vec![(0, 3), (1, 2)], 2),
            "the second pair is over the maximum"
        );
    }

    proptest! {
        #[test]
        fn any_posts_make_valid_pairs_that_stay_with_their_groups(
            posts in prop::collection::vec((0_u8..80, 0_u8..60, 0_u8..9, 0_u32..100), 0..300), most in 1_u32..4,
        ) {
            let (train, validation, unpaired) = lines(&posts, most, 0.4);
            prop_assert_eq!(2 * (train.len() + validation.len()) as u64 + unpaired, posts.len() as u64);
            let mut personas = [std::collections::BTreeSet::new(), std::collections::BTreeSet::new()];
            let mut prompts: HashMap<String, u32> = HashMap::new();
            for (side, lines) in [&train, &validation].into_iter().enumerate() {
                for line in lines {
                    let bytes = line.to_string();
                    let faults = crate::trainers::DataRules::OpenAi
                        .check_line(crate::trainers::Method::Preference, bytes.as_bytes());
                    prop_assert!(faults.is_empty(), "{:?}", faults);
                    let [better, worse] = answers(line);
                    prop_assert!(engagement(better) >= 50 && engagement(better) >= engagement(worse) + 10);
                    for answer in [better, worse] {
                        personas[side].insert(answer.split(' ').next().unwrap().to_owned());
                    }
                    *prompts.entry(line["input"].to_string()).or_default() += 1;
                }
            }
            prop_assert!(prompts.values().all(|count| *count <= most));
            // With few personas it is the prompts that stay together.
            if posts.iter().map(|post| post.1).collect::<std::collections::BTreeSet<_>>().len() >= 20 {
                prop_assert!(personas[0].is_disjoint(&personas[1]));
            }
            let mut turned = posts.clone();
            turned.reverse();
            prop_assert_eq!(lines(&turned, most, 0.4), (train, validation, unpaired));
        }
    }
}
