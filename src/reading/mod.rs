//! The reading side: questions about figures, over any days, and their answers.
//!
//! One reader answers the command line, the API and the page, so they cannot differ. It writes nothing.
//!
//! | file | contents |
//! |---|---|
//! | [`answer`] | questions and answers, as data |
//! | [`range`] | ranges of days, and those that they are compared with |
//! | [`ranking`] | rankings over days, exact or with a bound |

pub mod answer;
pub mod range;
pub mod ranking;
