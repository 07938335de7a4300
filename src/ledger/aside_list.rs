//! The list of what is set aside. Its entries are those of [`crate::ledger::aside`].

use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{Select, TransactWriteItem, Update};

use crate::aws::error::{AwsError, aws_error};
use crate::aws::item::{text, text_of};
use crate::ledger::aside::{Aside, AsideKey};
use crate::ledger::{Ledger, happened};

/// Partition of everything that is set aside.
pub(super) const ASIDE: &str = "aside";
/// Up to how many things that are set aside are counted.
pub const COUNTED_ASIDE: i32 = 1000;

/// A write to the list of what is set aside.
pub(super) enum Listing {
    Added(Aside),
    Removed(AsideKey),
}

impl Ledger {
    /// Lists something as set aside; what is listed before is brought up to date. May be repeated.
    pub async fn list_aside(&self, entry: &Aside) -> Result<(), AwsError> {
        let update = self.listing(entry).build().ok();
        let resource = format!("{}/{ASIDE}", self.table);
        let Some(update) = update else { return Err(self.foreign(ASIDE)) };
        let write = TransactWriteItem::builder().update(update).build();
        self.transact("dynamodb:UpdateItem", resource, vec![write]).await
    }

    pub(super) fn listing(&self, entry: &Aside) -> UpdateBuilder {
        Update::builder()
            .table_name(&self.table)
            .key("pk", text(ASIDE))
            .key("sk", text(entry.key().0))
            .update_expression("SET entry = :entry, since = if_not_exists(since, :since)")
            .expression_attribute_values(":entry", text(serde_json::json!(entry).to_string()))
            .expression_attribute_values(":since", text(jiff::Timestamp::now().to_string()))
    }

    /// Takes something off the list that came back, unless it was set aside anew since it was seen there. May be repeated.
    pub async fn unlist_aside(&self, entry: &Aside) -> Result<(), AwsError> {
        let key = entry.key();
        let delete = self.client.delete_item().table_name(&self.table).key("pk", text(ASIDE)).key("sk", text(key.0));
        let delete = delete.condition_expression("entry = :entry OR attribute_not_exists(pk)");
        let delete = delete.expression_attribute_values(":entry", text(serde_json::json!(entry).to_string()));
        happened(delete.send().await.map_err(aws_error("dynamodb:DeleteItem", format!("{}/{ASIDE}", self.table))))
            .map(drop)
    }

    /// Everything that is set aside, `most` of it, with since when; and whether there is more.
    pub async fn aside(&self, most: usize) -> Result<(Vec<(jiff::Timestamp, Aside)>, bool), AwsError> {
        let resource = || format!("{}/{ASIDE}", self.table);
        let mut items = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", text(ASIDE))
            .into_paginator()
            .items()
            .send();
        let mut found = Vec::new();
        while let Some(item) = items.try_next().await.map_err(aws_error("dynamodb:Query", resource()))? {
            if found.len() == most {
                return Ok((found, true));
            }
            let parse = || {
                let entry = serde_json::from_str(&text_of(&item, "entry")?).ok()?;
                Some((text_of(&item, "since")?.parse().ok()?, entry))
            };
            found.push(parse().ok_or_else(|| self.foreign(ASIDE))?);
        }
        Ok((found, false))
    }

    /// How many things are set aside, up to [`COUNTED_ASIDE`].
    pub async fn count_aside(&self) -> Result<u64, AwsError> {
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", text(ASIDE))
            .select(Select::Count)
            .limit(COUNTED_ASIDE);
        let output = query.send().await.map_err(aws_error("dynamodb:Query", format!("{}/{ASIDE}", self.table)))?;
        Ok(u64::try_from(output.count).unwrap_or(0))
    }
}
