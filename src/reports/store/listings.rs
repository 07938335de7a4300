//! Listings: copies of track items under each of their genres ([`crate::reports::item`]).
//!
//! The tests are tests/pipeline and tests/chaos.

use std::collections::HashMap;
use std::pin::pin;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::item::{Item, number};
use crate::aws::retry::retry_until;
use crate::calendar::date_text;
use crate::reports::figures::{Key, Report};
use crate::reports::item::{
    Replacement, ReportItem, genre_date, is_empty, listing_key, listing_of, parse_key, parse_listing_key,
};
use crate::reports::store::change::Written;
use crate::reports::store::read::pages;
use crate::reports::store::{READ_ITEMS, Reports, WRITES_PER_GROUP, WriteOutcome};
use crate::telemetry::metrics::{label, metrics};

impl Reports {
    /// Writes the listings of tracks that changed, and for tracks that were up to date those listings that a crash has
    /// left out.
    pub(super) async fn update_listings(
        &self,
        changed: Vec<(Key, WriteOutcome, ReportItem)>,
        deadline: &CancellationToken,
    ) -> Result<Vec<(Key, WriteOutcome)>, AwsError> {
        let listed = |key: &Key, stored: &ReportItem| -> Vec<Item> {
            stored.attributes.genres.iter().map(|genre| listing_key(key, genre)).collect()
        };
        let had_it = changed.iter().filter(|(key, outcome, stored)| {
            key.report == Report::Track && *outcome == WriteOutcome::HadIt && stored.version > 0
        });
        let mut versions = HashMap::new();
        let looked_up: Vec<Item> = had_it.flat_map(|(key, _, stored)| listed(key, stored)).collect();
        for keys in looked_up.chunks(READ_ITEMS) {
            for item in retry_until(deadline, async || self.read_listings(keys.to_vec()).await).await? {
                let version = number(&item, "version").unwrap_or(0);
                versions.extend(parse_listing_key(&item).map(|place| (place, version)));
            }
        }
        futures::stream::iter(changed)
            .map(async |(key, mut outcome, stored)| {
                if key.report == Report::Track && matches!(outcome, WriteOutcome::Changed | WriteOutcome::HadIt) {
                    for genre in &stored.attributes.genres {
                        let place = parse_listing_key(&listing_key(&key, genre));
                        let there = place.and_then(|place| versions.get(&place).copied()).unwrap_or(0);
                        if outcome == WriteOutcome::HadIt && there >= stored.version {
                            continue;
                        }
                        match retry_until(deadline, async || self.write_listing(&key, genre, &stored).await).await {
                            Err(error) if error.kind == Kind::Refused => {
                                outcome = WriteOutcome::Refused(error.to_string())
                            }
                            written => written?,
                        }
                    }
                }
                self.progress.made();
                Ok((key, outcome))
            })
            .buffer_unordered(WRITES_PER_GROUP)
            .try_collect()
            .await
    }

    pub(super) async fn read_listings(&self, keys: Vec<Item>) -> Result<Vec<Item>, AwsError> {
        let table = self.listings_table();
        let keys = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build();
        let request: HashMap<_, _> = keys.ok().map(|keys| (table.clone(), keys)).into_iter().collect();
        let found = self.read_all(request, &table).await?;
        Ok(found.into_iter().map(|(_, item)| item).collect())
    }

    /// Empties the listings of a genre's day whose tracks no longer have the genre, or no longer exist. May be
    /// repeated.
    pub async fn empty_stale_listings(
        &self,
        genre: &str,
        day: i32,
        of: Replacement,
        deadline: &CancellationToken,
    ) -> Result<(), AwsError> {
        let mut groups = pin!(self.listings(genre, day).try_chunks(READ_ITEMS));
        while let Some(listings) = groups.next().await {
            let listings = listings.map_err(|broken| broken.1)?;
            let is_shown = |item: &Item| (!is_empty(item)).then(|| parse_key(Report::Track, item)).flatten();
            let keys: Vec<Key> = listings.iter().filter_map(is_shown).collect();
            let mut items = retry_until(deadline, async || self.read(&keys.iter().collect::<Vec<_>>()).await).await?;
            for key in keys {
                // An item that is not this program's was reported when it was to be replaced.
                let Ok(mut stored) = self.parse(&key, items.remove(&key)) else { continue };
                if stored.version == 0 {
                    // The item must exist before the listing is emptied: a new item would begin with a lower version
                    // than the listing has, and could not replace it.
                    stored.applied.through = of.last;
                    stored.version = of.now_ms;
                    if let Written::Conflict(newer) =
                        retry_until(deadline, async || self.write(&key, &stored, 0).await).await?
                    {
                        let Ok(newer) = self.parse(&key, newer) else { continue };
                        stored = newer;
                    }
                }
                if !stored.attributes.genres.contains(genre) {
                    retry_until(deadline, async || self.write_listing(&key, genre, &stored.emptied()).await).await?;
                }
            }
        }
        Ok(())
    }

    /// Streams every listing of a genre's day, strongly consistent.
    pub fn listings(&self, genre: &str, day: i32) -> impl Stream<Item = Result<Item, AwsError>> {
        let table = self.listings_table();
        let query = self.client.query().table_name(&table).consistent_read(true);
        let query = query.key_condition_expression("#key = :partition");
        pages(query, "genre_date", genre_date(genre, &date_text(day)), table)
    }

    pub(super) async fn write_listing(&self, key: &Key, genre: &str, stored: &ReportItem) -> Result<(), AwsError> {
        self.pace().await;
        let table = self.listings_table();
        let put = self
            .client
            .put_item()
            .table_name(&table)
            .set_item(Some(listing_of(key, genre, stored)))
            .condition_expression("attribute_not_exists(version) OR version < :version")
            .expression_attribute_values(":version", AttributeValue::N(stored.version.to_string()))
            .send()
            .await;
        match put.map_err(aws_error("dynamodb:PutItem", format!("{table}/{}", key.id))) {
            Ok(_) => {
                metrics().report_items.add(1, &label("report", "listing"));
                Ok(())
            }
            Err(error) if error.kind == Kind::Condition => Ok(()),
            Err(error) => Err(error),
        }
    }
}
