//! The reading side over HTTP.
//!
//! | file | contents |
//! |---|---|
//! | [`page`] | answers as HTML |
//! | [`chart`] | figures as SVG, and as block characters |

pub mod chart;
pub mod page;
