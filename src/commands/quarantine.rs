//! `music-streams quarantine`: the files that could not be counted, each with its reason, and the way back for them.
//!
//! A file comes back under its own name, and the next batch judges it anew: when a limit was raised, or a version of the program reads
//! what the one before did not. Nothing of it was counted, and its claim was released when it was moved here
//! ([`Ledger::release_quarantined`]).

use clap::Args;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::aws::s3::{Bucket, Copied, Current};
use crate::batch::manifest::Note;
use crate::calendar::{day_of, parse_date};
use crate::commands::format::{Format, printable, say, table};
use crate::layout::{INCOMING, QUARANTINED_OBJECTS, REASON_SUFFIX};
use crate::ledger::{CLAIM_DAYS, ClaimRecord, LEDGER_TABLE, Ledger};

/// Reasons that are read at the same time.
const CONCURRENT_READS: usize = 16;

/// Why an old file stays when it is not named.
const OLD: &str =
    "it is older than the 15 days for which can be told whether it was counted since; give its PLACE if it was not";
/// Longest note: far above a key and a reason.
const MAX_NOTE_BYTES: u64 = 64 << 10;

/// Which files to show, or to bring back.
#[derive(Debug, Args)]
pub struct QuarantineQuery {
    /// Bring these files back under their own names, each given as s3://BUCKET/quarantine/objects/…, or all that are shown
    ///
    /// Needs the permissions of ReplayPolicy. The exit status is 1 if some of them stay.
    #[arg(long)]
    retry: bool,

    /// Only files whose place begins with this, such as 2026-01-02/ or 2026-01-02/batch-000000000042/a.csv
    #[arg(value_name = "PLACE", default_value = "")]
    place: String,

    /// Bucket that the consumers read
    #[arg(long, env = "MUSIC_STREAMS_BUCKET", value_name = "NAME")]
    bucket: String,

    /// Put before the name of every table
    #[arg(long, env = "MUSIC_STREAMS_TABLE_PREFIX", value_name = "TEXT", default_value = "")]
    table_prefix: String,

    /// How many at the most
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
    limit: u32,

    /// A table for people or JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Why it did not come to its end.
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

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Told {
    back: Vec<String>,
    stay: Vec<String>,
}

impl QuarantineQuery {
    /// Lists the files, or brings them back, and says what there is or what came of it.
    pub async fn run(&self, clients: Clients) -> Result<(), QuarantineError> {
        let bucket = Bucket::new(clients.s3, self.bucket.clone());
        let (found, has_more) = self.find(&bucket).await?;
        if self.retry {
            let name = format!("{}{LEDGER_TABLE}", self.table_prefix);
            let ledger = Ledger::new(clients.dynamodb, name, format!("quarantine-{}", std::process::id()));
            return self.bring_back(found, &bucket, &ledger).await;
        }
        say(&match self.format {
            Format::Json => format!("{:#}", serde_json::json!(found)),
            Format::Table if found.is_empty() => "nothing is in quarantine".to_owned(),
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

    /// The files, and whether there are more of them.
    async fn find(&self, bucket: &Bucket) -> Result<(Vec<Quarantined>, bool), AwsError> {
        let place = self.place.strip_prefix(&format!("s3://{}/", self.bucket)).unwrap_or(&self.place);
        let prefix = format!("{QUARANTINED_OBJECTS}{}", place.strip_prefix(QUARANTINED_OBJECTS).unwrap_or(place));
        let mut places: Vec<String> = bucket
            .list(&prefix)
            .await?
            .into_iter()
            // What is larger is a file that is named like a note.
            .filter(|&(_, bytes)| bytes <= MAX_NOTE_BYTES)
            .filter_map(|(key, _)| key.strip_suffix(REASON_SUFFIX).map(str::to_owned))
            .collect();
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let has_more = places.len() > limit;
        places.truncate(limit);
        let read = async |place: String| {
            let note = bucket.read_all(&format!("{place}{REASON_SUFFIX}")).await?;
            // What somebody else put there is none of ours.
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
        let mut told = Told::default();
        for file in found {
            let name = format!("{} as {}", file.place, file.note.object.key);
            let returned = match self.place.is_empty() && is_old(&file.place) {
                true => Err(OLD.to_owned()),
                false => return_one(&file, bucket, ledger).await,
            };
            match returned {
                Ok(()) => told.back.push(name),
                Err(reason) => told.stay.push(format!("{name}: {reason}")),
            }
        }
        match self.format {
            Format::Json => say(&format!("{:#}", serde_json::json!(told))),
            Format::Table => {
                told.back.iter().for_each(|file| say(&printable(&format!("back: {file}"))));
                told.stay.iter().for_each(|file| say(&printable(&format!("stays: {file}"))));
                if told.back.is_empty() && told.stay.is_empty() {
                    say("nothing is in quarantine");
                }
            }
        }
        if told.stay.is_empty() { Ok(()) } else { Err(QuarantineError::Stay(told.stay.len())) }
    }
}

/// Whether a place is of a date of which claims tell nothing any more.
fn is_old(place: &str) -> bool {
    let date = place.strip_prefix(QUARANTINED_OBJECTS).and_then(|rest| parse_date(rest.split('/').next()?));
    date.is_none_or(|date| {
        i64::from(date) + CLAIM_DAYS as i64 <= i64::from(day_of(jiff::Timestamp::now().as_microsecond()))
    })
}

/// Puts a file where it came from, and takes it out of quarantine. May be repeated: one that was put there before is not put there again.
///
/// Where it cannot be told any more whether the file was counted since, it stays: claims are kept for 15 days.
async fn return_one(file: &Quarantined, bucket: &Bucket, ledger: &Ledger) -> Result<(), String> {
    let Quarantined { place, note: Note { object, batch, .. } } = file;
    let told = |error: AwsError| error.to_string();
    let Some(Current { object: quarantined, size: Some(size), etag, .. }) =
        bucket.describe_current(place).await.map_err(told)?
    else {
        return Err("it is not there; only its reason is".to_owned());
    };
    let claims = ledger.claims(&object.bucket, &object.key).await.map_err(told)?;
    if claims.iter().any(|claim| claim.version == object.version && claim.batch == Some(*batch)) {
        return Err(format!(
            "batch {batch} has it still: it is being moved, or could not be taken away from where it was"
        ));
    }
    // On a bucket with versioning the next one would be another version, and count.
    let is_alike = |claim: &&ClaimRecord| claim.size.is_none_or(|it| it == size);
    if let Some(later) = claims.iter().filter(is_alike).find_map(|claim| claim.batch.filter(|it| it > batch)) {
        return Err(format!("batch {later} had a file of this name and size since; delete this one if it is the same"));
    }
    match bucket.describe_current(&object.key).await.map_err(told)? {
        // Put there before: by this command, or by whoever made it.
        Some(there) if there.etag.is_some() && there.etag == etag => {}
        Some(_) => return Err("another file lies there under its name; it comes back once that is counted".to_owned()),
        None => {
            let copied = bucket.copy_exactly(&quarantined, size, &object.key, false, &|| {}).await.map_err(told)?;
            if let Copied::Lost = copied {
                return Err("it was deleted meanwhile".to_owned());
            }
        }
    }
    bucket.delete_exactly(&quarantined).await.map_err(told)?;
    bucket.delete(&format!("{place}{REASON_SUFFIX}")).await.map_err(told)
}
