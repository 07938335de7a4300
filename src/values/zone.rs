//! Time zones, and what a clock in one shows.
//!
//! The rules are those of the IANA time zone database in the version that jiff brings along, so that a time means the
//! same on every machine. They are read once, into a list of offsets. The list ends with the year 2200: later times
//! have the last offset.
//!
//! When clocks are put back, an hour of local times comes twice: such a time is taken for the first of the two. When
//! they are put forward, an hour is left out: a time in it never was, and is no time.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::calendar::MICROS_PER_DAY;

/// 2200-01-01T00:00:00Z, in seconds since the Unix epoch.
const END_OF_RULES: i64 = 7_258_118_400;
/// More than any offset, in microseconds: they reach 26 hours.
const MAX_OFFSET: i64 = 2 * MICROS_PER_DAY;

/// A time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// From each of these times on (UTC), clocks are so far ahead of UTC; all in microseconds. The first is that of any
    /// earlier time. UTC itself has none.
    offsets: Option<Arc<[(i64, i64)]>>,
}

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Zone = Zone { offsets: None };

    /// Finds a zone by its IANA name, such as `Europe/Berlin`, in any letter case. The error names the problem.
    pub fn named(name: &str) -> Result<Self, String> {
        let zone = TimeZoneDatabase::bundled().get(name);
        let zone = zone.map_err(|_| format!("'{name}' is no time zone of the IANA database, like Europe/Berlin"))?;
        Ok(Zone::of(&zone))
    }

    /// Reads the rules of a zone.
    pub fn of(zone: &TimeZone) -> Self {
        let micros = |offset: jiff::tz::Offset| i64::from(offset.seconds()) * 1_000_000;
        let mut offsets = vec![(i64::MIN, micros(zone.to_offset(Timestamp::MIN)))];
        for transition in zone.following(Timestamp::MIN) {
            if transition.timestamp().as_second() >= END_OF_RULES {
                break;
            }
            let offset = micros(transition.offset());
            if offsets.last().is_some_and(|&(_, last)| last != offset) {
                offsets.push((transition.timestamp().as_microsecond(), offset));
            }
        }
        let is_utc = offsets.len() == 1 && offsets[0].1 == 0;
        Zone { offsets: (!is_utc).then(|| offsets.into()) }
    }

    /// Returns the microseconds by which clocks are ahead of UTC at a time in UTC.
    #[inline]
    pub fn offset_at(&self, utc: i64) -> i64 {
        self.offsets
            .as_ref()
            .map_or(0, |offsets| offsets[offsets.partition_point(|&(from, _)| from <= utc).saturating_sub(1)].1)
    }

    /// Returns the time in UTC at which clocks show this date and time, given as the microseconds since the Unix epoch
    /// that it has in UTC; the first of two such times, or `None` if clocks never showed it.
    #[inline]
    pub fn utc_of(&self, local: i64) -> Option<i64> {
        let Some(offsets) = &self.offsets else { return Some(local) };
        // No offset that ended long before can be the one.
        let earliest = local.saturating_sub(MAX_OFFSET);
        let first = offsets.partition_point(|&(from, _)| from <= earliest).saturating_sub(1);
        for (index, &(from, offset)) in offsets.iter().enumerate().skip(first) {
            let utc = local.checked_sub(offset)?;
            let until = offsets.get(index + 1).map_or(i64::MAX, |&(next, _)| next);
            if (from..until).contains(&utc) {
                return Some(utc);
            }
            if from > local.saturating_add(MAX_OFFSET) {
                break;
            }
        }
        None
    }

    /// Returns the time in UTC at which a day begins, whose midnight is given as for [`Zone::utc_of`]. Where clocks
    /// leave midnight out, the day begins with the hour after it.
    pub fn beginning_of(&self, midnight: i64) -> i64 {
        let leaves_out = |changes: &[(i64, i64)]| match changes {
            [(_, before), (from, after)] => {
                let shown = from.saturating_add(*before)..from.saturating_add(*after);
                shown.contains(&midnight).then_some(*from)
            }
            _ => None,
        };
        let left_out = || self.offsets.as_ref()?.windows(2).find_map(leaves_out);
        self.utc_of(midnight).or_else(left_out).unwrap_or(midnight)
    }
}

/// A date and a time of day as a text gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// Microseconds since the Unix epoch if the clock is in UTC.
    pub(super) micros: i64,
    /// Microseconds by which the clock is ahead of UTC, if the text says so.
    pub(super) offset: Option<i64>,
    /// The text has the sixtieth second of a minute, which is counted as the second after it.
    pub(super) is_leap_second: bool,
}

impl Reading {
    /// Returns the reading of midnight on January 1, 1970, plus this time of day, or `None` if no clock shows it.
    /// `24:00:00` is the midnight after.
    pub(super) fn of_day(hour: i64, minute: i64, second: i64, fraction_micros: i64) -> Option<Self> {
        let is_leap_second = second == 60;
        let exists = match (hour, minute, second) {
            (24, 0, 0) => fraction_micros == 0,
            _ => (0..=23).contains(&hour) && (0..=59).contains(&minute) && (0..=60).contains(&second),
        };
        let micros = (hour * 3600 + minute * 60 + second) * 1_000_000 + fraction_micros;
        exists.then_some(Reading { micros, offset: None, is_leap_second })
    }

    /// Returns the time in UTC, in microseconds since the Unix epoch. A reading that does not say its offset is in this
    /// zone.
    #[inline]
    pub(super) fn in_zone(self, zone: &Zone) -> Option<i64> {
        let utc = match self.offset {
            Some(offset) => self.micros.checked_sub(offset)?,
            None => zone.utc_of(self.micros)?,
        };
        // A leap second is followed by the first second of a day.
        (!self.is_leap_second || utc.rem_euclid(MICROS_PER_DAY) < 1_000_000).then_some(utc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::DateTime;
    use jiff::tz::AmbiguousOffset;
    use proptest::prelude::*;

    /// Zones with every oddity: half and quarter hours, half an hour of summer time, a day left out, two changes within
    /// a month, offsets below minutes long ago, summer time before and behind the equator, none.
    const NAMES: [&str; 12] = [
        "UTC",
        "Europe/Berlin",
        "Europe/Dublin",
        "America/New_York",
        "America/Sao_Paulo",
        "Asia/Kolkata",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Pacific/Kiritimati",
        "Africa/Casablanca",
        "America/St_Johns",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Any second of 300 years, and seconds around the changes of offsets.
        #[test]
        fn zones_agree_with_the_library_s_own_conversions(
            name in prop::sample::select(NAMES.to_vec()), any in -4_000_000_000..7_200_000_000_i64,
            at_change in any::<bool>(), near in -100_000..100_000_i64,
        ) {
            let (zone, theirs) = (Zone::named(name).unwrap(), TimeZoneDatabase::bundled().get(name).unwrap());
            let any = Timestamp::from_second(any).unwrap();
            let change = theirs.following(any).next().map(|change| change.timestamp()).filter(|_| at_change);
            let second = change.map_or(any.as_second(), |change| change.as_second() + near).min(END_OF_RULES - 100_000);
            let time = Timestamp::from_second(second).unwrap();
            let offset = i64::from(theirs.to_offset(time).seconds());
            prop_assert_eq!(zone.offset_at(second * 1_000_000), offset * 1_000_000);

            // The same number as a clock's reading.
            let civil: DateTime = jiff::tz::Offset::UTC.to_datetime(time);
            let expected = match theirs.to_ambiguous_timestamp(civil).offset() {
                AmbiguousOffset::Unambiguous { offset } => Some(offset),
                AmbiguousOffset::Fold { before, .. } => Some(before),
                AmbiguousOffset::Gap { .. } => None,
            };
            let expected = expected.map(|offset| (second - i64::from(offset.seconds())) * 1_000_000);
            prop_assert_eq!(zone.utc_of(second * 1_000_000), expected);
        }

        #[test]
        fn no_time_is_beyond_a_zone(name in prop::sample::select(NAMES.to_vec()), micros in any::<i64>()) {
            let zone = Zone::named(name).unwrap();
            let _ = (zone.offset_at(micros), zone.utc_of(micros));
        }
    }

    #[test]
    fn a_time_that_comes_twice_is_the_first_and_one_that_is_left_out_is_none() {
        let berlin = Zone::named("europe/berlin").unwrap();
        let utc = |text: &str| text.parse::<Timestamp>().unwrap().as_microsecond();
        let local = |text: &str| utc(&format!("{text}Z"));
        assert_eq!(berlin.utc_of(local("2024-07-01T12:00:00")), Some(utc("2024-07-01T10:00:00Z")));
        assert_eq!(berlin.utc_of(local("2024-10-27T02:30:00")), Some(utc("2024-10-27T00:30:00Z")));
        assert_eq!(berlin.utc_of(local("2024-03-31T02:30:00")), None);
        assert_eq!(berlin.utc_of(local("2024-03-31T03:00:00")), Some(utc("2024-03-31T01:00:00Z")));
        let midnight = local("2018-11-04T00:00:00");
        let sao_paulo = Zone::named("America/Sao_Paulo").unwrap();
        assert_eq!((sao_paulo.utc_of(midnight), sao_paulo.beginning_of(midnight)), (None, utc("2018-11-04T03:00:00Z")));
        assert_eq!(berlin.beginning_of(local("2024-07-01T00:00:00")), utc("2024-06-30T22:00:00Z"));
        let told = Zone::named("Europe/Atlantis").unwrap_err();
        assert_eq!(told, "'Europe/Atlantis' is no time zone of the IANA database, like Europe/Berlin");
    }
}
