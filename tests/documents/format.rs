//! `docs/format.md` and `docs/curated.md` against what the code writes: names of keys, attributes, fields and columns.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::sync::Arc;

use arrow2::datatypes::{DataType, Field, TimeUnit};
use arrow2::io::parquet::read::{infer_schema, read_metadata};
use music_streams::aws::s3::Upload;
use music_streams::batch::manifest::{CuratedFile, DeltaFile, Fate, Manifest, ManifestObject, Note};
use music_streams::compute::{Dictionary, curated, deltas};
use music_streams::counts::Counts;
use music_streams::definition::columns::{Place, Source};
use music_streams::definition::input::Input;
use music_streams::formats::delta::schema::Column;
use music_streams::formats::delta::stats::Stats;
use music_streams::input::file::Blocks;
use music_streams::layout;
use music_streams::ledger::aside::{Aside, What};
use music_streams::ledger::{LEDGER_TABLE, registry_item};
use music_streams::object::{ObjectId, Version};
use music_streams::plan::Plan;
use music_streams::plan::period::Period;
use music_streams::protocol::{Applied, Entry, InForce, Registry, State};
use music_streams::reference::{References, file_key};
use music_streams::reports::distinct::{Distinct, Member};
use music_streams::reports::figures::{Figures, Key, Label, Labels};
use music_streams::reports::item::{ReportItem, item_of};
use music_streams::reports::top_lists::{self, ListKey, TOP_LISTS_TABLE, TopList};
use serde_json::Value;

use crate::document;

/// The cells of the tables in a section of a document, each row's first.
fn tables(path: &str, section: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(document(path)).unwrap();
    let text = match section {
        "" => text.as_str(),
        _ => text.split_once(&format!("# {section}\n")).unwrap_or_else(|| panic!("{path} has no {section}")).1,
    };
    let section = text.split("\n#").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// What stands in backticks.
fn names(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The names in the first column of a section of `docs/format.md`.
fn first_column(section: &str) -> BTreeSet<String> {
    tables("docs/format.md", section).iter().flat_map(|row| names(&row[0])).collect()
}

fn set<S: Into<String>>(names: impl IntoIterator<Item = S>) -> BTreeSet<String> {
    names.into_iter().map(Into::into).collect()
}

/// The paths of all fields of JSON: `a`, `a[].b`.
fn fields(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let below = fields(member);
                let join = |field: String| {
                    if field.starts_with('[') { format!("{name}{field}") } else { format!("{name}.{field}") }
                };
                if below.is_empty() {
                    found.insert(name.clone());
                }
                found.extend(below.into_iter().map(join));
            }
        }
        Value::Array(elements) => {
            let below = elements.iter().flat_map(fields);
            found.extend(below.map(|field| format!("[].{field}")));
        }
        _ => {}
    }
    found
}

fn object(version: Version) -> ObjectId {
    ObjectId { bucket: "b".to_owned(), key: "incoming/streams1.csv".to_owned(), version }
}

fn versions() -> [Version; 2] {
    [Version::Id("i".to_owned()), Version::ETag("e".to_owned())]
}

fn upload() -> Upload {
    Upload { key: "k".to_owned(), upload_id: "u".to_owned(), part_etags: vec!["e".to_owned()] }
}

#[test]
fn the_keys_of_the_bucket() {
    let mut allocator = layout::KeyAllocator::new("2024-06-25".to_owned(), 42);
    let quarantined = allocator.quarantine("incoming/bad.csv");
    let references = Plan::built_in().unwrap().definition.references.iter().map(file_key).collect::<Vec<_>>();
    let written = set([
        format!("{}streams1.csv", layout::INCOMING),
        references[0].clone(),
        references[1].clone(),
        layout::curated_key("2024-06-25", 42, 1),
        allocator.archive("incoming/streams1.csv"),
        format!("{quarantined}{}", layout::REASON_SUFFIX),
        quarantined,
        layout::rejected_rows_key("2024-06-25", 42),
        layout::manifest_key(42),
        layout::deltas_key(42, 1),
    ]);
    assert_eq!(first_column("The bucket"), written);
    for prefix in [layout::CURATED, layout::ARCHIVE, layout::QUARANTINED_ROWS, layout::QUARANTINED_OBJECTS] {
        assert!(written.iter().any(|key| key.starts_with(prefix)), "{prefix}");
    }
}

#[test]
fn the_fields_of_a_manifest() {
    let fates = [
        Fate::Archived { to: "t".to_owned(), rows: 1, rejected: 0, passed_over: 1 },
        Fate::Quarantined { to: "t".to_owned(), reason: "r".to_owned() },
        Fate::Gone,
    ];
    let of = |fate: Fate| {
        versions().map(|version| ManifestObject {
            object: object(version),
            size: 1,
            created_at: None,
            fate: fate.clone(),
        })
    };
    let values = || serde_json::Map::from_iter([("COLUMN".to_owned(), 1.into())]);
    let stats = Stats { num_records: 1, min_values: values(), max_values: values(), null_count: values() };
    let manifest = Manifest {
        batch: 42,
        opened_at: jiff::Timestamp::UNIX_EPOCH,
        definition: Some("d".to_owned()),
        objects: fates.into_iter().flat_map(of).collect(),
        uploads: vec![upload()],
        curated: vec![CuratedFile { key: "k".to_owned(), bytes: 1, stats }],
        columns: vec![Column { name: "n".to_owned(), type_: "t".to_owned() }],
        delta_files: vec![DeltaFile::new("k".to_owned(), b"bytes")],
        rejected: BTreeMap::from([("REASON".to_owned(), 1)]),
        traceparent: Some("00-…".to_owned()),
    };
    assert_eq!(first_column("The manifest"), fields(&serde_json::json!(manifest)));
}

#[test]
fn the_fields_of_a_quarantine_note() {
    let notes = versions().map(|version| {
        let note = Note { object: object(version), size: 1, batch: 42, reason: "r".to_owned() };
        fields(&serde_json::json!(note))
    });
    assert_eq!(first_column("Quarantine notes"), notes.into_iter().flatten().collect());
}

#[tokio::test]
async fn the_fields_of_a_rejected_row() {
    // One line, three lines within quotes, and too few fields; and a record of JSON.
    let csv = "user_id,track_id,listen_time\nx,t,2024-06-25 00:00:00\n\"\n\n\",t,2024-06-25 00:00:00\nx\n";
    let built_in = Plan::built_in().unwrap();
    let mut of_json = (*built_in.definition).clone();
    of_json.input = Input::Json { records: None };
    for column in &mut of_json.columns {
        column.source = Source::Places(vec![Place::Path(vec![column.name.clone()])]);
    }
    let of_json = Arc::new(Plan::of(of_json).unwrap());
    let mut written = BTreeSet::new();
    for (plan, text) in [(built_in, csv), (of_json, "[null]")] {
        let (body, now) = (Cursor::new(text.as_bytes().to_vec()), jiff::Timestamp::now());
        let mut blocks = Blocks::open(body, u64::MAX, now, &plan, "incoming/a").await.unwrap();
        let references = References::empty(&plan);
        while let Some(block) = blocks.next().await.unwrap() {
            for version in versions() {
                for (_, line) in block.parse(&references).rejects.lines(&object(version), 0) {
                    written.append(&mut fields(&serde_json::from_slice(&line).unwrap()));
                }
            }
        }
    }
    let documented = first_column("Rejected rows");
    assert!(written.contains("lines") && written.contains("record") && written.is_subset(&documented), "{written:?}");
    // The last line of a long list is made where the list is; its own test is beside that.
    assert_eq!(&documented - &written, set(["unlisted", "reasons.REASON"]));
}

/// The columns of a Parquet file: name, type, and whether there are nulls.
fn columns(file: Vec<u8>) -> Vec<(String, &'static str, bool)> {
    let metadata = read_metadata(&mut Cursor::new(file)).unwrap();
    let type_of = |field: &Field| match &field.data_type {
        DataType::Int64 => "INT64",
        DataType::Int32 => "INT32",
        DataType::Utf8 => "STRING",
        DataType::Date32 => "DATE",
        DataType::Binary => "BINARY",
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "TIMESTAMP, microseconds, UTC",
        other => panic!("{} has the type {other:?}", field.name),
    };
    let fields = infer_schema(&metadata).unwrap().fields;
    fields.iter().map(|field| (field.name.clone(), type_of(field), field.is_nullable)).collect()
}

fn documented_columns(path: &str, section: &str) -> Vec<(String, String, bool)> {
    let rows = tables(path, section).into_iter().filter(|row| row[0].starts_with('`'));
    rows.map(|row| (row[0].trim_matches('`').to_owned(), row[1].clone(), row[2] != "never")).collect()
}

#[test]
fn the_columns_of_parquet_files() {
    let owned = |columns: Vec<(String, &str, bool)>| {
        columns.into_iter().map(|(name, type_, nulls)| (name, type_.to_owned(), nulls)).collect::<Vec<_>>()
    };
    let plan = Plan::built_in().unwrap();
    let curated = owned(columns(curated::new_file(&plan).unwrap().finish().unwrap()));
    assert_eq!(documented_columns("docs/curated.md", ""), curated);
    let named: Vec<String> = curated.into_iter().map(|(name, ..)| name).collect();
    assert_eq!(first_column("Curated files"), set(named));
    let dictionary = Dictionary::of(Arc::clone(&plan), Arc::new(References::empty(&plan)));
    let deltas = owned(columns(deltas::encode(Vec::new(), dictionary.names()).unwrap()));
    assert_eq!(documented_columns("docs/format.md", "Delta files"), deltas);
}

/// The attributes of the ledger's items by item, as documented: the name before a bracket or a colon.
fn ledger_attributes() -> BTreeMap<String, BTreeSet<String>> {
    let rows = tables("docs/format.md", "The ledger").into_iter().filter(|row| row.len() == 3);
    rows.filter(|row| row[0] != "item" && !row[0].starts_with('-'))
        .map(|row| (row[0].clone(), names(&row[2])))
        .collect()
}

#[test]
fn the_attributes_of_the_ledger() {
    let documented = ledger_attributes();
    let all: BTreeSet<String> = documented.values().flatten().cloned().collect();
    assert!(std::fs::read_to_string(document("docs/format.md")).unwrap().contains(LEDGER_TABLE));

    let entry = Entry { state: State::Open, owner: "o".to_owned(), beat: 1, since: 1 };
    let definition = InForce { digest: Some("d".to_owned()), ..InForce::default() };
    let registry = registry_item(&Registry { last: 1, batches: BTreeMap::from([(1, entry)]), definition }, 1);
    let entry = registry["batches"].as_m().unwrap()["1"].as_m().unwrap();
    let own = registry.keys().filter(|name| !["pk", "sk"].contains(&name.as_str()));
    let definition = registry["definition"].as_m().unwrap();
    assert_eq!(documented["registry"], own.chain(entry.keys()).chain(definition.keys()).cloned().collect());

    // The other items have no pure function: compares the names in the strings of the code that reads and writes them.
    let mut literals = BTreeSet::new();
    for path in crate::house::files("src/ledger", "rs") {
        let code = crate::house::code_of(&path);
        for line in code.lines().filter(|line| !line.trim_start().starts_with("#[")) {
            literals.extend(line.split('"').skip(1).step_by(2).map(str::to_owned));
        }
    }
    let words = |text: &String| {
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned);
        words.collect::<Vec<_>>()
    };
    let used: BTreeSet<String> = literals.iter().flat_map(words).collect();
    let missing: Vec<_> = all.difference(&used).collect();
    assert!(missing.is_empty(), "src/ledger does not use {missing:?}, which docs/format.md has");
    let text = std::fs::read_to_string(document("docs/format.md")).unwrap();
    let is_name = |text: &&String| text.contains('_') && text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let unknown: Vec<_> = literals.iter().filter(is_name).filter(|name| !text.contains(&format!("`{name}`"))).collect();
    assert!(unknown.is_empty(), "docs/format.md lacks {unknown:?}, which src/ledger uses");
}

#[test]
fn the_json_in_the_ledger() {
    let summary =
        serde_json::json!(Counts { oldest_created_at: Some(jiff::Timestamp::UNIX_EPOCH), ..Counts::default() });
    assert_eq!(first_column("Batch summary"), fields(&summary));

    let now = jiff::Timestamp::UNIX_EPOCH;
    let text = || "x".to_owned();
    let mut kinds = vec![
        What::ReportItem { report: text(), id: text(), date: text() },
        What::TopList { list: text(), date: text() },
        What::Upload { upload: upload() },
        What::Batch { key: text() },
    ];
    for version in versions() {
        let object = object(version);
        let (to, quarantined) = (text(), Some(text()));
        kinds.push(What::Object { object: object.clone(), size: 1, created_at: Some(now), until: now, times: 1 });
        kinds.push(What::Original { object, size: 1, to, quarantined });
    }
    let mut written: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for what in kinds {
        let entry = serde_json::json!(Aside::new(what, 42, "reason"));
        let kind = entry["kind"].as_str().unwrap().to_owned();
        written.entry(kind).or_default().append(&mut fields(&entry));
    }
    let common = set(["kind", "batch", "reason"]);
    let rows = tables("docs/format.md", "Entries set aside").into_iter().filter(|row| row[0].starts_with('`'));
    let documented: BTreeMap<String, BTreeSet<String>> =
        rows.map(|row| (row[0].trim_matches('`').to_owned(), &names(&row[1]) | &common)).collect();
    assert_eq!(documented, written);
}

#[test]
fn the_attributes_of_report_items() {
    let plan = Plan::built_in().unwrap();
    let applied = Applied { through: 1, listed: BTreeSet::from([3]) };
    let stored = |report: usize| {
        let report = &plan.reports[report];
        let label = |many: Option<char>| match many {
            None => Label::One(Some("A".to_owned())),
            Some(_) => Label::Many(BTreeSet::from(["pop".to_owned()])),
        };
        // One row, of one id: every ratio has a value.
        let mut distinct = Distinct::default();
        distinct.insert(Member::of_number(1));
        let slots = report.slots.iter().map(|_| Some(1)).collect();
        let figures = Figures { slots, distinct: vec![Some(distinct); report.sketches.len()] };
        let labels = Labels(report.labels.iter().map(|it| label(it.many)).collect());
        ReportItem { figures, labels, applied: applied.clone(), version: 1 }
    };
    let key = |report: usize| {
        let period = if plan.reports[report].is_hourly { Period::Hour(24 * 19_899) } else { Period::Day(19_899) };
        Key { report, id: "x".to_owned(), period }
    };
    let mut written: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (index, report) in plan.reports.iter().enumerate() {
        let item = item_of(report, &key(index), &stored(index));
        written.insert(report.table.clone(), item.into_keys().collect());
    }
    let rows = tables("docs/format.md", "Report items");
    let (heading, rows) = rows.split_first().unwrap();
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (place, table) in heading.iter().enumerate().filter(|(_, cell)| cell.starts_with('`')) {
        let has = |row: &&Vec<String>| row[0].starts_with('`') && row[place] != "–";
        let attributes = rows.iter().filter(has).map(|row| row[0].trim_matches('`').to_owned());
        documented.insert(table.trim_matches('`').to_owned(), attributes.collect());
    }
    assert_eq!(documented, written);

    let entry = top_lists::Entry::of(&plan.reports[1], &key(1), &stored(1));
    let list = TopList { entries: vec![entry.into()], ..TopList::default() };
    let of_folk = ListKey::under(&plan.reports[0], "track_genre", "folk", Period::Day(19_899));
    let fields = of_folk.fields().into_iter().chain(list.fields(&plan.reports[1]));
    let list: BTreeSet<String> = fields.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(first_column("Top lists"), list);
    let text = std::fs::read_to_string(document("docs/format.md")).unwrap();
    let of_genre = ListKey::under(&plan.reports[0], "track_genre", "GENRE", Period::Day(0));
    for name in [TOP_LISTS_TABLE, &of_genre.list] {
        assert!(text.contains(&format!("`{name}`")), "docs/format.md lacks {name}");
    }
}
