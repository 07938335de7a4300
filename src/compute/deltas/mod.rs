//! Deltas: a batch's additions to report items, as files.
//!
//! Pure. Delta files carry a batch's figures past its commit: preparation writes them, roll forward and the auditor
//! read them. A file has items of all reports: a row has the columns of its report's figures, sketches and labels, and
//! nulls in all others. The columns are named by the definition, with the kind before the name, so that reports with
//! measures of one name share a column. The least number of 64 bits stands for no value: null says that an item lacks
//! the measure.
//!
//! `before` reads the files of the version before definitions.

mod before;

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::Cursor;

use foldhash::fast::RandomState;

use crate::compute::fold::FoldedItem;
use crate::compute::names::Names;
use crate::formats::parquet::arrays::{ColumnArray, Numbers};
use crate::formats::parquet::read::{Columns, Reader};
use crate::formats::parquet::{self, Column, ParquetError, ParquetFile, Schema, Type};
use crate::plan::columns::{Coded, Number};
use crate::plan::period::Period;
use crate::plan::reports::{LabelSource, LatestValue, Report, Slot};
use crate::plan::{NO_NUMBER, Plan};
use crate::reports::distinct::Distinct;
use crate::reports::figures::{Delta, Figures, Key, Label, Labels, decimal_text};
use crate::reports::item::time_text;

/// The columns that every file has.
const REPORT: &str = "report";
const ID: &str = "id";
const DATE: &str = "report_date";
const HOUR: &str = "report_hour";
const ROWS: &str = "rows";

/// The kinds of a report's columns, and what stands before their names.
const FIGURE: &str = "figure.";
const SKETCH: &str = "sketch.";
const LABEL: &str = "label.";

/// The columns of a plan's delta files.
struct DeltaColumns<'p> {
    /// Names of figures, of sketches and of labels, each once.
    figures: Vec<&'p str>,
    sketches: Vec<&'p str>,
    labels: Vec<&'p str>,
}

impl<'p> DeltaColumns<'p> {
    fn of(plan: &'p Plan) -> Self {
        let once = |names: &mut dyn Iterator<Item = &'p str>| {
            let mut known = Vec::new();
            names.for_each(|name| {
                if !known.contains(&name) {
                    known.push(name);
                }
            });
            known
        };
        let reports = || plan.reports.iter();
        DeltaColumns {
            figures: once(&mut reports().flat_map(|report| report.slots.iter().skip(1).map(|it| it.name.as_str()))),
            sketches: once(&mut reports().flat_map(|report| report.sketches.iter().map(|it| it.measure.as_str()))),
            labels: once(&mut reports().flat_map(|report| report.labels.iter().map(|it| it.name.as_str()))),
        }
    }

    fn columns(&self) -> Vec<Column> {
        let named = |kind: &str, names: &[&str], type_: Type| {
            let column = |name: &&str| Column::nullable(format!("{kind}{name}"), type_);
            names.iter().map(column).collect::<Vec<_>>()
        };
        let fixed = [
            Column::required(REPORT, Type::Text),
            Column::required(ID, Type::Text),
            Column::required(DATE, Type::Date),
            Column::nullable(HOUR, Type::Int32),
            Column::required(ROWS, Type::Int64),
        ];
        let figures = named(FIGURE, &self.figures, Type::Int64);
        let sketches = named(SKETCH, &self.sketches, Type::Bytes);
        let labels = named(LABEL, &self.labels, Type::Text);
        fixed.into_iter().chain(figures).chain(sketches).chain(labels).collect()
    }
}

/// Returns an upper bound of an item's bytes in a file.
pub fn row_bytes(item: &FoldedItem, names: &Names) -> usize {
    const NUMBERS_AND_ENDS: usize = 16;
    let report = &names.plan().reports[item.report];
    let columns = report.slots.len() + report.sketches.len() + report.labels.len() + 4;
    let sketches = item.members.iter().map(crate::reports::distinct::Members::sketch_bytes).sum::<usize>();
    let texts = match report.key {
        Some(Coded::Column(column)) => names.text_bytes(column, item.key),
        Some(Coded::Attribute(_)) | None => names.key_text(report.key, item.key).len(),
    };
    let latest = (0..report.labels.len()).map(|label| label_of(report, label, item, names).map_or(0, |it| it.len()));
    let latest = if report.has_latest() { latest.sum::<usize>() } else { 0 };
    columns * NUMBERS_AND_ENDS + sketches + texts + latest
}

/// Encodes a delta file.
pub fn encode(items: Vec<FoldedItem>, names: &Names) -> Result<Vec<u8>, ParquetError> {
    let plan = names.plan();
    let delta_columns = DeltaColumns::of(plan);
    let mut file = ParquetFile::new(Schema::of(&delta_columns.columns())?, false)?;
    if !items.is_empty() {
        file.write_columns(arrays(&delta_columns, items, names))?;
    }
    file.finish()
}

/// The columns of a delta file, in their order.
fn arrays(columns: &DeltaColumns<'_>, mut items: Vec<FoldedItem>, names: &Names) -> Vec<ColumnArray> {
    let reports = &names.plan().reports;
    // The place of a name in each report.
    let places = |find: &dyn Fn(&Report) -> Option<usize>| reports.iter().map(find).collect::<Vec<_>>();
    let mut arrays = vec![
        ColumnArray::texts(items.iter().map(|item| reports[item.report].name.as_str())),
        ColumnArray::texts(items.iter().map(|item| names.key_text(reports[item.report].key, item.key))),
        ColumnArray::dates(items.iter().map(|item| item.period.date_and_hour().0).collect()),
        ColumnArray::nullable_int32(items.iter().map(|item| item.period.date_and_hour().1).collect()),
        ColumnArray::int64(items.iter().map(|item| item.figures[0]).collect()),
    ];
    for name in &columns.figures {
        // The first slot is that of the rows.
        let slots = places(&|report| report.slots.iter().skip(1).position(|slot| slot.name == **name));
        let value = |item: &FoldedItem| {
            let slot = 1 + slots[item.report]?;
            Some(reports[item.report].slots[slot].merge.slot_of(item.figures[slot]))
        };
        arrays.push(ColumnArray::nullable_int64(items.iter().map(value).collect()));
    }
    for name in &columns.sketches {
        let sketches = places(&|report| report.sketches.iter().position(|it| it.measure == *name));
        let bytes =
            |item: &mut FoldedItem| Some(std::mem::take(&mut item.members[sketches[item.report]?]).into_bytes());
        let bytes: Vec<Option<Vec<u8>>> = items.iter_mut().map(bytes).collect();
        arrays.push(ColumnArray::nullable_bytes(bytes.iter().map(Option::as_deref)));
    }
    for name in &columns.labels {
        let labels = places(&|report| report.labels.iter().position(|label| label.name == **name));
        let text = |item: &FoldedItem| label_of(&reports[item.report], labels[item.report]?, item, names);
        let texts: Vec<Option<Cow<'_, str>>> = items.iter().map(text).collect();
        arrays.push(ColumnArray::nullable_texts(texts.iter().map(Option::as_deref)));
    }
    arrays
}

/// Returns the text of a label; several are joined by its character.
fn label_of<'n>(report: &'n Report, label: usize, item: &FoldedItem, names: &'n Names) -> Option<Cow<'n, str>> {
    let label = &report.labels[label];
    let value = match label.source {
        LabelSource::OfKey(attribute) => {
            let values = names.references().values(attribute);
            match values.number(item.key) {
                NO_NUMBER => values.whole(item.key).map(Cow::Borrowed),
                number => Some(Cow::Owned(decimal_text(number.into(), names.plan().attributes[attribute].places))),
            }
        }
        LabelSource::Latest(place) => {
            latest_text(latest_value(names.plan(), item.report, place), item.latest[place], names)
        }
    };
    value.or_else(|| label.unknown.as_deref().map(Cow::Borrowed))
}

fn latest_value(plan: &Plan, report: usize, place: usize) -> LatestValue {
    let bases = plan.days.bases.iter().chain(&plan.hours.bases);
    let mut of_report = bases.filter(|base| base.targets.iter().any(|target| target.report == report));
    of_report.next().and_then(|base| base.latest.get(place)).copied().unwrap_or(LatestValue::Time(Number::Time))
}

fn latest_text(latest: LatestValue, value: i64, names: &Names) -> Option<Cow<'_, str>> {
    match latest {
        LatestValue::Code(column) => {
            let code = u32::try_from(value).ok().filter(|code| names.no_value(column) != Some(*code))?;
            Some(names.value(column, code).text())
        }
        _ if value == NO_NUMBER => None,
        LatestValue::Number(_, places) => Some(Cow::Owned(decimal_text(value.into(), places))),
        LatestValue::Time(_) => Some(Cow::Owned(time_text(value))),
    }
}

/// Reads a delta file back, in the shape of a plan. The order of rows is kept.
///
/// The batch may have had another definition. A measure of one name always means the same, so that columns are found by
/// name: what the file lacks the deltas lack, and what the plan lacks is passed over.
pub fn decode(bytes: &[u8], plan: &Plan) -> Result<Vec<Delta>, ParquetError> {
    parquet::contained(|| {
        let reader = Reader::open(Cursor::new(bytes))?;
        let mut deltas = Vec::new();
        if before::has_columns(&reader) {
            before::read(reader, plan, &mut deltas)?;
        } else {
            let found: Vec<String> = reader.column_names().into_iter().map(str::to_owned).collect();
            let columns = DeltaColumns::of(plan).columns();
            // The columns that every file has are read in any case, and refused if they are not there.
            let wanted = |column: &&Column| !column.name.contains('.') || found.contains(&column.name);
            let names: Vec<&str> = columns.iter().filter(wanted).map(|column| column.name.as_str()).collect();
            reader.read(&names, |columns| read_row_group(&columns, plan, &mut deltas))?;
        }
        require_distinct_keys(&deltas, plan)?;
        Ok(deltas)
    })
}

/// Refuses a file with two rows of one report item, the second of which would be taken for a repetition of the first.
/// No batch writes such a file ([`crate::compute::fold`]).
fn require_distinct_keys(deltas: &[Delta], plan: &Plan) -> Result<(), ParquetError> {
    let mut keys = HashSet::with_capacity_and_hasher(deltas.len(), RandomState::default());
    match deltas.iter().find(|delta| !keys.insert(&delta.key)) {
        None => Ok(()),
        Some(Delta { key: Key { report, id, period }, .. }) => {
            let report = &plan.reports[*report].name;
            Err(ParquetError::Decode(format!("two of its rows are of {id:?} of {period} in {report}")))
        }
    }
}

fn read_row_group(columns: &Columns<'_>, plan: &Plan, deltas: &mut Vec<Delta>) -> Result<(), ParquetError> {
    let (reports, ids, rows) = (columns.texts(REPORT)?, columns.texts(ID)?, columns.numbers::<i64>(ROWS)?);
    let (dates, hours) = (columns.numbers::<i32>(DATE)?, columns.numbers::<i32>(HOUR)?);
    // The columns of each report, found once; `None` for one that the file lacks.
    let shapes: Vec<_> = plan
        .reports
        .iter()
        .map(|report| {
            let figures =
                report.slots.iter().skip(1).map(|it| columns.numbers::<i64>(&format!("{FIGURE}{}", it.name)).ok());
            let sketches = report.sketches.iter().map(|it| columns.bytes(&format!("{SKETCH}{}", it.measure)).ok());
            let labels = report.labels.iter().map(|it| columns.texts(&format!("{LABEL}{}", it.name)).ok());
            (figures.collect::<Vec<_>>(), sketches.collect::<Vec<_>>(), labels.collect::<Vec<_>>())
        })
        .collect();
    deltas.reserve(columns.rows());
    for row in 0..columns.rows() {
        // Figures of a report that was taken away have no place.
        let Some(index) = plan.report_named(reports.value(row)) else { continue };
        let (report, (figures, sketches, labels)) = (&plan.reports[index], &shapes[index]);
        let count = Some(rows.value(row)).filter(|rows| *rows >= 0);
        let count = count.ok_or_else(|| ParquetError::Decode("a negative count".to_owned()))?;
        let slot =
            |(column, slot): (&Option<&Numbers<i64>>, &Slot)| (*column)?.get(row).map(|it| slot.merge.slot_of(it));
        let slots = std::iter::once(Some(count)).chain(figures.iter().zip(&report.slots[1..]).map(slot));
        let distinct = sketches.iter().map(|column| column.and_then(|it| it.get(row)).map(sketch_of).transpose());
        let labels = labels.iter().zip(&report.labels);
        let labels = labels.map(|(column, label)| label_from(column.and_then(|it| it.get(row)), label.many));
        deltas.push(Delta {
            key: Key {
                report: index,
                id: ids.value(row).to_owned(),
                period: period_of(dates.value(row), hours.get(row))?,
            },
            figures: Figures { slots: slots.collect(), distinct: distinct.collect::<Result<_, _>>()? },
            labels: Labels(labels.collect()),
        });
    }
    Ok(())
}

fn period_of(day: i32, hour: Option<i32>) -> Result<Period, ParquetError> {
    let Some(hour) = hour else { return Ok(Period::Day(day)) };
    let hour = day.checked_mul(24).and_then(|first| first.checked_add(hour)).filter(|_| (0..24).contains(&hour));
    hour.map(Period::Hour).ok_or_else(|| ParquetError::Decode("an hour that no day has".to_owned()))
}

fn sketch_of(bytes: &[u8]) -> Result<Distinct, ParquetError> {
    Distinct::from_bytes(bytes).map_err(ParquetError::Decode)
}

fn label_from(text: Option<&str>, many: Option<char>) -> Label {
    match many {
        None => Label::One(text.map(str::to_owned)),
        Some(separator) => {
            let texts = text.unwrap_or_default().split(separator).filter(|text| !text.is_empty());
            Label::Many(texts.map(str::to_owned).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::fold::Fold;
    use crate::compute::fold::tests::{DAY, add, deltas, dictionary};
    use crate::reports::distinct::Members;
    use std::collections::BTreeSet;

    #[tokio::test]
    async fn labels_come_from_the_references() {
        let (mut dictionary, mut fold) = (dictionary().await, Fold::default());
        add(&mut fold, &[(1, 0, DAY), (9, 5, DAY)], &mut dictionary);
        let deltas = deltas(fold, dictionary.names());
        let of = |report, id: &str| {
            let labels = &deltas.iter().find(|delta| delta.key.report == report && delta.key.id == id).unwrap().labels;
            let texts = |label| labels.texts(label).map(str::to_owned).collect::<BTreeSet<_>>();
            (0..labels.0.len()).map(texts).collect::<Vec<_>>()
        };
        let set = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(of(0, "t0"), [set(&["A"]), set(&["W", "X"]), set(&["pop", "rock"])]);
        assert_eq!(of(0, "t5"), [set(&[]), set(&["unknown"]), set(&["unknown"])]);
        assert_eq!(of(2, "1"), [set(&["Peru"])]);
        assert_eq!(of(2, "9"), [set(&["unknown"])]);
    }

    /// The same id in another report or on another day is another item.
    #[tokio::test]
    async fn two_rows_of_one_report_item_are_refused() {
        let mut dictionary = dictionary().await;
        // Codes of ids, in the columns of two reports.
        add(&mut Fold::default(), &[(1, 1, DAY), (2, 2, DAY)], &mut dictionary);
        let item = |report, key, day| FoldedItem {
            report,
            period: Period::Day(day),
            key,
            figures: vec![1, 1],
            members: vec![Members::default()],
            latest: Vec::new(),
        };
        let good = || vec![item(0, 1, 20_000), item(0, 2, 20_000), item(0, 1, 20_001), item(2, 1, 20_000)];
        let names = dictionary.names();
        let read = |items| decode(&encode(items, names).unwrap(), names.plan());
        assert_eq!(read(good()).unwrap().len(), 4);
        let doubled = good().into_iter().chain([item(0, 2, 20_000)]).collect();
        let error = read(doubled).unwrap_err().to_string();
        let expected = "the Parquet file cannot be decoded: two of its rows are of \"t2\" of 2024-10-04 in tracks";
        assert_eq!(error, expected);
    }

    /// A consumer of the version before may have left a committed batch.
    #[test]
    fn the_files_of_the_version_before_are_read() {
        let columns = [
            Column::required("report", Type::Text),
            Column::required("id", Type::Text),
            Column::required("report_date", Type::Date),
            Column::required("listens", Type::Int64),
            Column::required("listening_ms", Type::Int64),
            Column::required("distinct", Type::Bytes),
            Column::nullable("track_name", Type::Text),
            Column::nullable("artists", Type::Text),
            Column::nullable("genres", Type::Text),
            Column::nullable("user_country", Type::Text),
        ];
        let mut file = ParquetFile::new(Schema::of(&columns).unwrap(), false).unwrap();
        let sketch = Members::default().into_bytes();
        let texts = |texts: [Option<&'static str>; 3]| {
            ColumnArray::nullable_texts(texts.into_iter().collect::<Vec<_>>().into_iter())
        };
        file.write_columns(vec![
            ColumnArray::texts(["track", "genre", "listener"].iter()),
            ColumnArray::texts(["a", "pop", "7"].iter()),
            ColumnArray::dates(vec![20_000; 3]),
            ColumnArray::int64(vec![2, 3, 4]),
            ColumnArray::int64(vec![20, 30, 40]),
            ColumnArray::nullable_bytes(vec![Some(sketch.as_slice()); 3].into_iter()),
            texts([Some("Song"), None, None]),
            texts([Some("X;Y"), None, None]),
            texts([Some("pop;rock"), None, None]),
            texts([None, None, Some("Peru")]),
        ])
        .unwrap();
        let deltas = decode(&file.finish().unwrap(), &Plan::built_in().unwrap()).unwrap();
        let shown = |delta: &Delta| {
            let labels = (0..delta.labels.0.len()).map(|label| delta.labels.texts(label).collect::<Vec<_>>().join("|"));
            let (id, slots) = (delta.key.id.clone(), delta.figures.slots.clone());
            (delta.key.report, id, slots, labels.collect::<Vec<_>>())
        };
        let of = |report, id: &str, rows, sum, labels: &[&str]| {
            let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
            (report, id.to_owned(), vec![Some(rows), Some(sum)], labels)
        };
        let expected =
            [of(0, "a", 2, 20, &["Song", "X|Y", "pop|rock"]), of(1, "pop", 3, 30, &[]), of(2, "7", 4, 40, &["Peru"])];
        assert_eq!(deltas.iter().map(shown).collect::<Vec<_>>(), expected);
    }
}
