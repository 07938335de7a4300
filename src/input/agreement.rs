//! Tests that compare the ways from bytes to rows with each other: canonical lines, plain lines, records split by
//! csv-async, records of JSON, and the auditor's reader, for generated definitions and files.

use std::io::Cursor;
use std::sync::Arc;

use proptest::prelude::*;

use crate::definition::Definition;
use crate::definition::input::Input;
use crate::formats::BLOCK_BYTES;
use crate::input::auditor::{InputFile, Judgement, Value};
use crate::input::file::{Blocks, ReadError};
use crate::input::generated::{Random, definition, file, music, references};
use crate::input::parsed::{NewIds, Parsed};
use crate::input::rejects::{MAX_LISTED, SHOWN};
use crate::object::{ObjectId, Version};
use crate::plan::{NO_CODE, NO_NUMBER, Plan};
use crate::reference::References;
use crate::reference::keys::Keys;

/// 2026-01-01T00:00:00Z.
pub(super) const NOW: i64 = 1_767_225_600;

/// The result of one way through a file: its good rows, by column; the number of those that are passed over, and of
/// those that are rejected; and of the rejected ones the line, the lines, the reason and the fields, if there are no
/// more than are listed. Or the reason why the file is bad.
type Read = Result<(Vec<Vec<Option<Value>>>, [u64; 2], Vec<String>), String>;

fn object(key: &str) -> ObjectId {
    ObjectId { bucket: "b".to_owned(), key: key.to_owned(), version: Version::ETag("e".to_owned()) }
}

/// Returns the rows of a block, by column of the definition.
pub(super) fn rows(parsed: &Parsed, plan: &Plan, references: &References) -> Vec<Vec<Option<Value>>> {
    let text = |column: usize, code: u32| match (&parsed.new_ids[column], Parsed::new_position(code)) {
        (NewIds::Texts(new), Some(position)) => Value::Text(new[position].to_string()),
        (NewIds::Numbers(new), Some(position)) => Value::Number(new[position]),
        (_, None) => match references.keys(column) {
            Keys::Texts(keys) => Value::Text(keys.get(code).to_owned()),
            Keys::Numbers(keys) => Value::Number(keys.get(code)),
        },
    };
    let of_row = |row: usize| {
        let of_column = |places: &crate::plan::columns::Places| {
            let code =
                places.code.map(|column| (column, parsed.codes[column][row])).filter(|(_, code)| *code != NO_CODE);
            let code = code.map(|(column, code)| text(column, code));
            let int = places.int.map(|column| parsed.ints[column][row]).filter(|int| *int != NO_NUMBER);
            let int = int.map(Value::Number);
            assert!(places.code.is_none() || places.int.is_none() || code == int, "{code:?} {int:?}");
            code.or(int).or_else(|| places.is_time.then(|| Value::Number(parsed.times[row])))
        };
        plan.columns.iter().map(of_column).collect()
    };
    let rejected = parsed.rejected.values().sum::<u64>();
    assert_eq!(parsed.times.len() as u64 + rejected, parsed.rows);
    assert!(parsed.codes.iter().all(|codes| codes.len() == parsed.times.len()));
    assert!(parsed.ints.iter().all(|ints| ints.len() == parsed.times.len()));
    // Each new value occurs, and once among the new ones.
    for (codes, new) in parsed.codes.iter().zip(&parsed.new_ids) {
        let (count, distinct) = match new {
            NewIds::Texts(new) => (new.len(), new.iter().collect::<std::collections::HashSet<_>>().len()),
            NewIds::Numbers(new) => (new.len(), new.iter().collect::<std::collections::HashSet<_>>().len()),
        };
        let met: std::collections::HashSet<usize> =
            codes.iter().filter_map(|&code| Parsed::new_position(code)).collect();
        assert_eq!((distinct, met.len()), (count, count));
    }
    (0..parsed.times.len()).map(of_row).collect()
}

async fn by_blocks(text: &[u8], key: &str, plan: &Arc<Plan>, references: &References) -> Read {
    let read = async {
        let now = jiff::Timestamp::from_second(NOW).unwrap();
        let mut blocks = Blocks::open(Cursor::new(text.to_vec()), u64::MAX, now, plan, key).await?;
        let (mut good, mut counts, mut rejected, mut records) = (Vec::new(), [0, 0], Vec::new(), 0);
        while let Some(block) = blocks.next().await? {
            let parsed = block.parse(references);
            good.extend(rows(&parsed, plan, references));
            counts[0] += parsed.passed_over;
            counts[1] += parsed.rejected.values().sum::<u64>();
            for (_, line) in parsed.rejects.lines(&object(key), records) {
                let row: serde_json::Value = serde_json::from_slice(&line).unwrap();
                let lines = row["lines"].as_u64().unwrap_or(1);
                let record = row.get("record").map_or(String::new(), |record| format!("record {record} "));
                rejected.push(format!("{} {lines} {record}{} {}", row["line"], row["reason"], row["fields"]));
            }
            records += parsed.rows + parsed.passed_over;
        }
        rejected.truncate(if counts[1] > MAX_LISTED.0 as u64 { 0 } else { rejected.len() });
        Ok((good, counts, rejected))
    };
    read.await.map_err(|error: ReadError| error.to_string())
}

async fn by_the_auditor(text: &[u8], key: &str, definition: &Definition) -> Read {
    let read = async {
        let now = jiff::Timestamp::from_second(NOW).unwrap();
        let mut file = InputFile::open(Cursor::new(text.to_vec()), u64::MAX, now, definition, key).await?;
        let (mut good, mut counts, mut rejected, mut records) = (Vec::new(), [0, 0], Vec::new(), 0);
        while let Some(row) = file.next().await? {
            records += 1;
            match row.judgement {
                Judgement::Good(values) => good.push(values),
                Judgement::PassedOver => counts[0] += 1,
                Judgement::Rejected(reason) => {
                    counts[1] += 1;
                    let shown =
                        |field: &Vec<u8>| String::from_utf8_lossy(&field[..field.len().min(SHOWN.0)]).into_owned();
                    let fields: Vec<String> = row.fields.iter().take(SHOWN.1).map(shown).collect();
                    let (reason, fields) = (serde_json::json!(reason), serde_json::json!(fields));
                    let is_json = matches!(definition.input, Input::Json { .. });
                    let record = if is_json { format!("record {records} ") } else { String::new() };
                    rejected.push(format!("{} {} {record}{reason} {fields}", row.number, row.lines));
                }
            }
        }
        rejected.truncate(if counts[1] > MAX_LISTED.0 as u64 { 0 } else { rejected.len() });
        Ok((good, counts, rejected))
    };
    read.await.map_err(|error: ReadError| error.to_string())
}

/// Reads a file in both ways and returns what they agree on.
fn agreed(definition: &Definition, text: &[u8], key: &str, references: impl Fn(&Plan) -> References) -> Read {
    let plan = Arc::new(Plan::of(definition.clone()).unwrap());
    let references = references(&plan);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let expected = runtime.block_on(by_the_auditor(text, key, definition));
    let found = runtime.block_on(by_blocks(text, key, &plan, &references));
    assert_eq!(found, expected, "{definition:#?}\n{}", String::from_utf8_lossy(&text[..text.len().min(4000)]));
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn every_way_gives_the_same_rows(seed in any::<u64>()) {
        let mut random = Random(seed);
        let definition = definition(&mut random);
        let (text, key) = file(&definition, &mut random);
        let _ = agreed(&definition, &text, &key, |plan| references(plan, seed));
    }

    /// Lines of the built-in shape, nearly, with anything between them.
    #[test]
    fn canonical_lines_are_lines_like_others(seed in any::<u64>()) {
        let mut random = Random(seed);
        let definition = music();
        let (text, key) = file(&definition, &mut random);
        let _ = agreed(&definition, &text, &key, |plan| references(plan, seed));
    }
}

/// Most generated files have good rows, rejected ones and some that are passed over: the comparison sees all of them.
#[test]
fn the_generated_files_have_rows_of_every_fate() {
    let (mut files, mut bad, mut good_rows, mut passed, mut rejected) = (0, 0, 0, 0, 0);
    for seed in 0..600 {
        let mut random = Random(seed);
        let definition = definition(&mut random);
        let (text, key) = file(&definition, &mut random);
        files += 1;
        match agreed(&definition, &text, &key, |plan| references(plan, seed)) {
            Ok((good, [passed_over, _], reasons)) => {
                good_rows += good.len().min(20);
                passed += passed_over.min(20) as usize;
                rejected += reasons.len().min(20);
            }
            Err(_) => bad += 1,
        }
    }
    let seen = format!("{files} files, {bad} bad; rows: {good_rows} good, {passed} passed over, {rejected} rejected");
    assert!(bad * 3 < files && good_rows > files && passed * 5 > files && rejected > files, "{seen}");
}

/// Files of several blocks, a late one of which has a quote, a carriage return or a long line.
#[test]
fn a_file_that_ceases_to_be_plain_is_read_on() {
    let definition = music();
    let plain = "7,5SuOikwiRyPMVoIQDJUgSV,2024-06-25 17:43:13\n".repeat(3 * BLOCK_BYTES / 45);
    let long = format!("7,{},2024-06-25 17:43:13\n", "x".repeat(2 * BLOCK_BYTES));
    let lines = plain.len() / 45;
    for (middle, rows, rejected) in [
        ("\"7\",\"short\",2024-06-25 17:43:13\n", 2 * lines + 1, 0),
        ("7,short,2024-06-25 17:43:13\r\n", 2 * lines + 1, 0),
        ("7,short,2024-06-25 17:43:13\r", 2 * lines + 1, 0),
        ("\"7\n8\",short,2024-06-25 17:43:13\n", 2 * lines, 1),
        (&format!("\"{}\",short,2024-06-25 17:43:13\n", "\n".repeat(99)), 2 * lines, 1),
        ("\u{feff}7,short,2024-06-25 17:43:13\n", 2 * lines, 1),
        (&long, 2 * lines, 1),
        ("\n\n\n", 2 * lines, 0),
    ] {
        let text = format!("user_id,track_id,listen_time\n{plain}{middle}{plain}");
        let found = agreed(&definition, text.as_bytes(), "incoming/a.csv", |plan| references(plan, 0)).unwrap();
        assert_eq!((found.0.len(), found.2.len()), (rows, rejected), "{}", &middle[..middle.len().min(50)]);
    }
    let endless = format!("user_id,track_id,listen_time\n{plain}7,\"{}", "x".repeat(4 << 20));
    let told = agreed(&definition, endless.as_bytes(), "incoming/a.csv", |plan| references(plan, 0)).unwrap_err();
    assert!(told.contains(&format!("line {}", lines + 2)), "{told}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Line numbers are those of an editor: bad rows among good ones, with any line ends, blank lines and line ends in
    /// quotes, in files of one block and of several.
    #[test]
    fn rejected_rows_have_the_line_that_an_editor_shows(
        rows in prop::collection::vec((0..6_usize, 0..4_usize), 1..60),
        block_at in prop::option::of(0..60_usize),
    ) {
        let ends = ["\n", "\r\n", "\r"];
        let (mut text, mut line, mut expected) = ("user_id,track_id,listen_time\n".to_owned(), 2_u64, Vec::new());
        for (index, &(kind, end)) in rows.iter().enumerate() {
            let end = *ends.get(end).unwrap_or(&"\n");
            if block_at == Some(index) {
                let filler = format!("7,5SuOikwiRyPMVoIQDJUgSV,2024-06-25 17:43:13{end}");
                let times = 2 * BLOCK_BYTES / filler.len();
                text += &filler.repeat(times);
                line += times as u64;
            }
            match kind {
                0 => expected.push(format!("{line} 1 \"user_id is not a positive integer\" [\"bad\"")),
                1 => {
                    let end = end.escape_debug();
                    expected.push(format!("{line} 3 \"user_id is not a positive integer\" [\"b{end}"));
                }
                _ => {}
            }
            text += &match kind {
                0 => format!("bad,t,2024-06-25 17:43:13{end}"),
                1 => format!("\"b{end}a{end}d\",t,2024-06-25 17:43:13{end}"),
                // A line feed after a carriage return would belong to it.
                2 if text.ends_with('\r') => "\r".to_owned(),
                2 => end.to_owned(),
                _ => format!("7,t,2024-06-25 17:43:13{end}"),
            };
            line += if kind == 1 { 3 } else { 1 };
        }
        let found = agreed(&music(), text.as_bytes(), "incoming/a.csv", |plan| references(plan, 0)).unwrap().2;
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert!(found.starts_with(expected), "{} {}", found, expected);
        }
    }
}
