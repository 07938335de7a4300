//! The page and the API: `music-streams serve`, over HTTP, in Lambda, or once.
//!
//! They show the answers of [`crate::reading`], and nothing else. Everything that may be asked is in the URL.
//!
//! | file | contents |
//! |---|---|
//! | [`server`] | connections, limits, headers |
//! | [`guard`] | who may ask |
//! | [`app`] | from a path and a query to a reply, kept as long as it holds |
//! | [`route`] | from a path to a resource |
//! | [`question`] | from a query to a question |
//! | [`problem`] | why a question has no answer |
//! | [`openapi`] | the API's description |
//! | [`view`] | what each page asks |
//! | [`page`] | answers as HTML |
//! | [`chart`] | figures as SVG, and as blocks of a terminal |

pub mod app;
pub mod chart;
pub mod guard;
pub mod openapi;
pub mod page;
pub mod problem;
pub mod question;
pub mod route;
pub mod server;
pub mod view;
