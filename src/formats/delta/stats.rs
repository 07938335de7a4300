//! The statistics of a file, by which readers leave out files.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::formats::parquet::{self, Bound};

/// Bytes of the longest text that is a bound: a longer one would take more than it is worth.
const MAX_TEXT_BYTES: usize = 64;

/// The statistics of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// The number of its rows.
    pub num_records: u64,
    /// The least value of some columns.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub min_values: Map<String, Value>,
    /// The greatest value of some columns.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub max_values: Map<String, Value>,
    /// The number of nulls of some columns.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub null_count: Map<String, Value>,
}

impl Stats {
    /// Returns the statistics of a Parquet file: the bounds of its columns that have a value in every row, but for
    /// those of `without`.
    pub fn of(summary: &parquet::Summary, without: &str) -> Self {
        let mut stats = Stats { num_records: summary.rows, ..Stats::default() };
        for (column, bounds) in summary.columns.iter().zip(&summary.bounds) {
            let bounds = bounds.as_ref().filter(|_| !column.is_nullable && column.name != without);
            // The log has a decimal as its value, which no integer is.
            let bounds = bounds.filter(|_| !matches!(column.type_, parquet::Type::Decimal { .. }));
            let Some((least, greatest)) = bounds else { continue };
            let is_time = column.type_ == parquet::Type::Timestamp;
            let (Some(least), Some(greatest)) = (shown(least, is_time, 0), shown(greatest, is_time, 999)) else {
                continue;
            };
            stats.min_values.insert(column.name.clone(), least);
            stats.max_values.insert(column.name.clone(), greatest);
            stats.null_count.insert(column.name.clone(), 0.into());
        }
        stats
    }

    /// Returns the statistics of files together: bounds of the columns that have them in each.
    pub fn merged<'a>(all: impl Iterator<Item = &'a Stats>) -> Self {
        let mut all = all.cloned();
        let Some(mut merged) = all.next() else { return Stats::default() };
        for stats in all {
            merged.num_records += stats.num_records;
            extend(&mut merged.min_values, &stats.min_values, is_less);
            extend(&mut merged.max_values, &stats.max_values, |value, other| is_less(other, value));
            merged.null_count.retain(|name, count| {
                let other = stats.null_count.get(name).and_then(Value::as_u64);
                let sum = other.zip(count.as_u64()).map(|(other, count)| other + count);
                *count = sum.into();
                sum.is_some()
            });
        }
        merged
    }

    /// Writes the statistics, as the log has them.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the number of rows from statistics; `None` if they do not say.
    pub fn rows_of(text: Option<&str>) -> Option<u64> {
        serde_json::from_str::<Value>(text?).ok()?["numRecords"].as_u64()
    }
}

/// Replaces bounds by those of other statistics that go beyond them, and removes those that the other ones lack.
fn extend(bounds: &mut Map<String, Value>, others: &Map<String, Value>, is_beyond: fn(&Value, &Value) -> bool) {
    bounds.retain(|name, bound| {
        let Some(other) = others.get(name) else { return false };
        if is_beyond(other, bound) {
            *bound = other.clone();
        }
        true
    });
}

/// Returns true if a bound is below another one of the same column. Times are texts whose order is that of time.
fn is_less(value: &Value, other: &Value) -> bool {
    match (value, other) {
        (Value::String(value), Value::String(other)) => value < other,
        (Value::Number(value), Value::Number(other)) => value.as_i64() < other.as_i64(),
        _ => false,
    }
}

/// Shows a bound. Times have milliseconds in the log: `up_micros` are added before the rest is cut off.
fn shown(bound: &Bound, is_time: bool, up_micros: i64) -> Option<Value> {
    match bound {
        Bound::Text(text) => (text.len() <= MAX_TEXT_BYTES).then(|| Value::from(text.as_str())),
        Bound::Number(micros) if is_time => {
            let millis = micros.checked_add(up_micros)?.div_euclid(1000);
            let time = jiff::Timestamp::from_millisecond(millis).ok()?;
            // Years of four digits are all that readers agree on.
            let text = time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
            (text.len() == "2024-06-25T17:43:13.000Z".len()).then(|| Value::from(text))
        }
        Bound::Number(number) => Some(Value::from(*number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::parquet::{Column, Summary, Type};

    #[test]
    fn bounds_hold_for_every_value() {
        let columns = vec![
            Column::required("user_id", Type::Int64),
            Column::required("track_id", Type::Text),
            Column::required("listen_time", Type::Timestamp),
            Column::nullable("genre", Type::Text),
            Column::required("source_key", Type::Text),
            Column::required("long", Type::Text),
            Column::required("none", Type::Text),
            Column::required("price", Type::Decimal { places: 2 }),
        ];
        let text = |text: &str| Bound::Text(text.to_owned());
        let bounds = vec![
            Some((Bound::Number(-1), Bound::Number(7))),
            Some((text("a"), text("ü"))),
            Some((Bound::Number(1_719_337_393_123_456), Bound::Number(1_719_337_393_123_001))),
            Some((text("jazz"), text("pop"))),
            Some((text("a"), text("b"))),
            Some((text("a"), text(&"b".repeat(65)))),
            None,
            Some((Bound::Number(1), Bound::Number(1234))),
        ];
        let stats = Stats::of(&Summary { rows: 3, columns, bounds, uncompressed_bytes: 0 }, "source_key");
        let expected = serde_json::json!({
            "numRecords": 3,
            "minValues": { "user_id": -1, "track_id": "a", "listen_time": "2024-06-25T17:43:13.123Z" },
            "maxValues": { "user_id": 7, "track_id": "ü", "listen_time": "2024-06-25T17:43:13.124Z" },
            "nullCount": { "user_id": 0, "track_id": 0, "listen_time": 0 },
        });
        assert_eq!(serde_json::to_value(&stats).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Stats>(&stats.to_text()).unwrap(), stats);
        assert_eq!(Stats::rows_of(Some(&stats.to_text())), Some(3));
        assert_eq!((Stats::rows_of(None), Stats::rows_of(Some("x")), Stats::rows_of(Some("{}"))), (None, None, None));
    }
}
