//! The check of permissions at startup, and the probe that tells a faulty object from a faulty S3. Covered by
//! `tests/chaos/permissions.rs`.

use futures::TryStreamExt;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::s3::Bucket;
use crate::aws::s3::write::Description;
use crate::layout::{ARCHIVE, BATCHES, CURATED, INCOMING, QUARANTINED_OBJECTS, QUARANTINED_ROWS};

impl Bucket {
    /// Checks that S3 works for this process: lists the bucket, and writes, reads and deletes an object under a prefix
    /// of our own. If a call for some object fails and this succeeds, the object itself is at fault. `who` separates
    /// probes that run at the same time.
    pub async fn probe(&self, who: &str) -> Result<(), AwsError> {
        self.pages(INCOMING, |list| list.max_keys(1)).try_next().await?;
        let key = format!("{BATCHES}check-{who}");
        self.put(&key, b"Written, read and deleted to see whether that is allowed.".to_vec(), "text/plain").await?;
        self.read_all(&key).await?;
        self.delete(&key).await
    }

    /// Checks that a consumer may do everything it does, as far as this leaves no trace. Returns one error for each
    /// problem.
    pub async fn check(&self, who: &str) -> Vec<AwsError> {
        let mut problems = Vec::new();
        match self.probe(who).await {
            Ok(()) => {}
            // If nothing answers, the other checks would fail too, each after several attempts.
            Err(error) if error.kind.is_transient() => return vec![error],
            Err(error) => problems.push(error),
        }
        // An upload that is begun and aborted is never visible.
        for prefix in [CURATED, ARCHIVE, QUARANTINED_ROWS, QUARANTINED_OBJECTS] {
            let key = format!("{prefix}check-{who}");
            match self.begin_upload(&key, &Description::default()).await {
                Ok(upload_id) => problems.extend(self.abort_upload(&key, &upload_id).await.err()),
                Err(error) => problems.push(error),
            }
        }
        // There is no such object. S3 checks permissions first nevertheless.
        let key = format!("{INCOMING}check-{who}");
        let get = self.client.get_object().bucket(&self.name).key(&key).send().await;
        problems.extend(get.err().map(aws_error("s3:GetObject", self.url(&key))).filter(is_denied));
        let delete = self.client.delete_object().bucket(&self.name).key(&key).if_match("\"check\"").send().await;
        problems.extend(delete.err().map(aws_error("s3:DeleteObject", self.url(&key))).filter(is_denied));
        problems.extend(self.deletes_conditionally().await.err());
        problems.extend(self.default_retention().await);
        problems
    }

    /// Returns an error if the bucket has a default retention, which would keep every file from being moved or deleted.
    /// A bucket whose configuration may not be read is taken to have none.
    async fn default_retention(&self) -> Option<AwsError> {
        let lock = self.client.get_object_lock_configuration().bucket(&self.name).send().await.ok()?;
        let retention = lock.object_lock_configuration?.rule?.default_retention?;
        let mode = retention.mode.map_or("retention".to_owned(), |mode| mode.as_str().to_owned());
        Some(AwsError {
            operation: "s3:GetObjectLockConfiguration",
            resource: self.url(""),
            kind: Kind::Refused,
            cause: format!(
                "the bucket retains every new object by default ({mode}), so that no file could be moved \
                 out of {INCOMING}; take the default retention off, and lock the objects under {ARCHIVE} instead"
            ),
        })
    }
}

fn is_denied(error: &AwsError) -> bool {
    error.kind == Kind::Denied
}
