//! Parquet: the only module that knows arrow2 and parquet2.
//!
//! Two kinds of files pass through here: the curated rows, which anybody reads, and delta files, which roll
//! forward and auditor read. Columns reach the encoder as arrow2 arrays and come back from a delta file as such.
//!
//! Both crates are archived upstream and have faults that this module works round, each with a test:
//!
//! * arrow2 writes `null_count = 0` for a dictionary column with null keys, so that `IS NULL` finds nothing in DuckDB and
//!   Spark. Pages of dictionary columns are therefore built here, straight on parquet2.
//! * parquet2 leaves `column_orders` out of the footer, so that readers ignore every minimum and maximum. The footer is
//!   completed before it is written ([`ParquetFile::finish`]).
//! * A timestamp in seconds loses its logical type. Microseconds, adjusted to UTC, are used.
//! * Both crates panic on bytes that are not what they expect. Whatever is decoded is decoded by `contained`, and delta
//!   files only when their bytes are those that were written ([`crate::manifest::DeltaFile`]).
//! * A dictionary that serves several row groups is written whole into each of them. Codes are renumbered per row group.
//!
//! Format: <https://github.com/apache/parquet-format>.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Cursor, Read, Seek, Write};
use std::sync::{Arc, Mutex, PoisonError};

use arrow2::array::{Array, BinaryArray, DictionaryArray, PrimitiveArray, Utf8Array};
use arrow2::datatypes::{DataType, Field, IntegerType, Schema, TimeUnit};
use arrow2::io::parquet::read as arrow_read;
use arrow2::io::parquet::write::{self as arrow_write, Nested, to_parquet_schema};
use parquet_format_safe::thrift::protocol::TCompactOutputProtocol;
use parquet_format_safe::{ColumnOrder, TypeDefinedOrder};
use parquet2::compression::{CompressionOptions, ZstdLevel};
use parquet2::encoding::{Encoding, hybrid_rle};
use parquet2::metadata::{Descriptor, SchemaDescriptor};
use parquet2::page::{DataPage, DataPageHeader, DataPageHeaderV1, DictPage, Page};
use parquet2::schema::types::PrimitiveType;
use parquet2::statistics::{BinaryStatistics, PrimitiveStatistics, Statistics, serialize_statistics};
use parquet2::write::{Compressor, DynIter, DynStreamingIterator, FileWriter, Version, WriteOptions};

use crate::aggregate::{Dictionary, Rows};
use crate::catalogue::Catalogue;
use crate::report::{Attributes, Delta, Distinct, Figures, Key, LIST_SEPARATOR, Report};
use crate::row::day_of;

/// Level 1: on this data as small as level 3, at less cost.
const ZSTD_LEVEL: i32 = 1;

/// Parquet's footer ends with its own length (4 bytes) and the magic number (4 bytes).
const FOOTER_TAIL_BYTES: usize = 8;

/// Encoding or decoding failed.
#[derive(Debug, thiserror::Error)]
pub enum ColumnarError {
    /// arrow2 or parquet2 refused the columns: a fault of this program.
    #[error("Parquet encoding failed, which is a fault of this program: {0}")]
    Encode(String),
    /// A file is not what this program writes.
    #[error("the Parquet file cannot be decoded: {0}")]
    Decode(String),
}

impl From<arrow2::error::Error> for ColumnarError {
    fn from(error: arrow2::error::Error) -> Self {
        ColumnarError::Encode(error.to_string())
    }
}

impl From<parquet2::error::Error> for ColumnarError {
    fn from(error: parquet2::error::Error) -> Self {
        ColumnarError::Encode(error.to_string())
    }
}

/// The writer's output, of which finished row groups can be taken while it goes on.
#[derive(Debug, Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A Parquet file in the making.
pub struct ParquetFile {
    output: Output,
    schema: SchemaDescriptor,
    writer: FileWriter<Output>,
    statistics: bool,
}

impl ParquetFile {
    fn new(schema: &Schema, statistics: bool) -> Result<Self, ColumnarError> {
        let output = Output::default();
        let schema = to_parquet_schema(schema)?;
        let options = WriteOptions { write_statistics: statistics, version: Version::V1 };
        let created_by = concat!("music-streams version ", env!("CARGO_PKG_VERSION")).to_owned();
        let writer = FileWriter::new(output.clone(), schema.clone(), options, Some(created_by));
        Ok(ParquetFile { output, schema, writer, statistics })
    }

    /// A file of curated rows.
    pub fn curated() -> Result<Self, ColumnarError> {
        Self::new(&curated_schema(), true)
    }

    fn write_row_group(&mut self, columns: Vec<Box<dyn Array>>) -> Result<(), ColumnarError> {
        let compression = CompressionOptions::Zstd(Some(ZstdLevel::try_new(ZSTD_LEVEL)?));
        let mut chunks = Vec::with_capacity(columns.len());
        for (array, column) in columns.iter().zip(self.schema.columns()) {
            let pages = pages(array.as_ref(), &column.descriptor.primitive_type, self.statistics)?;
            let pages = DynIter::new(pages.into_iter().map(Ok));
            chunks.push(Ok(DynStreamingIterator::new(Compressor::new(pages, compression, Vec::new()))));
        }
        self.writer.write::<parquet2::error::Error>(DynIter::new(chunks.into_iter()))?;
        Ok(())
    }

    /// Bytes of finished row groups that nobody has taken yet.
    pub fn pending_bytes(&self) -> usize {
        self.output.lock().len()
    }

    /// Takes the bytes of finished row groups.
    pub fn take_pending(&mut self) -> Vec<u8> {
        std::mem::take(&mut *self.output.lock())
    }

    /// Writes the footer and takes the remaining bytes.
    pub fn finish(mut self) -> Result<Vec<u8>, ColumnarError> {
        self.writer.end(None)?;
        let (_, mut metadata) = self.writer.into_inner_and_metadata();
        let mut bytes = std::mem::take(&mut *self.output.lock());
        // parquet2's footer goes, a complete one comes in its place.
        let tail = bytes.len() - FOOTER_TAIL_BYTES;
        let length = bytes[tail..tail + 4].iter().rev().fold(0_usize, |length, &byte| length << 8 | usize::from(byte));
        bytes.truncate(tail - length);
        metadata.column_orders =
            Some(self.schema.columns().iter().map(|_| ColumnOrder::TYPEORDER(TypeDefinedOrder {})).collect());
        let footer_start = bytes.len();
        let mut protocol = TCompactOutputProtocol::new(&mut bytes);
        metadata.write_to_out_protocol(&mut protocol).map_err(|error| ColumnarError::Encode(error.to_string()))?;
        let length = (bytes.len() - footer_start) as u32;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(b"PAR1");
        Ok(bytes)
    }
}

fn pages(array: &dyn Array, type_: &PrimitiveType, statistics: bool) -> Result<Vec<Page>, ColumnarError> {
    if let Some(array) = array.as_any().downcast_ref::<DictionaryArray<u32>>() {
        return dictionary_pages(array, type_);
    }
    let options = arrow_write::WriteOptions {
        write_statistics: statistics,
        version: arrow_write::Version::V1,
        compression: CompressionOptions::Uncompressed,
        data_pagesize_limit: None,
    };
    let nullable = type_.field_info.repetition == parquet2::schema::Repetition::Optional;
    let nested = [Nested::Primitive(array.validity().cloned(), nullable, array.len())];
    let pages = arrow_write::array_to_pages(array, type_.clone(), &nested, options, Encoding::Plain)?;
    Ok(pages.collect::<Result<_, _>>()?)
}

/// A dictionary page and a data page of codes. Every value of the dictionary occurs, so its extremes are the column's.
fn dictionary_pages(array: &DictionaryArray<u32>, type_: &PrimitiveType) -> Result<Vec<Page>, ColumnarError> {
    let values = array.values().as_any();
    let null_count = array.keys().null_count() as i64;
    let (plain, statistics) = if let Some(values) = values.downcast_ref::<Utf8Array<i32>>() {
        let mut plain = Vec::with_capacity(values.values().len() + 4 * values.len());
        for value in values.values_iter() {
            plain.extend_from_slice(&(value.len() as u32).to_le_bytes());
            plain.extend_from_slice(value.as_bytes());
        }
        let extreme = |value: Option<&str>| value.map(|value| value.as_bytes().to_vec());
        let statistics = BinaryStatistics {
            primitive_type: type_.clone(),
            null_count: Some(null_count),
            distinct_count: None,
            max_value: extreme(values.values_iter().max()),
            min_value: extreme(values.values_iter().min()),
        };
        (plain, serialize_statistics(&statistics as &dyn Statistics))
    } else if let Some(values) = values.downcast_ref::<PrimitiveArray<i64>>() {
        let plain = values.values_iter().flat_map(|value| value.to_le_bytes()).collect();
        (plain, extremes(values.values(), null_count, type_))
    } else if let Some(values) = values.downcast_ref::<PrimitiveArray<i32>>() {
        let plain = values.values_iter().flat_map(|value| value.to_le_bytes()).collect();
        (plain, extremes(values.values(), null_count, type_))
    } else {
        return Err(ColumnarError::Encode(format!("no dictionary of {:?}", array.values().data_type())));
    };
    let distinct = array.values().len();

    let mut buffer = Vec::with_capacity(array.len() * 2);
    let validity = array.keys().validity();
    if type_.field_info.repetition == parquet2::schema::Repetition::Optional {
        // Definition levels: 1 where there is a value. Version 1 pages put their length before them.
        buffer.extend_from_slice(&[0; 4]);
        match validity {
            Some(validity) => hybrid_rle::encode_bool(&mut buffer, validity.iter()),
            None => hybrid_rle::encode_bool(&mut buffer, std::iter::repeat_n(true, array.len())),
        }
        .map_err(|error| ColumnarError::Encode(error.to_string()))?;
        let length = (buffer.len() - 4) as u32;
        buffer[..4].copy_from_slice(&length.to_le_bytes());
    }
    let mut codes: Vec<u32> = match validity {
        Some(_) => array.keys_iter().flatten().map(|code| code as u32).collect(),
        None => array.keys().values().to_vec(),
    };
    // The bit-packed run speaks of whole groups of eight; parquet2 would cut the last one short.
    codes.resize(codes.len().next_multiple_of(8), 0);
    let bits = usize::BITS - distinct.saturating_sub(1).leading_zeros();
    buffer.push(bits as u8);
    hybrid_rle::encode_u32(&mut buffer, codes.into_iter(), bits)
        .map_err(|error| ColumnarError::Encode(error.to_string()))?;

    let header = DataPageHeader::V1(DataPageHeaderV1 {
        num_values: array.len() as i32,
        encoding: Encoding::RleDictionary.into(),
        definition_level_encoding: Encoding::Rle.into(),
        repetition_level_encoding: Encoding::Rle.into(),
        statistics: Some(statistics),
    });
    let descriptor = Descriptor { primitive_type: type_.clone(), max_def_level: 0, max_rep_level: 0 };
    Ok(vec![
        Page::Dict(DictPage::new(plain, distinct, false)),
        Page::Data(DataPage::new(header, buffer, descriptor, Some(array.len()))),
    ])
}

fn extremes<T: parquet2::types::NativeType>(
    values: &[T],
    null_count: i64,
    type_: &PrimitiveType,
) -> parquet_format_safe::Statistics {
    let order = |a: &&T, b: &&T| a.ord(b);
    let statistics = PrimitiveStatistics {
        primitive_type: type_.clone(),
        null_count: Some(null_count),
        distinct_count: None,
        max_value: values.iter().max_by(order).copied(),
        min_value: values.iter().min_by(order).copied(),
    };
    serialize_statistics(&statistics as &dyn Statistics)
}

// ---------------------------------------------------------------------------------------------- curated rows

/// The columns of a curated file; `docs/curated.md` describes them.
fn curated_schema() -> Schema {
    let dictionary = |of: DataType| DataType::Dictionary(IntegerType::UInt32, Box::new(of), false);
    let text = || dictionary(DataType::Utf8);
    Schema::from(vec![
        Field::new("user_id", dictionary(DataType::Int64), false),
        Field::new("track_id", text(), false),
        Field::new("listen_time", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".to_owned())), false),
        Field::new("track_name", text(), true),
        Field::new("artists", text(), true),
        Field::new("track_genre", text(), true),
        Field::new("duration_ms", dictionary(DataType::Int32), true),
        Field::new("user_country", text(), true),
        Field::new("source_key", text(), false),
    ])
}

/// Splits rows by report date: positions into the rows, for each day that occurs.
pub fn by_day(rows: &Rows) -> BTreeMap<i32, Vec<u32>> {
    let mut days: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
    let mut last: Option<(i32, Vec<u32>)> = None;
    for (position, &time) in rows.times.iter().enumerate() {
        let day = day_of(time);
        // Neighbours mostly share their day: the map is touched when it changes.
        match &mut last {
            Some((last_day, positions)) if *last_day == day => positions.push(position as u32),
            _ => {
                if let Some((last_day, positions)) = last.take() {
                    days.insert(last_day, positions);
                }
                let mut positions = days.remove(&day).unwrap_or_default();
                positions.push(position as u32);
                last = Some((day, positions));
            }
        }
    }
    days.extend(last);
    days
}

/// Renumbers codes to those that occur, in the order of their first occurrence.
#[derive(Debug, Default)]
pub struct Renumbering {
    local: Vec<u32>,
}

impl Renumbering {
    const UNUSED: u32 = u32::MAX;

    /// The new codes, and for each of them the old one.
    fn renumber(&mut self, codes: impl Iterator<Item = u32>) -> (Vec<u32>, Vec<u32>) {
        let mut used = Vec::new();
        let mut renumbered = Vec::with_capacity(codes.size_hint().0);
        for code in codes {
            let slot = code as usize;
            if slot >= self.local.len() {
                self.local.resize(slot + 1, Self::UNUSED);
            }
            if self.local[slot] == Self::UNUSED {
                self.local[slot] = used.len() as u32;
                used.push(code);
            }
            renumbered.push(self.local[slot]);
        }
        used.iter().for_each(|&code| self.local[code as usize] = Self::UNUSED);
        (renumbered, used)
    }
}

/// Writes the rows at `positions` as one row group.
pub fn write_rows(
    file: &mut ParquetFile,
    rows: &Rows,
    positions: &[u32],
    dictionary: &Dictionary,
    catalogue: &Catalogue,
    scratch: &mut Renumbering,
) -> Result<(), ColumnarError> {
    let at = |column: &'_ [u32]| positions.iter().map(|&position| column[position as usize]).collect::<Vec<_>>();
    let (track_codes, tracks) = scratch.renumber(at(&rows.tracks).into_iter());
    let (user_codes, users) = scratch.renumber(at(&rows.users).into_iter());
    let (source_codes, sources) = scratch.renumber(at(&rows.sources).into_iter());
    let times: Vec<i64> = positions.iter().map(|&position| rows.times[position as usize]).collect();
    let songs: Vec<_> =
        tracks.iter().map(|&code| dictionary.track(code).song.map(|song| catalogue.song(song))).collect();

    let user_ids: Vec<i64> = users.iter().map(|&code| dictionary.user(code).id).collect();
    let durations = songs.iter().map(|song| song.map(|song| song.duration_ms as i32));
    let genres = songs.iter().map(|song| {
        let genres: Vec<_> = song.iter().flat_map(|song| &song.genres).map(|&code| catalogue.genre(code)).collect();
        (!genres.is_empty()).then(|| genres.join(&LIST_SEPARATOR.to_string()))
    });
    let countries = users.iter().map(|&code| dictionary.user(code).country.map(|country| catalogue.country(country)));

    file.write_row_group(vec![
        dictionary_array(user_codes.iter().map(|&code| Some(code)), PrimitiveArray::from_vec(user_ids).boxed())?,
        text_array(
            track_codes.iter().map(|&code| Some(code)),
            tracks.iter().map(|&code| dictionary.track(code).id.as_ref()),
        )?,
        PrimitiveArray::from_vec(times).to(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".to_owned()))).boxed(),
        derived_text(&track_codes, songs.iter().map(|song| song.and_then(|song| song.name.as_deref())))?,
        derived_text(&track_codes, songs.iter().map(|song| song.and_then(|song| song.artists.as_deref())))?,
        derived_text(&track_codes, genres)?,
        derived_numbers(&track_codes, durations)?,
        derived_text(&user_codes, countries)?,
        text_array(source_codes.iter().map(|&code| Some(code)), sources.iter().map(|&code| dictionary.source(code)))?,
    ])
}

fn dictionary_array(
    codes: impl Iterator<Item = Option<u32>>,
    values: Box<dyn Array>,
) -> Result<Box<dyn Array>, ColumnarError> {
    let codes: Vec<Option<u32>> = codes.collect();
    let keys = if codes.iter().all(Option::is_some) {
        PrimitiveArray::from_vec(codes.into_iter().flatten().collect())
    } else {
        PrimitiveArray::from(codes)
    };
    Ok(DictionaryArray::try_from_keys(keys, values)?.boxed())
}

fn text_array<'a>(
    codes: impl Iterator<Item = Option<u32>>,
    values: impl Iterator<Item = &'a str>,
) -> Result<Box<dyn Array>, ColumnarError> {
    dictionary_array(codes, Utf8Array::<i32>::from_iter_values(values).boxed())
}

/// A column that follows from another: `of_code` gives the value that each code of the other stands for.
fn derived<V: Eq + std::hash::Hash + Clone>(
    codes: &[u32],
    of_code: impl Iterator<Item = Option<V>>,
) -> (impl Iterator<Item = Option<u32>>, Vec<V>) {
    let mut known: HashMap<V, u32> = HashMap::new();
    let mut values = Vec::new();
    let of_code: Vec<Option<u32>> = of_code
        .map(|value| {
            value.map(|value| {
                *known.entry(value).or_insert_with_key(|value| {
                    values.push(value.clone());
                    (values.len() - 1) as u32
                })
            })
        })
        .collect();
    (codes.iter().map(move |&code| of_code[code as usize]), values)
}

fn derived_text<V: AsRef<str> + Eq + std::hash::Hash + Clone>(
    codes: &[u32],
    of_code: impl Iterator<Item = Option<V>>,
) -> Result<Box<dyn Array>, ColumnarError> {
    let (codes, values) = derived(codes, of_code);
    text_array(codes, values.iter().map(AsRef::as_ref))
}

fn derived_numbers(codes: &[u32], of_code: impl Iterator<Item = Option<i32>>) -> Result<Box<dyn Array>, ColumnarError> {
    let (codes, values) = derived(codes, of_code);
    dictionary_array(codes, PrimitiveArray::from_vec(values).boxed())
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
    /// The track's genres, joined by [`LIST_SEPARATOR`].
    pub track_genre: Option<&'a str>,
    /// How long the track plays.
    pub duration_ms: Option<i32>,
    /// The file that the row came from.
    pub source_key: &'a str,
}

/// Reads a curated file back, one row group in memory at a time.
pub fn read_curated(file: impl Read + Seek, each: impl FnMut(CuratedRow<'_>)) -> Result<(), ColumnarError> {
    contained(|| read_curated_rows(file, each))
}

fn read_curated_rows(mut file: impl Read + Seek, mut each: impl FnMut(CuratedRow<'_>)) -> Result<(), ColumnarError> {
    let metadata = arrow_read::read_metadata(&mut file).map_err(undecodable)?;
    let mut schema = arrow_read::infer_schema(&metadata).map_err(undecodable)?;
    let mut fields = std::mem::take(&mut schema.fields);
    for name in ["user_id", "track_id", "listen_time", "track_genre", "duration_ms", "source_key"] {
        let place = fields.iter().position(|field| field.name == name);
        let place = place.ok_or_else(|| ColumnarError::Decode(format!("it has no column {name}")))?;
        schema.fields.push(fields.swap_remove(place));
    }
    for columns in arrow_read::FileReader::new(file, metadata.row_groups, schema, None, None, None) {
        let columns = columns.map_err(undecodable)?;
        let [users, tracks, times, genres, durations, sources] = columns.arrays() else {
            return Err(ColumnarError::Decode(format!("{} columns", columns.arrays().len())));
        };
        let (users, times) =
            (column::<PrimitiveArray<i64>>(users.as_ref())?, column::<PrimitiveArray<i64>>(times.as_ref())?);
        let (tracks, sources) =
            (column::<Utf8Array<i32>>(tracks.as_ref())?, column::<Utf8Array<i32>>(sources.as_ref())?);
        let genres = column::<Utf8Array<i32>>(genres.as_ref())?;
        let durations = column::<PrimitiveArray<i32>>(durations.as_ref())?;
        for row in 0..columns.len() {
            each(CuratedRow {
                user_id: users.value(row),
                track_id: tracks.value(row),
                listen_time: times.value(row),
                track_genre: genres.is_valid(row).then(|| genres.value(row)),
                duration_ms: durations.is_valid(row).then(|| durations.value(row)),
                source_key: sources.value(row),
            });
        }
    }
    Ok(())
}

// ---------------------------------------------------------------------------------------------- the delta file

fn delta_schema() -> Schema {
    Schema::from(vec![
        Field::new("report", DataType::Utf8, false),
        Field::new("id", DataType::Utf8, false),
        Field::new("report_date", DataType::Date32, false),
        Field::new("listens", DataType::Int64, false),
        Field::new("listening_ms", DataType::Int64, false),
        Field::new("distinct", DataType::Binary, false),
        Field::new("track_name", DataType::Utf8, true),
        Field::new("artists", DataType::Utf8, true),
        Field::new("genres", DataType::Utf8, true),
        Field::new("user_country", DataType::Utf8, true),
    ])
}

/// Encodes a delta file.
pub fn encode_deltas(deltas: &[Delta]) -> Result<Vec<u8>, ColumnarError> {
    let mut file = ParquetFile::new(&delta_schema(), false)?;
    if !deltas.is_empty() {
        file.write_row_group(delta_columns(deltas))?;
    }
    file.finish()
}

fn delta_columns(deltas: &[Delta]) -> Vec<Box<dyn Array>> {
    let text = |value: fn(&Delta) -> &str| Utf8Array::<i32>::from_iter_values(deltas.iter().map(value)).boxed();
    let number = |value: fn(&Delta) -> u64| {
        let numbers: Vec<i64> = deltas.iter().map(|delta| i64::try_from(value(delta)).unwrap_or(i64::MAX)).collect();
        PrimitiveArray::from_vec(numbers).boxed()
    };
    let optional = |value: fn(&Delta) -> Option<String>| {
        let values: Vec<Option<String>> = deltas.iter().map(value).collect();
        Utf8Array::<i32>::from(values).boxed()
    };
    let days: Vec<i32> = deltas.iter().map(|delta| delta.key.day).collect();
    vec![
        text(|delta| delta.key.report.name()),
        text(|delta| &delta.key.id),
        PrimitiveArray::from_vec(days).to(DataType::Date32).boxed(),
        number(|delta| delta.figures.listens),
        number(|delta| delta.figures.listening_ms),
        BinaryArray::<i32>::from_iter_values(deltas.iter().map(|delta| delta.figures.distinct.to_bytes())).boxed(),
        optional(|delta| delta.attributes.track_name.clone()),
        optional(|delta| delta.attributes.artists.clone()),
        optional(|delta| {
            let genres: Vec<&str> = delta.attributes.genres.iter().map(String::as_str).collect();
            (!genres.is_empty()).then(|| genres.join(&LIST_SEPARATOR.to_string()))
        }),
        optional(|delta| delta.attributes.user_country.clone()),
    ]
}

/// Reads a delta file back.
pub fn decode_deltas(bytes: &[u8]) -> Result<Vec<Delta>, ColumnarError> {
    contained(|| read_delta_file(bytes))
}

/// Decodes with the archived crates, whose panics become errors.
fn contained<T>(decode: impl FnOnce() -> Result<T, ColumnarError>) -> Result<T, ColumnarError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(ColumnarError::Decode("its bytes are damaged".to_owned())))
}

fn read_delta_file(bytes: &[u8]) -> Result<Vec<Delta>, ColumnarError> {
    let mut input = Cursor::new(bytes);
    let metadata = arrow_read::read_metadata(&mut input).map_err(undecodable)?;
    let schema = arrow_read::infer_schema(&metadata).map_err(undecodable)?;
    let names = |schema: &Schema| schema.fields.iter().map(|field| field.name.clone()).collect::<Vec<_>>();
    if names(&schema) != names(&delta_schema()) {
        return Err(ColumnarError::Decode(format!("it has the columns {:?}", names(&schema))));
    }
    let mut deltas = Vec::new();
    for columns in arrow_read::FileReader::new(input, metadata.row_groups, schema, None, None, None) {
        deltas.extend(read_deltas(columns.map_err(undecodable)?.arrays())?);
    }
    Ok(deltas)
}

fn read_deltas(columns: &[Box<dyn Array>]) -> Result<Vec<Delta>, ColumnarError> {
    let [reports, ids, days, listens, listening_ms, distincts, track_names, artists, genres, countries] = columns
    else {
        return Err(ColumnarError::Decode(format!("{} columns", columns.len())));
    };
    let (reports, ids) = (column::<Utf8Array<i32>>(reports.as_ref())?, column::<Utf8Array<i32>>(ids.as_ref())?);
    let days = column::<PrimitiveArray<i32>>(days.as_ref())?;
    let (listens, listening_ms) =
        (column::<PrimitiveArray<i64>>(listens.as_ref())?, column::<PrimitiveArray<i64>>(listening_ms.as_ref())?);
    let distincts = column::<BinaryArray<i32>>(distincts.as_ref())?;
    let (track_names, artists) =
        (column::<Utf8Array<i32>>(track_names.as_ref())?, column::<Utf8Array<i32>>(artists.as_ref())?);
    let (genres, countries) =
        (column::<Utf8Array<i32>>(genres.as_ref())?, column::<Utf8Array<i32>>(countries.as_ref())?);
    let owned = |column: &Utf8Array<i32>, row| column.is_valid(row).then(|| column.value(row).to_owned());
    (0..ids.len())
        .map(|row| {
            let report = Report::from_name(reports.value(row))
                .ok_or_else(|| ColumnarError::Decode(format!("no report {:?}", reports.value(row))))?;
            let number = |column: &PrimitiveArray<i64>| {
                u64::try_from(column.value(row)).map_err(|_| ColumnarError::Decode("a negative count".to_owned()))
            };
            let genres = owned(genres, row).unwrap_or_default();
            Ok(Delta {
                key: Key { report, id: ids.value(row).to_owned(), day: days.value(row) },
                figures: Figures {
                    listens: number(listens)?,
                    listening_ms: number(listening_ms)?,
                    distinct: Distinct::from_bytes(distincts.value(row)).map_err(ColumnarError::Decode)?,
                },
                attributes: Attributes {
                    track_name: owned(track_names, row),
                    artists: owned(artists, row),
                    genres: genres
                        .split(LIST_SEPARATOR)
                        .filter(|genre| !genre.is_empty())
                        .map(str::to_owned)
                        .collect::<BTreeSet<_>>(),
                    user_country: owned(countries, row),
                },
            })
        })
        .collect()
}

fn undecodable(error: arrow2::error::Error) -> ColumnarError {
    ColumnarError::Decode(error.to_string())
}

fn column<A: 'static>(array: &dyn Array) -> Result<&A, ColumnarError> {
    array
        .as_any()
        .downcast_ref()
        .ok_or_else(|| ColumnarError::Decode(format!("a column is of type {:?}", array.data_type())))
}
