//! Deltas: a batch's additions to report items, in codes, in names, and as delta files.
//!
//! Pure. Delta files carry a batch's figures past its commit: preparation writes them, roll forward and the auditor
//! read them.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::io::Cursor;

use foldhash::fast::RandomState;

use crate::calendar::date_text;
use crate::compute::codes::Names;
use crate::compute::fold::Accumulator;
use crate::formats::parquet::arrays::{ColumnArray, Numbers, Texts};
use crate::formats::parquet::read::{Columns, Reader};
use crate::formats::parquet::{self, Column, ParquetError, ParquetFile, Schema, Type};
use crate::reports::distinct::Distinct;
use crate::reports::figures::{Attributes, Delta, Figures, Key, LIST_SEPARATOR, Report, UNKNOWN};

/// A report item of a day in names: a row of a delta file.
#[derive(Debug)]
pub struct DeltaRow<'a> {
    /// The report.
    pub report: Report,
    /// The track id, genre or user id.
    pub id: Cow<'a, str>,
    /// The day, in days since the Unix epoch (UTC).
    pub day: i32,
    /// Rows counted.
    pub listens: u64,
    /// Sum of the tracks' durations, in milliseconds.
    pub listening_ms: u64,
    /// The sketch of its distinct members, serialized.
    pub distinct: Vec<u8>,
    /// The track's name.
    pub track_name: Option<&'a str>,
    /// Its artists.
    pub artists: Option<&'a str>,
    /// Every genre it is counted under, joined by [`crate::reports::figures::LIST_SEPARATOR`].
    pub genres: Option<&'a str>,
    /// The listener's country.
    pub user_country: Option<&'a str>,
}

/// The subject of a report item, by code.
#[derive(Debug, Clone, Copy)]
pub(super) enum Subject {
    Track(u32),
    Genre(Option<u16>),
    Listener(u32),
}

/// A report item of a day, in codes.
#[derive(Debug)]
pub struct FoldedItem {
    pub(super) day: i32,
    pub(super) of: Subject,
    pub(super) item: Accumulator,
}

impl FoldedItem {
    /// Returns an upper bound of the item's bytes in names.
    pub fn row_bytes(&self, names: &Names) -> usize {
        let text = match self.of {
            Subject::Track(track) => names.text_bytes(track),
            // Genres and countries are short.
            Subject::Genre(_) | Subject::Listener(_) => 0,
        };
        std::mem::size_of::<DeltaRow<'_>>() + self.item.members.sketch_bytes() + text
    }

    /// Returns the item in names.
    pub fn into_row(self, names: &Names) -> DeltaRow<'_> {
        let FoldedItem { day, of, item: Accumulator { listens, listening_ms, members } } = self;
        let distinct = members.into_bytes();
        let row = move |report, id| DeltaRow {
            report,
            id,
            day,
            listens,
            listening_ms,
            distinct,
            track_name: None,
            artists: None,
            genres: None,
            user_country: None,
        };
        match of {
            Subject::Track(track) => {
                let song = names.song(track);
                let genres = song.and_then(|song| song.genre_list).map(|list| names.catalogue().genre_list(list));
                DeltaRow {
                    track_name: song.and_then(|song| song.name.as_deref()),
                    artists: song.and_then(|song| song.artists.as_deref()),
                    genres: Some(genres.unwrap_or(UNKNOWN)),
                    ..row(Report::Track, names.track_id(track).into())
                }
            }
            Subject::Genre(genre) => {
                let name = genre.map_or(UNKNOWN, |genre| names.catalogue().genre(genre));
                row(Report::Genre, name.into())
            }
            Subject::Listener(user) => {
                let user_country = Some(names.country(user).unwrap_or(UNKNOWN));
                DeltaRow { user_country, ..row(Report::Listener, names.user_id(user).to_string().into()) }
            }
        }
    }
}

fn columns() -> [Column; 10] {
    [
        Column::required("report", Type::Text),
        Column::required("id", Type::Text),
        Column::required("report_date", Type::Date),
        Column::required("listens", Type::Int64),
        Column::required("listening_ms", Type::Int64),
        Column::required("distinct", Type::Bytes),
        Column::nullable("track_name", Type::Text),
        Column::nullable("artists", Type::Text),
        Column::nullable("genres", Type::Text),
        Column::nullable("user_country", Type::Text),
    ]
}

/// Encodes a delta file.
pub fn encode(rows: &[DeltaRow<'_>]) -> Result<Vec<u8>, ParquetError> {
    let mut file = ParquetFile::new(Schema::of(&columns())?, false)?;
    if !rows.is_empty() {
        file.write_columns(columns_of(rows))?;
    }
    file.finish()
}

/// The columns of a delta file, in the order of [`COLUMNS`].
fn columns_of(rows: &[DeltaRow<'_>]) -> Vec<ColumnArray> {
    let number = |value: fn(&DeltaRow<'_>) -> u64| {
        ColumnArray::int64(rows.iter().map(|row| i64::try_from(value(row)).unwrap_or(i64::MAX)).collect())
    };
    let optional =
        |value: for<'r> fn(&'r DeltaRow<'_>) -> Option<&'r str>| ColumnArray::nullable_texts(rows.iter().map(value));
    vec![
        ColumnArray::texts(rows.iter().map(|row| row.report.name())),
        ColumnArray::texts(rows.iter().map(|row| &row.id)),
        ColumnArray::dates(rows.iter().map(|row| row.day).collect()),
        number(|row| row.listens),
        number(|row| row.listening_ms),
        ColumnArray::bytes(rows.iter().map(|row| &row.distinct)),
        optional(|row| row.track_name),
        optional(|row| row.artists),
        optional(|row| row.genres),
        optional(|row| row.user_country),
    ]
}

/// Reads a delta file back. The order of rows is kept.
pub fn decode(bytes: &[u8]) -> Result<Vec<Delta>, ParquetError> {
    parquet::contained(|| {
        let reader = Reader::open(Cursor::new(bytes))?;
        let columns = columns();
        let names = columns.each_ref().map(|column| column.name.as_str());
        if reader.column_names() != names {
            return Err(ParquetError::Decode(format!("it has the columns {:?}", reader.column_names())));
        }
        let mut deltas = Vec::new();
        reader.read(&names, |columns| read_row_group(&columns, &mut deltas))?;
        require_distinct_keys(&deltas)?;
        Ok(deltas)
    })
}

/// Refuses a file with two rows of one report item, the second of which would be taken for a repetition of the first.
/// No batch writes such a file ([`crate::compute::fold`]).
fn require_distinct_keys(deltas: &[Delta]) -> Result<(), ParquetError> {
    let mut keys = HashSet::with_capacity_and_hasher(deltas.len(), RandomState::default());
    match deltas.iter().find(|delta| !keys.insert(&delta.key)) {
        None => Ok(()),
        Some(Delta { key: Key { report, id, day }, .. }) => {
            let (report, date) = (report.name(), date_text(*day));
            Err(ParquetError::Decode(format!("two of its rows are of the {report} {id:?} on {date}")))
        }
    }
}

fn read_row_group(columns: &Columns<'_>, deltas: &mut Vec<Delta>) -> Result<(), ParquetError> {
    let (reports, ids, days) = (columns.texts("report")?, columns.texts("id")?, columns.numbers::<i32>("report_date")?);
    let (listens, listening_ms) = (columns.numbers("listens")?, columns.numbers("listening_ms")?);
    let distincts = columns.bytes("distinct")?;
    let (track_names, artists) = (columns.texts("track_name")?, columns.texts("artists")?);
    let (genres, countries) = (columns.texts("genres")?, columns.texts("user_country")?);
    let owned = |column: &Texts, row| column.get(row).map(str::to_owned);
    deltas.reserve(columns.rows());
    for row in 0..columns.rows() {
        let report = Report::from_name(reports.value(row))
            .ok_or_else(|| ParquetError::Decode(format!("no report {:?}", reports.value(row))))?;
        let number = |column: &Numbers<i64>| {
            u64::try_from(column.value(row)).map_err(|_| ParquetError::Decode("a negative count".to_owned()))
        };
        deltas.push(Delta {
            key: Key { report, id: ids.value(row).to_owned(), day: days.value(row) },
            figures: Figures {
                listens: number(listens)?,
                listening_ms: number(listening_ms)?,
                distinct: Distinct::from_bytes(distincts.value(row)).map_err(ParquetError::Decode)?,
            },
            attributes: Attributes {
                track_name: owned(track_names, row),
                artists: owned(artists, row),
                genres: genres
                    .get(row)
                    .unwrap_or_default()
                    .split(LIST_SEPARATOR)
                    .filter(|genre| !genre.is_empty())
                    .map(str::to_owned)
                    .collect::<BTreeSet<_>>(),
                user_country: owned(countries, row),
            },
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::codes::Dictionary;
    use crate::compute::fold::Fold;
    use crate::compute::fold::tests::{DAY, add, catalogue, deltas};
    use crate::reports::distinct::Members;
    use std::sync::Arc;

    #[tokio::test]
    async fn names_come_from_the_catalogue() {
        let (mut dictionary, mut fold) = (Dictionary::of(Arc::new(catalogue().await)), Fold::default());
        add(&mut fold, &[(1, 0, DAY), (9, 5, DAY)], &mut dictionary);
        let deltas = deltas(fold, dictionary.names());
        let of = |report, id: &str| {
            &deltas.iter().find(|delta| delta.key.report == report && delta.key.id == id).unwrap().attributes
        };
        let track = of(Report::Track, "t0");
        assert_eq!((track.track_name.as_deref(), track.artists.as_deref()), (Some("A"), Some("X")));
        assert_eq!(track.genres, BTreeSet::from(["pop".to_owned(), "rock".to_owned()]));
        assert_eq!(of(Report::Track, "t5").genres, BTreeSet::from([UNKNOWN.to_owned()]));
        assert_eq!(of(Report::Track, "t5").track_name, None);
        assert_eq!(of(Report::Listener, "1").user_country.as_deref(), Some("Peru"));
        assert_eq!(of(Report::Listener, "9").user_country.as_deref(), Some(UNKNOWN));
    }

    /// The same id in another report or on another day is another item.
    #[test]
    fn two_rows_of_one_report_item_are_refused() {
        let row = |report, id: &'static str, day| DeltaRow {
            report,
            id: id.into(),
            day,
            listens: 1,
            listening_ms: 1,
            distinct: Members::default().into_bytes(),
            track_name: None,
            artists: None,
            genres: None,
            user_country: None,
        };
        let good = [
            row(Report::Track, "1", 20_000),
            row(Report::Track, "2", 20_000),
            row(Report::Track, "1", 20_001),
            row(Report::Listener, "1", 20_000),
        ];
        assert_eq!(decode(&encode(&good).unwrap()).unwrap().len(), good.len());
        let [first, second, third, fourth] = good;
        let doubled = [first, second, third, fourth, row(Report::Track, "2", 20_000)];
        let error = decode(&encode(&doubled).unwrap()).unwrap_err().to_string();
        assert_eq!(error, "the Parquet file cannot be decoded: two of its rows are of the track \"2\" on 2024-10-04");
    }
}
