//! The check of a bucket at startup, and the probe that tells a failing object from a failing S3.

use futures::TryStreamExt;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::s3::Bucket;
use crate::aws::s3::write::Description;
use crate::layout::{ARCHIVE, BATCHES, CURATED, INCOMING, QUARANTINED_OBJECTS, QUARANTINED_ROWS};

impl Bucket {
    /// Whether S3 works for us: the bucket can be listed, and an object be written, read and deleted under a prefix of our own.
    /// An object that fails while this does not is itself at fault. `who` keeps several apart that ask at the same time.
    pub async fn probe(&self, who: &str) -> Result<(), AwsError> {
        self.pages(INCOMING, |list| list.max_keys(1)).try_next().await?;
        let key = format!("{BATCHES}check-{who}");
        self.put(&key, b"Written, read and deleted to see whether that is allowed.".to_vec(), "text/plain").await?;
        self.read_all(&key).await?;
        self.delete(&key).await
    }

    /// Whether everything is allowed that a consumer does, as far as that can be tried without leaving a trace; all that is not.
    pub async fn check(&self, who: &str) -> Vec<AwsError> {
        let mut problems = Vec::new();
        match self.probe(who).await {
            Ok(()) => {}
            // Where nothing answers, everything else would be tried for nothing, several times over.
            Err(error) if error.kind.is_transient() => return vec![error],
            Err(error) => problems.push(error),
        }
        // An upload that is begun and aborted shows nothing to anybody.
        for prefix in [CURATED, ARCHIVE, QUARANTINED_ROWS, QUARANTINED_OBJECTS] {
            let key = format!("{prefix}check-{who}");
            match self.begin_upload(&key, &Description::default()).await {
                Ok(upload_id) => problems.extend(self.abort_upload(&key, &upload_id).await.err()),
                Err(error) => problems.push(error),
            }
        }
        // There is no such object. A refusal to look or to delete comes first all the same.
        let key = format!("{INCOMING}check-{who}");
        let get = self.client.get_object().bucket(&self.name).key(&key).send().await;
        problems.extend(get.err().map(aws_error("s3:GetObject", self.url(&key))).filter(is_denied));
        let delete = self.client.delete_object().bucket(&self.name).key(&key).if_match("\"check\"").send().await;
        problems.extend(delete.err().map(aws_error("s3:DeleteObject", self.url(&key))).filter(is_denied));
        problems.extend(self.default_retention().await);
        problems
    }

    /// A default retention of the bucket, which would keep every file that is to be moved or cleared away. A bucket that does not say
    /// has none that we may know of.
    async fn default_retention(&self) -> Option<AwsError> {
        let lock = self.client.get_object_lock_configuration().bucket(&self.name).send().await.ok()?;
        let retention = lock.object_lock_configuration?.rule?.default_retention?;
        let mode = retention.mode.map_or("retention".to_owned(), |mode| mode.as_str().to_owned());
        Some(AwsError {
            operation: "s3:GetObjectLockConfiguration",
            resource: self.url(""),
            kind: Kind::Refused,
            cause: format!(
                "the bucket retains every new object by default ({mode}), so that no file could be moved out of {INCOMING}; \
                 take the default retention off, and lock the objects under {ARCHIVE} instead"
            ),
        })
    }
}

fn is_denied(error: &AwsError) -> bool {
    error.kind == Kind::Denied
}
