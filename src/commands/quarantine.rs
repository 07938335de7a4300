//! `music-streams quarantine`: the files that could not be counted, each with its reason, and the way back.
//!
//! With `--retry` a file returns to its own name, and the next batch reads it again: after a limit was raised, or with
//! a version of the program that accepts it. Nothing of it was counted, and its claim was released when it was moved
//! here ([`Ledger::release_quarantined`]). Covered by tests/pipeline/edges.rs.

use clap::Args;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::aws::s3::{Bucket, Copied, Current};
use crate::batch::manifest::Note;
use crate::calendar::{day_of, parse_date};
use crate::commands::format::{Format, print, print_retried, printable, table};
use crate::commands::resources::Resources;
use crate::layout::{INCOMING, QUARANTINED_OBJECTS, REASON_SUFFIX};
use crate::ledger::{CLAIM_DAYS, ClaimRecord, Ledger};

/// The number of reasons that are read at the same time.
const CONCURRENT_READS: usize = 16;

/// The reason for which an old file stays unless it is named.
const OLD: &str =
    "it is older than 15 days, so the ledger no longer knows if it was counted since; give its PLACE if it was not";
/// The answer for an empty quarantine.
const NOTHING: &str = "nothing is in quarantine";
/// The longest note: far above a key and a reason.
const MAX_NOTE_BYTES: u64 = 64 << 10;

/// The arguments of `music-streams quarantine`.
#[derive(Debug, Args)]
pub struct QuarantineQuery {
    /// Bring the files that PLACE selects back under their own names
    ///
    /// Without PLACE, these are all files of the last 15 days. Needs the permissions of ReplayPolicy. The exit status
    /// is 1 if any of them stays.
    #[arg(long)]
    retry: bool,

    /// Only files whose place begins with this, such as 2026-01-02/ or 2026-01-02/batch-000000000042/a.csv; s3:// URLs
    /// and keys are accepted too
    #[arg(value_name = "PLACE", default_value = "")]
    place: String,

    #[command(flatten)]
    resources: Resources,

    /// Number of files, at most
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
    limit: u32,

    /// Table for people or JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// An error of `music-streams quarantine`.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// Some files stay.
    #[error("{0} files stay in quarantine; each line says why")]
    Stay(usize),
}

/// A quarantined file.
#[derive(Debug, Serialize)]
struct Quarantined {
    place: String,
    #[serde(flatten)]
    note: Note,
}

/// The result of a retry.
#[derive(Debug, Default, Serialize)]
struct Retried {
    back: Vec<String>,
    stay: Vec<String>,
}

impl QuarantineQuery {
    /// Lists the files, or brings them back and prints the result.
    pub async fn run(&self, clients: Clients) -> Result<(), QuarantineError> {
        let bucket = self.resources.bucket(&clients);
        let (found, has_more) = self.find(&bucket).await?;
        if self.retry {
            let ledger = self.resources.tables.ledger(&clients, format!("quarantine-{}", std::process::id()));
            return self.bring_back(found, &bucket, &ledger).await;
        }
        print(&match self.format {
            Format::Json => format!("{:#}", serde_json::json!(found)),
            Format::Table if found.is_empty() => NOTHING.to_owned(),
            Format::Table => {
                let row = |Quarantined { place, note }: &Quarantined| {
                    let Note { size, batch, reason, .. } = note;
                    vec![printable(place), size.to_string(), batch.to_string(), printable(reason)]
                };
                let shown = table(&["PLACE", "BYTES", "BATCH", "WHY"], &[false, true, true], found.iter().map(row));
                if has_more { format!("{shown}\n… and more: give a PLACE, or a higher --limit") } else { shown }
            }
        });
        Ok(())
    }

    /// Returns the files, and true if there are more of them.
    async fn find(&self, bucket: &Bucket) -> Result<(Vec<Quarantined>, bool), AwsError> {
        let place = self.place.strip_prefix(&format!("s3://{}/", bucket.name())).unwrap_or(&self.place);
        let prefix = format!("{QUARANTINED_OBJECTS}{}", place.strip_prefix(QUARANTINED_OBJECTS).unwrap_or(place));
        let mut places: Vec<String> = bucket
            .list(&prefix)
            .await?
            .into_iter()
            // Anything larger is a quarantined file whose name ends like a note's.
            .filter(|&(_, bytes)| bytes <= MAX_NOTE_BYTES)
            .filter_map(|(key, _)| key.strip_suffix(REASON_SUFFIX).map(str::to_owned))
            .collect();
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let has_more = places.len() > limit;
        places.truncate(limit);
        let read = async |place: String| {
            let note = bucket.read_all(&format!("{place}{REASON_SUFFIX}")).await?;
            // Skip what other programs put there.
            let note = serde_json::from_slice(&note).ok().filter(|note: &Note| note.object.key.starts_with(INCOMING));
            Ok(note.map(|note| Quarantined { place, note }))
        };
        let notes = futures::stream::iter(places).map(read).buffered(CONCURRENT_READS);
        let found = notes.try_filter_map(|found| std::future::ready(Ok(found))).try_collect().await?;
        Ok((found, has_more))
    }

    async fn bring_back(
        &self,
        found: Vec<Quarantined>,
        bucket: &Bucket,
        ledger: &Ledger,
    ) -> Result<(), QuarantineError> {
        let mut result = Retried::default();
        for file in found {
            let name = format!("{} as {}", file.place, file.note.object.key);
            let returned = match self.place.is_empty() && is_old(&file.place) {
                true => Err(OLD.to_owned()),
                false => return_one(&file, bucket, ledger).await,
            };
            match returned {
                Ok(()) => result.back.push(name),
                Err(reason) => result.stay.push(format!("{name}: {reason}")),
            }
        }
        print_retried(self.format, &result, [("back", &result.back), ("stays", &result.stay)], NOTHING);
        if result.stay.is_empty() { Ok(()) } else { Err(QuarantineError::Stay(result.stay.len())) }
    }
}

/// Returns true if the claims of a place's date have expired.
fn is_old(place: &str) -> bool {
    let date = place.strip_prefix(QUARANTINED_OBJECTS).and_then(|rest| parse_date(rest.split('/').next()?));
    date.is_none_or(|date| {
        i64::from(date) + CLAIM_DAYS as i64 <= i64::from(day_of(jiff::Timestamp::now().as_microsecond()))
    })
}

/// Copies a file back to its own name, and removes it from quarantine. May be repeated: an earlier copy is recognized.
///
/// The error is the reason for which the file stays.
async fn return_one(file: &Quarantined, bucket: &Bucket, ledger: &Ledger) -> Result<(), String> {
    let Quarantined { place, note: Note { object, batch, .. } } = file;
    let text = |error: AwsError| error.to_string();
    let Some(Current { object: quarantined, size: Some(size), etag, .. }) =
        bucket.describe_current(place).await.map_err(text)?
    else {
        return Err("the file is missing; only its reason is there".to_owned());
    };
    let claims = ledger.claims(&object.bucket, &object.key).await.map_err(text)?;
    if claims.iter().any(|claim| claim.version == object.version && claim.batch == Some(*batch)) {
        return Err(format!(
            "batch {batch} still has it: it is being moved, or could not be deleted under its own name"
        ));
    }
    // In a bucket with versioning the copy would be a new version, and be counted a second time.
    let is_alike = |claim: &&ClaimRecord| claim.size.is_none_or(|it| it == size);
    if let Some(later) = claims.iter().filter(is_alike).find_map(|claim| claim.batch.filter(|it| it > batch)) {
        return Err(format!(
            "batch {later} has had a file of this name and size since; delete this one if it is the same"
        ));
    }
    match bucket.describe_current(&object.key).await.map_err(text)? {
        // An earlier copy, by this command or by whoever made the file.
        Some(there) if there.etag.is_some() && there.etag == etag => {}
        Some(_) => return Err("another file has its name; try again once that file is counted".to_owned()),
        None => {
            let copied = bucket.copy_exactly(&quarantined, size, &object.key, false, &|| {}).await.map_err(text)?;
            if let Copied::Lost = copied {
                return Err("it was deleted in the meantime".to_owned());
            }
        }
    }
    bucket.delete_exactly(&quarantined).await.map_err(text)?;
    bucket.delete(&format!("{place}{REASON_SUFFIX}")).await.map_err(text)
}
