//! Cleansing: the rules for good rows, and the reasons for rejected ones.
//!
//! Pure. A row is good if it has as many fields as the header, `user_id` is a positive integer, `track_id` is 1 to 64
//! visible ASCII characters, and `listen_time` is a time of ISO 8601 from 2000-01-01 to one day in the future. Nothing
//! is trimmed, guessed or repaired: any other row is rejected with its reason, and the original file is kept.

use std::fmt;

use crate::calendar::MICROS_PER_DAY;
use crate::formats::csv::find_columns;
use crate::reference::ids::{parse_track_id, parse_user_id};
use crate::values::iso::parse_time;
use crate::values::zone::Zone;

/// Furthest `listen_time` in the future, in microseconds: clocks of players are wrong by time zones more often than by
/// years.
pub const MAX_FUTURE_MICROS: i64 = MICROS_PER_DAY;

/// 2000-01-01T00:00:00Z in microseconds since the Unix epoch: no listening event is older.
pub const EARLIEST_MICROS: i64 = 946_684_800 * 1_000_000;

/// Most columns of a listening file: each of them takes memory for each row.
pub const MAX_COLUMNS: usize = 4096;

/// The required columns of a listening file, in the order of the indices of [`Columns`].
pub const REQUIRED_COLUMNS: [&str; 3] = ["user_id", "track_id", "listen_time"];

/// A good row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// The listener; positive.
    pub user_id: i64,
    /// The track, visible ASCII.
    pub track_id: &'a str,
    /// The time of listening, in microseconds since the Unix epoch, UTC.
    pub listen_time: i64,
}

/// A reason why a row is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The number of fields differs from the header's.
    WrongWidth {
        /// Fields found.
        fields: usize,
        /// Fields of the header.
        expected: usize,
    },
    /// Text follows the quote that closes a field.
    Quotes,
    /// A required field is empty.
    Missing(&'static str),
    /// `user_id` is not a positive integer of at most 63 bits.
    UserId,
    /// `track_id` is not 1 to 64 visible ASCII characters.
    TrackId,
    /// `listen_time` is neither `YYYY-MM-DD HH:MM:SS` nor ISO 8601, or no such time exists.
    ListenTime,
    /// `listen_time` lies before 2000-01-01 or more than a day in the future.
    ListenTimeRange,
}

impl Rejection {
    /// Returns the reason in a word: the label of a metric.
    pub fn kind(&self) -> &'static str {
        match self {
            Rejection::WrongWidth { .. } => "width",
            Rejection::Quotes => "quotes",
            Rejection::Missing(_) => "missing",
            Rejection::UserId => "user_id",
            Rejection::TrackId => "track_id",
            Rejection::ListenTime => "listen_time",
            Rejection::ListenTimeRange => "listen_time_range",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejection::WrongWidth { fields, expected } => write!(f, "{fields} fields, the header has {expected}"),
            Rejection::Quotes => f.write_str("text follows the quote that closes a field"),
            Rejection::Missing(field) => write!(f, "{field} is empty"),
            Rejection::UserId => f.write_str("user_id is not a positive integer"),
            Rejection::TrackId => f.write_str("track_id is not 1 to 64 visible ASCII characters"),
            Rejection::ListenTime => {
                f.write_str("listen_time is not a time like 2024-06-25 17:43:13 or 2024-06-25T17:43:13Z")
            }
            Rejection::ListenTimeRange => {
                f.write_str("listen_time is before 2000-01-01 or more than a day in the future")
            }
        }
    }
}

/// The positions of the required columns in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    indices: [usize; 3],
    width: usize,
}

impl Columns {
    /// Finds the columns by name, in any order and letter case, among others. The error names missing and repeated
    /// ones.
    pub fn from_header<'a>(header: impl Iterator<Item = &'a [u8]> + Clone) -> Result<Self, String> {
        let found = find_columns(header.clone(), &REQUIRED_COLUMNS, |_| false)?;
        Columns::new([0, 1, 2].map(|index| found[index].unwrap_or_default()), header.count())
    }

    /// Returns the columns at these positions of a header of `width` columns. The error says that there are too many.
    pub fn new(indices: [usize; 3], width: usize) -> Result<Self, String> {
        if width > MAX_COLUMNS {
            return Err(format!("the header has {width} columns, and at most {MAX_COLUMNS} are read"));
        }
        Ok(Columns { indices, width })
    }

    /// Returns the number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns true if the file has exactly the required columns in their usual order.
    pub fn are_the_required_ones(&self) -> bool {
        (self.indices, self.width) == ([0, 1, 2], 3)
    }

    /// Judges one record of `fields` fields. `now` is in microseconds since the Unix epoch.
    pub fn cleanse<'a>(
        &self,
        fields: usize,
        field: impl Fn(usize) -> &'a [u8],
        now: i64,
    ) -> Result<Row<'a>, Rejection> {
        if fields != self.width {
            return Err(Rejection::WrongWidth { fields, expected: self.width });
        }
        let [user_id, track_id, listen_time] = self.indices.map(field);
        for (value, name) in [user_id, track_id, listen_time].into_iter().zip(REQUIRED_COLUMNS) {
            if value.is_empty() {
                return Err(Rejection::Missing(name));
            }
        }
        let user_id = parse_user_id(user_id).ok_or(Rejection::UserId)?;
        let track_id = parse_track_id(track_id).ok_or(Rejection::TrackId)?;
        let listen_time = parse_time(listen_time, &Zone::UTC).ok_or(Rejection::ListenTime)?;
        if !is_in_range(listen_time, now) {
            return Err(Rejection::ListenTimeRange);
        }
        Ok(Row { user_id, track_id, listen_time })
    }
}

/// Returns true if a listening event can have happened at this time, as seen from `now`.
#[inline]
pub fn is_in_range(listen_time: i64, now: i64) -> bool {
    (EARLIEST_MICROS..=now.saturating_add(MAX_FUTURE_MICROS)).contains(&listen_time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::reference::ids::MAX_TRACK_ID_CHARS;

    const NOW: i64 = 1_767_225_600_000_000; // 2026-01-01T00:00:00Z

    fn header(names: &[&str]) -> Result<Columns, String> {
        Columns::from_header(names.iter().map(|name| name.as_bytes()))
    }

    fn cleanse<'a>(fields: &[&'a str]) -> Result<Row<'a>, Rejection> {
        header(&REQUIRED_COLUMNS).unwrap().cleanse(fields.len(), |index| fields[index].as_bytes(), NOW)
    }

    #[test]
    fn columns_are_found_by_name() {
        assert_eq!(
            header(&["listen_time", "x", "User_ID", " track_id "]).unwrap(),
            Columns { indices: [2, 3, 0], width: 4 }
        );
        assert_eq!(header(&["user_id", "x"]).unwrap_err(), "the header lacks the columns track_id, listen_time");
        assert_eq!(header(&["user_id", "track_id", "track_id"]).unwrap_err(), "the header names column track_id twice");
    }

    #[test]
    fn good_rows() {
        let row = Row { user_id: 7, track_id: "abc", listen_time: 1_719_337_393_000_000 };
        assert_eq!(cleanse(&["7", "abc", "2024-06-25 17:43:13"]), Ok(row));
        for same in [
            "2024-06-25T17:43:13",
            "2024-06-25T17:43:13Z",
            "2024-06-25T17:43:13.000Z",
            "2024-06-25T19:43:13+02:00",
            "2024-06-25T10:13:13-0730",
            "2024-06-26T00:43:13+07",
            "2024-06-25 17:43:13.000000999",
            "2024-06-25T17:43:13,0Z",
            "20240625T174313Z",
            "20240625 17:43:13",
            "2024-W26-2T17:43:13Z",
            "2024W262T174313Z",
            "2024-177T17:43:13Z",
            "2024177T194313+0200",
        ] {
            assert_eq!(cleanse(&["7", "abc", same]), Ok(row), "{same}");
        }
        for (text, same) in [
            ("2024-06-25T17:43Z", "2024-06-25 17:43:00"),
            ("2024-06-25 1743", "2024-06-25 17:43:00"),
            ("2024-06-25T24:00:00Z", "2024-06-26 00:00:00"),
            ("2024-06-25T24:00+01:00", "2024-06-25 23:00:00"),
            ("2016-12-31T23:59:60Z", "2017-01-01 00:00:00"),
            ("2017-01-01T00:59:60.25+01:00", "2017-01-01 00:00:00.25"),
            ("2020-W53-7T00:00Z", "2021-01-03 00:00:00"),
            ("2024-366T00:00Z", "2024-12-31 00:00:00"),
        ] {
            assert_eq!(cleanse(&["7", "abc", text]), cleanse(&["7", "abc", same]), "{text}");
            assert!(cleanse(&["7", "abc", text]).is_ok(), "{text}");
        }
        assert_eq!(cleanse(&["7", "abc", "2024-06-25 17:43:13.5"]).unwrap().listen_time, row.listen_time + 500_000);
        for zeros in [1, 12, 18, 19, 300] {
            assert_eq!(
                cleanse(&[&format!("{}7", "0".repeat(zeros)), "abc", "2024-06-25 17:43:13"]),
                Ok(row),
                "{zeros}"
            );
        }
        let longest = "x".repeat(MAX_TRACK_ID_CHARS);
        assert_eq!(cleanse(&["9223372036854775807", &longest, "2000-01-01 00:00:00"]).unwrap().user_id, i64::MAX);
        assert!(cleanse(&["7", "abc", "2026-01-02 00:00:00"]).is_ok());
    }

    #[test]
    fn bad_rows_say_why() {
        let time = "2024-06-25 17:43:13";
        assert_eq!(cleanse(&["7", "abc"]), Err(Rejection::WrongWidth { fields: 2, expected: 3 }));
        assert_eq!(cleanse(&["", "abc", time]), Err(Rejection::Missing("user_id")));
        assert_eq!(cleanse(&["7", "", time]), Err(Rejection::Missing("track_id")));
        assert_eq!(cleanse(&["7", "abc", ""]), Err(Rejection::Missing("listen_time")));
        for user_id in ["0", "000", "-1", "+1", "1.0", " 1", "x", "9223372036854775808", "99999999999999999999", "0x7"]
        {
            assert_eq!(cleanse(&[user_id, "abc", time]), Err(Rejection::UserId), "{user_id}");
        }
        let too_long = "x".repeat(MAX_TRACK_ID_CHARS + 1);
        for track_id in ["a b", "ä", "a\tb", "\u{7f}", &too_long] {
            assert_eq!(cleanse(&["7", track_id, time]), Err(Rejection::TrackId), "{track_id}");
        }
        for time in [
            "2024-06-25",
            "25.06.2024 17:43:13",
            "2024-02-30 00:00:00",
            "2023-02-29 00:00:00",
            "2024-13-01 00:00:00",
            "2024-06-25 24:00:01",
            "2024-06-25 24:00:00.5",
            "2024-06-25 25:00:00",
            "2024-06-25 23:60:00",
            "2024-06-25 23:58:60",
            "2024-06-25 17:59:60",
            "2024-06-25 23:59:61",
            "2024-06-25 17",
            "2024-06-25 17:4",
            "2024-06-25 17:4313",
            "2024-06-25 1743:13",
            "2024-W54-1 00:00:00",
            "2024-W53-1 00:00:00",
            "2024-W26-8 00:00:00",
            "2024-W00-1 00:00:00",
            "2023-366 00:00:00",
            "2024-000 00:00:00",
            "20240230 00:00:00",
            "2024-0625 00:00:00",
            "202406-25 00:00:00",
            "24-06-25 00:00:00",
            "1719337393",
            "2024-06-25 17:43:13.",
            "2024-06-25 17:43:13.1234567890",
            "2024-06-25 17:43:13+2",
            "2024-06-25 17:43:13 UTC",
            "2024-06-25 17:43:13+25:00",
            "2024/06/25 17:43:13",
            "+024-06-25 17:43:13",
        ] {
            assert_eq!(cleanse(&["7", "abc", time]), Err(Rejection::ListenTime), "{time}");
        }
        for time in ["1999-12-31 23:59:59", "2026-01-02 00:00:01", "0001-01-01 00:00:00", "9999-12-31 23:59:59"] {
            assert_eq!(cleanse(&["7", "abc", time]), Err(Rejection::ListenTimeRange), "{time}");
        }
    }

    proptest! {

        #[test]
        fn no_field_panics(field in prop::collection::vec(any::<u8>(), 0..40)) {
            let fields = [b"7".as_slice(), b"abc", &field];
            let _ = header(&REQUIRED_COLUMNS).unwrap().cleanse(3, |index| fields[index], NOW);
            parse_user_id(&field);
        }
    }
}
