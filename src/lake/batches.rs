//! The batches whose rows a file of the table has: by its name, or by its tag once it was compacted. Pure.

use std::collections::BTreeSet;

use crate::formats::delta::action::{Add, Named};
use crate::layout;
use crate::protocol::BatchNumber;

/// The tag of a compacted file: the batches whose rows it has.
const BATCHES_TAG: &str = "music-streams.batches";
/// Returns the batches whose rows a file in the table has; none for a file of another writer.
pub fn batches_of(add: &Add) -> BTreeSet<BatchNumber> {
    match add.tags.as_ref().and_then(|tags| tags.get(BATCHES_TAG)) {
        Some(tag) => tag.as_deref().and_then(of_ranges).unwrap_or_default(),
        None => layout::batch_of_curated(&add.path).into_iter().collect(),
    }
}

/// Returns the tag of a compacted file with the rows of these batches.
pub(super) fn tag_of(batches: &BTreeSet<BatchNumber>) -> Named {
    Named::from([(BATCHES_TAG.to_owned(), Some(ranges(batches)))])
}

/// Writes numbers in order, with neighbours as a range: `1-5,7`.
pub fn ranges(batches: &BTreeSet<BatchNumber>) -> String {
    let mut ranges: Vec<(BatchNumber, BatchNumber)> = Vec::new();
    for &batch in batches {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == batch => *last = batch,
            _ => ranges.push((batch, batch)),
        }
    }
    let text = |(first, last): (BatchNumber, BatchNumber)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.into_iter().map(text).collect::<Vec<_>>().join(",")
}

/// Numbers of the largest range that is read: more than batches of a day are.
const MAX_RANGE: u64 = 1 << 20;

fn of_ranges(text: &str) -> Option<BTreeSet<BatchNumber>> {
    let mut batches = BTreeSet::new();
    for range in text.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (BatchNumber, BatchNumber) = (first.parse().ok()?, last.parse().ok()?);
        if last.checked_sub(first)? > MAX_RANGE {
            return None;
        }
        batches.extend(first..=last);
    }
    Some(batches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_file_names_the_batches_whose_rows_it_has(batches in prop::collection::btree_set(0..40_u64, 0..30)) {
            let add = Add {
                path: layout::compacted_key("2024-06-25", "x"),
                partition_values: Named::new(),
                size: 1,
                modification_time: 1,
                data_change: false,
                stats: None,
                tags: Some(tag_of(&batches)),
            };
            prop_assert_eq!(batches_of(&add), batches);
        }

        #[test]
        fn what_is_no_list_of_batches_names_none(text in "[0-9,-]{0,12}|.{0,12}") {
            if let Some(batches) = of_ranges(&text) {
                prop_assert_eq!(of_ranges(&ranges(&batches)), Some(batches));
            }
        }
    }
}
