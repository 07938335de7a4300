//! S3: reading, writing, moving and listing objects of the bucket.
//!
//! The only module that knows S3. Reading is pinned to one content by version id or eTag, and resumes where the network
//! broke off. Writing that must stay invisible until the commit is a multipart upload that is not completed. Moving copies
//! on condition of the source's content and then deletes on the same condition, so that a file which was overwritten in
//! between is never deleted unread. Calls for objects go through a [`Pace`], so that fewer are under way when S3 asks to slow
//! down.

mod check;
mod list;
mod read;
mod relocate;
mod write;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use crate::aws::s3::list::{Current, NextVersion};
pub use crate::aws::s3::read::{Body, Chunks, READ_AHEAD_BYTES};
pub use crate::aws::s3::relocate::Copied;
pub use crate::aws::s3::write::{PART_BYTES, PendingUpload, Upload};

use crate::aws::pace::Pace;

/// Parts of an upload, at most. Same source.
const MAX_PARTS: u64 = 10_000;
/// Calls for objects under way at once. Small objects cost round trips and little else.
pub const CONCURRENT_OBJECTS: usize = 64;
/// Tries to go on reading a body without any progress, the SDK's own not counted. When a third of all calls fail, one object of
/// ten thousand is left out; one for which all fail is known after half a minute.
const OBJECT_TRIES: u32 = 8;

/// One bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    client: aws_sdk_s3::Client,
    name: String,
    /// Set when the service turned out not to delete conditionally.
    unconditional_delete: Arc<AtomicBool>,
    pace: Pace,
}

impl Bucket {
    /// The bucket called `name`.
    pub fn new(client: aws_sdk_s3::Client, name: String) -> Self {
        Bucket { client, name, unconditional_delete: Arc::default(), pace: Pace::new(CONCURRENT_OBJECTS) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.name)
    }
}
