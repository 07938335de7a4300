//! Figures: the contents of the reports, and how two sets of figures become one.
//!
//! Pure. A [`Delta`] is one batch's contribution to one report item. Merging is commutative and associative, so neither
//! the order of rows nor that of batches changes a figure. Counts and times are integers; distinct counts are sketches
//! ([`crate::reports::distinct`]).

use std::collections::BTreeSet;

use crate::reports::distinct::Distinct;

/// Separator of several genres in one attribute, the same as that of several artists in the catalogue.
pub const LIST_SEPARATOR: char = ';';

/// Placeholder for a genre or a country that is not in the catalogue.
pub const UNKNOWN: &str = "unknown";

/// The most genres that an item keeps. A track has at most [`crate::reference::catalogue::MAX_GENRES`] at a time, and
/// gets others when the catalogue changes. The item names all of them and must stay far below DynamoDB's 400 KB, and it
/// is offered to the top list of each.
pub const MAX_GENRES: usize = 200;

/// The three reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Report {
    /// By `track_id`.
    Track,
    /// By `track_genre`.
    Genre,
    /// By `user_id`.
    Listener,
}

impl Report {
    /// All reports.
    pub const ALL: [Report; 3] = [Report::Track, Report::Genre, Report::Listener];

    /// The report's name in delta files.
    pub fn name(self) -> &'static str {
        match self {
            Report::Track => "track",
            Report::Genre => "genre",
            Report::Listener => "listener",
        }
    }

    /// Finds a report by its [`Report::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Report::ALL.into_iter().find(|report| report.name() == name)
    }

    /// The name of its DynamoDB table, without the prefix.
    pub fn table(self) -> &'static str {
        match self {
            Report::Track => "track_level_reports",
            Report::Genre => "genre_level_reports",
            Report::Listener => "listener_level_reports",
        }
    }

    /// The partition key of its table; the sort key is `report_date`.
    pub fn key_attribute(self) -> &'static str {
        match self {
            Report::Track => "track_id",
            Report::Genre => "track_genre",
            Report::Listener => "user_id",
        }
    }

    /// The attribute of the distinct count.
    pub fn distinct_attribute(self) -> &'static str {
        match self {
            Report::Track | Report::Genre => "unique_users",
            Report::Listener => "unique_tracks",
        }
    }
}

/// The key of one report item.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The report.
    pub report: Report,
    /// The track id, genre or user id.
    pub id: String,
    /// The day, in days since the Unix epoch (UTC).
    pub day: i32,
}

/// Descriptive attributes of a report item, from the catalogue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The track's name.
    pub track_name: Option<String>,
    /// Its artists.
    pub artists: Option<String>,
    /// Every genre it was counted under, up to [`MAX_GENRES`].
    pub genres: BTreeSet<String>,
    /// The listener's country.
    pub user_country: Option<String>,
}

impl Attributes {
    /// Takes over the attributes of a newer batch. Genres are only added, as the item was counted under each of them.
    pub fn update(&mut self, newer: Attributes) {
        self.track_name = newer.track_name.or(self.track_name.take());
        self.artists = newer.artists.or(self.artists.take());
        self.user_country = newer.user_country.or(self.user_country.take());
        self.add_genres(newer.genres);
    }

    /// Takes over the attributes of an older batch where none are known, and adds its genres.
    pub fn complete(&mut self, older: Attributes) {
        self.track_name = self.track_name.take().or(older.track_name);
        self.artists = self.artists.take().or(older.artists);
        self.user_country = self.user_country.take().or(older.user_country);
        self.add_genres(older.genres);
    }

    /// Adds genres as far as there is room. Existing ones stay, as the item is in their top lists. A genre's own
    /// figures count the track in any case.
    fn add_genres(&mut self, genres: BTreeSet<String>) {
        for genre in genres {
            if self.genres.len() >= MAX_GENRES {
                return;
            }
            self.genres.insert(genre);
        }
    }
}

/// The additive part of a report item.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Rows counted.
    pub listens: u64,
    /// Sum of the tracks' durations, in milliseconds.
    pub listening_ms: u64,
    /// The listeners of a track or genre, the tracks of a listener.
    pub distinct: Distinct,
}

impl Figures {
    /// Adds other figures. The operation is commutative and associative.
    pub fn merge(&mut self, other: &Figures) {
        self.listens = self.listens.saturating_add(other.listens);
        self.listening_ms = self.listening_ms.saturating_add(other.listening_ms);
        self.distinct.merge(&other.distinct);
    }
}

/// One batch's contribution to one report item.
#[derive(Debug, Clone, PartialEq)]
pub struct Delta {
    /// The item.
    pub key: Key,
    /// The figures to add.
    pub figures: Figures,
    /// The attributes at the time of the batch.
    pub attributes: Attributes,
}

/// Formats milliseconds as an exact decimal number of seconds: `1234` is `1.234`, `1000` is `1`.
pub fn seconds_text(milliseconds: u64) -> String {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    if rest == 0 {
        return seconds.to_string();
    }
    format!("{seconds}.{rest:03}").trim_end_matches('0').to_owned()
}

/// Parses seconds with at most three decimal places into milliseconds: the inverse of [`seconds_text`].
pub fn parse_seconds(text: &str) -> Option<u64> {
    let (seconds, places) = text.split_once('.').unwrap_or((text, ""));
    if places.len() > 3 || !places.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let rest: u64 = format!("{places:0<3}").parse().ok()?;
    seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(rest)
}

/// Milliseconds per listener, rounded to the nearest; 0 without listeners.
pub fn average_ms(listening_ms: u64, listeners: u64) -> u64 {
    (listening_ms.saturating_add(listeners / 2)).checked_div(listeners).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::distinct::Member;
    use proptest::prelude::*;

    fn figures(rows: &[(i64, u16)]) -> Figures {
        let mut figures = Figures::default();
        for &(user, ms) in rows {
            figures.listens += 1;
            figures.listening_ms += u64::from(ms);
            figures.distinct.insert(Member::of_user(user));
        }
        figures
    }

    fn visible(figures: &Figures) -> (u64, u64, u64) {
        (figures.listens, figures.listening_ms, figures.distinct.count())
    }

    fn merged(parts: &[&Figures]) -> Figures {
        let mut all = Figures::default();
        parts.iter().for_each(|part| all.merge(part));
        all
    }

    fn rows() -> impl Strategy<Value = Vec<(i64, u16)>> {
        prop::collection::vec((1..500_i64, any::<u16>()), 0..300)
    }

    proptest! {
        #[test]
        fn merging_is_commutative_and_associative(a in rows(), b in rows(), c in rows()) {
            let (fa, fb, fc) = (figures(&a), figures(&b), figures(&c));
            let expected = visible(&figures(&[a, b, c].concat()));
            let right = merged(&[&fb, &fc]);
            let left = merged(&[&fa, &fb]);
            let orders = [vec![&fa, &fb, &fc], vec![&fc, &fa, &fb], vec![&fb, &fc, &fa]];
            let pairs = [vec![&fa, &right], vec![&left, &fc]];
            for parts in orders.into_iter().chain(pairs) {
                prop_assert_eq!(visible(&merged(&parts)), expected);
            }
        }

        #[test]
        fn seconds_are_exact(ms in 0..u64::MAX / 2) {
            prop_assert_eq!(parse_seconds(&seconds_text(ms)), Some(ms));
        }
    }

    #[test]
    fn large_sets_merge_in_any_order_to_one_estimate_within_two_per_cent() {
        let sets: Vec<_> = (0..4)
            .map(|part| figures(&(part * 15_000..part * 15_000 + 30_000).map(|user| (user + 1, 1)).collect::<Vec<_>>()))
            .collect();
        let forwards = merged(&sets.iter().collect::<Vec<_>>());
        let backwards = merged(&sets.iter().rev().collect::<Vec<_>>());
        assert_eq!(visible(&forwards), visible(&backwards));
        let distinct = 75_000_f64;
        let error = (forwards.distinct.count() as f64 - distinct).abs() / distinct;
        assert!(error < 0.02, "off by {error}");
        assert!(forwards.distinct.to_bytes().len() < 9_000);
    }

    #[test]
    fn an_item_keeps_the_genres_it_was_counted_under_first() {
        let genres = |numbers: std::ops::Range<usize>| Attributes {
            genres: numbers.map(|number| format!("{number:04}")).collect(),
            ..Attributes::default()
        };
        for take_over in [Attributes::update, Attributes::complete] {
            let mut attributes = genres(1000..1150);
            take_over(&mut attributes, genres(0..100));
            take_over(&mut attributes, genres(2000..2100));
            assert_eq!(attributes.genres.len(), MAX_GENRES);
            assert!(genres(1000..1150).genres.is_subset(&attributes.genres));
            assert!(attributes.genres.contains("0049") && !attributes.genres.contains("0050"));
        }
    }

    #[test]
    fn seconds_and_averages() {
        assert_eq!(seconds_text(1_230), "1.23");
        assert_eq!(seconds_text(60_000), "60");
        assert_eq!(parse_seconds("1.2345"), None);
        assert_eq!(average_ms(10, 4), 3);
        assert_eq!(average_ms(10, 0), 0);
    }
}
