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
//!   files only when their bytes are those that were written ([`crate::batch::manifest::DeltaFile`]).
//! * A dictionary that serves several row groups is written whole into each of them. Codes are renumbered per row group.
//!
//! Format: <https://github.com/apache/parquet-format>.

use std::collections::BTreeSet;
use std::io::{Cursor, Read, Seek, Write};
use std::sync::{Arc, Mutex, PoisonError};

use arrow2::array::{Array, BinaryArray, PrimitiveArray, Utf8Array};
use arrow2::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow2::io::parquet::read as arrow_read;
use arrow2::io::parquet::write::{self as arrow_write, Nested, to_parquet_schema};
use parquet_format_safe::thrift::protocol::TCompactOutputProtocol;
use parquet_format_safe::{ColumnOrder, TypeDefinedOrder};
use parquet2::compression::{Compression, CompressionOptions};
use parquet2::encoding::{Encoding, hybrid_rle};
use parquet2::fallible_streaming_iterator;
use parquet2::metadata::{Descriptor, SchemaDescriptor};
use parquet2::page::{
    CompressedDataPage, CompressedDictPage, CompressedPage, DataPage, DataPageHeader, DataPageHeaderV1, DictPage, Page,
};
use parquet2::schema::Repetition;
use parquet2::schema::types::PrimitiveType;
use parquet2::statistics::{BinaryStatistics, PrimitiveStatistics, Statistics, serialize_statistics};
use parquet2::write::{DynIter, DynStreamingIterator, FileWriter, Version, WriteOptions};

use crate::calendar::MICROS_PER_DAY;
use crate::compute::aggregate::{DeltaRow, Names, Rows};
use crate::process::tasks;
use crate::reference::catalogue::Song;
use crate::reports::distinct::Distinct;
use crate::reports::figures::{Attributes, Delta, Figures, Key, LIST_SEPARATOR, Report};

/// Level 1: on this data as small as level 3, at less cost.
const ZSTD_LEVEL: i32 = 1;

const MICROS_PER_SECOND: i64 = 1_000_000;

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
}

impl ParquetFile {
    fn new(schema: &Schema, statistics: bool) -> Result<Self, ColumnarError> {
        let output = Output::default();
        let schema = to_parquet_schema(schema)?;
        let options = WriteOptions { write_statistics: statistics, version: Version::V1 };
        let created_by = concat!("music-streams version ", env!("CARGO_PKG_VERSION")).to_owned();
        let writer = FileWriter::new(output.clone(), schema.clone(), options, Some(created_by));
        Ok(ParquetFile { output, schema, writer })
    }

    /// A file of curated rows.
    pub fn curated() -> Result<Self, ColumnarError> {
        Self::new(&curated_schema(), true)
    }

    fn write_columns(&mut self, columns: Vec<Box<dyn Array>>) -> Result<(), ColumnarError> {
        let mut compressor = PageCompressor::new()?;
        let mut chunks = Vec::with_capacity(columns.len());
        for (array, column) in columns.iter().zip(self.schema.columns()) {
            let pages = pages(array.as_ref(), &column.descriptor.primitive_type)?;
            chunks.push(pages.into_iter().map(|page| compressor.compress(page)).collect::<Result<_, _>>()?);
        }
        self.append(RowGroup(chunks))
    }

    /// Adds a row group of the file's columns.
    pub fn append(&mut self, row_group: RowGroup) -> Result<(), ColumnarError> {
        let chunks = row_group.0.iter().map(|pages| {
            let pages = fallible_streaming_iterator::convert(pages.iter().map(Ok::<_, parquet2::error::Error>));
            Ok(DynStreamingIterator::new(pages))
        });
        self.writer.write::<parquet2::error::Error>(DynIter::new(chunks))?;
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

fn pages(array: &dyn Array, type_: &PrimitiveType) -> Result<Vec<Page>, ColumnarError> {
    let options = arrow_write::WriteOptions {
        write_statistics: false,
        version: arrow_write::Version::V1,
        compression: CompressionOptions::Uncompressed,
        data_pagesize_limit: None,
    };
    let nullable = type_.field_info.repetition == Repetition::Optional;
    let nested = [Nested::Primitive(array.validity().cloned(), nullable, array.len())];
    let pages = arrow_write::array_to_pages(array, type_.clone(), &nested, options, Encoding::Plain)?;
    Ok(pages.collect::<Result<_, _>>()?)
}

/// The compressed pages of a row group, column by column.
#[derive(Debug)]
pub struct RowGroup(Vec<ColumnPages>);

/// Compresses page after page with one state.
struct PageCompressor(zstd::bulk::Compressor<'static>);

impl PageCompressor {
    fn new() -> Result<Self, ColumnarError> {
        let compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL);
        compressor.map(PageCompressor).map_err(|error| ColumnarError::Encode(error.to_string()))
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<Vec<u8>, ColumnarError> {
        let mut compressed = self.0.compress(bytes).map_err(|error| ColumnarError::Encode(error.to_string()))?;
        compressed.shrink_to_fit();
        Ok(compressed)
    }

    fn compress(&mut self, page: Page) -> Result<CompressedPage, ColumnarError> {
        Ok(match page {
            Page::Dict(page) => {
                let (bytes, values) = (self.bytes(&page.buffer)?, page.num_values);
                CompressedPage::Dict(CompressedDictPage::new(
                    bytes,
                    Compression::Zstd,
                    page.buffer.len(),
                    values,
                    page.is_sorted,
                ))
            }
            Page::Data(page) => CompressedPage::Data(CompressedDataPage::new(
                page.header().clone(),
                self.bytes(page.buffer())?,
                Compression::Zstd,
                page.buffer().len(),
                page.descriptor.clone(),
                Some(page.num_values()),
            )),
        })
    }
}

// ---------------------------------------------------------------------------------------------- curated rows

/// The columns of a curated file; `docs/curated.md` describes them.
fn curated_schema() -> Schema {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Schema::from(vec![
        Field::new("user_id", DataType::Int64, false),
        text("track_id", false),
        Field::new("listen_time", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".to_owned())), false),
        text("track_name", true),
        text("artists", true),
        text("track_genre", true),
        Field::new("duration_ms", DataType::Int32, true),
        text("user_country", true),
        text("source_key", false),
    ])
}

/// Renumbers codes to those that occur, in the order of their first occurrence: gives the new codes, and for each of them the old
/// one.
fn renumber(codes: impl Iterator<Item = u32>) -> (Vec<u32>, Vec<u32>) {
    const UNUSED: u32 = u32::MAX;
    let (mut used, mut new_of) = (Vec::new(), Vec::new());
    let mut renumbered = Vec::with_capacity(codes.size_hint().0);
    for code in codes {
        let slot = code as usize;
        if slot >= new_of.len() {
            new_of.resize(slot + 1, UNUSED);
        }
        if new_of[slot] == UNUSED {
            new_of[slot] = used.len() as u32;
            used.push(code);
        }
        renumbered.push(new_of[slot]);
    }
    (renumbered, used)
}

/// Encodes rows of one day as a row group. What the columns hold follows from four codes: rows are only looked at to number
/// these anew, so that every dictionary has the values that occur and no others, and to write the numbers out. Columns of
/// different codes are encoded side by side.
pub fn encode_rows(rows: &Rows, names: &Names) -> Result<RowGroup, ColumnarError> {
    let schema = to_parquet_schema(&curated_schema())?;
    let type_of = |name: &str| {
        let column = schema.columns().iter().find(|column| column.descriptor.primitive_type.field_info.name == name);
        let type_ = column.map(|column| column.descriptor.primitive_type.clone());
        type_.ok_or_else(|| ColumnarError::Encode(format!("the schema lacks the column {name}")))
    };
    let of_tracks = || {
        let (codes, tracks) = renumber(rows.tracks.iter().copied());
        let songs: Vec<Option<&Song>> = tracks.iter().map(|&track| names.song(track)).collect();
        let genres = distinct(songs.iter().map(|song| song.and_then(|song| song.genre_list)));
        let mut encoder = ColumnEncoder::new(&codes)?;
        Ok::<_, ColumnarError>([
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
        Ok::<_, ColumnarError>([
            encoder.column(type_of("user_id")?, each(users.iter().map(|&user| Some(names.user_id(user)))))?,
            encoder.column(type_of("user_country")?, countries.map(|code| names.catalogue().country(code as u16)))?,
        ])
    };
    let of_rows = || {
        let (codes, sources) = renumber(rows.sources.iter().copied());
        Ok::<_, ColumnarError>([
            encode_times(type_of("listen_time")?, &rows.times)?,
            ColumnEncoder::new(&codes)?
                .column(type_of("source_key")?, each(sources.iter().map(|&source| Some(names.source(source)))))?,
        ])
    };
    let (of_tracks, (of_users, of_rows)) = rayon::join(of_tracks, || rayon::join(of_users, of_rows));
    let [track_id, track_name, artists, track_genre, duration_ms] = of_tracks?;
    let [user_id, user_country] = of_users?;
    let [listen_time, source_key] = of_rows?;
    // In the order of the schema.
    Ok(RowGroup(vec![
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

/// Stands for null among positions in a dictionary.
const NULL: u32 = u32::MAX;

/// A column's dictionary, and where in it each code finds its value.
struct Values<V> {
    positions: Vec<u32>,
    dictionary: Vec<V>,
}

impl<V> Values<V> {
    fn map<W>(self, to: impl FnMut(V) -> W) -> Values<W> {
        Values { positions: self.positions, dictionary: self.dictionary.into_iter().map(to).collect() }
    }
}

/// A value of its own for each code. Values that nearly every code has for itself are not worth finding doubles among: in return,
/// columns of the same codes have the same pages of positions.
fn each<V>(of_code: impl Iterator<Item = Option<V>>) -> Values<V> {
    let mut dictionary = Vec::with_capacity(of_code.size_hint().0);
    let positions = of_code.map(|value| {
        value.map_or(NULL, |value| {
            dictionary.push(value);
            (dictionary.len() - 1) as u32
        })
    });
    Values { positions: positions.collect(), dictionary }
}

/// Values that many codes share, each once.
fn distinct(of_code: impl Iterator<Item = Option<u32>>) -> Values<u32> {
    let of_code: Vec<Option<u32>> = of_code.collect();
    let (renumbered, dictionary) = renumber(of_code.iter().flatten().copied());
    let mut renumbered = renumbered.into_iter();
    let positions = of_code.iter().map(|value| value.and_then(|_| renumbered.next()).unwrap_or(NULL)).collect();
    Values { positions, dictionary }
}

/// A compressed page of positions in a dictionary.
#[derive(Clone)]
struct IndexPage {
    compressed: Vec<u8>,
    uncompressed_bytes: usize,
    null_count: usize,
}

impl IndexPage {
    /// Source: <https://parquet.apache.org/docs/file-format/data-pages/encodings/#RLEDICT>.
    fn encode(
        codes: &[u32],
        positions: &[u32],
        distinct: usize,
        nullable: bool,
        compressor: &mut PageCompressor,
    ) -> Result<Self, ColumnarError> {
        let bits = (usize::BITS - distinct.saturating_sub(1).leading_zeros()).max(1);
        let mut page = Vec::with_capacity(codes.len() * bits as usize / 8 + codes.len() / 8 + 32);
        let has_nulls = positions.contains(&NULL);
        let mut null_count = 0;
        if nullable {
            // Definition levels: 1 where there is a value. Version 1 pages put their length before them.
            page.extend_from_slice(&[0; 4]);
            if has_nulls {
                let valid = codes.iter().map(|&code| positions[code as usize] != NULL);
                null_count = valid.clone().filter(|valid| !valid).count();
                hybrid_rle::encode_bool(&mut page, valid).map_err(|error| ColumnarError::Encode(error.to_string()))?;
            } else {
                push_varint(&mut page, codes.len() << 1);
                page.push(1);
            }
            let length = (page.len() - 4) as u32;
            page[..4].copy_from_slice(&length.to_le_bytes());
        }
        page.push(bits as u8);
        push_varint(&mut page, (codes.len() - null_count).div_ceil(8) << 1 | 1);
        let of_rows = codes.iter().map(|&code| positions[code as usize]);
        if has_nulls {
            bit_pack(&mut page, of_rows.filter(|&position| position != NULL), bits);
        } else {
            bit_pack(&mut page, of_rows, bits);
        }
        Ok(IndexPage { compressed: compressor.bytes(&page)?, uncompressed_bytes: page.len(), null_count })
    }
}

/// Unsigned LEB128, <https://en.wikipedia.org/wiki/LEB128>.
fn push_varint(page: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        page.push(value as u8 | 0x80);
        value >>= 7;
    }
    page.push(value as u8);
}

/// Packs values of so many bits, from the lowest bit on, and fills the last group of eight values up with zeros.
fn bit_pack(page: &mut Vec<u8>, values: impl Iterator<Item = u32>, bits: u32) {
    let (mut packed, mut filled, mut count) = (0_u64, 0, 0_usize);
    for value in values {
        packed |= u64::from(value) << filled;
        filled += bits;
        if filled >= u32::BITS {
            page.extend_from_slice(&(packed as u32).to_le_bytes());
            packed >>= u32::BITS;
            filled -= u32::BITS;
        }
        count += 1;
    }
    let padding = (count.next_multiple_of(8) - count) * bits as usize;
    let bytes = (filled as usize + padding) / 8;
    let rest = packed.to_le_bytes();
    page.extend((0..bytes).map(|index| rest.get(index).copied().unwrap_or(0)));
}

/// Values as a dictionary page has them.
trait Plain: Copy {
    fn encode(values: &[Self]) -> Vec<u8>;
    fn statistics(values: &[Self], null_count: i64, type_: &PrimitiveType) -> parquet_format_safe::Statistics;
}

impl Plain for &str {
    fn encode(values: &[Self]) -> Vec<u8> {
        let mut plain = Vec::with_capacity(values.iter().map(|value| 4 + value.len()).sum());
        for value in values {
            plain.extend_from_slice(&(value.len() as u32).to_le_bytes());
            plain.extend_from_slice(value.as_bytes());
        }
        plain
    }

    fn statistics(values: &[Self], null_count: i64, type_: &PrimitiveType) -> parquet_format_safe::Statistics {
        let extreme = |value: Option<&&str>| value.map(|value| value.as_bytes().to_vec());
        let statistics = BinaryStatistics {
            primitive_type: type_.clone(),
            null_count: Some(null_count),
            distinct_count: None,
            max_value: extreme(values.iter().max()),
            min_value: extreme(values.iter().min()),
        };
        serialize_statistics(&statistics as &dyn Statistics)
    }
}

macro_rules! plain_number {
    ($type:ty) => {
        impl Plain for $type {
            fn encode(values: &[Self]) -> Vec<u8> {
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            }

            fn statistics(values: &[Self], null_count: i64, type_: &PrimitiveType) -> parquet_format_safe::Statistics {
                let statistics = PrimitiveStatistics::<$type> {
                    primitive_type: type_.clone(),
                    null_count: Some(null_count),
                    distinct_count: None,
                    max_value: values.iter().max().copied(),
                    min_value: values.iter().min().copied(),
                };
                serialize_statistics(&statistics as &dyn Statistics)
            }
        }
    };
}

plain_number!(i64);
plain_number!(i32);

/// A column of a row group: its compressed pages.
type ColumnPages = Vec<CompressedPage>;

/// Encodes columns that follow from the same codes of a row group's rows.
struct ColumnEncoder<'a> {
    codes: &'a [u32],
    compressor: PageCompressor,
    /// The pages made so far, with the positions in them and whether they may be null.
    pages: Vec<(Vec<u32>, bool, IndexPage)>,
}

impl<'a> ColumnEncoder<'a> {
    fn new(codes: &'a [u32]) -> Result<Self, ColumnarError> {
        Ok(ColumnEncoder { codes, compressor: PageCompressor::new()?, pages: Vec::new() })
    }

    /// A column by dictionary.
    fn column<V: Plain>(&mut self, type_: PrimitiveType, values: Values<V>) -> Result<ColumnPages, ColumnarError> {
        let nullable = type_.field_info.repetition == Repetition::Optional;
        let Values { positions, dictionary } = values;
        let known = self.pages.iter().find(|(known, optional, _)| *known == positions && *optional == nullable);
        let page = match known {
            Some((_, _, page)) => page.clone(),
            None => {
                let compressor = &mut self.compressor;
                let page = IndexPage::encode(self.codes, &positions, dictionary.len(), nullable, compressor)?;
                self.pages.push((positions, nullable, page.clone()));
                page
            }
        };
        let statistics = V::statistics(&dictionary, page.null_count as i64, &type_);
        let dictionary_page = DictPage::new(V::encode(&dictionary), dictionary.len(), false);
        let dictionary_page = self.compressor.compress(Page::Dict(dictionary_page))?;
        let data_page = CompressedDataPage::new(
            data_page_header(self.codes.len(), Encoding::RleDictionary, statistics),
            page.compressed,
            Compression::Zstd,
            page.uncompressed_bytes,
            Descriptor { primitive_type: type_, max_def_level: 0, max_rep_level: 0 },
            Some(self.codes.len()),
        );
        Ok(vec![dictionary_page, CompressedPage::Data(data_page)])
    }
}

/// A column of times of one day: by dictionary where whole seconds repeat, which takes a quarter of the plain times' space and
/// time.
fn encode_times(type_: PrimitiveType, times: &[i64]) -> Result<ColumnPages, ColumnarError> {
    let midnight = times.first().map_or(0, |&time| time.div_euclid(MICROS_PER_DAY) * MICROS_PER_DAY);
    if times.iter().all(|time| (time - midnight) % MICROS_PER_SECOND == 0) {
        let (codes, seconds) = renumber(times.iter().map(|time| ((time - midnight) / MICROS_PER_SECOND) as u32));
        if !seconds.is_empty() && seconds.len() <= times.len() / 2 {
            let values = seconds.iter().map(|&second| Some(midnight + i64::from(second) * MICROS_PER_SECOND));
            return ColumnEncoder::new(&codes)?.column(type_, each(values));
        }
    }
    let header = data_page_header(times.len(), Encoding::Plain, i64::statistics(times, 0, &type_));
    let descriptor = Descriptor { primitive_type: type_, max_def_level: 0, max_rep_level: 0 };
    let page = DataPage::new(header, i64::encode(times), descriptor, Some(times.len()));
    Ok(vec![PageCompressor::new()?.compress(Page::Data(page))?])
}

fn data_page_header(rows: usize, encoding: Encoding, statistics: parquet_format_safe::Statistics) -> DataPageHeader {
    DataPageHeader::V1(DataPageHeaderV1 {
        num_values: rows as i32,
        encoding: encoding.into(),
        definition_level_encoding: Encoding::Rle.into(),
        repetition_level_encoding: Encoding::Rle.into(),
        statistics: Some(statistics),
    })
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

/// How long the footer of a file is, with the length itself and the magic number behind it, when these are its last bytes. `None` when
/// they are not those of Parquet.
/// <https://parquet.apache.org/docs/file-format/>
pub fn footer_bytes(end: &[u8]) -> Option<usize> {
    let [.., a, b, c, d, b'P', b'A', b'R', b'1'] = end else { return None };
    Some(u32::from_le_bytes([*a, *b, *c, *d]) as usize + 8)
}

/// How many rows a file has, by its last bytes, among them its whole footer.
pub fn count_rows(end: &[u8]) -> Result<u64, ColumnarError> {
    contained(|| Ok(arrow_read::read_metadata(&mut Cursor::new(end)).map_err(undecodable)?.num_rows as u64))
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
pub fn encode_deltas(rows: &[DeltaRow<'_>]) -> Result<Vec<u8>, ColumnarError> {
    let mut file = ParquetFile::new(&delta_schema(), false)?;
    if !rows.is_empty() {
        file.write_columns(delta_columns(rows))?;
    }
    file.finish()
}

fn delta_columns(rows: &[DeltaRow<'_>]) -> Vec<Box<dyn Array>> {
    let number = |value: fn(&DeltaRow<'_>) -> u64| {
        let numbers: Vec<i64> = rows.iter().map(|row| i64::try_from(value(row)).unwrap_or(i64::MAX)).collect();
        PrimitiveArray::from_vec(numbers).boxed()
    };
    let optional = |value: for<'r> fn(&'r DeltaRow<'_>) -> Option<&'r str>| {
        Utf8Array::<i32>::from_trusted_len_iter(rows.iter().map(value)).boxed()
    };
    vec![
        Utf8Array::<i32>::from_iter_values(rows.iter().map(|row| row.report.name())).boxed(),
        Utf8Array::<i32>::from_iter_values(rows.iter().map(|row| &row.id)).boxed(),
        PrimitiveArray::from_vec(rows.iter().map(|row| row.day).collect()).to(DataType::Date32).boxed(),
        number(|row| row.listens),
        number(|row| row.listening_ms),
        BinaryArray::<i32>::from_iter_values(rows.iter().map(|row| &row.distinct)).boxed(),
        optional(|row| row.track_name),
        optional(|row| row.artists),
        optional(|row| row.genres),
        optional(|row| row.user_country),
    ]
}

/// Reads a delta file back.
pub fn decode_deltas(bytes: &[u8]) -> Result<Vec<Delta>, ColumnarError> {
    contained(|| read_delta_file(bytes))
}

/// Decodes with the archived crates, whose panics become errors.
fn contained<T>(decode: impl FnOnce() -> Result<T, ColumnarError>) -> Result<T, ColumnarError> {
    tasks::contain(decode).unwrap_or_else(|| Err(ColumnarError::Decode("its bytes are damaged".to_owned())))
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
