//! A report as SQL that DuckDB runs on the curated files. Nothing in it is a floating point number, so that it shows
//! what the items show.
//!
//! Identifiers are in quotes always, as popular names of columns are words of SQL. Within a SELECT a column comes
//! before a figure of the same name; a ratio is made of figures, in a SELECT of its own around the others.

use crate::commands::format::is_harmful;
use crate::definition::Definition;
use crate::definition::columns::Type;
use crate::definition::conditions::{Condition, Test, Values};
use crate::definition::reports::{ALL, Aggregate, Measure, Report};
use crate::plan::Plan;
use crate::plan::columns::Coded;
use crate::plan::reports::{Label, LabelSource};
use crate::reports::figures::decimal_text;

/// Powers of ten by which a number of 64 bits fits into one of 128.
const SAFE_POWER: u8 = 18;

/// Writes the query of a report, by its number in the plan.
pub(super) fn query(plan: &Plan, index: usize, curated: &str) -> String {
    Query { plan, definition: &plan.definition, report: &plan.definition.reports[index], index }.text(curated)
}

struct Query<'p> {
    plan: &'p Plan,
    definition: &'p Definition,
    report: &'p Report,
    index: usize,
}

impl Query<'_> {
    fn text(&self, curated: &str) -> String {
        let key = &self.plan.reports[self.index].key_attribute;
        let mut fields = vec![self.key(), self.period()];
        fields.extend(self.plan.reports[self.index].labels.iter().map(|label| self.label(label)));
        fields.extend(self.report.measures.iter().filter_map(|measure| self.figure(measure)));
        let ratios: Vec<String> = self.report.measures.iter().filter_map(|measure| self.ratio(measure)).collect();

        let files = literal(&format!("{}/report_date=*/*.parquet", curated.trim_end_matches('/')));
        let rows = self.spread(&format!("read_parquet({files}, hive_partitioning = true)"));
        let figures = format!("SELECT\n  {}\nFROM {rows}\nGROUP BY ALL", fields.join(",\n  "));
        let figures = if ratios.is_empty() {
            figures
        } else {
            let fields = ["*".to_owned()].into_iter().chain(ratios).collect::<Vec<_>>().join(",\n  ");
            format!("SELECT\n  {fields}\nFROM (\n  {}\n)", figures.replace('\n', "\n  "))
        };
        let mut order = vec![identifier(self.period_name())];
        order.extend(self.report.top.iter().map(|top| format!("{} DESC", identifier(&top.by))));
        order.push(identifier(key));
        format!("{figures}\nORDER BY {};", order.join(", "))
    }

    fn period_name(&self) -> &'static str {
        self.plan.reports[self.index].period_attribute()
    }

    /// Days are in the paths of the files; hours are those of UTC.
    fn period(&self) -> String {
        let name = identifier(self.period_name());
        if !self.plan.reports[self.index].is_hourly {
            return name;
        }
        format!("strftime({} AT TIME ZONE 'UTC', '%Y-%m-%dT%H') AS {name}", identifier(&self.definition.time))
    }

    /// The character between several values of the report's key, if a row may have several.
    fn key_many(&self) -> Option<char> {
        match self.plan.reports[self.index].key {
            Some(Coded::Attribute(attribute)) => self.plan.attributes[attribute].many,
            Some(Coded::Column(_)) | None => None,
        }
    }

    fn key(&self) -> String {
        let key = &self.plan.reports[self.index].key_attribute;
        let name = identifier(key);
        match (self.plan.reports[self.index].key, self.key_many()) {
            (None, _) => format!("{} AS {name}", literal(ALL.1)),
            (Some(_), Some(_)) => name,
            (Some(_), None) => named(self.or_unknown(key, &|value| value), &name),
        }
    }

    /// The rows; one for each value of a key that may have several.
    fn spread(&self, rows: &str) -> String {
        let Some(many) = self.key_many() else { return rows.to_owned() };
        let key = &self.plan.reports[self.index].key_attribute;
        let name = identifier(key);
        let values = format!("string_split({name}, {})", literal(&many.to_string()));
        let values = match self.definition.field(key).and_then(|field| field.unknown()) {
            Some(unknown) => format!("coalesce({values}, [{}])", literal(unknown)),
            None => values,
        };
        format!("(\n  SELECT * REPLACE (unnest({values}) AS {name})\n  FROM {rows}\n)")
    }

    /// A field's value, made into a figure; the field's `unknown` in place of none.
    fn or_unknown(&self, name: &str, figure: &dyn Fn(String) -> String) -> String {
        let field = self.definition.field(name);
        match field.and_then(|field| field.unknown()) {
            None => figure(self.value(name)),
            Some(unknown) => {
                let value = match field.map(|field| field.type_()) {
                    Some(Type::Integer { .. }) => format!("CAST({} AS VARCHAR)", identifier(name)),
                    _ => self.value(name),
                };
                format!("coalesce({}, {})", figure(value), literal(unknown))
            }
        }
    }

    /// A field's value; times are those of a clock in UTC, wherever the query runs.
    fn value(&self, name: &str) -> String {
        match self.type_of(name) {
            Some(Type::Time { .. }) => format!("{} AT TIME ZONE 'UTC'", identifier(name)),
            _ => identifier(name),
        }
    }

    fn type_of(&self, name: &str) -> Option<&Type> {
        self.definition.field(name).map(|field| field.type_())
    }

    fn label(&self, label: &Label) -> String {
        let name = identifier(&label.name);
        let value = match (label.source, label.many) {
            (LabelSource::OfKey(_), Some(many)) => {
                let many = literal(&many.to_string());
                let sorted =
                    |value| format!("array_to_string(list_sort(string_split(any_value({value}), {many})), {many})");
                self.or_unknown(&label.name, &sorted)
            }
            (LabelSource::OfKey(_), None) => self.or_unknown(&label.name, &|value| format!("any_value({value})")),
            (LabelSource::Latest(_), _) => {
                let time = identifier(&self.definition.time);
                self.or_unknown(&label.name, &|value| format!("arg_max_null({value}, {time})"))
            }
        };
        format!("{value} AS {name}")
    }

    /// A figure of the rows; none for a ratio.
    fn figure(&self, measure: &Measure) -> Option<String> {
        let filter = self.filter(&measure.conditions);
        let figure = match &measure.aggregate {
            Aggregate::Count => format!("count(*){filter}"),
            Aggregate::Sum { of, divide } => {
                let sum = format!("coalesce(sum({}){filter}, 0)", identifier(of));
                match divide.checked_ilog10() {
                    None | Some(0) => sum,
                    Some(places) => format!("{sum} * {}", decimal_text(1, places as u8)),
                }
            }
            Aggregate::Min { of } => format!("min({}){filter}", self.value(of)),
            Aggregate::Max { of } => format!("max({}){filter}", self.value(of)),
            Aggregate::Distinct { of } => format!("count(DISTINCT {}){filter}", identifier(of)),
            Aggregate::Ratio { .. } => return None,
        };
        Some(format!("{figure} AS {}", identifier(&measure.name)))
    }

    /// A ratio of two figures, rounded half away from zero: a division of whole numbers, of which the first has as many
    /// digits more as the quotient has places.
    fn ratio(&self, measure: &Measure) -> Option<String> {
        let Aggregate::Ratio { of, by, places } = &measure.aggregate else { return None };
        let places_of =
            |name: &str| self.report.measure(name).map_or(0, |measure| measure.aggregate.places(self.definition));
        let (of_places, by_places) = (places_of(of), places_of(by));
        let of_power = (places + by_places).max(of_places);
        let by_power = of_power - places;
        let is_safe = of_power - of_places <= SAFE_POWER && by_power - by_places <= SAFE_POWER;
        let (top, bottom) = (whole(of, of_places, of_power), whole(by, by_places, by_power));
        let quotient = if self.may_be_negative(of) || self.may_be_negative(by) {
            let rounded = format!("(abs({top}) + abs({bottom}) // 2) // nullif(abs({bottom}), 0)");
            format!("sign({}) * sign({}) * ({rounded})", identifier(of), identifier(by))
        } else {
            format!("({top} + {bottom} // 2) // nullif({bottom}, 0)")
        };
        let mut quotient = match places {
            0 => quotient,
            _ => format!("CAST({quotient} AS DECIMAL(38, 0)) * {}", decimal_text(1, *places)),
        };
        if !is_safe {
            quotient = format!("TRY({quotient})");
        }
        Some(format!("{quotient} AS {}", identifier(&measure.name)))
    }

    fn may_be_negative(&self, measure: &str) -> bool {
        match self.report.measure(measure).map(|measure| &measure.aggregate) {
            Some(Aggregate::Sum { of, .. }) => self.type_of(of).is_some_and(Type::may_be_negative),
            _ => false,
        }
    }

    fn filter(&self, conditions: &[Condition]) -> String {
        if conditions.is_empty() {
            return String::new();
        }
        let conditions: Vec<String> = conditions.iter().map(|condition| self.condition(condition)).collect();
        format!(" FILTER (WHERE {})", conditions.join(" AND "))
    }

    fn condition(&self, Condition { column, test }: &Condition) -> String {
        let name = identifier(column);
        let places = self.type_of(column).map_or(0, Type::places);
        let number = |number: i64| decimal_text(number.into(), places);
        let values = |values: &Values| match values {
            Values::Texts(texts) => texts.iter().map(|text| literal(text)).collect::<Vec<_>>(),
            Values::Numbers(numbers) => numbers.iter().map(|&it| number(it)).collect(),
        };
        match test {
            Test::In(these) => match values(these).as_slice() {
                [one] => format!("{name} = {one}"),
                several => format!("{name} IN ({})", several.join(", ")),
            },
            Test::NotIn(these) => {
                let test = match values(these).as_slice() {
                    [one] => format!("{name} <> {one}"),
                    several => format!("{name} NOT IN ({})", several.join(", ")),
                };
                let is_optional = self.definition.column(column).is_some_and(|column| column.is_optional);
                if is_optional { format!("({name} IS NULL OR {test})") } else { test }
            }
            Test::Within { min: Some(min), max: Some(max) } => {
                format!("{name} BETWEEN {} AND {}", number(*min), number(*max))
            }
            Test::Within { min, max } => {
                let bound = |sign: &str, bound: &Option<i64>| bound.map(|it| format!("{name} {sign} {}", number(it)));
                bound(">=", min).or_else(|| bound("<=", max)).unwrap_or_else(|| "true".to_owned())
            }
            Test::Present(true) => format!("{name} IS NOT NULL"),
            Test::Present(false) => format!("{name} IS NULL"),
        }
    }
}

/// A name in quotes. Names of definitions contain none.
fn identifier(name: &str) -> String {
    format!("\"{name}\"")
}

/// An expression under a name, if that is not the expression itself.
fn named(expression: String, name: &str) -> String {
    if expression == name { expression } else { format!("{expression} AS {name}") }
}

/// A text in quotes. Characters that a terminal would obey are written by their numbers.
fn literal(text: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut plain = String::new();
    for char in text.chars() {
        match char {
            '\'' => plain.push_str("''"),
            char if is_harmful(char) => {
                parts.extend((!plain.is_empty()).then(|| format!("'{plain}'")));
                parts.push(format!("chr({})", u32::from(char)));
                plain.clear();
            }
            char => plain.push(char),
        }
    }
    if !plain.is_empty() || parts.is_empty() {
        parts.push(format!("'{plain}'"));
    }
    parts.join(" || ")
}

/// A figure with so many places, times a power of ten that makes it a whole number.
fn whole(measure: &str, places: u8, power: u8) -> String {
    let name = identifier(measure);
    let times = |power: u8| if power == 0 { String::new() } else { format!(" * {}", 10_u128.pow(power.into())) };
    // A decimal number is cast when it is whole; others are before, as 64 bits may be too few.
    match places {
        0 if power == 0 => name,
        0 => format!("CAST({name} AS HUGEINT){}", times(power)),
        _ => format!("CAST({name}{} AS HUGEINT){}", times(places), times(power - places)),
    }
}
