//! Delta: the entries of a Delta table's log, and its checkpoints. Bytes to values and back; it decides nothing.
//!
//! A table is the files that its log names. Each entry of the log is a file of JSON lines, numbered from 0; a
//! checkpoint is all that the entries up to a number come to, as Parquet. Only what readers of version 1 and writers of
//! version 2 know is read and written. Format: <https://github.com/delta-io/delta/blob/master/PROTOCOL.md>.
//!
//! | file | content |
//! |---|---|
//! | [`action`] | the actions of an entry |
//! | [`checkpoint`] | checkpoints, and the file that names the last one |
//! | [`schema`] | the columns of a table |
//! | [`stats`] | the statistics of a file |

pub mod action;
pub mod checkpoint;
pub mod schema;
pub mod stats;

/// A failure to read a part of a log.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// It is not what the format says.
    #[error("{what} cannot be read: {problem}")]
    Unreadable {
        /// The part.
        what: &'static str,
        /// The fault.
        problem: String,
    },
    /// It needs features that this program does not have.
    #[error(
        "the table was changed by another writer, and needs {0}; this program writes tables of reader version 1 and \
         writer version 2 only. Stop the consumers, delete the log, and start them: they make the table anew"
    )]
    Unsupported(String),
    /// A column is of another type than the table's.
    #[error(
        "{column} is {type_} in its files, and {known} in the table; give the column another name in the definition, \
         and rebuild the day"
    )]
    OtherType {
        /// The column.
        column: String,
        /// Its type in files.
        type_: String,
        /// Its type in the table.
        known: String,
    },
}
