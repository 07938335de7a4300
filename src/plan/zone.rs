//! The days of a time zone.
//!
//! Pure. The zones are those of the bundled database, so that a day does not depend on the machine.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::calendar::MICROS_PER_DAY;
use crate::plan::period::{MICROS_PER_HOUR, Period};

/// A zone whose days reports and curated files have.
#[derive(Debug, Clone)]
pub struct Zone {
    zone: TimeZone,
    is_utc: bool,
}

/// A zone with its offset of the last time that was asked for: neighbouring rows nearly always share it.
#[derive(Debug)]
pub struct Days<'a> {
    zone: &'a Zone,
    /// The times, in microseconds, between which the offset holds.
    from: i64,
    until: i64,
    offset: i64,
}

impl Zone {
    /// Wraps a zone.
    pub fn of(zone: TimeZone) -> Self {
        let is_utc = zone == TimeZone::UTC || zone.iana_name() == Some("UTC");
        Zone { zone, is_utc }
    }

    /// Returns the zone for many times, one after the other.
    pub fn days(&self) -> Days<'_> {
        let (from, until) = if self.is_utc { (i64::MIN, i64::MAX) } else { (0, 0) };
        Days { zone: self, from, until, offset: 0 }
    }

    /// Returns the day of a time in microseconds since the Unix epoch.
    pub fn day_of(&self, micros: i64) -> i32 {
        self.days().day_of(micros)
    }

    /// Returns the hours (UTC) of a day.
    pub fn hours_of(&self, day: i32) -> Vec<Period> {
        // No zone is more than 14 hours from UTC, and no day longer than 48 hours.
        let (first, last) = (i64::from(day) * 24 - 15, i64::from(day) * 24 + 24 + 15);
        let mut days = self.days();
        (first..=last)
            .map(|hour| hour * MICROS_PER_HOUR)
            .filter(|&micros| days.day_of(micros) == day)
            .map(Period::hour_of)
            .collect()
    }

    /// Returns true if every day since `micros` begins with an hour of UTC, so that an hour belongs to one day.
    pub fn days_are_whole_hours(&self, micros: i64) -> bool {
        let Ok(since) = Timestamp::from_microsecond(micros) else { return false };
        // The database's rules repeat: a century of two changes a year has all of them.
        let changes = self.zone.following(since).take(200);
        let is_whole = |second: i64| second % 3_600 == 0;
        let offset = i64::from(self.zone.to_offset(since).seconds());
        is_whole(offset)
            && changes.into_iter().all(|change| {
                is_whole(i64::from(change.offset().seconds())) && is_whole(change.timestamp().as_second())
            })
    }
}

impl Days<'_> {
    /// Returns the day of a time in microseconds since the Unix epoch.
    #[inline]
    pub fn day_of(&mut self, micros: i64) -> i32 {
        if micros < self.from || micros >= self.until {
            self.look_up(micros);
        }
        // Every i64 of microseconds lies within some 107 million days of the epoch.
        micros.saturating_add(self.offset).div_euclid(MICROS_PER_DAY) as i32
    }

    #[cold]
    fn look_up(&mut self, micros: i64) {
        if self.zone.is_utc {
            return;
        }
        let zone = &self.zone.zone;
        // Times that the calendar does not have are those of no row.
        let (Ok(time), Ok(after)) =
            (Timestamp::from_microsecond(micros), Timestamp::from_microsecond(micros.saturating_add(1)))
        else {
            return;
        };
        self.offset = i64::from(zone.to_offset(time).seconds()) * 1_000_000;
        // Changes are at whole seconds: one before the next microsecond is not after this one.
        let last = zone.preceding(after).next().map(|change| change.timestamp().as_microsecond());
        let next = zone.following(time).next().map(|change| change.timestamp().as_microsecond());
        (self.from, self.until) = (last.unwrap_or(i64::MIN), next.unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zone(name: &str) -> Zone {
        Zone::of(TimeZone::get(name).unwrap())
    }

    proptest! {
        #[test]
        fn days_are_those_of_the_zone_s_clock(
            seconds in prop::collection::vec(946_684_800..4_102_444_800_i64, 1..40),
            name in prop::sample::select(&["UTC", "Europe/Berlin", "Asia/Kolkata", "America/Santiago", "Pacific/Apia"]),
        ) {
            let (zone, jiff) = (zone(name), TimeZone::get(name).unwrap());
            let mut days = zone.days();
            for second in seconds {
                let time = Timestamp::from_second(second).unwrap();
                let date = jiff.to_datetime(time).date().to_string();
                prop_assert_eq!(crate::calendar::date_text(days.day_of(time.as_microsecond())), date);
            }
        }
    }

    #[test]
    fn an_hour_belongs_to_one_day() {
        let day = crate::calendar::parse_date("2026-03-29").unwrap();
        let hours = |name: &str| {
            let hours = zone(name).hours_of(day);
            (hours.len(), hours[0].to_string(), hours.last().unwrap().to_string())
        };
        assert_eq!(hours("UTC"), (24, "2026-03-29T00".into(), "2026-03-29T23".into()));
        assert_eq!(hours("Europe/Berlin"), (23, "2026-03-28T23".into(), "2026-03-29T21".into()), "summer time begins");
        for (name, expected) in
            [("UTC", true), ("Europe/Berlin", true), ("Asia/Kolkata", false), ("Australia/Lord_Howe", false)]
        {
            assert_eq!(zone(name).days_are_whole_hours(946_684_800_000_000), expected, "{name}");
        }
    }
}
