use proptest::prelude::*;

use super::*;

fn split(share: f64) -> Split {
    Split::new(&SplitSettings { validation_share: share }, "hook")
}

fn side(group: &str) -> Side {
    split(0.5).side(Grouping::Group.id(Some(group), ""))
}

#[test]
fn sides_are_those_of_the_documented_formula() {
    // From an independent computation; another way of hashing would move every group of every user.
    let sides: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h"].map(side).to_vec();
    let validation = |name: &str| {
        let id = &Sha256::digest([b"group\0", name.as_bytes()].concat())[..16];
        Sha256::digest([&4_u64.to_be_bytes()[..], b"hook", id].concat())[0] < 0x80
    };
    for (name, side) in ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().zip(&sides) {
        assert_eq!(*side == Side::Validation, validation(name), "{name}");
    }
    assert!(sides.contains(&Side::Train) && sides.contains(&Side::Validation));
}

#[test]
fn the_share_is_about_that_configured() {
    for share in [0.0, 0.1, 0.3] {
        let split = split(share);
        let validation = (0..20_000)
            .filter(|n| split.side(Grouping::Group.id(Some(&format!("story-{n}")), "")) == Side::Validation)
            .count();
        // Four standard errors.
        let error = 4.0 * (share * (1.0 - share) * 20_000.0).sqrt();
        assert!((validation as f64 - share * 20_000.0).abs() <= error, "{validation} at {share}");
    }
}

#[test]
fn another_key_chooses_other_groups() {
    let settings = SplitSettings::default();
    let (hook, body) = (Split::new(&settings, "hook"), Split::new(&settings, "body"));
    let ids: Vec<_> = (0..1_000).map(|n| Grouping::Group.id(Some(&n.to_string()), "")).collect();
    assert!(ids.iter().any(|id| hook.side(*id) != body.side(*id)));
}

#[test]
fn few_groups_are_replaced_by_prompts_and_it_is_said() {
    let mut count = GroupCount::default();
    for n in 0..100 {
        count.add(Some(&format!("{}", n % 19)));
        count.add(None);
        count.add(Some(""));
    }
    assert_eq!(count.grouping(), Grouping::Prompt);
    assert!(count.warning().unwrap().starts_with("there are 19 groups, fewer than 20"));
    count.add(Some("19"));
    assert_eq!(count.grouping(), Grouping::Group);
    assert_eq!(count.warning(), None);

    let by_prompt = |group, prompt| Grouping::Prompt.id(group, prompt);
    assert_eq!(by_prompt(Some("1"), "About  Cats"), by_prompt(Some("2"), "about cats"));
    assert_ne!(by_prompt(Some("1"), "About cats"), by_prompt(Some("1"), "About dogs"));
    assert_eq!(Grouping::Group.id(None, "About cats"), by_prompt(None, "about cats"));
    assert_ne!(Grouping::Group.id(Some("about cats"), ""), by_prompt(None, "about cats"));
}

proptest! {
    #[test]
    fn ties_bind_and_do_not_depend_on_order(
        groups in prop::collection::vec(0_u8..30, 2..60),
        ties in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..20),
    ) {
        let ids: Vec<_> = groups.iter().map(|group| Grouping::Group.id(Some(&group.to_string()), "")).collect();
        let len = ids.len();
        let number = |index: usize| u32::try_from(index).unwrap();
        let tied = |reversed: bool| {
            let place = |index: usize| number(if reversed { len - 1 - index } else { index });
            let mut tied = TiedGroups::default();
            for index in 0..len {
                tied.add(ids[if reversed { len - 1 - index } else { index }]);
            }
            for (one, other) in &ties {
                tied.tie(place(one.index(len)), place(other.index(len)));
            }
            (0..len).map(|index| tied.id(place(index))).collect::<Vec<_>>()
        };
        let forward = tied(false);
        prop_assert_eq!(&forward, &tied(true));
        for (one, other) in &ties {
            prop_assert_eq!(forward[one.index(len)], forward[other.index(len)]);
        }
        for (a, b) in (0..len).flat_map(|a| (0..len).map(move |b| (a, b))) {
            if ids[a] == ids[b] {
                prop_assert_eq!(forward[a], forward[b]);
            }
        }
        if ties.is_empty() {
            prop_assert_eq!(&forward, &ids);
        }
    }

    #[test]
    fn a_side_stays_under_reordering_and_addition(groups in prop::collection::vec("[a-z]{1,3}", 1..40), more in prop::collection::vec("[a-z]{1,3}", 0..40)) {
        let sides = |groups: &mut dyn Iterator<Item = &String>| {
            groups.map(|group| (group.clone(), side(group))).collect::<HashMap<_, _>>()
        };
        let before = sides(&mut groups.iter());
        let after = sides(&mut more.iter().chain(groups.iter().rev()));
        for (group, side) in before {
            prop_assert_eq!(after[&group], side);
        }
    }
}
