//! Ranges of days: those that are asked for, those that they are compared with, and which of them are over.
//!
//! Pure. Days are those of the definition's zone.

use crate::calendar::{civil_from_days, date_text, days_from_civil, exact_days};

/// Days from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range {
    /// The first day, since the Unix epoch.
    pub from: i32,
    /// The last day.
    pub to: i32,
}

/// The days that a range is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, clap::ValueEnum)]
pub enum Against {
    /// As many days, just before.
    #[default]
    Previous,
    /// The same days of the year before.
    Year,
    /// None.
    None,
}

impl Against {
    /// Its name in questions.
    pub fn name(self) -> &'static str {
        match self {
            Against::Previous => "previous",
            Against::Year => "year",
            Against::None => "none",
        }
    }
}

impl Range {
    /// So many days up to the last one.
    pub fn ending(to: i32, days: u16) -> Self {
        Range { from: to.saturating_sub(i32::from(days).saturating_sub(1)), to }
    }

    /// The days from one day on, up to one, or so many of them; up to the `last` one without an end, and `default` of
    /// them without a beginning. `None` if all three are given, which may contradict each other.
    pub fn asked(from: Option<i32>, to: Option<i32>, days: Option<u16>, last: i32, default: u16) -> Option<Self> {
        Some(match (from, to, days) {
            (Some(_), Some(_), Some(_)) => return None,
            (Some(from), None, Some(days)) => Range { from, to: from.saturating_add(i32::from(days) - 1) },
            (Some(from), to, None) => Range { from, to: to.unwrap_or(last.max(from)) },
            (None, to, days) => Range::ending(to.unwrap_or(last), days.unwrap_or(default)),
        })
    }

    /// True if the end of what is asked for is the last day with rows.
    pub fn ends_with_last(from: bool, to: bool, days: bool) -> bool {
        !(to || from && days)
    }

    /// The number of days.
    pub fn days(self) -> usize {
        usize::try_from(i64::from(self.to) - i64::from(self.from) + 1).unwrap_or(0)
    }

    /// Each day, the earliest first.
    pub fn each(self) -> impl DoubleEndedIterator<Item = i32> + Clone {
        self.from..=self.to
    }

    /// The range moved by so many days.
    #[must_use]
    pub fn moved(self, days: i32) -> Self {
        Range { from: self.from.saturating_add(days), to: self.to.saturating_add(days) }
    }

    /// The days of a comparison: as many as these, so that the first is compared with the first.
    pub fn against(self, against: Against) -> Option<Self> {
        match against {
            Against::None => None,
            Against::Previous => Some(self.moved(-i32::try_from(self.days()).ok()?)),
            Against::Year => {
                let from = year_before(self.from);
                Some(Range { from, to: from.saturating_add(self.to - self.from) })
            }
        }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.from == self.to {
            return f.write_str(&date_text(self.from));
        }
        write!(f, "{} to {}", date_text(self.from), date_text(self.to))
    }
}

/// The same date a year before; the 28th of February for the 29th.
fn year_before(day: i32) -> i32 {
    let (year, month, date) = civil_from_days(day);
    exact_days(year - 1, month, date).unwrap_or_else(|| days_from_civil(year - 1, month, date - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::parse_date;
    use proptest::prelude::*;

    fn range(from: &str, to: &str) -> Range {
        Range { from: parse_date(from).unwrap(), to: parse_date(to).unwrap() }
    }

    proptest! {
        #[test]
        fn a_comparison_has_as_many_days(from in -100_000..100_000_i32, days in 1..400_i32) {
            let range = Range { from, to: from + days - 1 };
            let previous = range.against(Against::Previous).unwrap();
            prop_assert_eq!((previous.days(), previous.to + 1), (range.days(), range.from));
            let year = range.against(Against::Year).unwrap();
            prop_assert_eq!(year.days(), range.days());
            let moved = range.from - year.from;
            prop_assert!((365..=366).contains(&moved), "{}", moved);
            prop_assert_eq!(range.against(Against::None), None);
        }
    }

    #[test]
    fn a_leap_day_is_compared_with_the_day_before_it() {
        assert_eq!(range("2024-02-29", "2024-02-29").against(Against::Year), Some(range("2023-02-28", "2023-02-28")));
        assert_eq!(
            range("2024-05-29", "2024-06-25").against(Against::Previous),
            Some(range("2024-05-01", "2024-05-28"))
        );
        assert_eq!(range("2024-06-25", "2024-06-25").to_string(), "2024-06-25");
        assert_eq!(Range::ending(10, 1), Range { from: 10, to: 10 });
    }
}
