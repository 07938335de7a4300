//! Input: from the bytes of an object to its rows, good and rejected.
//!
//! A file is delimited text or JSON, plain or compressed, as the definition says. Whatever its bytes are, the answer is
//! rows or a [`file::BadObject`], the reason for its quarantine: nothing panics, and neither a record without an end
//! nor a stream that inflates without end takes memory or time beyond the limits. The rows depend on the definition,
//! the object's key, the bytes, the limit and the time of judgement alone, so that a later reader finds the same rows.
//!
//! | file | content |
//! |---|---|
//! | [`file`](mod@file) | a file as blocks, and the errors |
//! | [`block`] | blocks to rows in codes |
//! | [`parsed`] | the rows of a block |
//! | `rules`, `layout` | the rules of a plan, and the places in a file that they read |
//! | `canonical` | the fast way through lines of one shape |
//! | `delimited`, `json` | the records of a block, by format |
//! | `value` | a place of a record to a value |
//! | `codes` | values as numbers |
//! | [`learned`] | the numbers of values that no reference has |
//! | `rejection`, [`rejects`] | reasons, and the list of rejected rows |
//! | [`auditor`] | a second reader that shares no parser with the others |
//!
//! The unit tests compare all ways from bytes to rows with each other, for generated definitions and files.

#[cfg(test)]
mod agreement;
pub mod auditor;
pub mod block;
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
pub mod learned;
pub mod parsed;
mod rejection;
pub mod rejects;
mod rules;
mod value;
