//! What the traffic of a pipeline should be after a change: the rules once more, without a database.

use std::collections::BTreeMap;

use crate::client::Action;
use crate::world::{CANDIDATES, Candidate};

pub(crate) type Shares = Vec<(String, i32)>;

/// The state of the pipeline after one revision.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    pub(crate) live: String,
    /// What serves, or would but for the kill switch, in the order of accumulation.
    split: Shares,
    pub(crate) kill_switch: bool,
    pub(crate) statuses: BTreeMap<String, &'static str>,
    /// The live version of each revision so far.
    was_live: Vec<String>,
}

/// What a revision should say of itself.
#[derive(Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) kind: &'static str,
    pub(crate) forced: bool,
    /// Whether it carries out the decision on the version that it makes live.
    pub(crate) decided: bool,
}

impl State {
    /// As the pipeline was created.
    pub(crate) fn first() -> Self {
        let base = "0.0.0".to_owned();
        let statuses = CANDIDATES.iter().map(|candidate| (candidate.version.to_owned(), candidate.status));
        Self {
            live: base.clone(),
            split: vec![(base.clone(), 10_000)],
            kill_switch: false,
            statuses: statuses.chain([(base.clone(), "live")]).collect(),
            was_live: vec![base],
        }
    }

    pub(crate) fn serving(&self) -> Shares {
        if self.kill_switch { vec![(self.live.clone(), 10_000)] } else { self.split.clone() }
    }

    pub(crate) fn withheld(&self) -> Shares {
        if self.kill_switch { self.split.clone() } else { Vec::new() }
    }

    fn can_serve(&self, version: &str) -> bool {
        !matches!(self.statuses[version], "rejected" | "rolled_back" | "unavailable")
    }

    /// Carries a change out; an error says why it should have been refused.
    pub(crate) fn apply(&mut self, action: &Action) -> Result<Told, String> {
        let told = match action {
            Action::Promote { version, force } => self.promote(version, *force)?,
            Action::RollBack { to } => self.roll_back(*to)?,
            Action::Split { weights, .. } => self.set_split(weights)?,
            Action::Switch { enabled } => self.switch(*enabled)?,
        };
        self.was_live.push(self.live.clone());
        Ok(told)
    }

    fn promote(&mut self, version: &str, force: bool) -> Result<Told, String> {
        if version == self.live || self.kill_switch {
            return Err(format!("{version} is live already, or the kill switch is on"));
        }
        let tested = |candidate: &&Candidate| candidate.version == version;
        let test = CANDIDATES.iter().find(tested).and_then(|candidate| candidate.test);
        let decided = test == Some(("promote", &*self.live));
        let clean = decided && self.can_serve(version);
        if !clean && !force {
            return Err(format!("{version} should not have been promoted without force"));
        }
        self.make_live(version, "retired");
        Ok(Told { kind: "promotion", forced: !clean, decided })
    }

    fn roll_back(&mut self, to: Option<&'static str>) -> Result<Told, String> {
        let may_come_back = |version: &String| *version != self.live && self.can_serve(version);
        let target = match to {
            Some(named) => self.was_live.iter().find(|was| *was == named).filter(|was| may_come_back(was)),
            None => self.was_live.iter().rev().find(|was| may_come_back(was)),
        };
        let target = target.ok_or_else(|| format!("there is nothing to roll back to: {to:?}"))?.clone();
        self.make_live(&target, "rolled_back");
        Ok(Told { kind: "rollback", forced: false, decided: false })
    }

    fn make_live(&mut self, version: &str, former: &'static str) {
        self.statuses.insert(self.live.clone(), former);
        self.statuses.insert(version.to_owned(), "live");
        version.clone_into(&mut self.live);
        self.split = vec![(version.to_owned(), 10_000)];
    }

    fn set_split(&mut self, weights: &[(&'static str, i32)]) -> Result<Told, String> {
        let has_live = weights.iter().any(|(version, weight)| *version == self.live && *weight > 0);
        let serve = weights.iter().all(|(version, weight)| *weight == 0 || self.can_serve(version));
        if !has_live || !serve {
            return Err(format!("{weights:?} lacks the live version, or has one that cannot serve"));
        }
        self.split = weights.iter().map(|(version, weight)| ((*version).to_owned(), *weight)).collect();
        // Without an experiment, newest first; these versions sort as text.
        self.split.sort_by(|(a, _), (b, _)| b.cmp(a));
        Ok(Told { kind: "split", forced: false, decided: false })
    }

    fn switch(&mut self, enabled: bool) -> Result<Told, String> {
        if self.kill_switch == enabled {
            return Err("the kill switch was as asked already".to_owned());
        }
        self.kill_switch = enabled;
        if !enabled {
            self.restore();
        }
        Ok(Told {
            kind: if enabled { "kill_switch_on" } else { "kill_switch_off" },
            forced: false,
            decided: false,
        })
    }

    /// What cannot serve any more gives its weight to the live version.
    fn restore(&mut self) {
        let split = std::mem::take(&mut self.split);
        self.split = split
            .into_iter()
            .filter(|(version, _)| *version == self.live || self.can_serve(version))
            .collect();
        let missing = 10_000 - self.split.iter().map(|(_, weight)| weight).sum::<i32>();
        match self.split.iter_mut().find(|(version, _)| *version == self.live) {
            Some((_, weight)) => *weight += missing,
            None => self.split.push((self.live.clone(), missing)),
        }
    }
}
