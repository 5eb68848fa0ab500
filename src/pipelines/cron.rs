//! The slots of a schedule: five-field cron in a time zone, right across daylight-saving changes.

use std::str::FromStr;

use chrono::{DateTime, SubsecRound, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use thiserror::Error;

/// When a pipeline's runs start by themselves.
///
/// A slot that falls into the hour skipped in spring is moved to the first moment after it; one that
/// falls into the hour repeated in autumn happens once, at its first occurrence.
#[derive(Debug, Clone)]
pub struct Cron {
    pattern: croner::Cron,
    timezone: Tz,
}

/// What is wrong with a schedule.
#[derive(Debug, Error)]
pub enum CronError {
    /// The pattern cannot be read.
    #[error("must have five fields (minute, hour, day of month, month, day of week), such as 0 2 * * 0: {0}")]
    Pattern(croner::errors::CronError),
    /// No time fits.
    #[error("must name a time that comes: none fits this pattern")]
    Never,
    /// The time zone is unknown.
    #[error("must be an IANA time zone, such as UTC or Europe/Berlin")]
    Timezone,
}

impl CronError {
    /// The field of the pipeline's configuration that is at fault.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Pattern(_) | Self::Never => "/schedule/cron",
            Self::Timezone => "/schedule/timezone",
        }
    }
}

impl Cron {
    /// Reads a pattern and a time zone.
    pub fn new(pattern: &str, timezone: &str) -> Result<Self, CronError> {
        let timezone = Tz::from_str(timezone).map_err(|_| CronError::Timezone)?;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let pattern = parser.parse(pattern).map_err(CronError::Pattern)?;
        Ok(Self { pattern, timezone })
    }

    /// As [`Self::new`], refusing a pattern that no time fits, such as the 30th of February.
    pub fn checked(pattern: &str, timezone: &str) -> Result<Self, CronError> {
        let cron = Self::new(pattern, timezone)?;
        cron.next_after(DateTime::UNIX_EPOCH).map(|_| cron).ok_or(CronError::Never)
    }

    /// The first slot after `time`; `None` where the pattern has no further one.
    #[must_use]
    pub fn next_after(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let slot = self.pattern.find_next_occurrence(&self.local(time), false).ok()?;
        Some(slot.with_timezone(&Utc))
    }

    /// The newest slot at or before `time` and after `since`, found by walking forward: the way back is not the same
    /// where a daylight-saving change has moved a slot.
    #[must_use]
    pub fn newest_between(&self, since: DateTime<Utc>, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let slots = std::iter::successors(self.next_after(since), |slot| self.next_after(*slot));
        slots.take_while(|slot| *slot <= time).last()
    }

    /// The whole second: a fraction would be carried over into the slot, which would then have no one name.
    fn local(&self, time: DateTime<Utc>) -> DateTime<Tz> {
        time.trunc_subsecs(0).with_timezone(&self.timezone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn next_slots(timezone: &str, from: &str, count: usize) -> Vec<String> {
        let cron = Cron::new("0 2 * * 0", timezone).unwrap();
        let mut time = at(from);
        let mut slots = Vec::new();
        for _ in 0..count {
            time = cron.next_after(time).unwrap();
            slots.push(time.to_rfc3339());
        }
        slots
    }

    #[test]
    fn the_weekly_slot_is_sunday_at_two() {
        assert_eq!(
            next_slots("UTC", "2026-11-25T12:00:00Z", 2),
            ["2026-11-29T02:00:00+00:00", "2026-12-06T02:00:00+00:00"]
        );
    }

    #[test]
    fn it_stays_at_two_local_time_across_daylight_saving() {
        // Berlin leaves summer time on Sunday 2026-10-25 at 03:00: 02:00 happens twice, the slot once.
        assert_eq!(
            next_slots("Europe/Berlin", "2026-10-17T12:00:00Z", 3),
            ["2026-10-18T00:00:00+00:00", "2026-10-25T00:00:00+00:00", "2026-11-01T01:00:00+00:00"]
        );
        // It enters it on Sunday 2027-03-28 at 02:00: 02:00 does not exist, the slot moves to 03:00.
        assert_eq!(
            next_slots("Europe/Berlin", "2027-03-20T12:00:00Z", 3),
            ["2027-03-21T01:00:00+00:00", "2027-03-28T01:00:00+00:00", "2027-04-04T00:00:00+00:00"]
        );
    }

    #[test]
    fn the_newest_slot_is_found_within_its_bounds() {
        let cron = Cron::new("0 2 * * 0", "UTC").unwrap();
        let sunday = at("2026-11-29T02:00:00Z");
        let before = at("2026-11-25T00:00:00Z");
        assert_eq!(cron.newest_between(before, sunday), Some(sunday));
        assert_eq!(cron.newest_between(before, at("2026-11-29T02:00:30Z")), Some(sunday));
        assert_eq!(cron.newest_between(before, at("2026-11-29T01:59:59Z")), None);
        assert_eq!(cron.newest_between(sunday, at("2026-11-30T00:00:00Z")), None);
    }

    #[test]
    fn the_newest_slot_agrees_with_the_next_one_across_daylight_saving() {
        for timezone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"] {
            let cron = Cron::new("30 2 * * *", timezone).unwrap();
            let mut previous = cron.next_after(at("2026-03-01T00:00:00Z")).unwrap();
            for _ in 0..300 {
                let next = cron.next_after(previous).unwrap();
                assert_eq!(cron.newest_between(previous, next), Some(next), "{timezone}");
                assert_eq!(
                    cron.newest_between(
                        previous - chrono::TimeDelta::hours(1),
                        next - chrono::TimeDelta::minutes(1)
                    ),
                    Some(previous),
                    "{timezone}"
                );
                previous = next;
            }
        }
    }

    #[test]
    fn a_slot_has_no_fraction_of_a_second() {
        let cron = Cron::new("0 2 * * 0", "UTC").unwrap();
        let sunday = at("2026-11-29T02:00:00Z");
        let later = at("2026-11-29T02:00:00.437Z");
        assert_eq!(cron.newest_between(at("2026-11-25T00:00:00.5Z"), later), Some(sunday));
        assert_eq!(cron.next_after(at("2026-11-28T00:00:00.437Z")), Some(sunday));
        assert_eq!(cron.next_after(later), Some(at("2026-12-06T02:00:00Z")));
    }

    #[test]
    fn bad_schedules_name_their_field() {
        assert_eq!(Cron::new("0 2 * *", "UTC").unwrap_err().field(), "/schedule/cron");
        assert_eq!(Cron::new("0 0 2 * * 0", "UTC").unwrap_err().field(), "/schedule/cron");
        assert!(matches!(Cron::checked("0 0 30 2 *", "UTC"), Err(CronError::Never)));
        assert!(Cron::checked("0 0 29 2 *", "UTC").is_ok());
        assert_eq!(Cron::new("0 2 * * 0", "Mars/Olympus").unwrap_err().field(), "/schedule/timezone");
    }
}
