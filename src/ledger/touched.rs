//! A count of the times at which figures changed otherwise than by a batch: by a restoration, a rebuild, or a retry of
//! what was set aside. Readers that keep figures look at it. Covered by `tests/pipeline`.

use crate::aws::error::AwsError;
use crate::aws::item::{number, text_of};
use crate::ledger::{Ledger, UPDATE, count, now_text};

/// Both keys of the item.
const TOUCHED: &str = "touched";

/// The number of times at which figures changed otherwise than by a batch, and the last of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Touched {
    /// The number of times.
    pub times: u64,
    /// The last time.
    pub at: Option<jiff::Timestamp>,
}

impl Ledger {
    /// Records that figures have changed, or are about to.
    pub async fn touch(&self) -> Result<(), AwsError> {
        let update = self
            .update(TOUCHED, TOUCHED)
            .update_expression("ADD times :one SET #at = :now")
            .expression_attribute_names("#at", "at")
            .expression_attribute_values(":one", count(1))
            .expression_attribute_values(":now", now_text());
        update.send().await.map(drop).map_err(self.error(UPDATE, TOUCHED))
    }

    /// Reads the count.
    pub async fn touched(&self) -> Result<Touched, AwsError> {
        let Some(item) = self.get(TOUCHED, TOUCHED).await? else { return Ok(Touched::default()) };
        let at = text_of(&item, "at").and_then(|at| at.parse().ok());
        Ok(Touched { times: number(&item, "times").unwrap_or(0), at })
    }
}
