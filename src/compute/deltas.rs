//! Deltas: what a batch adds to report items, in codes, in names and as a file.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::Cursor;

use crate::compute::codes::Names;
use crate::compute::fold::Accumulator;
use crate::formats::parquet::arrays::{ColumnArray, Numbers, Texts};
use crate::formats::parquet::read::{Columns, Reader};
use crate::formats::parquet::{self, Column, ParquetError, ParquetFile, Schema, Type};
use crate::reports::distinct::Distinct;
use crate::reports::figures::{Attributes, Delta, Figures, Key, LIST_SEPARATOR, Report, UNKNOWN};

/// A report item of a day, in names: a row of a delta file.
#[derive(Debug)]
pub struct DeltaRow<'a> {
    /// Which report.
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

/// What an item is about, by code.
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
    /// Bytes of the item in names, at the most.
    pub fn row_bytes(&self, names: &Names) -> usize {
        let text = match self.of {
            Subject::Track(track) => names.text_bytes(track),
            // Genres and countries are short.
            Subject::Genre(_) | Subject::Listener(_) => 0,
        };
        std::mem::size_of::<DeltaRow<'_>>() + self.item.members.sketch_bytes() + text
    }

    /// The item in names.
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

const COLUMNS: [Column; 10] = [
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
];

/// Encodes a delta file.
pub fn encode(rows: &[DeltaRow<'_>]) -> Result<Vec<u8>, ParquetError> {
    let mut file = ParquetFile::new(Schema::of(&COLUMNS)?, false)?;
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

/// Reads a delta file back.
pub fn decode(bytes: &[u8]) -> Result<Vec<Delta>, ParquetError> {
    parquet::contained(|| {
        let reader = Reader::open(Cursor::new(bytes))?;
        let names = COLUMNS.map(|column| column.name);
        if reader.column_names() != names {
            return Err(ParquetError::Decode(format!("it has the columns {:?}", reader.column_names())));
        }
        let mut deltas = Vec::new();
        reader.read(&names, |columns| read_row_group(&columns, &mut deltas))?;
        Ok(deltas)
    })
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
}
