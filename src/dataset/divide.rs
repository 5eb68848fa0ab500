//! Examples are written down as they come and divided once all are known: only then are there enough groups or not, and
//! only then is it known which groups near duplicates tie together.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};

use super::near_duplicates::NearDuplicates;
use super::split::{GroupCount, GroupId, GroupIds, Grouping, Side, Split, TiedGroups};
use super::spool::{Spool, Spooled};

/// Providers refuse files with fewer examples.
const FEWEST: u64 = 10;

/// Examples in the order in which they came, each with what decides its side.
#[derive(Debug)]
pub(super) struct Draft {
    out: BufWriter<File>,
    groups: GroupCount,
    split: Split,
    /// Whether any are to be set aside.
    wanted: bool,
}

/// The files of a dataset.
#[derive(Debug)]
pub(super) struct Divided {
    pub(super) train: Spooled,
    pub(super) validation: Option<Spooled>,
    pub(super) grouping: Grouping,
    pub(super) warnings: Vec<String>,
}

/// What stands before each line: number among the compared examples, id as a group, id as a prompt, length.
struct Head {
    number: u32,
    group: GroupId,
    prompt: GroupId,
    length: u32,
}

impl Head {
    const BYTES: usize = 40;

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.number.to_le_bytes())?;
        out.write_all(&self.length.to_le_bytes())?;
        out.write_all(&self.group.0)?;
        out.write_all(&self.prompt.0)
    }

    /// The next head, or `None` at the end.
    fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = [0; Self::BYTES];
        match from.read_exact(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let number = |at: usize| bytes[at..at + 4].iter().rev().fold(0, |n, byte| n << 8 | u32::from(*byte));
        let id = |at: usize| {
            let mut id = [0; 16];
            id.copy_from_slice(&bytes[at..at + 16]);
            GroupId(id)
        };
        Ok(Some(Self { number: number(0), length: number(4), group: id(8), prompt: id(24) }))
    }

    fn id(&self, grouping: Grouping) -> GroupId {
        match grouping {
            Grouping::Group => self.group,
            Grouping::Prompt => self.prompt,
        }
    }
}

impl Draft {
    pub(super) fn new(split: Split, wanted: bool) -> io::Result<Self> {
        let out = BufWriter::with_capacity(1 << 18, tempfile::tempfile()?);
        Ok(Self { out, groups: GroupCount::default(), split, wanted })
    }

    /// A draft of lines whose groups are known, and were counted.
    pub(super) fn of_groups(split: Split, wanted: bool, groups: GroupCount) -> io::Result<Self> {
        Ok(Self { groups, ..Self::new(split, wanted)? })
    }

    /// Writes a line down whose side `id` decides.
    pub(super) fn add_line(&mut self, id: GroupId, line: &[u8]) -> io::Result<()> {
        let length = length(line)?;
        Head { number: 0, group: id, prompt: id, length }.write(&mut self.out)?;
        self.out.write_all(line)
    }

    /// Writes an example's line down, with its groups and its number among those that were compared.
    pub(super) fn add(&mut self, ids: GroupIds, number: u32, line: &[u8]) -> io::Result<()> {
        if let Some(group) = ids.group {
            self.groups.add_id(group);
        }
        let (group, prompt) = (ids.group.unwrap_or(ids.prompt), ids.prompt);
        Head { number, group, prompt, length: length(line)? }.write(&mut self.out)?;
        self.out.write_all(line)
    }

    /// Divides the examples; `compared` is how many `near` has looked at.
    pub(super) fn divide(self, mut near: Option<NearDuplicates>, compared: u32) -> io::Result<Divided> {
        let share = self.split.share();
        let grouping = self.groups.grouping();
        let mut warnings = Vec::new();
        let forgotten = near.as_ref().map_or(0, NearDuplicates::forgotten);
        if forgotten > 0 {
            warnings.push(format!("near duplicates of the {forgotten} last examples were not looked for"));
        }
        let mut file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        if !self.wanted {
            let (train, _) = sides(&mut file, |_| Side::Train)?;
            return Ok(Divided { train: train.finish()?, validation: None, grouping, warnings });
        }
        warnings.extend(self.groups.warning());
        let mut ties = match &mut near {
            Some(near) => Some(ties(&mut file, near, compared, grouping)?),
            None => None,
        };
        drop(near);
        let mut kept = 0;
        let split = self.split;
        let (train, validation) = sides(&mut file, |head| {
            let id = ties.as_mut().map_or_else(|| head.id(grouping), |ties| ties.id(kept));
            kept += 1;
            split.side(id)
        })?;
        let fewest = train.examples().min(validation.examples());
        if validation.examples() > 0 && fewest < FEWEST {
            warnings.push(format!(
                "no examples were set aside to validate with: of {} and {} in the two files, providers refuse fewer \
                 than {FEWEST}",
                train.examples(),
                validation.examples()
            ));
            let (train, _) = sides(&mut file, |_| Side::Train)?;
            return Ok(Divided { train: train.finish()?, validation: None, grouping, warnings });
        }
        // Groups differ in size: one large group must not take what the model should learn from.
        let most = 2.0 * share * (train.examples() + validation.examples()) as f64;
        if validation.examples() as f64 > most.max(2.0 * FEWEST as f64) {
            warnings.push(format!(
                "no examples were set aside to validate with: large groups would take {} of {}",
                validation.examples(),
                train.examples() + validation.examples()
            ));
            let (train, _) = sides(&mut file, |_| Side::Train)?;
            return Ok(Divided { train: train.finish()?, validation: None, grouping, warnings });
        }
        if validation.examples() == 0 {
            warnings.push("no group of examples fell to the validation set".to_owned());
        }
        let validation = (validation.examples() > 0).then(|| validation.finish()).transpose()?;
        Ok(Divided { train: train.finish()?, validation, grouping, warnings })
    }
}

fn length(line: &[u8]) -> io::Result<u32> {
    u32::try_from(line.len())
        .map_err(|_| io::Error::new(ErrorKind::FileTooLarge, "an example of more than 4 GiB"))
}

/// Ties the groups of examples that are nearly the same.
fn ties(
    file: &mut File,
    near: &mut NearDuplicates,
    compared: u32,
    grouping: Grouping,
) -> io::Result<TiedGroups> {
    const NONE: u32 = u32::MAX;
    // For each cluster, by the number of its first example, which of those that were kept is its first.
    let mut firsts = vec![NONE; compared as usize];
    let mut ties = TiedGroups::default();
    let mut kept = 0;
    each(file, |head, _| {
        ties.add(head.id(grouping));
        if let Some(first) = firsts.get_mut(near.cluster(head.number) as usize) {
            if *first == NONE {
                *first = kept;
            } else {
                ties.tie(kept, *first);
            }
        }
        kept += 1;
        Ok(())
    })?;
    Ok(ties)
}

/// Writes each example to the file of its side.
fn sides(file: &mut File, mut side: impl FnMut(&Head) -> Side) -> io::Result<(Spool, Spool)> {
    let (mut train, mut validation) = (Spool::new()?, Spool::new()?);
    each(file, |head, line| match side(head) {
        Side::Train => train.write(line),
        Side::Validation => validation.write(line),
    })?;
    Ok((train, validation))
}

/// Reads the draft from its beginning.
fn each(file: &mut File, mut visit: impl FnMut(&Head, &[u8]) -> io::Result<()>) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let mut from = BufReader::with_capacity(1 << 18, file);
    let mut line = Vec::new();
    while let Some(head) = Head::read(&mut from)? {
        line.resize(head.length as usize, 0);
        from.read_exact(&mut line)?;
        visit(&head, &line)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Example;
    use crate::dataset::duplicates::normalised;
    use crate::dataset::near_duplicates::Remember;
    use crate::dataset::split::SplitSettings;

    fn draft(share: f64) -> Draft {
        let settings = SplitSettings { validation_share: share };
        Draft::new(Split::new(&settings, "hook"), share > 0.0).unwrap()
    }

    fn add(draft: &mut Draft, group: &str, number: u32, example: &Example) {
        let mut line = Vec::new();
        example.write(&mut line).unwrap();
        draft.add(Grouping::ids(Some(group), &normalised(&example.user)), number, &line).unwrap();
    }

    fn lines(spooled: &Spooled) -> Vec<String> {
        let mut file = spooled.file.try_clone().unwrap();
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn example(n: u32, assistant: &str) -> Example {
        Example { system: None, user: format!("prompt {n}"), assistant: assistant.to_owned() }
    }

    #[test]
    fn no_group_stands_on_both_sides_and_every_example_on_one() {
        let mut draft = draft(0.3);
        for n in 0..300 {
            add(&mut draft, &format!("g{}", n % 40), 0, &example(n, &format!("of g{} end", n % 40)));
        }
        let divided = draft.divide(None, 0).unwrap();
        assert_eq!((divided.grouping, divided.warnings.len()), (Grouping::Group, 0));
        let (train, validation) = (lines(&divided.train), lines(&divided.validation.unwrap()));
        assert_eq!(train.len() + validation.len(), 300);
        assert!(validation.len() > 30 && train.len() > 100, "{} {}", train.len(), validation.len());
        for group in 0..40 {
            let mark = format!("of g{group} end");
            let has = |lines: &[String]| lines.iter().any(|line| line.contains(&mark));
            assert!(has(&train) != has(&validation), "{group}");
        }
    }

    #[test]
    fn near_duplicates_stand_on_one_side_although_their_groups_differ() {
        let mut draft = draft(0.5);
        let mut near = NearDuplicates::new(1, Remember::All);
        let mut number = 0;
        for n in 0..60_u32 {
            let words: Vec<String> = (0..30).map(|word| format!("w{}", n * 1000 + word)).collect();
            for copy in ["one", "two"] {
                let text = format!("{} {copy}", words.join(" "));
                near.insert(&text);
                add(&mut draft, &format!("{copy}{n}"), number, &example(number, &text));
                number += 1;
            }
        }
        let divided = draft.divide(Some(near), number).unwrap();
        let (train, validation) = (lines(&divided.train), lines(&divided.validation.unwrap()));
        assert!(train.len() > 10 && validation.len() > 10);
        for n in 0..60 {
            let mark = format!("w{} ", n * 1000);
            let has = |lines: &[String]| lines.iter().filter(|line| line.contains(&mark)).count();
            assert!([0, 2].contains(&has(&train)), "{n}");
        }
    }

    #[test]
    fn a_small_dataset_is_trained_on_whole_and_says_so() {
        let mut draft = draft(0.5);
        for n in 0..12 {
            add(&mut draft, "one", 0, &example(n, "x"));
        }
        let divided = draft.divide(None, 0).unwrap();
        assert_eq!((divided.train.part.examples, divided.grouping), (12, Grouping::Prompt));
        assert!(divided.validation.is_none());
        assert!(divided.warnings[0].contains("by prompt") && divided.warnings[1].contains("fewer than 10"));
    }

    #[test]
    fn a_large_group_that_falls_to_validation_does_not_take_the_training_set() {
        let validates = |name: &String| {
            let split = Split::new(&SplitSettings { validation_share: 0.1 }, "hook");
            split.side(Grouping::Group.id(Some(name), "")) == Side::Validation
        };
        let large = (0..1_000).map(|n| format!("large {n}")).find(validates).unwrap();
        let mut draft = draft(0.1);
        for n in 0..200 {
            let group = if n % 10 == 0 { format!("g{n}") } else { large.clone() };
            add(&mut draft, &group, 0, &example(n, "x"));
        }
        let divided = draft.divide(None, 0).unwrap();
        assert_eq!((divided.train.part.examples, divided.grouping), (200, Grouping::Group));
        assert!(divided.validation.is_none() && divided.warnings[0].contains("large groups would take"));
    }
}
