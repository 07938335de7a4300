//! Plain lines: canonical lines without splitting, and others split at commas ([`crate::input::block`]).
//!
//! Pure. Covered by the tests of [`crate::input`].

use std::ops::Range;

use memchr::{memchr, memchr_iter};

use crate::calendar::MICROS_PER_DAY;
use crate::formats::csv::Line;
use crate::input::block::Parser;
use crate::input::cleanse::is_in_range;
use crate::input::rejects::SHOWN;
use crate::reference::catalogue::CANONICAL_TRACK_ID_BYTES;
use crate::values::iso::{parse_time, time_of_day};
use crate::values::zone::Zone;

impl Parser<'_> {
    pub(super) fn plain(&mut self, text: &[u8]) {
        // A row takes about 48 bytes.
        let rows = text.len() / 40;
        self.parsed.tracks.reserve(rows);
        self.parsed.users.reserve(rows);
        self.parsed.times.reserve(rows);
        let canonical = self.block.columns.are_the_required_ones() && !self.catalogue.has_commas_in_track_ids();
        let mut fields = Vec::new();
        let (mut at, mut line) = (0, self.block.csv.first_line());
        while at < text.len() {
            let length = if canonical { self.canonical(&text[at..]) } else { None };
            at += length.unwrap_or_else(|| {
                let rest = &text[at..];
                let length = memchr(b'\n', rest).unwrap_or(rest.len());
                self.line(&rest[..length], line, &mut fields);
                length + 1
            });
            line += 1;
        }
    }

    /// Takes a canonical line at the start of the text. Returns its length with the line feed, or `None` if the line is
    /// not canonical.
    fn canonical(&mut self, text: &[u8]) -> Option<usize> {
        let (user_id, digits) = leading_number(text)?;
        let track_at = digits + 1;
        let time_at = track_at + CANONICAL_TRACK_ID_BYTES + 1;
        let track_id = text.get(track_at..)?.first_chunk()?;
        let time = text.get(time_at..time_at + CANONICAL_TIME_BYTES + 1)?;
        if text[time_at - 1] != b',' || time[CANONICAL_TIME_BYTES] != b'\n' {
            return None;
        }
        // This comes before the date is kept: a time outside its day, such as 24:00:00, has the date of another day.
        let of_day = time_of_day(time[11..].first_chunk()?)?;
        if time[..self.date.len()] != self.date {
            self.midnight = parse_time(&time[..CANONICAL_TIME_BYTES], &Zone::UTC)?.div_euclid(MICROS_PER_DAY) * MICROS_PER_DAY;
            self.date.copy_from_slice(&time[..11]);
        }
        let listen_time = self.midnight + of_day;
        if !is_in_range(listen_time, self.block.judged_at) {
            return None;
        }
        let track = self.catalogue.find_canonical_song(track_id)?;
        let user = self.user_code(user_id);
        self.push(track, user, listen_time);
        Some(time_at + CANONICAL_TIME_BYTES + 1)
    }

    /// Splits a plain line.
    fn line(&mut self, line: &[u8], number: u64, fields: &mut Vec<Range<usize>>) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // An empty line is no record, as in every CSV.
        if line.is_empty() {
            return;
        }
        fields.clear();
        let (mut count, mut start) = (1, 0);
        let needed = self.block.columns.width().max(SHOWN.1);
        for end in memchr_iter(b',', line) {
            // Of a line with too many fields, only their number is needed.
            if count <= needed {
                fields.push(start..end);
            }
            count += 1;
            start = end + 1;
        }
        fields.push(start..line.len());
        let place = Line { number, lines: 1, is_malformed: false };
        self.add(place, count, |index| fields.get(index).map_or(&[][..], |range| &line[range.clone()]));
    }
}

/// Length of `YYYY-MM-DD HH:MM:SS`.
const CANONICAL_TIME_BYTES: usize = 19;
/// Number of digits that never overflow an `i64`.
const MAX_CANONICAL_DIGITS: usize = 18;

/// Returns the positive number before the first comma, and the number of its digits.
fn leading_number(text: &[u8]) -> Option<(i64, usize)> {
    let mut value = 0_i64;
    for (digits, &byte) in text.iter().take(MAX_CANONICAL_DIGITS + 1).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return (byte == b',' && value > 0).then_some((value, digits));
        }
        // The loop ends at the nineteenth digit, so that 18 digits are taken at most.
        value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
    }
    None
}
