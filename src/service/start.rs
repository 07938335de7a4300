//! Checks at the start.

use crate::aws::error::AwsError;
use crate::aws::s3::Bucket;
use crate::layout;
use crate::ledger::Ledger;

use crate::service::unix_time;

pub(super) async fn check_ledger(ledger: &Ledger, bucket: &Bucket) -> Result<(), AwsError> {
    ledger.check().await?;
    skip_taken_numbers(ledger, bucket).await
}

/// Tells a ledger that was lost, or restored to an earlier time, which numbers are taken: the bucket knows.
pub(super) async fn skip_taken_numbers(ledger: &Ledger, bucket: &Bucket) -> Result<(), AwsError> {
    let last = ledger.registry().await?.last;
    let number = |key: &str| layout::batch_of_folder(key, 1);
    let Some(taken) = bucket.last_behind(layout::BATCHES, layout::behind_batch(last), number).await? else {
        return Ok(());
    };
    // Another consumer may have taken it between the two looks.
    let last = ledger.registry().await?.last;
    if taken <= last {
        return Ok(());
    }
    tracing::warn!(last, taken, "the ledger has forgotten batches that the bucket knows; their numbers are skipped");
    ledger.skip_to(taken).await
}

/// A name that no other process has had: host, process and start.
pub(super) fn consumer_name() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|host| !host.is_empty()).unwrap_or_else(|| "consumer".to_owned());
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), unix_time());
    format!("{host}-{}-{random:016x}", std::process::id())
}
