//! The list of what is set aside. [`crate::ledger::aside`] defines its entries. Covered by `tests/pipeline`
//! (`refusals.rs`).

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{Delete, Select, TransactWriteItem, Update};

use crate::aws::error::{AwsError, Kind};
use crate::aws::item::{text, text_of};
use crate::ledger::aside::{Aside, AsideKey};
use crate::ledger::{DELETE, Ledger, QUERY, UPDATE, now_text};

/// Partition key of the list.
const ASIDE: &str = "aside";
/// Upper bound of [`Ledger::count_aside`].
pub const COUNTED_ASIDE: i32 = 1000;

/// A change of the list that belongs to the change of a claim.
pub(super) enum ListChange {
    Add(Aside),
    Remove(AsideKey),
}

impl Ledger {
    /// Lists something as set aside, or updates its entry. May be repeated.
    pub async fn list_aside(&self, entry: &Aside) -> Result<(), AwsError> {
        let update = self.addition(entry).build().map_err(|error| self.unbuildable(ASIDE, &error))?;
        self.transact(ASIDE, vec![TransactWriteItem::builder().update(update).build()]).await.map(drop)
    }

    fn addition(&self, entry: &Aside) -> UpdateBuilder {
        Update::builder()
            .table_name(&self.table)
            .key("pk", text(ASIDE))
            .key("sk", text(entry.key().0))
            .update_expression("SET entry = :entry, since = if_not_exists(since, :since)")
            .expression_attribute_values(":entry", text(serde_json::json!(entry).to_string()))
            .expression_attribute_values(":since", now_text())
    }

    /// Updates a claim and the list, both or neither. Returns false if the claim's condition did not hold.
    pub(super) async fn update_claim(
        &self,
        pk: &str,
        claim: UpdateBuilder,
        change: Option<ListChange>,
    ) -> Result<bool, AwsError> {
        let unbuildable = |error: BuildError| self.unbuildable(pk, &error);
        let claim = claim.build().map_err(unbuildable)?;
        let mut writes = vec![TransactWriteItem::builder().update(claim).build()];
        match change {
            Some(ListChange::Add(entry)) => {
                let update = self.addition(&entry).build().map_err(unbuildable)?;
                writes.push(TransactWriteItem::builder().update(update).build());
            }
            Some(ListChange::Remove(key)) => {
                let delete = Delete::builder().table_name(&self.table).key("pk", text(ASIDE)).key("sk", text(key.0));
                writes.push(TransactWriteItem::builder().delete(delete.build().map_err(unbuildable)?).build());
            }
            None => {}
        }
        self.transact(pk, writes).await
    }

    fn unbuildable(&self, pk: &str, error: &BuildError) -> AwsError {
        AwsError { operation: UPDATE, resource: self.resource(pk), kind: Kind::Refused, cause: error.to_string() }
    }

    /// Removes from the list what was brought back, unless it was set aside again since `entry` was read. May be
    /// repeated.
    pub async fn unlist_aside(&self, entry: &Aside) -> Result<(), AwsError> {
        let delete = self
            .delete(ASIDE, &entry.key().0)
            .condition_expression("entry = :entry OR attribute_not_exists(pk)")
            .expression_attribute_values(":entry", text(serde_json::json!(entry).to_string()));
        self.conditional(DELETE, ASIDE, delete.send()).await.map(drop)
    }

    /// Reads at most `most` entries of the list, each with the time at which it was set aside. The flag is true if
    /// there are more.
    pub async fn aside(&self, most: usize) -> Result<(Vec<(jiff::Timestamp, Aside)>, bool), AwsError> {
        let mut items = self.query(ASIDE).consistent_read(true).into_paginator().items().send();
        let mut found = Vec::new();
        while let Some(item) = items.try_next().await.map_err(self.error(QUERY, ASIDE))? {
            if found.len() == most {
                return Ok((found, true));
            }
            let parse = || {
                let entry = serde_json::from_str(&text_of(&item, "entry")?).ok()?;
                Some((text_of(&item, "since")?.parse().ok()?, entry))
            };
            found.push(parse().ok_or_else(|| self.unrecognized(ASIDE))?);
        }
        Ok((found, false))
    }

    /// Counts the entries of the list, up to [`COUNTED_ASIDE`].
    pub async fn count_aside(&self) -> Result<u64, AwsError> {
        let query = self.query(ASIDE).select(Select::Count).limit(COUNTED_ASIDE);
        let output = query.send().await.map_err(self.error(QUERY, ASIDE))?;
        Ok(u64::try_from(output.count).unwrap_or(0))
    }
}
