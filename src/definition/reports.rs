//! Reports: the key of their items, the measures, and the top lists.

use crate::definition::Definition;
use crate::definition::columns::Type;
use crate::definition::conditions::Condition;

/// Name of the partition key of a report with [`Key::All`], and the value of its items.
pub const ALL: (&str, &str) = ("all", "*");

/// Bytes of all entries of a top list at most: an item of DynamoDB has 400 KB.
const LIST_BYTES: usize = 380_000;
/// Bytes of a figure in an entry at most.
const FIGURE_BYTES: usize = 40;
/// Bytes of a label in an entry: at least these have room, and longer ones are cut, in any case at the latter.
const LABEL_BYTES: (usize, usize) = (64, 1024);

/// A report: an item for each value of a key and each day or hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// The key of its items.
    pub key: Key,
    /// The period of its items.
    pub every: Period,
    /// The DynamoDB table, without the prefix of all tables.
    pub table: String,
    /// The fields that are shown beside the figures, at most 16; none with [`Key::All`]. An attribute is one of the
    /// report's key; of a column the item has the value of the key's latest row. They are of the newest batch: labels,
    /// no figures.
    pub attributes: Vec<String>,
    /// The top lists, if any are kept.
    pub top: Option<Top>,
    /// True if its keys are of persons: it is shown only where that is asked for.
    pub is_personal: bool,
    /// The measures: at least one, at most 16, and 4 of them distinct counts. Names differ from the key's and from the
    /// attributes'.
    pub measures: Vec<Measure>,
}

impl Report {
    /// Returns the most entries that its top lists may have, if its keys have up to `key_bytes`.
    pub fn most_kept(&self, key_bytes: usize) -> usize {
        LIST_BYTES / (self.entry_bytes(key_bytes) + self.labels() * LABEL_BYTES.0)
    }

    /// Returns the bytes at which a label is cut in the entries of its top lists.
    pub fn label_bytes(&self, key_bytes: usize, keep: usize) -> usize {
        let of_labels = (LIST_BYTES / keep.max(1)).saturating_sub(self.entry_bytes(key_bytes));
        (of_labels / self.labels().max(1)).clamp(LABEL_BYTES.0, LABEL_BYTES.1)
    }

    /// The bytes of an entry without its labels: the key, the figures, the version.
    fn entry_bytes(&self, key_bytes: usize) -> usize {
        key_bytes + (self.measures.len() + 1) * FIGURE_BYTES
    }

    fn labels(&self) -> usize {
        let under = self.top.iter().flat_map(|top| &top.under);
        self.attributes.len() + under.filter(|name| !self.attributes.contains(name)).count()
    }
}

/// The key of a report's items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// One item of all rows of a period. Its partition key is [`ALL`].
    All,
    /// A column or attribute: an id, a text or an integer. A row counts under each value of an attribute with many; a
    /// row without a value under the field's `unknown`, which is there if a row may have none.
    Field(String),
}

/// The period of a report's items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// A day of the definition's zone; the sort key is `report_date`.
    Day,
    /// An hour of UTC; the sort key is `report_hour`.
    Hour,
}

/// The top lists of a report: of each period one of all items, and one for each value of an attribute of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// The measure by which they are ordered, which never falls: a count, a maximum, or a sum of values of which none
    /// is negative.
    pub by: String,
    /// Attributes of the key, at most 2, with a list under each of their values.
    pub under: Vec<String>,
    /// Most entries of a list.
    pub keep: usize,
}

/// A measure of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    /// Its name: the item's attribute.
    pub name: String,
    /// The figure.
    pub aggregate: Aggregate,
    /// The conditions of the rows that it takes, all of which hold. A ratio has none.
    pub conditions: Vec<Condition>,
    /// The unit of the figure, if it is known.
    pub unit: Option<Unit>,
}

/// The unit of a figure, which says how people read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// Its name in a definition.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
        }
    }
}

/// A figure of the rows of an item. Merges are exact in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aggregate {
    /// The number of rows.
    Count,
    /// The sum of an integer or decimal; no value adds nothing.
    Sum {
        /// A column, or an attribute without many.
        of: String,
        /// The divisor by which the sum is shown, exactly: 1, 10, 100, 1000 or 1000000.
        divide: u32,
    },
    /// The least value of an integer, decimal or time, if there was one.
    Min {
        /// A column, or an attribute without many.
        of: String,
    },
    /// The greatest value, as the least.
    Max {
        /// A column, or an attribute without many.
        of: String,
    },
    /// The number of different values of an id, text or integer, by a sketch.
    Distinct {
        /// A column, or an attribute without many.
        of: String,
    },
    /// A measure divided by another; made when an item is shown. There is none where the divisor is 0.
    Ratio {
        /// The count, sum or distinct count that is divided.
        of: String,
        /// The count, sum or distinct count by which it is divided.
        by: String,
        /// The digits after the point to which it is rounded, half away from zero.
        places: u8,
    },
}

impl Definition {
    /// Returns the report that tells the first and the last day with rows: that of all rows by day; else one with top
    /// lists, or of all rows by hour. One of persons only if there is no other, as not everybody may read it.
    pub fn days_report(&self) -> Option<usize> {
        let rank = |report: &Report| {
            let is_daily = report.every == Period::Day;
            let rank = match (&report.key, &report.top) {
                (Key::All, _) if is_daily => 0,
                (Key::Field(_), None) => return None,
                (Key::Field(_), Some(_)) if is_daily => 1,
                _ => 2,
            };
            Some((report.has_persons(), rank))
        };
        let ranked = self.reports.iter().enumerate().filter_map(|(index, report)| Some((rank(report)?, index)));
        ranked.min().map(|(_, index)| index)
    }
}

impl Report {
    /// True if its items are of persons. One item of all rows is of nobody, whatever the definition says.
    pub fn has_persons(&self) -> bool {
        self.is_personal && self.key != Key::All
    }

    /// Returns the measure of this name.
    pub fn measure(&self, name: &str) -> Option<&Measure> {
        self.measures.iter().find(|measure| measure.name == name)
    }
}

impl Aggregate {
    /// Returns the digits after the point that the figure has when it is shown.
    pub fn places(&self, definition: &Definition) -> u8 {
        self.places_by(|name| definition.field(name).map(|field| field.type_()))
    }

    /// As [`Aggregate::places`], by the types of fields.
    pub(super) fn places_by<'t>(&self, type_of: impl Fn(&str) -> Option<&'t Type>) -> u8 {
        let of_field = |name: &str| type_of(name).map_or(0, Type::places);
        match self {
            Aggregate::Count | Aggregate::Distinct { .. } => 0,
            Aggregate::Sum { of, divide } => of_field(of) + divide.checked_ilog10().unwrap_or(0) as u8,
            Aggregate::Min { of } | Aggregate::Max { of } => of_field(of),
            Aggregate::Ratio { places, .. } => *places,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days_report(reports: &[(&str, &str)]) -> Option<usize> {
        let mut text = "name = \"x\"\ntime = \"at\"\n[input]\nformat = \"csv\"\n[columns]\n".to_owned();
        text += "at = \"time\"\nwho = \"id\"\nthing = \"id\"\n";
        for (index, (key, more)) in reports.iter().enumerate() {
            text += &format!("[reports.report{index}]\nkey = \"{key}\"\n{more}\nmeasures = {{ rows = \"count\" }}\n");
        }
        Definition::parse(text.as_bytes()).unwrap().days_report()
    }

    #[test]
    fn days_are_told_by_all_rows_else_by_a_list_and_by_persons_last() {
        let top = "top = { by = \"rows\" }";
        let (hours, persons) = (("*", "every = \"hour\""), ("who", "top = { by = \"rows\" }\npersonal = true"));
        assert_eq!(days_report(&[persons, ("thing", top), hours, ("*", "")]), Some(3));
        assert_eq!(days_report(&[persons, hours, ("thing", "top = { by = \"rows\" }\nevery = \"hour\"")]), Some(1));
        assert_eq!(days_report(&[persons, hours, ("thing", top), ("who", top)]), Some(2));
        assert_eq!(days_report(&[("thing", ""), persons]), Some(1));
        assert_eq!(days_report(&[("thing", "")]), None);
        assert_eq!(days_report(&[persons, ("*", "personal = true")]), Some(1), "all rows are of nobody");
    }
}
