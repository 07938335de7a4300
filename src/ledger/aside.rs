//! Entries of what is set aside: work that was refused permanently and must not block anything else.
//!
//! Pure. Each entry is in the ledger's list from the time it is set aside until it is brought back.
//! [`crate::commands::aside`] shows the list and brings entries back. Covered by `tests/pipeline/refusals.rs`.

use serde::{Deserialize, Serialize};

use crate::aws::s3::Upload;
use crate::calendar::time_text;
use crate::layout::hexadecimal_sha256;
use crate::object::ObjectId;
use crate::plan::Plan;
use crate::plan::period::Period;
use crate::protocol::BatchNumber;
use crate::reports::figures::Key;
use crate::reports::top_lists::ListKey;

/// One entry: a thing that is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// The thing.
    #[serde(flatten)]
    pub what: What,
    /// The batch that set it aside, the last one if there were several.
    pub batch: BatchNumber,
    /// The reason: the message of the service or the program.
    pub reason: String,
}

/// The kinds of things that are set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A file that could not be read, or with which several consumers died. It is not counted, remains under the
    /// incoming prefix, and is retried automatically after a while.
    Object {
        /// The file.
        #[serde(flatten)]
        object: ObjectId,
        /// Its size in bytes, as announced.
        size: u64,
        /// The time at which it was created, as announced.
        created_at: Option<jiff::Timestamp>,
        /// The time at which it is tried again.
        until: jiff::Timestamp,
        /// The number of times it has been set aside.
        times: u32,
    },
    /// A report item that could not be written. Its figures lack what batches have counted for it since.
    ReportItem {
        /// Name of the report.
        report: String,
        /// The value that the item stands for.
        id: String,
        /// The day, as YYYY-MM-DD, or the hour, as YYYY-MM-DDTHH.
        date: String,
    },
    /// A top list that could not be written. It may lack entries.
    TopList {
        /// Name of the list.
        list: String,
        /// The day, as YYYY-MM-DD, or the hour, as YYYY-MM-DDTHH.
        date: String,
    },
    /// A file that is counted, and could not be moved out of the incoming prefix.
    Original {
        /// The file.
        #[serde(flatten)]
        object: ObjectId,
        /// Its size in bytes, as announced.
        size: u64,
        /// The key to which its batch moves it.
        to: String,
        /// The reason for its quarantine, if it is to be quarantined.
        quarantined: Option<String>,
    },
    /// A curated file, or a file of rejected rows, that could not be published.
    Upload {
        /// The upload.
        #[serde(flatten)]
        upload: Upload,
    },
    /// A committed batch that could not be carried out, or not with its figures, because its manifest or a delta file
    /// is gone or damaged.
    Batch {
        /// Key of the manifest or delta file.
        key: String,
    },
}

impl What {
    /// The kind, as the value of a metric's label.
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

/// The sort key of an entry in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsideKey(pub String);

impl AsideKey {
    /// Returns the key of an object's entry.
    pub fn of_object(object: &ObjectId) -> Self {
        AsideKey(format!("object#{}", digest(&[&object.bucket, &object.key, &object.version.to_string()])))
    }
}

/// Shortens names to a digest: a sort key has at most 1,024 bytes, and an object's key alone may have as many. Source:
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>.
fn digest(parts: &[&str]) -> String {
    hexadecimal_sha256(parts.join("\n").as_bytes())
}

impl Aside {
    /// Upper bound of a reason's length, in bytes.
    const REASON_BYTES: usize = 2000;

    /// Makes an entry. Its reason is truncated to 2,000 bytes.
    pub fn new(what: What, batch: BatchNumber, reason: &str) -> Self {
        let end = reason.floor_char_boundary(Self::REASON_BYTES);
        Aside { what, batch, reason: reason[..end].to_owned() }
    }

    /// Makes the entry of a report item.
    pub fn item(key: &Key, plan: &Plan, batch: BatchNumber, reason: &str) -> Self {
        let Key { report, id, period } = key;
        let report = plan.reports[*report].name.clone();
        let what = What::ReportItem { report, id: id.clone(), date: period.to_string() };
        Aside::new(what, batch, reason)
    }

    /// The entry of a top list.
    pub fn top_list(key: &ListKey, batch: BatchNumber, reason: &str) -> Self {
        let what = What::TopList { list: key.list.clone(), date: key.period.to_string() };
        Aside::new(what, batch, reason)
    }

    /// Returns the entry's sort key in the list. What is set aside again replaces its earlier entry.
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

    /// Returns the report item of the entry; `None` for other kinds.
    pub fn report_item(&self, plan: &Plan) -> Option<Key> {
        let What::ReportItem { report, id, date } = &self.what else { return None };
        // The version before named reports in the singular.
        let report = plan.report_named(report).or_else(|| plan.report_named(&format!("{report}s")))?;
        Some(Key { report, id: id.clone(), period: Period::parse(date)? })
    }

    /// The top list that the entry is about; `None` for other kinds.
    pub fn top_list_key(&self) -> Option<ListKey> {
        let What::TopList { list, date } = &self.what else { return None };
        Some(ListKey { list: list.clone(), period: Period::parse(date)? })
    }

    /// Returns the kind, the name and the remedy, for people.
    pub fn describe(&self) -> [String; 3] {
        let (kind, name, way_back) = match &self.what {
            What::Object { object, until, .. } => {
                let until = time_text(*until);
                ("file", url(object), format!("retried automatically after {until}; sooner with --retry"))
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
                ("counted file", url(object), format!("permit its copy to {to} and its deletion, then --retry"))
            }
            What::Upload { upload } => {
                ("file to publish", upload.key.clone(), "--retry, which rebuilds its day if necessary".to_owned())
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
