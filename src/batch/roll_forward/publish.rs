//! Second step of a roll forward: publishing the batch's files, by completing their uploads.
//!
//! The tests are tests/pipeline/refusals.rs and tests/chaos.

use std::time::Duration;

use futures::StreamExt;

use crate::aws::error::{AwsError, Kind};
use crate::aws::retry::retry_until;
use crate::aws::s3::{CONCURRENT_OBJECTS, Upload};
use crate::batch::manifest::Manifest;
use crate::batch::roll_forward::{RollForward, age_of};
use crate::ledger::aside::{Aside, What};

/// Age at which the bucket's lifecycle aborts uploads that are not completed.
const UPLOADS_EXPIRE_AFTER: Duration = Duration::from_secs(60 * 86_400);

impl RollForward {
    /// Publishes every upload that can be published. Returns the first error of those that an outage prevents.
    pub async fn publish(&self, manifest: &Manifest) -> Result<(), AwsError> {
        let published: Vec<Result<(), AwsError>> = futures::stream::iter(&manifest.uploads)
            .map(|upload| self.publish_one(manifest, upload))
            .buffer_unordered(CONCURRENT_OBJECTS)
            .inspect(|_| self.progress.made())
            .collect()
            .await;
        published.into_iter().collect()
    }

    async fn publish_one(&self, manifest: &Manifest, upload: &Upload) -> Result<(), AwsError> {
        let reason = match retry_until(&self.deadline, async || self.bucket.complete_upload(upload).await).await {
            Ok(true) => return Ok(()),
            Ok(false) if age_of(manifest) < UPLOADS_EXPIRE_AFTER => {
                tracing::warn!(
                    batch = manifest.batch,
                    key = upload.key,
                    "was published before, and has been removed since"
                );
                return Ok(());
            }
            Ok(false) => "its parts have expired".to_owned(),
            Err(error) if error.kind == Kind::Refused => error.to_string(),
            Err(error) => return Err(error),
        };
        let what = What::Upload { upload: upload.clone() };
        self.set_aside(vec![Aside::new(what, manifest.batch, &reason)]).await
    }
}
