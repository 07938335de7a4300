//! Input: from the bytes of an object to its rows, good and rejected.
//!
//! Whatever the bytes of a file are, the answer is rows or a [`file::BadObject`], the reason for its quarantine: nothing
//! panics, and neither a record without an end nor a stream that inflates without end takes memory or time beyond the
//! limits. The rows depend on the bytes, the limit, the definition and the time of judgement alone, so that a later
//! reader finds the same rows.
//!
//! | file | content |
//! |---|---|
//! | [`reader`] | a file as blocks |
//! | [`file`](mod@file) | the reasons why a file cannot be counted |
//! | [`rules`] | a definition's rules for good rows |
//! | `layout` | the places of columns in a file |
//! | [`parse`] | blocks to rows in codes, integers and times |
//! | `canonical`, `delimited`, `json` | the ways through lines and records |
//! | `value`, `codes` | the values of a row, and their codes within the block |
//! | [`parsed`] | the rows of a block |
//! | `rejection`, [`rejects`] | the reasons for rejected rows, and the list of them |
//! | [`auditor`] | a second reader, byte by byte, that shares no parser with the others |
//!
//! The unit tests compare all ways from bytes to rows with each other.

#[cfg(test)]
mod agreement;
pub mod auditor;
mod canonical;
mod codes;
mod delimited;
pub mod file;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod generated;
mod json;
mod layout;
pub mod parse;
pub mod parsed;
pub mod reader;
mod rejection;
pub mod rejects;
pub mod rules;
mod value;
