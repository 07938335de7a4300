//! S3: reading, listing, writing and moving the objects of a bucket.
//!
//! The only module that knows S3. Calls for objects go through a [`Pace`], so that fewer are under way when S3 asks to
//! slow down.
//!
//! * [`read`]: reading, pinned to one content by version id or eTag; it resumes where the network broke off.
//! * [`list`]: lists, and the properties of an object.
//! * [`mod@write`]: writing; a multipart upload stays invisible until it is completed.
//! * [`copy`] and [`delete`]: copying and deleting, both on condition of the source's content, so that a file that was
//!   overwritten in between is never deleted unread.
//! * [`check`]: the check of permissions at startup, and the probe that tells a faulty object from a faulty S3.
//!
//! Covered by `tests/pipeline`, and by `tests/chaos` under failing calls and missing permissions.

pub mod check;
pub mod copy;
pub mod delete;
pub mod list;
pub mod read;
pub mod write;

use std::sync::Arc;

use tokio::sync::OnceCell;

pub use crate::aws::s3::copy::Copied;
pub use crate::aws::s3::delete::DELETES_PER_REQUEST;
pub use crate::aws::s3::list::{Current, NextVersion, Written};
pub use crate::aws::s3::read::{Body, Chunks, READ_AHEAD_BYTES};
pub use crate::aws::s3::write::{PART_BYTES, PendingUpload, Upload};

use crate::aws::pace::Pace;

/// Upper bound of the parts of an upload: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
const MAX_PARTS: u64 = 10_000;
/// Upper bound of the calls for objects under way at once. Small objects cost round trips and little else.
pub const CONCURRENT_OBJECTS: usize = 64;
/// Attempts to read or copy one object or part without progress, each with the SDK's own retries. If a third of all
/// calls fail, one object in ten thousand is left out; an object for which all calls fail is recognized after half a
/// minute.
const OBJECT_TRIES: u32 = 8;

/// A client for one bucket. Clones share its pace.
#[derive(Debug, Clone)]
pub struct Bucket {
    client: aws_sdk_s3::Client,
    name: String,
    /// True if the service looks at the condition of each deletion; unknown until the first one.
    is_conditional: Arc<OnceCell<bool>>,
    pace: Pace,
}

impl Bucket {
    /// Creates a client for the bucket called `name`.
    pub fn new(client: aws_sdk_s3::Client, name: String) -> Self {
        Bucket { client, name, is_conditional: Arc::default(), pace: Pace::new(CONCURRENT_OBJECTS) }
    }

    /// The bucket's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.name)
    }
}
