//! Curated files: rows as Parquet, and back. `docs/curated.md` describes them.
//!
//! Covered by `tests/parquet.rs`, which reads the files with DuckDB, pyarrow and Polars, and by `tests/pipeline`.

use std::io::{Read, Seek};

use crate::compute::codes::Names;
use crate::compute::rows::Rows;
use crate::formats::parquet::dictionary::{ColumnEncoder, distinct, each, encode_times, renumber};
use crate::formats::parquet::read::Reader;
use crate::formats::parquet::{self, Column, ParquetError, ParquetFile, RowGroup, Schema, Type};
use crate::reference::catalogue::Song;

/// The columns of a curated file.
fn columns() -> [Column; 9] {
    [
        Column::required("user_id", Type::Int64),
        Column::required("track_id", Type::Text),
        Column::required("listen_time", Type::Timestamp),
        Column::nullable("track_name", Type::Text),
        Column::nullable("artists", Type::Text),
        Column::nullable("track_genre", Type::Text),
        Column::nullable("duration_ms", Type::Int32),
        Column::nullable("user_country", Type::Text),
        Column::required("source_key", Type::Text),
    ]
}

/// Begins a curated file.
pub fn new_file() -> Result<ParquetFile, ParquetError> {
    ParquetFile::new(Schema::of(&columns())?, true)
}

/// Encodes rows of one day as a row group. All columns but the time follow from three codes (track, listener, source),
/// so rows are read only to renumber these and to write the numbers. Columns of different codes are encoded in
/// parallel.
pub fn encode_rows(rows: &Rows, names: &Names) -> Result<RowGroup, ParquetError> {
    let schema = Schema::of(&columns())?;
    let type_of = |name| schema.type_of(name);
    let of_tracks = || {
        let (codes, tracks) = renumber(rows.tracks.iter().copied());
        let songs: Vec<Option<&Song>> = tracks.iter().map(|&track| names.song(track)).collect();
        let genres = distinct(songs.iter().map(|song| song.and_then(|song| song.genre_list)));
        let mut encoder = ColumnEncoder::new(&codes)?;
        Ok::<_, ParquetError>([
            encoder.column(type_of("track_id")?, each(tracks.iter().map(|&track| Some(names.track_id(track)))))?,
            encoder.column(
                type_of("track_name")?,
                each(songs.iter().map(|song| song.and_then(|song| song.name.as_deref()))),
            )?,
            encoder.column(
                type_of("artists")?,
                each(songs.iter().map(|song| song.and_then(|song| song.artists.as_deref()))),
            )?,
            encoder.column(type_of("track_genre")?, genres.map(|list| names.catalogue().genre_list(list)))?,
            encoder.column(
                type_of("duration_ms")?,
                each(songs.iter().map(|song| song.map(|song| song.duration_ms as i32))),
            )?,
        ])
    };
    let of_users = || {
        let (codes, users) = renumber(rows.users.iter().copied());
        let countries = distinct(users.iter().map(|&user| names.country_code(user).map(u32::from)));
        let mut encoder = ColumnEncoder::new(&codes)?;
        Ok::<_, ParquetError>([
            encoder.column(type_of("user_id")?, each(users.iter().map(|&user| Some(names.user_id(user)))))?,
            encoder.column(type_of("user_country")?, countries.map(|code| names.catalogue().country(code as u16)))?,
        ])
    };
    let of_rows = || {
        let (codes, sources) = renumber(rows.sources.iter().copied());
        Ok::<_, ParquetError>([
            encode_times(type_of("listen_time")?, &rows.times)?,
            ColumnEncoder::new(&codes)?
                .column(type_of("source_key")?, each(sources.iter().map(|&source| Some(names.source(source)))))?,
        ])
    };
    let (of_tracks, (of_users, of_rows)) = rayon::join(of_tracks, || rayon::join(of_users, of_rows));
    let [track_id, track_name, artists, track_genre, duration_ms] = of_tracks?;
    let [user_id, user_country] = of_users?;
    let [listen_time, source_key] = of_rows?;
    // The order is that of the schema.
    Ok(RowGroup::new(vec![
        user_id,
        track_id,
        listen_time,
        track_name,
        artists,
        track_genre,
        duration_ms,
        user_country,
        source_key,
    ]))
}

/// A row of a curated file, read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CuratedRow<'a> {
    /// The listener.
    pub user_id: i64,
    /// The track.
    pub track_id: &'a str,
    /// Microseconds since the Unix epoch.
    pub listen_time: i64,
    /// The track's genres, joined by [`crate::reports::figures::LIST_SEPARATOR`].
    pub track_genre: Option<&'a str>,
    /// The track's duration, in milliseconds.
    pub duration_ms: Option<i32>,
    /// The key of the row's source file.
    pub source_key: &'a str,
}

/// The columns that are read back.
const READ_COLUMNS: [&str; 6] = ["user_id", "track_id", "listen_time", "track_genre", "duration_ms", "source_key"];

/// Reads a curated file back, one row group in memory at a time.
pub fn read_rows(file: impl Read + Seek, mut each: impl FnMut(CuratedRow<'_>)) -> Result<(), ParquetError> {
    parquet::contained(|| {
        Reader::open(file)?.read(&READ_COLUMNS, |columns| {
            let (users, times) = (columns.numbers::<i64>("user_id")?, columns.numbers::<i64>("listen_time")?);
            let (tracks, sources) = (columns.texts("track_id")?, columns.texts("source_key")?);
            let genres = columns.texts("track_genre")?;
            let durations = columns.numbers::<i32>("duration_ms")?;
            for row in 0..columns.rows() {
                each(CuratedRow {
                    user_id: users.value(row),
                    track_id: tracks.value(row),
                    listen_time: times.value(row),
                    track_genre: genres.get(row),
                    duration_ms: durations.get(row),
                    source_key: sources.value(row),
                });
            }
            Ok(())
        })
    })
}
