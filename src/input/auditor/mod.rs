//! The auditor's reader: a file row by row, by the definition as it was written.
//!
//! It is slower than [`crate::input::file::Blocks`] and shares only decompression and the notations of times with it,
//! so that one can be checked against the other: `music-streams verify` does so, and so do the tests of
//! [`crate::input`]. Fields are taken byte by byte, JSON by serde_json, and values one after the other, by name.
//!
//! | file | content |
//! |---|---|
//! | `text` | the text, a window of it in memory |
//! | `fields` | records of fields |
//! | `json` | records of JSON |
//! | `judge` | the judgement of a record |

mod fields;
mod json;
mod judge;
mod text;

use std::sync::Arc;

use tokio::io::AsyncRead;

use crate::definition::Definition;
use crate::definition::input::Input;
use crate::input::auditor::fields::Fields;
use crate::input::auditor::json::Json;
use crate::input::auditor::judge::Judge;
use crate::input::auditor::text::Text;
use crate::input::file::ReadError;

/// A value of a column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// Of an id, a text or a join.
    Text(String),
    /// Of an integer, a decimal in its units, or a time in microseconds.
    Number(i64),
}

/// The judgement of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It is good: its values, by the definition's columns.
    Good(Vec<Option<Value>>),
    /// It is not meant.
    PassedOver,
    /// It is rejected for this reason.
    Rejected(String),
}

/// A row of a file.
#[derive(Debug)]
pub struct Row {
    /// The line of the file on which its record begins, from 1.
    pub number: u64,
    /// The number of lines that its record spans.
    pub lines: u64,
    /// The judgement.
    pub judgement: Judgement,
    /// All its fields, unchanged; of JSON the record.
    pub fields: Vec<Vec<u8>>,
}

/// A record, before it is judged.
struct Record {
    number: u64,
    lines: u64,
    fields: Vec<Vec<u8>>,
    content: Content,
}

/// The content of a record.
enum Content {
    /// It cannot be taken apart, for this reason.
    Bad(String),
    /// Fields, under these names if the file has any.
    Fields(Option<Arc<Vec<Vec<u8>>>>),
    /// An object.
    Object(json::Object),
}

/// A file that is read row by row.
pub struct InputFile<'d> {
    records: Records,
    judge: Judge<'d>,
}

enum Records {
    Fields(Fields),
    Json(Json),
}

impl<'d> InputFile<'d> {
    /// Reads the beginning of the file under this key, as [`crate::input::file::Blocks::open`] does.
    pub async fn open(
        body: impl AsyncRead + Send + Unpin + 'static,
        limit_bytes: u64,
        judged_at: jiff::Timestamp,
        definition: &'d Definition,
        key: &str,
    ) -> Result<Self, ReadError> {
        let judge = Judge::new(definition, judged_at, key)?;
        let text = Text::open(body, limit_bytes).await;
        let records = match &definition.input {
            Input::Delimited(format) => Records::Fields(Fields::open(text, format.clone()).await?),
            Input::Json { records } => Records::Json(Json::open(text?, records.clone()).await?),
        };
        if let Records::Fields(fields) = &records
            && let Some(names) = fields.names()
        {
            judge.check_names(names, fields.is_malformed())?;
        }
        Ok(InputFile { records, judge })
    }

    /// Returns the next row, or `None` at the end of the file. Rows that came before an error must not be used: a file
    /// counts as a whole or not at all.
    pub async fn next(&mut self) -> Result<Option<Row>, ReadError> {
        let record = match &mut self.records {
            Records::Fields(fields) => fields.next(&self.judge).await?,
            Records::Json(json) => json.next().await?,
        };
        let Some(Record { number, lines, fields, content }) = record else { return Ok(None) };
        let judgement = self.judge.judge(&content, &fields);
        Ok(Some(Row { number, lines, judgement, fields }))
    }
}
