//! What was refused for good and set aside, so that it holds nothing else up: what there is of it, and the way back.
//!
//! Pure. Each kind is a unit of its own, with a line in the ledger from when it is set aside until it is back.
//! [`crate::commands::aside`] lists them and brings them back.

use serde::{Deserialize, Serialize};

use crate::aws::s3::Upload;
use crate::calendar::time_text;
use crate::calendar::{date_text, parse_date};
use crate::layout::hexadecimal_sha256;
use crate::object::ObjectId;
use crate::protocol::BatchNumber;
use crate::reports::figures::{Key, Report};
use crate::reports::top_lists::ListKey;

/// Something that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// What it is.
    #[serde(flatten)]
    pub what: What,
    /// The batch that set it aside, the last one of several.
    pub batch: BatchNumber,
    /// Why: what the service or the program said.
    pub reason: String,
}

/// The kinds of what is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A file that could not be read, or that several consumers have died with. It is not counted, lies where it was put, and
    /// is tried again by itself after a while.
    Object {
        /// Which.
        #[serde(flatten)]
        object: ObjectId,
        /// Its size in bytes, as announced.
        size: u64,
        /// When it was created, as announced.
        created_at: Option<jiff::Timestamp>,
        /// When it is tried again.
        until: jiff::Timestamp,
        /// How often it has been set aside.
        times: u32,
    },
    /// A report item that could not be written. Its figures lack what batches have since counted for it.
    ReportItem {
        /// Name of the report.
        report: String,
        /// The track id, genre or user id.
        id: String,
        /// The day, as YYYY-MM-DD.
        date: String,
    },
    /// A top list that could not be written. It may lack entries.
    TopList {
        /// Name of the list.
        list: String,
        /// The day, as YYYY-MM-DD.
        date: String,
    },
    /// A file that is counted, and could not be moved out of the incoming prefix.
    Original {
        /// Which.
        #[serde(flatten)]
        object: ObjectId,
        /// Its size in bytes, as announced.
        size: u64,
        /// Where its batch wants it.
        to: String,
        /// Why it belongs into the quarantine, if it does.
        quarantined: Option<String>,
    },
    /// A curated file, or a file of rejected rows, that could not be published.
    Upload {
        /// The upload.
        #[serde(flatten)]
        upload: Upload,
    },
    /// A committed batch that could not be carried out, or not with its figures, since its manifest or a delta file is gone or
    /// damaged.
    Batch {
        /// The file.
        key: String,
    },
}

impl What {
    /// The kind, as a metric's label.
    pub fn name(&self) -> &'static str {
        match self {
            What::Object { .. } => "object",
            What::ReportItem { .. } => "report_item",
            What::TopList { .. } => "top_list",
            What::Original { .. } => "original",
            What::Upload { .. } => "upload",
            What::Batch { .. } => "batch",
        }
    }
}

/// Names one entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsideKey(pub String);

impl AsideKey {
    /// That of an object.
    pub fn of_object(object: &ObjectId) -> Self {
        AsideKey(format!("object#{}", digest(&[&object.bucket, &object.key, &object.version.to_string()])))
    }
}

/// Sort keys have 1,024 bytes at the most, and an object's name alone may have as many.
fn digest(parts: &[&str]) -> String {
    hexadecimal_sha256(parts.join("\n").as_bytes())
}

impl Aside {
    /// Longest reason that is kept, in bytes.
    const REASON_BYTES: usize = 2000;

    /// An entry, with as much of its reason as is worth keeping.
    pub fn new(what: What, batch: BatchNumber, reason: &str) -> Self {
        let end = reason.floor_char_boundary(Self::REASON_BYTES);
        Aside { what, batch, reason: reason[..end].to_owned() }
    }

    /// A report item's entry.
    pub fn item(key: &Key, batch: BatchNumber, reason: &str) -> Self {
        let Key { report, id, day } = key;
        let what = What::ReportItem { report: report.name().to_owned(), id: id.clone(), date: date_text(*day) };
        Aside::new(what, batch, reason)
    }

    /// A top list's entry.
    pub fn top_list(key: &ListKey, batch: BatchNumber, reason: &str) -> Self {
        let what = What::TopList { list: key.list.clone(), date: date_text(key.day) };
        Aside::new(what, batch, reason)
    }

    /// Its place in the list. What is set aside again takes the same place.
    pub fn key(&self) -> AsideKey {
        match &self.what {
            What::Object { object, .. } => AsideKey::of_object(object),
            What::ReportItem { report, id, date } => AsideKey(format!("item#{date}#{report}#{}", digest(&[id]))),
            What::TopList { list, date } => AsideKey(format!("list#{date}#{}", digest(&[list]))),
            What::Original { to, .. } => AsideKey(format!("original#{}", digest(&[to]))),
            What::Upload { upload } => AsideKey(format!("upload#{}", digest(&[&upload.key]))),
            What::Batch { .. } => AsideKey(format!("batch#{:012}", self.batch)),
        }
    }

    /// The report item it is about.
    pub fn report_item(&self) -> Option<Key> {
        let What::ReportItem { report, id, date } = &self.what else { return None };
        let report = Report::ALL.into_iter().find(|it| it.name() == report)?;
        Some(Key { report, id: id.clone(), day: parse_date(date)? })
    }

    /// The top list it is about.
    pub fn top_list_key(&self) -> Option<ListKey> {
        let What::TopList { list, date } = &self.what else { return None };
        Some(ListKey { list: list.clone(), day: parse_date(date)? })
    }

    /// Kind, name, and the way back, for people.
    pub fn told(&self) -> [String; 3] {
        let (kind, name, way_back) = match &self.what {
            What::Object { object, until, .. } => {
                let until = time_text(*until);
                ("file", url(object), format!("tried again by itself from {until} on; sooner by --retry"))
            }
            What::ReportItem { report, id, date } => {
                let name = format!("{report} {id} of {date}");
                ("report item", name, "repair or delete the item, then --retry".to_owned())
            }
            What::TopList { list, date } => {
                let name = format!("{list} of {date}");
                ("top list", name, "delete the item, then --retry, which rebuilds its day".to_owned())
            }
            What::Original { object, to, .. } => {
                ("counted file", url(object), format!("allow its copy to {to} and its deletion, then --retry"))
            }
            What::Upload { upload } => {
                ("file to publish", upload.key.clone(), "--retry, which rebuilds its day if need be".to_owned())
            }
            What::Batch { key } => (
                "batch",
                format!("batch {}", self.batch),
                format!("restore {key} as it was, then --retry, which rebuilds its days"),
            ),
        };
        [kind.to_owned(), name, way_back]
    }
}

fn url(object: &ObjectId) -> String {
    format!("s3://{}/{} ({})", object.bucket, object.key, object.version)
}
