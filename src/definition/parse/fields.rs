//! A section of the file, read by the table of its keys: unknown keys, those that are missing, and values of another
//! form than theirs are problems.

use crate::definition::keys::SECTIONS;
use crate::definition::keys::shape::{Entry as EntryKind, Key, Missing, Section, Shape, list};
use crate::definition::parse::tree::{Entry, Node, Value};
use crate::definition::parse::values::whole;
use crate::definition::problems::{Found, Reported, Span, instead, nearest};

/// The fields of a section that have the form that they should have.
pub(super) struct Fields<'n> {
    /// The section's name, in messages.
    what: String,
    /// The place of its name.
    at: Span,
    good: Vec<(&'static Key, Item<'n>)>,
    /// The keys with a problem, and those that are missing.
    bad: Vec<(&'n str, Reported)>,
}

/// A key with its value, or a value that stands for its section's only key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'n> {
    pub(super) key: &'n str,
    pub(super) span: Span,
    pub(super) node: &'n Node,
}

/// Returns the items of a table.
pub(super) fn items(entries: &[Entry]) -> Vec<Item<'_>> {
    entries.iter().map(|Entry { key, span, node }| Item { key, span: *span, node }).collect()
}

/// Returns the items of a table. Another value stands for this key alone: `"id"` for `{ type = "id" }`.
pub(super) fn items_or<'n>(node: &'n Node, key: &'n str) -> Vec<Item<'n>> {
    match &node.value {
        Value::Table(entries) => items(entries),
        _ => vec![Item { key, span: node.span, node }],
    }
}

/// A value with its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<T> {
    pub(super) value: T,
    pub(super) at: Span,
}

impl<'n> Fields<'n> {
    /// Reads a section that is called `what` and whose name is at `at`.
    pub(super) fn read(
        section: &'static Section,
        (what, at): (String, Span),
        items: Vec<Item<'n>>,
        found: &mut Found<'_>,
    ) -> Self {
        let variant = variant(section, &items);
        let mut fields = Fields { what, at, good: Vec::new(), bad: Vec::new() };
        for &item in &items {
            let Some(key) = section.key(item.key) else {
                fields.bad.push((item.key, unknown_key(section, &fields.what, item, found)));
                continue;
            };
            if let Some(variant) = variant.filter(|variant| !key.is_for(variant)) {
                let only = list(key.only.iter().map(ToString::to_string), "and");
                let message = format!("'{}' is for {only}, not for {variant}", key.name);
                fields.bad.push((item.key, found.add(item.span, message)));
                continue;
            }
            match has_shape(&key.shape, key.name, item.node, found) {
                Ok(()) => fields.good.push((key, item)),
                Err(reported) => fields.bad.push((item.key, reported)),
            }
        }
        let is_needed = |key: &Key| match variant {
            Some(variant) => key.is_for(variant),
            None => key.only.is_empty(),
        };
        for key in section.keys.iter().filter(|key| key.missing == Missing::Required && is_needed(key)) {
            if !items.iter().any(|item| item.key == key.name) {
                let message = format!("{} lacks '{}', which takes {}", fields.what, key.name, key.shape.described());
                fields.bad.push((key.name, found.add(at, message)));
            }
        }
        fields
    }

    /// Reads a section that an entry has for its value. Another value is a problem.
    pub(super) fn of_entry(section: &'static Section, what: String, entry: &'n Entry, found: &mut Found<'_>) -> Self {
        match has_shape(&Shape::Section(section), &entry.key, &entry.node, found) {
            Ok(()) => Fields::read(section, (what, entry.span), items_or(&entry.node, ""), found),
            Err(reported) => {
                let bad = section.keys.iter().map(|key| (key.name, reported)).collect();
                Fields { what, at: entry.span, good: Vec::new(), bad }
            }
        }
    }

    /// An error if the section had a problem.
    pub(super) fn all_good(&self) -> Result<(), Reported> {
        self.bad.first().map_or(Ok(()), |(_, reported)| Err(*reported))
    }

    /// The proof of a problem with a key that has no value here.
    pub(super) fn lost(&self, key: &str) -> Option<Reported> {
        self.bad.iter().find(|(bad, _)| *bad == key).map(|(_, reported)| *reported)
    }

    fn find(&self, key: &str) -> Option<Item<'n>> {
        self.good.iter().find(|(good, _)| good.name == key).map(|(_, item)| *item)
    }

    /// The item of a key that has to be there. If it is not, that is a problem already.
    pub(super) fn item(&self, key: &str, found: &mut Found<'_>) -> Result<Item<'n>, Reported> {
        let lacks = |found: &mut Found<'_>| found.add(self.at, format!("{} lacks '{key}'", self.what));
        self.find(key).ok_or_else(|| self.lost(key).unwrap_or_else(|| lacks(found)))
    }

    pub(super) fn node(&self, key: &str) -> Option<&'n Node> {
        self.find(key).map(|item| item.node)
    }

    /// The text of a key that has to be there.
    pub(super) fn needed_text(&self, key: &str, found: &mut Found<'_>) -> Result<Told<&'n str>, Reported> {
        match self.text(key) {
            Some(text) => Ok(text),
            None => self.item(key, found).map(|item| Told { value: "", at: item.span }),
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<Told<&'n str>> {
        self.node(key).and_then(Node::text)
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match self.node(key)?.value {
            Value::Flag(flag) => Some(flag),
            _ => None,
        }
    }

    pub(super) fn whole(&self, key: &str) -> Option<i64> {
        match &self.node(key)?.value {
            Value::Number(number) => whole(number),
            _ => None,
        }
    }

    pub(super) fn number(&self, key: &str) -> Option<Told<&'n str>> {
        let node = self.node(key)?;
        match &node.value {
            Value::Number(number) => Some(Told { value: number, at: node.span }),
            _ => None,
        }
    }

    /// The texts of a list; none if it is not there.
    pub(super) fn texts(&self, key: &str) -> Vec<Told<&'n str>> {
        match self.node(key).map(|node| &node.value) {
            Some(Value::List(nodes)) => nodes.iter().filter_map(Node::text).collect(),
            _ => Vec::new(),
        }
    }

    /// The entries of a table; none if it is not there.
    pub(super) fn entries(&self, key: &str) -> &'n [Entry] {
        match self.node(key).map(|node| &node.value) {
            Some(Value::Table(entries)) => entries,
            _ => &[],
        }
    }
}

impl Node {
    pub(super) fn text(&self) -> Option<Told<&str>> {
        match &self.value {
            Value::Text(text) => Some(Told { value: text, at: self.span }),
            _ => None,
        }
    }
}

/// The variant of a section, if it can be known.
fn variant<'n>(section: &'static Section, items: &[Item<'n>]) -> Option<&'n str> {
    if let Some(key) = section.variant {
        let variant = items.iter().find(|item| item.key == key)?.node.text()?.value;
        let is_known = matches!(section.key(key)?.shape, Shape::OneOf(variants) if variants.contains(&variant));
        return is_known.then_some(variant);
    }
    let mut variants = items.iter().filter(|item| section.key(item.key).is_some_and(|key| key.only == [item.key]));
    variants.next().filter(|_| variants.next().is_none()).map(|item| item.key)
}

fn unknown_key(section: &'static Section, what: &str, item: Item<'_>, found: &mut Found<'_>) -> Reported {
    let key = item.key;
    let advice = match advice(key) {
        Some(advice) => format!("; {advice}"),
        None if nearest(key, section.keys.iter().map(|key| key.name)).is_some() => {
            instead(key, section.keys.iter().map(|key| key.name))
        }
        None => match SECTIONS.iter().find(|section| section.key(key).is_some()) {
            Some(other) => format!("; '{key}' stands in {}", other.place),
            None => instead(key, section.keys.iter().map(|key| key.name)),
        },
    };
    found.add(item.span, format!("{what} has no key '{key}'{advice}"))
}

/// The answer to keys that people try, as other programs have them.
fn advice(key: &str) -> Option<&'static str> {
    Some(match key {
        "unique" => {
            "a file counts once, but its rows are not compared with others; { distinct = … } of an event's id counts \
             each event once"
        }
        "avg" | "average" | "mean" => "an average is the ratio of a sum and a count",
        "quantile" | "percentile" | "median" => {
            "quantiles depend on the order in which parts are merged, so there are none"
        }
        "first" | "last" | "latest" => "'attributes' shows the latest value of a column",
        "expression" | "expr" | "sql" => "there are no expressions; `curated/` has all rows for SQL",
        _ => return None,
    })
}

/// Checks a value's form.
pub(super) fn has_shape(shape: &Shape, key: &str, node: &Node, found: &mut Found<'_>) -> Result<(), Reported> {
    let is_good = match (shape, &node.value) {
        (Shape::Name { .. }, Value::Text(_)) => true,
        (Shape::Text { min, max, .. }, Value::Text(text)) => {
            (*min..=*max).contains(&text.len()) && (*max > 1 || text.is_ascii())
        }
        (Shape::OneOf(texts), Value::Text(text)) => return is_one_of(texts, key, text, node.span, found),
        (Shape::Flag, Value::Flag(_)) | (Shape::True, Value::Flag(true)) | (Shape::Number, Value::Number(_)) => true,
        (Shape::Whole { min, max }, Value::Number(number)) => {
            whole(number).is_some_and(|number| (*min..=*max).contains(&number))
        }
        (Shape::WholeOf(numbers), Value::Number(number)) => whole(number).is_some_and(|it| numbers.contains(&it)),
        (Shape::Names { min, max }, Value::List(nodes)) => {
            (*min..=*max).contains(&nodes.len()) && nodes.iter().all(|node| matches!(node.value, Value::Text(_)))
        }
        (Shape::Texts { min, max, bytes }, Value::List(nodes)) => {
            let is_good = |node: &Node| node.text().is_some_and(|text| text.value.len() <= *bytes);
            (*min..=*max).contains(&nodes.len()) && nodes.iter().all(is_good)
        }
        (Shape::Place { .. }, Value::Text(_) | Value::Number(_)) => true,
        (Shape::Place { or_several: true }, Value::List(nodes)) => {
            (2..=4).contains(&nodes.len())
                && nodes.iter().all(|node| matches!(node.value, Value::Text(_) | Value::Number(_)))
        }
        (Shape::Values, Value::Text(_) | Value::Number(_) | Value::Flag(_) | Value::List(_)) => true,
        (Shape::Section(_), Value::Table(_)) => true,
        (Shape::Entries { of, min, max }, Value::Table(entries)) => {
            return has_length(*of, (*min, *max), entries.len(), node.span, found);
        }
        _ => false,
    };
    if is_good {
        return Ok(());
    }
    let not = match (&node.value, shape) {
        // Of the right kind: its amount is wrong, which the description says.
        (Value::Text(_), Shape::Text { .. }) | (Value::Number(_), Shape::Whole { .. } | Shape::WholeOf(_)) => "",
        (Value::List(_), Shape::Names { .. } | Shape::Texts { .. } | Shape::Place { or_several: true }) => "",
        (Value::Flag(_), Shape::True) => "",
        (other, _) => other.kind(),
    };
    let not = if not.is_empty() { String::new() } else { format!(", not {not}") };
    Err(found.add(node.span, format!("'{key}' takes {}{not}", shape.described())))
}

fn has_length(
    of: EntryKind,
    (min, max): (usize, usize),
    length: usize,
    at: Span,
    found: &mut Found<'_>,
) -> Result<(), Reported> {
    if (min..=max).contains(&length) {
        return Ok(());
    }
    let (few, plural) = (length < min, of.plural());
    let message = if few { format!("there are no {plural}") } else { format!("at most {max} {plural}, not {length}") };
    Err(found.add(at, message))
}

fn is_one_of(texts: &[&str], key: &str, text: &str, at: Span, found: &mut Found<'_>) -> Result<(), Reported> {
    if texts.contains(&text) {
        return Ok(());
    }
    let takes = list(texts.iter().map(|text| format!("\"{text}\"")), "or");
    let advice = match foreign(text) {
        Some(advice) => format!("; {advice}"),
        None => nearest(text, texts.iter().copied()).map(|near| format!("; write '{near}'")).unwrap_or_default(),
    };
    Err(found.add(at, format!("'{key}' takes {takes}, not '{text}'{advice}")))
}

/// The answer to choices that people try, as other programs have them.
fn foreign(text: &str) -> Option<&'static str> {
    Some(match text.to_ascii_lowercase().as_str() {
        "string" | "str" | "varchar" => "write 'text', or 'id' for short names in ASCII",
        "int" | "int32" | "int64" | "long" | "bigint" => "write 'integer'",
        "float" | "double" | "real" | "number" | "numeric" => {
            "write 'decimal' with 'places': a sum of floating point numbers depends on their order"
        }
        "bool" | "boolean" => "write 'id', which takes true and false as their words",
        "date" | "datetime" | "timestamp" => "write 'time'",
        "array" | "list" => "a row has one value in a column",
        "jsonl" | "ndjson" => "write 'json', which takes lines, arrays, and objects one after the other",
        "parquet" | "avro" | "orc" | "xlsx" | "zip" | "tar" => "such files are not read",
        "gzip" | "gz" | "zstd" => "compression is recognized by itself",
        _ => return None,
    })
}
