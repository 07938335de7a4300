//! The reading side: questions about figures, over any days, and their answers.
//!
//! One reader answers the command line, the API and the page, so they cannot differ. It writes nothing.
//!
//! | file | contents |
//! |---|---|
//! | [`answer`] | questions and answers, as data |
//! | [`range`] | ranges of days, and those that they are compared with |
//! | [`ranking`] | rankings over days, exact or with a bound |
//! | [`moment`] | the state of the ledger at which figures are read, and the marks of days |
//! | [`kept`] | what was read and still holds |
//! | [`reader`] | reads of items and lists, each only if it may have changed |
//! | [`questions`] | from a question to what is read, and to the answer |
//! | [`pipeline`] | the state of the pipeline |
//! | [`shape`] | answers as JSON and CSV |

pub mod answer;
pub mod kept;
pub mod moment;
pub mod pipeline;
pub mod questions;
pub mod range;
pub mod ranking;
pub mod reader;
pub mod shape;
