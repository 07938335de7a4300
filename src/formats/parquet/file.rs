//! Files that are being written, row group by row group.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use parquet_format_safe::thrift::protocol::TCompactOutputProtocol;
use parquet_format_safe::{ColumnOrder, TypeDefinedOrder};
use parquet2::fallible_streaming_iterator;
use parquet2::metadata::SchemaDescriptor;
use parquet2::write::{DynIter, DynStreamingIterator, FileWriter, Version, WriteOptions};

use crate::formats::parquet::arrays::ColumnArray;
use crate::formats::parquet::pages::{ColumnPages, PageCompressor};
use crate::formats::parquet::{ParquetError, Schema};

/// Length of the end of Parquet's footer: its own length (4 bytes) and the magic number (4 bytes).
const FOOTER_TAIL_BYTES: usize = 8;

/// The writer's output, from which finished row groups can be taken while writing goes on.
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

/// A Parquet file that is being written.
pub struct ParquetFile {
    output: Output,
    schema: SchemaDescriptor,
    writer: FileWriter<Output>,
}

impl ParquetFile {
    /// Begins a file. `statistics` says whether its footer has the columns' statistics.
    pub fn new(schema: Schema, statistics: bool) -> Result<Self, ParquetError> {
        let output = Output::default();
        let schema = schema.0;
        let options = WriteOptions { write_statistics: statistics, version: Version::V1 };
        let created_by = concat!("music-streams version ", env!("CARGO_PKG_VERSION")).to_owned();
        let writer = FileWriter::new(output.clone(), schema.clone(), options, Some(created_by));
        Ok(ParquetFile { output, schema, writer })
    }

    /// Encodes columns as a row group and adds it.
    pub fn write_columns(&mut self, columns: Vec<ColumnArray>) -> Result<(), ParquetError> {
        let mut compressor = PageCompressor::new()?;
        let mut chunks = Vec::with_capacity(columns.len());
        for (array, column) in columns.iter().zip(self.schema.columns()) {
            let pages = array.pages(&column.descriptor.primitive_type)?;
            chunks.push(pages.into_iter().map(|page| compressor.compress(page)).collect::<Result<_, _>>()?);
        }
        self.append(RowGroup(chunks))
    }

    /// Adds a row group with the file's columns.
    pub fn append(&mut self, row_group: RowGroup) -> Result<(), ParquetError> {
        let chunks = row_group.0.iter().map(|pages| {
            let pages = fallible_streaming_iterator::convert(pages.iter().map(Ok::<_, parquet2::error::Error>));
            Ok(DynStreamingIterator::new(pages))
        });
        self.writer.write::<parquet2::error::Error>(DynIter::new(chunks))?;
        Ok(())
    }

    /// Returns the size in bytes of finished row groups that have not been taken yet.
    pub fn pending_bytes(&self) -> usize {
        self.output.lock().len()
    }

    /// Takes the bytes of finished row groups.
    pub fn take_pending(&mut self) -> Vec<u8> {
        std::mem::take(&mut *self.output.lock())
    }

    /// Writes the footer and takes the remaining bytes.
    pub fn finish(mut self) -> Result<Vec<u8>, ParquetError> {
        self.writer.end(None)?;
        let (_, mut metadata) = self.writer.into_inner_and_metadata();
        let mut bytes = std::mem::take(&mut *self.output.lock());
        // Replaces parquet2's footer by a complete one.
        let tail = bytes.len() - FOOTER_TAIL_BYTES;
        let length = bytes[tail..tail + 4].iter().rev().fold(0_usize, |length, &byte| length << 8 | usize::from(byte));
        bytes.truncate(tail - length);
        metadata.column_orders =
            Some(self.schema.columns().iter().map(|_| ColumnOrder::TYPEORDER(TypeDefinedOrder {})).collect());
        let footer_start = bytes.len();
        let mut protocol = TCompactOutputProtocol::new(&mut bytes);
        metadata.write_to_out_protocol(&mut protocol).map_err(|error| ParquetError::Encode(error.to_string()))?;
        let length = (bytes.len() - footer_start) as u32;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(b"PAR1");
        Ok(bytes)
    }
}

/// The compressed pages of a row group, column by column.
#[derive(Debug)]
pub struct RowGroup(Vec<ColumnPages>);

impl RowGroup {
    /// A row group of these columns, which stand in the order of the schema.
    pub fn new(columns: Vec<ColumnPages>) -> Self {
        RowGroup(columns)
    }
}
