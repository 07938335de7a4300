//! Problems: why a question has no answer, and what to do. Told by RFC 9457
//! (<https://www.rfc-editor.org/rfc/rfc9457.xml>).

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::aws::error::Kind;
use crate::reading::reader::ReadingError;

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The reason for which a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The status of the answer.
    pub status: StatusCode,
    /// The kind of the problem, in a few words, the same for all of its kind.
    pub title: &'static str,
    /// What is wrong here, and what to write or to do instead.
    pub detail: String,
    /// The parameter that is wrong, if one is.
    pub parameter: Option<String>,
    /// Seconds after which to ask again, if that helps.
    pub retry_after: Option<u32>,
}

impl Problem {
    /// A problem without a parameter.
    pub fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Problem { status, title, detail: detail.into(), parameter: None, retry_after: None }
    }

    /// A parameter that cannot be understood.
    pub fn parameter(name: &str, detail: impl Into<String>) -> Self {
        let problem = Problem::new(StatusCode::BAD_REQUEST, "a parameter is wrong", detail);
        Problem { parameter: Some(name.to_owned()), ..problem }
    }

    /// The problem as JSON.
    pub fn json(&self) -> Value {
        let mut fields = json!({
            "type": "about:blank",
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(parameter) = &self.parameter {
            fields["parameter"] = json!(parameter);
        }
        fields
    }
}

impl From<ReadingError> for Problem {
    fn from(error: ReadingError) -> Self {
        let detail = error.to_string();
        match error {
            ReadingError::Aws(error) if error.kind == Kind::Throttled => Problem {
                retry_after: Some(5),
                ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the tables ask to slow down", detail)
            },
            ReadingError::Aws(_) => Problem::new(StatusCode::BAD_GATEWAY, "the tables do not answer", detail),
            ReadingError::Definition(_) => {
                Problem::new(StatusCode::BAD_GATEWAY, "the definition in force cannot be used", detail)
            }
        }
    }
}
