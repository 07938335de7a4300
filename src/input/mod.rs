//! Input: from the bytes of an object to its rows, good and rejected.
//!
//! A listening file is CSV with a header, plain or gzip. Whatever its bytes are, the answer is rows or a
//! [`file::BadObject`], the reason for its quarantine: nothing panics, and neither a record without an end nor a stream
//! that inflates without end takes memory or time beyond the limits. The rows depend on the bytes, the limit and the
//! time of judgement alone, so that a later reader finds the same rows.
//!
//! | file | content |
//! |---|---|
//! | [`file`](mod@file) | a listening file as blocks, and the errors |
//! | [`block`] | blocks to rows in codes |
//! | [`parsed`] | the rows of a block of any plan |
//! | `lines` | the fast way through plain lines |
//! | [`rejects`] | the list of rejected rows |
//! | [`cleanse`] | the rules for good rows |
//! | [`audit_reader`] | a second reader, byte by byte, that shares no parser with the others |
//!
//! The unit tests compare all ways from bytes to rows with each other.

pub mod audit_reader;
pub mod auditor;
pub mod block;
mod canonical;
pub mod cleanse;
mod codes;
mod delimited;
pub mod file;
mod json;
mod layout;
mod lines;
pub mod parse;
pub mod parsed;
pub mod reader;
mod rejection;
pub mod rejects;
pub mod rules;
mod value;
#[cfg(test)]
mod agreement;
#[cfg(test)]
mod generated;
#[cfg(test)]
mod tests;
