//! Reports: what is counted, and how two counts become one.
//!
//! Pure. A [`Delta`] is what one batch adds to one report item. Merging deltas is commutative and associative, so neither
//! the order of rows nor that of batches changes a figure. Counts and times are integers; distinct counts are Apache
//! DataSketches HLL sketches, whose bytes Java, C++ and Python read too.

use std::collections::BTreeSet;

use datasketches::hash::value::raw_bytes;
use datasketches::hll::{Coupon, HllSketch, HllType, HllUnion};

/// Number of registers of a sketch, as a power of two. 2^14 gives a standard error of 0.8 % and counts exactly, in
/// practice, up to some 1,500 members (below that the sketch keeps the members' hashes). A full sketch takes 8 KiB; one of
/// a hundred members 400 bytes.
pub const SKETCH_LG_K: u8 = 14;

/// Joins several genres in one attribute, as the catalogue joins several artists.
pub const LIST_SEPARATOR: char = ';';

/// Stands for a genre or a country that the catalogue does not tell.
pub const UNKNOWN: &str = "unknown";

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
    /// All of them.
    pub const ALL: [Report; 3] = [Report::Track, Report::Genre, Report::Listener];

    /// Its name in the delta file.
    pub fn name(self) -> &'static str {
        match self {
            Report::Track => "track",
            Report::Genre => "genre",
            Report::Listener => "listener",
        }
    }

    /// Finds it by [`Report::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Report::ALL.into_iter().find(|report| report.name() == name)
    }

    /// Its DynamoDB table, without the prefix.
    pub fn table(self) -> &'static str {
        match self {
            Report::Track => "track_level_reports",
            Report::Genre => "genre_level_reports",
            Report::Listener => "listener_level_reports",
        }
    }

    /// Partition key of the table; the sort key is `report_date`.
    pub fn key_attribute(self) -> &'static str {
        match self {
            Report::Track => "track_id",
            Report::Genre => "track_genre",
            Report::Listener => "user_id",
        }
    }

    /// Attribute of the distinct count.
    pub fn distinct_attribute(self) -> &'static str {
        match self {
            Report::Track | Report::Genre => "unique_users",
            Report::Listener => "unique_tracks",
        }
    }
}

/// Names one report item.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Which report.
    pub report: Report,
    /// The track id, genre or user id.
    pub id: String,
    /// The day, in days since the Unix epoch (UTC).
    pub day: i32,
}

/// A set of which only the size is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Distinct(HllSketch);

/// The hash of a member, made once and used in many sketches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member(Coupon);

impl Member {
    /// A listener, hashed as DataSketches hashes a 64-bit integer in every language.
    pub fn of_user(user_id: i64) -> Self {
        Member(Coupon::from_value(user_id))
    }

    /// A track, hashed as DataSketches hashes a UTF-8 string in every language.
    pub fn of_track(track_id: &str) -> Self {
        Member(Coupon::from_value(raw_bytes::from_str(track_id)))
    }
}

impl Default for Distinct {
    fn default() -> Self {
        match HllSketch::new(SKETCH_LG_K, HllType::Hll4) {
            Ok(sketch) => Distinct(sketch),
            Err(_) => unreachable!("SKETCH_LG_K is within the library's 4 to 21"),
        }
    }
}

impl Distinct {
    /// Adds a member; adding it again changes nothing.
    pub fn insert(&mut self, member: Member) {
        self.0.update_with_coupon(member.0);
    }

    /// Adds another set's members.
    pub fn merge(&mut self, other: &Distinct) {
        if let Ok(mut union) = HllUnion::new(SKETCH_LG_K) {
            union.update(&self.0);
            union.update(&other.0);
            self.0 = union.to_sketch(HllType::Hll4);
        }
    }

    /// How many members. Estimated from the registers alone, so that it does not depend on the order of merges.
    pub fn count(&self) -> u64 {
        self.0.composite_estimate().round() as u64
    }

    /// In DataSketches' serialized form.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.serialize()
    }

    /// From DataSketches' serialized form. The error says what is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let read = |bytes| HllSketch::deserialize(bytes).map_err(|error| format!("not an HLL sketch: {error}"));
        let sketch = read(bytes)?;
        // The library reads some damaged sketches whose like it could not read again once they are written.
        read(&sketch.serialize())?;
        Ok(Distinct(sketch))
    }

    /// Bytes of memory it takes, about.
    pub fn memory_bytes(&self) -> usize {
        std::mem::size_of::<Self>() + self.0.estimated_size()
    }
}

/// What the catalogue says about the item of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The track's name.
    pub track_name: Option<String>,
    /// Its artists.
    pub artists: Option<String>,
    /// Every genre it was counted under.
    pub genres: BTreeSet<String>,
    /// The listener's country.
    pub user_country: Option<String>,
}

impl Attributes {
    /// Takes over what a newer batch says. Genres are kept, as the item was counted under each of them.
    pub fn update(&mut self, newer: Attributes) {
        self.track_name = newer.track_name.or(self.track_name.take());
        self.artists = newer.artists.or(self.artists.take());
        self.user_country = newer.user_country.or(self.user_country.take());
        self.genres.extend(newer.genres);
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
    /// Adds other figures. Commutative and associative.
    pub fn merge(&mut self, other: &Figures) {
        self.listens = self.listens.saturating_add(other.listens);
        self.listening_ms = self.listening_ms.saturating_add(other.listening_ms);
        self.distinct.merge(&other.distinct);
    }
}

/// What one batch adds to one report item.
#[derive(Debug, Clone, PartialEq)]
pub struct Delta {
    /// Which item.
    pub key: Key,
    /// What is added to it.
    pub figures: Figures,
    /// What the catalogue said.
    pub attributes: Attributes,
}

/// Milliseconds as a decimal number of seconds, exact: `1234` is `1.234`, `1000` is `1`.
pub fn seconds_text(milliseconds: u64) -> String {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    if rest == 0 {
        return seconds.to_string();
    }
    format!("{seconds}.{rest:03}").trim_end_matches('0').to_owned()
}

/// The inverse of [`seconds_text`], for any decimal with at most three places.
pub fn parse_seconds(text: &str) -> Option<u64> {
    let (seconds, places) = text.split_once('.').unwrap_or((text, ""));
    if places.len() > 3 || !places.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let rest: u64 = format!("{places:0<3}").parse().ok()?;
    seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(rest)
}

/// Milliseconds a listener, rounded to the nearest.
pub fn average_ms(listening_ms: u64, listeners: u64) -> u64 {
    (listening_ms.saturating_add(listeners / 2)).checked_div(listeners).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
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
            for parts in [vec![&fa, &fb, &fc], vec![&fc, &fa, &fb], vec![&fb, &fc, &fa], vec![&fa, &right], vec![&left, &fc]] {
                prop_assert_eq!(visible(&merged(&parts)), expected);
            }
        }

        #[test]
        fn sketches_survive_their_bytes(users in prop::collection::vec(1..5_000_i64, 0..4_000)) {
            let mut distinct = Distinct::default();
            users.iter().for_each(|&user| distinct.insert(Member::of_user(user)));
            prop_assert_eq!(Distinct::from_bytes(&distinct.to_bytes()).unwrap().count(), distinct.count());
        }

        /// Two members of a small set fall together once in 200 million pairs, so not even this may ask for equality.
        #[test]
        fn small_counts_are_off_by_chance_only(users in prop::collection::hash_set(1..i64::MAX, 0..1000)) {
            let mut distinct = Distinct::default();
            users.iter().for_each(|&user| distinct.insert(Member::of_user(user)));
            prop_assert!((0..=2).contains(&(users.len() as u64 - distinct.count())));
        }

        #[test]
        fn seconds_are_exact(ms in 0..u64::MAX / 2) {
            prop_assert_eq!(parse_seconds(&seconds_text(ms)), Some(ms));
        }

        #[test]
        fn no_bytes_panic_as_a_sketch(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Distinct::from_bytes(&bytes);
        }
    }

    #[test]
    fn counts_are_exact_when_small() {
        let mut distinct = Distinct::default();
        for user in 1..=1000 {
            distinct.insert(Member::of_user(user));
            distinct.insert(Member::of_user(user));
            assert_eq!(distinct.count(), user as u64);
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
    fn seconds_and_averages() {
        assert_eq!(seconds_text(1_230), "1.23");
        assert_eq!(seconds_text(60_000), "60");
        assert_eq!(parse_seconds("1.2345"), None);
        assert_eq!(average_ms(10, 4), 3);
        assert_eq!(average_ms(10, 0), 0);
    }
}
