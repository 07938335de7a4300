//! Blocks of a listening file: from text to rows in codes, the one place where every byte of input is looked at.
//!
//! A block is some hundred kilobytes of whole records. Blocks are independent of each other, so that several cores parse them at
//! once; what is new in one, a track or a listener that the catalogue lacks, is numbered within the block and gets its
//! code when the block is taken up, in order ([`crate::compute::aggregate::Rows::append`]).
//!
//! There are three ways through, from fast to general, and they give the same rows for every input (the tests compare them):
//!
//! 1. **Canonical lines** of plain text, `17,5SuOikwiRyPMVoIQDJUgSV,2024-06-25 17:43:13`, are not even split: where the
//!    catalogue has the 22 bytes after the first comma as a track, and a well-formed time stands between the next comma and a
//!    line feed, no delimiter can have been overlooked.
//! 2. **Plain lines**, in a block without quote and carriage return, are split at every comma.
//! 3. **Records** are what csv-async makes of everything else ([`crate::formats::csv`]).
//!
//! docs/adr/0011-compute-path.md has the measurements.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;
use memchr::{memchr, memchr_iter};

use crate::calendar::MICROS_PER_DAY;
use crate::formats::csv::{self, Line};
use crate::input::cleanse::{self, Columns, Rejection, Row};
use crate::object::ObjectId;
use crate::reference::catalogue::{CANONICAL_TRACK_ID_BYTES, Catalogue};

/// Longest field that is shown of a rejected row, in bytes, and how many fields are.
const SHOWN: (usize, usize) = (256, 32);
/// Rejected rows of an object that are listed, and bytes of that list.
pub const MAX_LISTED: (usize, usize) = (10_000, 4 << 20);
/// Marks the number of a track or listener that is new in the block.
const NEW: u32 = 1 << 31;

/// A part of a listening file.
#[derive(Debug)]
pub struct Block {
    csv: csv::Block,
    columns: Columns,
    judged_at: i64,
}

/// The rows of a block, in codes of the catalogue or numbers of its own.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Rows, good and rejected.
    pub rows: u64,
    /// Rejected rows, by [`Rejection::kind`].
    pub rejected: BTreeMap<&'static str, u64>,
    pub(crate) tracks: Vec<u32>,
    pub(crate) users: Vec<u32>,
    pub(crate) times: Vec<i64>,
    pub(crate) new_tracks: Vec<Arc<str>>,
    pub(crate) new_users: Vec<i64>,
    /// The first of the rejected rows, as many as may be listed of an object.
    pub rejects: Rejects,
}

/// Rejected rows with their reasons, as they came.
#[derive(Debug, Default)]
pub struct Rejects {
    rows: Vec<Reject>,
    /// Where each field ends in the text.
    ends: Vec<usize>,
    text: Vec<u8>,
}

#[derive(Debug)]
struct Reject {
    line: Line,
    rejection: Rejection,
    /// Where its fields end among those of all rows.
    last_field: usize,
}

impl Rejects {
    fn add<'r>(&mut self, line: Line, rejection: Rejection, fields: impl Iterator<Item = &'r [u8]>) {
        if self.rows.len() >= MAX_LISTED.0 || self.text.len() >= MAX_LISTED.1 {
            return;
        }
        for field in fields.take(SHOWN.1) {
            self.text.extend_from_slice(&field[..field.len().min(SHOWN.0)]);
            self.ends.push(self.text.len());
        }
        self.rows.push(Reject { line, rejection, last_field: self.ends.len() });
    }

    /// Each row as a line of JSON, with its reason.
    pub fn lines(&self, object: &ObjectId) -> impl Iterator<Item = (Rejection, Vec<u8>)> {
        let (mut field, mut start) = (0, 0);
        self.rows.iter().map(move |&Reject { line, rejection, last_field }| {
            let fields: Vec<_> = self.ends[field..last_field]
                .iter()
                .map(|&end| String::from_utf8_lossy(&self.text[std::mem::replace(&mut start, end)..end]))
                .collect();
            field = last_field;
            let mut reject = serde_json::json!({
                "object": object.key, "version": object.version, "line": line.number, "reason": rejection.to_string(),
                "fields": fields,
            });
            if line.lines > 1 {
                reject["lines"] = line.lines.into();
            }
            (rejection, format!("{reject}\n").into_bytes())
        })
    }
}

impl Parsed {
    /// The position among the block's new tracks or listeners that a code stands for.
    pub(crate) fn new_position(code: u32) -> Option<usize> {
        (code & NEW != 0).then_some((code & !NEW) as usize)
    }
}

impl Block {
    /// A block of a file with these columns.
    pub(crate) fn new(csv: csv::Block, columns: Columns, judged_at: i64) -> Self {
        Block { csv, columns, judged_at }
    }

    /// Judges every row and finds its codes.
    pub fn parse(&self, catalogue: &Catalogue) -> Parsed {
        let mut parser = Parser {
            block: self,
            catalogue,
            parsed: Parsed::default(),
            new_tracks: HashMap::default(),
            new_users: HashMap::default(),
            date: [0; 11],
            midnight: 0,
        };
        if self.csv.is_plain() {
            parser.plain(self.csv.text());
        } else {
            let mut records = self.csv.records();
            while let Some(line) = records.advance() {
                let record = records.record();
                parser.add(line, record.len(), |index| record.get(index).unwrap_or_default());
            }
        }
        parser.parsed
    }
}

struct Parser<'a> {
    block: &'a Block,
    catalogue: &'a Catalogue,
    parsed: Parsed,
    new_tracks: HashMap<Arc<str>, u32, RandomState>,
    new_users: HashMap<i64, u32, RandomState>,
    /// Date of the last canonical line, with the byte after it, and its midnight: neighbours mostly share it.
    date: [u8; 11],
    midnight: i64,
}

impl Parser<'_> {
    fn plain(&mut self, text: &[u8]) {
        // A row takes some 48 bytes.
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

    /// Takes the canonical line that the text begins with, if it does; gives its length with the line feed.
    fn canonical(&mut self, text: &[u8]) -> Option<usize> {
        let (user_id, digits) = leading_number(text)?;
        let track_at = digits + 1;
        let time_at = track_at + CANONICAL_TRACK_ID_BYTES + 1;
        let track_id = text.get(track_at..)?.first_chunk()?;
        let time = text.get(time_at..time_at + CANONICAL_TIME_BYTES + 1)?;
        if text[time_at - 1] != b',' || time[CANONICAL_TIME_BYTES] != b'\n' {
            return None;
        }
        // Before the date is taken: of a time that is none of the day, such as 24:00:00, the date is another.
        let of_day = cleanse::time_of_day(time[11..].first_chunk()?)?;
        if time[..self.date.len()] != self.date {
            self.midnight =
                cleanse::parse_time(&time[..CANONICAL_TIME_BYTES])?.div_euclid(MICROS_PER_DAY) * MICROS_PER_DAY;
            self.date.copy_from_slice(&time[..11]);
        }
        let listen_time = self.midnight + of_day;
        if !cleanse::is_in_range(listen_time, self.block.judged_at) {
            return None;
        }
        let track = self.catalogue.find_canonical_song(track_id)?;
        let user = self.user_code(user_id);
        self.push(track, user, listen_time);
        Some(time_at + CANONICAL_TIME_BYTES + 1)
    }

    /// Splits a plain line.
    fn line(&mut self, line: &[u8], number: u64, fields: &mut Vec<Range<usize>>) {
        // As in every CSV, an empty line is no record.
        if line.is_empty() {
            return;
        }
        fields.clear();
        let (mut count, mut start) = (1, 0);
        let needed = self.block.columns.width().max(SHOWN.1);
        for end in memchr_iter(b',', line) {
            // Of a line of commas, only how many there are is of interest.
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

    /// Judges a record.
    fn add<'r>(&mut self, line: Line, fields: usize, field: impl Fn(usize) -> &'r [u8]) {
        let row = match line.is_malformed {
            true => Err(Rejection::Quotes),
            false => self.block.columns.cleanse(fields, &field, self.block.judged_at),
        };
        match row {
            Ok(Row { user_id, track_id, listen_time }) => {
                let (track, user) = (self.track_code(track_id), self.user_code(user_id));
                self.push(track, user, listen_time);
            }
            Err(rejection) => self.reject(line, rejection, (0..fields).map(field)),
        }
    }

    fn push(&mut self, track: u32, user: u32, listen_time: i64) {
        self.parsed.rows += 1;
        self.parsed.tracks.push(track);
        self.parsed.users.push(user);
        self.parsed.times.push(listen_time);
    }

    fn track_code(&mut self, id: &str) -> u32 {
        if let Some(code) = self.catalogue.find_song(id.as_bytes()).or_else(|| self.new_tracks.get(id).copied()) {
            return code;
        }
        let (code, id) = (NEW | self.parsed.new_tracks.len() as u32, Arc::<str>::from(id));
        self.parsed.new_tracks.push(Arc::clone(&id));
        self.new_tracks.insert(id, code);
        code
    }

    fn user_code(&mut self, id: i64) -> u32 {
        self.catalogue.find_user(id).unwrap_or_else(|| {
            *self.new_users.entry(id).or_insert_with(|| {
                self.parsed.new_users.push(id);
                NEW | (self.parsed.new_users.len() - 1) as u32
            })
        })
    }

    fn reject<'r>(&mut self, line: Line, rejection: Rejection, fields: impl Iterator<Item = &'r [u8]>) {
        self.parsed.rows += 1;
        *self.parsed.rejected.entry(rejection.kind()).or_default() += 1;
        self.parsed.rejects.add(line, rejection, fields);
    }
}

/// Length of `YYYY-MM-DD HH:MM:SS`.
const CANONICAL_TIME_BYTES: usize = 19;
/// As many digits never overflow.
const MAX_CANONICAL_DIGITS: usize = 18;

/// The positive number before the first comma, and how many digits it has.
fn leading_number(text: &[u8]) -> Option<(i64, usize)> {
    let mut value = 0_i64;
    for (digits, &byte) in text.iter().take(MAX_CANONICAL_DIGITS + 1).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return (byte == b',' && value > 0).then_some((value, digits));
        }
        // At most 18 digits have been taken in before a nineteenth ends the loop.
        value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::formats::csv::BLOCK_BYTES;
    use crate::input::file::{Blocks, InputFile, ReadError};
    use proptest::prelude::*;
    use std::io::Cursor;

    const NOW: i64 = 1_767_225_600; // 2026-01-01T00:00:00Z

    fn object() -> ObjectId {
        let version = crate::object::Version::ETag("e".to_owned());
        ObjectId { bucket: "b".to_owned(), key: "incoming/a.csv".to_owned(), version }
    }

    /// The listed rows of a block, as whoever reads the list sees them.
    fn listed(parsed: &Parsed) -> Vec<serde_json::Value> {
        parsed.rejects.lines(&object()).map(|(_, line)| serde_json::from_slice(&line).unwrap()).collect()
    }

    /// Parses lines without a header.
    pub(crate) fn parse(lines: &str, catalogue: &Catalogue) -> Parsed {
        let columns = Columns::from_header(cleanse::REQUIRED_COLUMNS.iter().map(|name| name.as_bytes())).unwrap();
        Block::new(csv::Block::of(lines.as_bytes().to_vec(), 2), columns, i64::MAX).parse(catalogue)
    }

    /// What one way through makes of a file: its rows as user, track and time, and the reasons of its rejected rows; or its
    /// reason for the file.
    type Read = Result<(Vec<(i64, String, i64)>, Vec<String>), String>;

    async fn by_blocks(text: &[u8], catalogue: &Catalogue) -> Read {
        let read = async {
            let now = jiff::Timestamp::from_second(NOW).unwrap();
            let mut blocks = Blocks::open(Cursor::new(text.to_vec()), u64::MAX, now).await?;
            let (mut rows, mut reasons) = (Vec::new(), Vec::new());
            while let Some(block) = blocks.next().await? {
                let parsed = block.parse(catalogue);
                for (index, &time) in parsed.times.iter().enumerate() {
                    let (track, user) = (parsed.tracks[index], parsed.users[index]);
                    let track = Parsed::new_position(track)
                        .map_or_else(|| catalogue.song(track).track_id.as_ref(), |new| parsed.new_tracks[new].as_ref());
                    let user =
                        Parsed::new_position(user).map_or_else(|| catalogue.user(user).id, |new| parsed.new_users[new]);
                    rows.push((user, track.to_owned(), time));
                }
                for reject in listed(&parsed) {
                    let lines = reject["lines"].as_u64().unwrap_or(1);
                    reasons.push(format!("{} {lines} {} {}", reject["line"], reject["reason"], reject["fields"]));
                }
            }
            Ok((rows, reasons))
        };
        read.await.map_err(|error: ReadError| error.to_string())
    }

    async fn row_by_row(text: &[u8]) -> Read {
        let read = async {
            let now = jiff::Timestamp::from_second(NOW).unwrap();
            let mut file = InputFile::open(Cursor::new(text.to_vec()), u64::MAX, now).await?;
            let (mut rows, mut reasons) = (Vec::new(), Vec::new());
            while let Some(line) = file.next().await? {
                match line.row {
                    Ok(row) => rows.push((row.user_id, row.track_id.to_owned(), row.listen_time)),
                    Err(rejection) => {
                        let shown = |field: &[u8]| field[..field.len().min(SHOWN.0)].to_vec();
                        let fields = line.record.iter().take(SHOWN.1).map(shown);
                        let fields: Vec<_> = fields.map(|field| String::from_utf8_lossy(&field).into_owned()).collect();
                        let fields = serde_json::json!(fields);
                        let (number, lines) = (line.number, line.lines);
                        reasons.push(format!("{number} {lines} {} {fields}", serde_json::json!(rejection.to_string())));
                    }
                }
            }
            Ok((rows, reasons))
        };
        read.await.map_err(|error: ReadError| error.to_string())
    }

    async fn catalogue() -> Catalogue {
        let songs = "track_id,track_name,artists,track_genre,duration_ms\n\
            5SuOikwiRyPMVoIQDJUgSV,A,X,pop,1\nshort,B,X,pop,1\n0000000000000000000000,C,X,pop,1\n";
        Catalogue::parse(songs.as_bytes(), "user_id,user_country\n7,Peru\n8,Ghana\n".as_bytes()).await.unwrap()
    }

    fn field() -> impl Strategy<Value = String> {
        prop_oneof![
            8 => prop::sample::select(vec![
                "7", "8", "9", "0", "", "007", "-1", "999999999999999999", "9999999999999999999", "9223372036854775807",
                "5SuOikwiRyPMVoIQDJUgSV", "0000000000000000000000", "short", "0123456789012345678901", "unknown", "ä",
                "5SuOikwiRyPMVoIQDJUgS", "2024-06-25 17:43:13", "2024-06-25T17:43:13Z", "2024-06-26 00:00:00",
                "2024-02-30 17:43:13", "2024-06-25 24:43:13", "2024-06-25 24:00:00", "2024-06-25 23:59:60",
                "2024-06-25T00:30+02", "2024-06-25 23:30-02", "20240625T174313", "2024-06-25 17:43:1", "2026-01-02 00:00:01", "\u{feff}7",
                "1999-12-31 23:59:59", "2024-06-25 17:43:13.5", "\"7\"", "\"a,b\"", "\"", "\0", " ",
                "\"7\"8", "\"7\"\"8\"", "\"7\"8\"", "a\"b", "\"a\nb\"", "\"a\r\nb\r\"", "\"\"", "\" \"", "\"7\" ",
            ]).prop_map(str::to_owned),
            1 => "[0-9a-z,\"\r\n ]{0,25}",
        ]
    }

    /// Lines that are mostly nearly canonical, with all that may stand between and around them.
    fn text() -> impl Strategy<Value = String> {
        let canonical =
            (0..10_i64, prop::sample::select(vec!["5SuOikwiRyPMVoIQDJUgSV", "0123456789012345678901"]), 0..60)
                .prop_map(|(user, track, second)| format!("{user},{track},2024-06-25 17:43:{second:02}"));
        let odd = prop::sample::select(vec![
            "2024-06-25 24:00:00",
            "2024-06-25 23:59:60",
            "2024-06-25T00:30+02",
            "2024-06-25 23:30-02",
            "2024-06-25T00:00+01",
        ])
        .prop_map(|time| format!("7,5SuOikwiRyPMVoIQDJUgSV,{time}"));
        let line = prop_oneof![
            4 => canonical,
            1 => odd,
            2 => prop::collection::vec(field(), 0..5).prop_map(|fields| fields.join(",")),
            2 => (field(), field(), field()).prop_map(|(a, b, c)| format!("{a},{b},{c}")),
        ];
        let ending =
            prop_oneof![20 => Just("\n"), 2 => Just("\r\n"), 2 => Just("\r"), 1 => Just("\n\n"), 1 => Just("\n\r\r\n")];
        let header = prop::sample::select(vec![
            "user_id,track_id,listen_time\n",
            "user_id,track_id,listen_time\r\n",
            "\u{feff}user_id,track_id,listen_time\n",
            "listen_time,x,track_id,user_id\n",
            "\n\nuser_id,track_id,listen_time\n",
            "\u{feff}\u{feff}user_id,track_id,listen_time\n",
            "\n\u{feff}user_id,track_id,listen_time\n",
            "\"user_id\",track_id,listen_time\n",
            "\"user_i\"d,track_id,listen_time\n",
            "\r\r\nuser_id,track_id,listen_time,\"a\r\nb\"\r",
            "user_id,track_id,listen_time",
            "user_id,track\n",
            "",
            "\n",
        ]);
        (header, prop::collection::vec((line, ending), 0..12), any::<bool>()).prop_map(|(header, lines, cut)| {
            let mut text = header.to_owned();
            lines.iter().for_each(|(line, ending)| text += &format!("{line}{ending}"));
            if cut {
                text.pop();
            }
            text
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn blocks_have_the_rows_that_csv_async_has(text in text()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let catalogue = runtime.block_on(catalogue());
            let expected = runtime.block_on(row_by_row(text.as_bytes()));
            prop_assert_eq!(runtime.block_on(by_blocks(text.as_bytes(), &catalogue)), expected);
        }
    }

    /// Files of several blocks, of which a late one has a quote, a carriage return, or a long line.
    #[tokio::test]
    async fn a_file_that_ceases_to_be_plain_is_read_on_as_csv() {
        let catalogue = catalogue().await;
        let plain = "7,5SuOikwiRyPMVoIQDJUgSV,2024-06-25 17:43:13\n".repeat(3 * BLOCK_BYTES / 45);
        let long = format!("7,{},2024-06-25 17:43:13\n", "x".repeat(2 * BLOCK_BYTES));
        let endless = format!("7,\"{}", "x".repeat(4 << 20));
        let lines = plain.len() / 45;
        for (middle, rows, rejected) in [
            ("\"7\",\"short\",2024-06-25 17:43:13\n", 2 * lines + 1, 0),
            ("7,short,2024-06-25 17:43:13\r\n", 2 * lines + 1, 0),
            ("7,short,2024-06-25 17:43:13\r", 2 * lines + 1, 0),
            ("\"7\n8\",short,2024-06-25 17:43:13\n", 2 * lines, 1),
            (&format!("\"{}\",short,2024-06-25 17:43:13\n", "\n".repeat(99)), 2 * lines, 1),
            ("\u{feff}7,short,2024-06-25 17:43:13\n", 2 * lines, 1),
            (&long, 2 * lines, 1),
            ("\n\n\n", 2 * lines, 0),
        ] {
            let text = format!("user_id,track_id,listen_time\n{plain}{middle}{plain}");
            let (good, bad) = by_blocks(text.as_bytes(), &catalogue).await.unwrap();
            assert_eq!((good.len(), bad.len()), (rows, rejected), "{}", &middle[..middle.len().min(50)]);
            assert_eq!(
                row_by_row(text.as_bytes()).await.map(|(good, bad)| (good.len(), bad.len())),
                Ok((rows, rejected))
            );
        }
        let text = format!("user_id,track_id,listen_time\n{plain}{endless}");
        let (blocks, rows) = (by_blocks(text.as_bytes(), &catalogue).await, row_by_row(text.as_bytes()).await);
        assert!(blocks.as_ref().unwrap_err().contains(&format!("line {}", lines + 2)), "{blocks:?}");
        assert_eq!(blocks, rows);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Lines are those that an editor shows: bad rows among good ones, with any line ends, blank lines and line ends in quotes,
        /// in files of one block and of several.
        #[test]
        fn rejected_rows_have_the_line_that_an_editor_shows(
            rows in prop::collection::vec((0..6_usize, 0..4_usize), 1..60),
            block_at in prop::option::of(0..60_usize),
        ) {
            let ends = ["\n", "\r\n", "\r"];
            let (mut text, mut line, mut expected) = ("user_id,track_id,listen_time\n".to_owned(), 2_u64, Vec::new());
            for (index, &(kind, end)) in rows.iter().enumerate() {
                let end = *ends.get(end).unwrap_or(&"\n");
                if block_at == Some(index) {
                    let filler = format!("7,5SuOikwiRyPMVoIQDJUgSV,2024-06-25 17:43:13{end}");
                    let times = 2 * BLOCK_BYTES / filler.len();
                    text += &filler.repeat(times);
                    line += times as u64;
                }
                match kind {
                    0 => expected.push((line, 1, "bad".to_owned())),
                    1 => expected.push((line, 3, format!("b{end}a{end}d"))),
                    _ => {}
                }
                text += &match kind {
                    0 => format!("bad,t,2024-06-25 17:43:13{end}"),
                    1 => format!("\"b{end}a{end}d\",t,2024-06-25 17:43:13{end}"),
                    // A line feed behind a carriage return would belong to it.
                    2 if text.ends_with('\r') => "\r".to_owned(),
                    2 => end.to_owned(),
                    _ => format!("7,t,2024-06-25 17:43:13{end}"),
                };
                line += if kind == 1 { 3 } else { 1 };
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let found = runtime.block_on(async {
                let (catalogue, now) = (catalogue().await, jiff::Timestamp::from_second(NOW).unwrap());
                let mut blocks = Blocks::open(Cursor::new(text.into_bytes()), u64::MAX, now).await.unwrap();
                let mut found = Vec::new();
                while let Some(block) = blocks.next().await.unwrap() {
                    found.extend(listed(&block.parse(&catalogue)));
                }
                found
            });
            let found: Vec<_> = found.iter().map(|row| {
                (row["line"].as_u64().unwrap(), row["lines"].as_u64().unwrap_or(1), row["fields"][0].as_str().unwrap().to_owned())
            }).collect();
            prop_assert_eq!(found, expected);
        }
    }

    /// The memory of a block's rejected rows is that of what it may list, however many there are.
    #[tokio::test]
    async fn a_block_keeps_no_more_rejected_rows_than_are_listed() {
        let catalogue = catalogue().await;
        for (line, most) in
            [("x\n", MAX_LISTED.0), (",\n", MAX_LISTED.0), (&format!("{}\n", "y".repeat(5000)), MAX_LISTED.0)]
        {
            let parsed = parse(&line.repeat(200_000), &catalogue);
            let Rejects { rows, ends, text } = &parsed.rejects;
            assert_eq!((parsed.rows, parsed.rejected["width"], rows.len()), (200_000, 200_000, most));
            assert!(rows.len() * 64 + ends.len() * 8 + text.len() < 4 << 20, "{} {}", ends.len(), text.len());
        }
        let wide = format!("{}\n", format!("{},", "z".repeat(300)).repeat(100)).repeat(2000);
        let Rejects { text, .. } = parse(&wide, &catalogue).rejects;
        assert!(text.len() < MAX_LISTED.1 + SHOWN.0 * SHOWN.1, "{}", text.len());
    }

    /// Of a line of commas, no more fields are shown than anybody looks at.
    #[tokio::test]
    async fn a_rejected_row_shows_its_first_fields() {
        for quote in ["", "\""] {
            let commas = ",".repeat(1 << 19);
            let text = format!("user_id,track_id,listen_time\n{quote}7{quote},short,2024-06-25 17:43:13\n{commas}\n");
            let now = jiff::Timestamp::from_second(NOW).unwrap();
            let mut blocks = Blocks::open(Cursor::new(text.into_bytes()), u64::MAX, now).await.unwrap();
            let mut rows = Vec::new();
            while let Some(block) = blocks.next().await.unwrap() {
                rows.extend(listed(&block.parse(&catalogue().await)));
            }
            assert_eq!(rows[0]["reason"], format!("{} fields, the header has 3", (1 << 19) + 1));
            assert_eq!(rows[0]["fields"].as_array().unwrap().len(), SHOWN.1);
        }
    }
}
