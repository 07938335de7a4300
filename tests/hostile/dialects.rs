//! Bad files of JSON, of tabs and of logs, compressed with zstd too, and good ones with bad rows.

use std::io::Write;

use music_streams::definition::Definition;

use crate::properties::definitions::{access_log, history, player_history, times};
use crate::properties::{read, read_as};

const LIMIT_BYTES: u64 = 8 << 20;
/// The longest record.
const RECORD_BYTES: usize = 2 << 20;

fn outcome(definition: &Definition, bytes: &[u8]) -> Result<Vec<String>, String> {
    let whole = read_as(definition, bytes, usize::MAX, LIMIT_BYTES).map_err(|bad| bad.to_string());
    let in_pieces = read_as(definition, bytes, 64 << 10, LIMIT_BYTES).map_err(|bad| bad.to_string());
    assert_eq!(whole, in_pieces);
    whole
}

/// A file's name, its bytes, and its rows or the reason why it is bad.
type Case<'c> = (&'c str, Vec<u8>, Result<&'c [&'c str], &'c str>);

fn check(definition: &Definition, files: &[Case<'_>]) {
    for (name, bytes, expected) in files {
        let found = outcome(definition, bytes);
        match expected {
            Ok(rows) => assert_eq!(found, Ok(rows.iter().map(|row| (*row).to_owned()).collect()), "{name}"),
            Err(reason) => assert!(found.as_ref().is_err_and(|it| it.starts_with(reason)), "{name}: {found:?}"),
        }
    }
}

/// A record with this value of the track's name.
fn record(track: &str) -> String {
    format!("{{\"ts\":\"2024-06-25T17:43:13Z\",\"ms_played\":7,\"spotify_track_uri\":\"t\",{track}}}")
}

const GOOD: &str = "alice 1719337393000000 t - - - 7 - - -";

fn good(track: &str) -> String {
    format!("alice 1719337393000000 t {track} - - 7 - - -")
}

#[test]
fn records_of_json_are_read_whatever_they_hold() {
    let named = |value: &str| record(&format!("\"master_metadata_track_name\":{value}"));
    let json = player_history(None);
    for (value, expected) in [
        ("\"n\"", good("n")),
        ("null", good("-")),
        ("\"\"", good("-")),
        ("true", good("true")),
        ("1.50", good("1.50")),
        ("12345678901234567890123", good("12345678901234567890123")),
        ("1e999", good("1e999")),
        ("\"a\\u00e4\\uD83C\\uDFB5\\n\\\"\"", good("aä🎵\n\"")),
        ("\"\\u0000\"", good("\0")),
        ("\"\\ud800\"", "line 1: track is not UTF-8".to_owned()),
        ("\"\\udfb5\\ud83c\"", "line 1: track is not UTF-8".to_owned()),
        ("{}", "line 1: track is an object or a list".to_owned()),
        ("[[]]", "line 1: track is an object or a list".to_owned()),
        ("\"n\",\"master_metadata_track_name\":\"n\"", "line 1: a key that is read is there twice".to_owned()),
        ("\"n\",\"device\":{},\"device\":1", "line 1: a key that is read is there twice".to_owned()),
        ("\"n\",\"other\":1,\"other\":2", good("n")),
        ("\"n\",\"other\":{\"ts\":1,\"ts\":2}", good("n")),
        ("\"n\",\"other\":\"\\ud800\"", good("n")),
        ("\"n\",\"\\u0074s\":\"2024-06-25T17:43:13Z\"", "line 1: a key that is read is there twice".to_owned()),
        ("\"n\",\"\\ud800\":1", good("n")),
        ("\"n\",\"x\":tru", "line 1: the record is not JSON".to_owned()),
        ("\"n\",\"x\":01", "line 1: the record is not JSON".to_owned()),
        ("\"n\",\"x\":.5", "line 1: the record is not JSON".to_owned()),
        ("\"n\",\"x\":NaN", "line 1: the record is not JSON".to_owned()),
        ("\"n\",\"x\":'a'", "line 1: the record is not JSON".to_owned()),
        ("\"n\",\"x\":\"\t\"", "line 1: the record is not JSON".to_owned()),
        ("\"n\",\"x\":\"\\q\"", "line 1: the record is not JSON".to_owned()),
        ("\"n\",\"x\":\"\\u12\"", "line 1: the record is not JSON".to_owned()),
        ("\"n\",x:1", "line 1: the record is not JSON".to_owned()),
        ("\"n\",", "line 1: the record is not JSON".to_owned()),
        ("\"n\" \"m\"", "line 1: the record is not JSON".to_owned()),
        ("\"n\"/* */", "line 1: the record is not JSON".to_owned()),
    ] {
        let file = format!("{}\n{}", named(value), record("\"x\":1"));
        assert_eq!(outcome(&json, file.as_bytes()), Ok(vec![expected, GOOD.to_owned()]), "{value}");
    }
    let latin_1 = named("\"?\"").replace('?', "\u{1}");
    let latin_1: Vec<u8> = latin_1.bytes().map(|byte| if byte == 1 { 0xfc } else { byte }).collect();
    assert_eq!(outcome(&json, &latin_1), Ok(vec!["line 1: track is not UTF-8".to_owned()]));
    for (field, reason) in [
        ("\"ms_played\":1e3", "ms_played is not an integer from 0 on"),
        ("\"ms_played\":-1", "ms_played is not an integer from 0 on"),
        ("\"ms_played\":9223372036854775808", "ms_played is not an integer from 0 on"),
        ("\"ms_played\":\"\"", "ms_played is empty"),
        ("\"ms_played\":true", "ms_played is not an integer from 0 on"),
    ] {
        let file = record("\"x\":1").replace("\"ms_played\":7", field);
        assert_eq!(outcome(&json, file.as_bytes()), Ok(vec![format!("line 1: {reason}")]), "{field}");
    }
    let other_kind = "{\"episode\":\"a podcast without anything else\"}";
    assert_eq!(outcome(&json, other_kind.as_bytes()), Ok(vec!["line 1 is passed over".to_owned()]));
}

#[test]
fn files_that_are_not_json_to_their_end_are_refused() {
    let one = record("\"x\":1");
    let (json, long) = (player_history(None), "y".repeat(RECORD_BYTES));
    let deep = |depth: usize| record(&format!("\"x\":{}{}", "[".repeat(depth), "]".repeat(depth)));
    let lines = |middle: &str| format!("{one}\n{middle}\n{one}").into_bytes();
    check(
        &json,
        &[
            ("nothing", vec![], Err("the file is empty")),
            ("blanks", b" \n\t".to_vec(), Err("the file is empty")),
            ("a mark", b"\xEF\xBB\xBF".to_vec(), Err("the file is empty")),
            ("a mark before records", format!("\u{feff}{one}").into_bytes(), Ok(&[GOOD])),
            (
                "two marks",
                format!("\u{feff}\u{feff}{one}").into_bytes(),
                Err("the file is not JSON: the record at line 1"),
            ),
            ("CSV", b"user_id,track_id\n7,a\n".to_vec(), Err("the file is not JSON: the record at line 1 is broken")),
            ("Parquet", b"PAR1\x15\x04".to_vec(), Err("the file is not JSON: its first line is binary (Parquet)")),
            ("zeros", vec![0; 4096], Err("the file is not JSON: its first line is binary")),
            (
                "UTF-16",
                [0xff, 0xfe].into_iter().chain(one.encode_utf16().flat_map(u16::to_le_bytes)).collect(),
                Err("the file is not JSON: its first line is binary (text in UTF-16; write it in UTF-8)"),
            ),
            ("an empty list", b"[]".to_vec(), Ok(&[])),
            ("a list without its end", format!("[{one},{one}").into_bytes(), Err("the file is cut off")),
            (
                "a list with a broken record",
                format!("[{one},{{\"a\":}},{one}]").into_bytes(),
                Err("the file is not JSON"),
            ),
            ("as deep as may be", lines(&deep(63)), Ok(&[GOOD, GOOD, GOOD])),
            ("too deep", lines(&deep(64)), Ok(&[GOOD, "line 2: the record is not JSON", GOOD])),
            ("a million brackets", lines(&deep(500_000)), Ok(&[GOOD, "line 2: the record is not JSON", GOOD])),
            (
                "a record without an end",
                format!("{one}\n{{\"a\":\"{long}").into_bytes(),
                Err("the file is not JSON: the record at line 2 is longer than 2097152 bytes"),
            ),
            (
                "a record without an end, on many lines",
                format!("{one}\n{{\"a\":[\n{}", "1,\n".repeat(RECORD_BYTES)).into_bytes(),
                Err("the file is not JSON: the record at line 2 is longer than 2097152 bytes"),
            ),
            (
                "a record that is too long",
                lines(&record(&format!("\"x\":\"{long}\""))),
                Err("the file is not JSON: the record at line 2 is longer than 2097152 bytes"),
            ),
            (
                "blanks without an end",
                format!("{one}{}", " \n".repeat(6 << 20)).into_bytes(),
                Err("the file is larger"),
            ),
        ],
    );
    // Each line begins a list that only the file's end would end: none is read twice for long.
    let nested = "{\"a\":[\n".repeat(400_000);
    let rows = outcome(&json, format!("{one}\n{nested}").as_bytes()).unwrap();
    assert_eq!(rows.len(), 400_001);
}

#[test]
fn documents_are_read_to_their_end() {
    let one = record("\"x\":1");
    check(
        &player_history(Some("Records")),
        &[
            ("one", format!("{{\"a\":{{}},\"Records\":[{one},{one}],\"b\":[]}}").into_bytes(), Ok(&[GOOD, GOOD])),
            (
                "without a list",
                format!("{{\"message\":\"test\"}}\n{{\"Records\":[{one}]}}").into_bytes(),
                Ok(&["line 1: the document has no list of records", GOOD]),
            ),
            ("cut off", format!("{{\"Records\":[{one},").into_bytes(), Err("the file is cut off")),
            ("cut off in a key", b"{\"Rec".to_vec(), Err("the file is cut off")),
            ("records alone", one.clone().into_bytes(), Ok(&["line 1: the document has no list of records"])),
            ("two lists", format!("{{\"Records\":[{one}],\"Records\":[]}}").into_bytes(), Err("the file is not JSON")),
            ("a broken record", format!("{{\"Records\":[{one},{{]}}\n{one}").into_bytes(), Err("the file is not JSON")),
        ],
    );
}

#[test]
fn fields_between_tabs_are_read_as_they_are() {
    let line = |track: &str| format!("u\t2024-06-25T17:43:13Z\t\ta\t\t{track}");
    let good = |track: &str| format!("u 1719337393000000 - a - {track} a – {track}");
    check(
        &history(),
        &[
            ("nothing", vec![], Err("the file is empty")),
            ("line ends", b"\n\r\n\r".to_vec(), Err("the file is empty")),
            ("comments alone", b"#a\n#b".to_vec(), Ok(&[])),
            ("quotes", line("\"x").into_bytes(), Ok(&[&good("\"x")])),
            (
                "an end of a line in quotes",
                line("\"x\ny\"").into_bytes(),
                Ok(&[&good("\"x"), "line 2: 1 fields, and field 6 is read"]),
            ),
            ("more fields", format!("{}\tmore\t", line("x")).into_bytes(), Ok(&[&good("x")])),
            ("a zero", line("a\0b").into_bytes(), Err("the file is not TSV: its first line is binary")),
            ("a zero later", format!("{}\n{}", line("x"), line("a\0b")).into_bytes(), Ok(&[&good("x"), &good("a\0b")])),
            (
                "Latin-1",
                [line("x"), "\n".to_owned()].concat().bytes().chain(line("").bytes()).chain([0xfc]).collect(),
                Ok(&[&good("x"), "line 2: track is not UTF-8"]),
            ),
            (
                "a text that is too long",
                line(&"x".repeat(1025)).into_bytes(),
                Ok(&["line 1: track is longer than 1024 bytes"]),
            ),
            (
                "a join that is too long",
                line(&"x".repeat(1020)).into_bytes(),
                Ok(&["line 1: song is longer than 1024 bytes"]),
            ),
            (
                "a line without an end",
                format!("{}\n{}", line("x"), "y".repeat(RECORD_BYTES + 1)).into_bytes(),
                Err("the file is not TSV: the record at line 2 is longer than 2097152 bytes"),
            ),
            (
                "a comment without an end",
                format!("{}\n#{}", line("x"), "y".repeat(RECORD_BYTES)).into_bytes(),
                Err("the file is not TSV: the record at line 2 is longer than 2097152 bytes"),
            ),
        ],
    );
}

#[test]
fn logs_name_their_columns() {
    let names = "#Fields: date time x-edge-location c-ip x-host-header cs-uri-stem sc-status x-edge-result-type \
                 sc-bytes time-taken";
    let line = "2024-06-25\t17:43:13\tE\tC\tH\t/p\t200\tHit\t9\t0.25";
    let good = "1719337393000000 E C H /p 200 Hit 9 250";
    check(
        &access_log(),
        &[
            ("a log", format!("#Version: 1.0\n{names}\n{line}\n{names}\n{line}").into_bytes(), Ok(&[good, good])),
            (
                "values that are none",
                format!("{names}\n{}", line.replace("\t9\t", "\t-\t")).into_bytes(),
                Ok(&["line 2: bytes is empty"]),
            ),
            (
                "digits that would be lost",
                format!("{names}\n{}", line.replace("0.25", "0.2505")).into_bytes(),
                Ok(&["line 2: seconds has more than 3 decimal places"]),
            ),
            ("other columns", format!("{names} x\n{line}\ty\n{names}\n{line}").into_bytes(), Ok(&[good, good])),
            (
                "too few fields",
                format!("{names}\n{line}\n{names} x\n{line}").into_bytes(),
                Ok(&[good, "line 4: 10 fields, the header has 11"]),
            ),
            ("no names", line.as_bytes().to_vec(), Err("the file is not a W3C log: no line #Fields: before line 1")),
            (
                "a column that is missing later",
                format!("{names}\n{line}\n#Fields: date time\n{line}").into_bytes(),
                Err("the file does not have the columns of the definition: the header lacks the columns x-edge"),
            ),
            (
                "a column that is there twice",
                format!("{names} c-ip\n{line}\tC").into_bytes(),
                Err("the file does not have the columns of the definition: the header names column c-ip twice"),
            ),
            ("columns that no line has", format!("#Fields: date time\n{names}\n{line}").into_bytes(), Ok(&[good])),
        ],
    );
}

#[test]
fn times_are_read_by_their_pattern_and_in_their_zone() {
    check(
        &times("%d.%m.%Y %H:%M"),
        &[
            ("summer", b"25.06.2024 17:43".to_vec(), Ok(&["1719330180000000"])),
            (
                "an hour that was left out",
                b"31.03.2024 02:30".to_vec(),
                Ok(&["line 1: at is a time that its zone does not have: clocks were put forward past it"]),
            ),
            ("an hour that came twice", b"27.10.2024 02:30".to_vec(), Ok(&["1729989000000000"])),
            ("no such day", b"30.02.2024 17:43".to_vec(), Ok(&["line 1: at is not a time like %d.%m.%Y %H:%M"])),
            ("more text", b"25.06.2024 17:43:13".to_vec(), Ok(&["line 1: at is not a time like %d.%m.%Y %H:%M"])),
            (
                "long ago",
                b"25.06.1924 17:43".to_vec(),
                Ok(&["line 1: at is before 2000-01-01 or more than a day in the future"]),
            ),
        ],
    );
}

#[test]
fn zstd_is_recognized_by_its_first_bytes_and_bounded() {
    const HEADER: &str = "user_id,track_id,listen_time\n";
    const LINE: &str = "7,abc,2024-06-25 17:43:13\n";
    let zstd = |content: &str| zstd::stream::encode_all(content.as_bytes(), 3).unwrap();
    let packed = zstd(&format!("{HEADER}{}", LINE.repeat(1000)));
    let rows = |bytes: &[u8]| {
        let rows = read(bytes, usize::MAX, LIMIT_BYTES).map(|rows| rows.len()).map_err(|bad| bad.to_string());
        assert_eq!(rows, read(bytes, 1000, LIMIT_BYTES).map(|rows| rows.len()).map_err(|bad| bad.to_string()));
        rows
    };
    assert_eq!(rows(&packed), Ok(1000));
    assert_eq!(rows(&[packed.clone(), zstd(LINE)].concat()), Ok(1001), "two frames");
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    assert_eq!(rows(&[skippable.clone(), packed.clone(), skippable].concat()), Ok(1000));
    for length in [4, 5, packed.len() / 2, packed.len() - 1] {
        assert_eq!(rows(&packed[..length]), Err("the zstd stream is cut off".to_owned()), "{length}");
    }
    let within = zstd::stream::encode_all(&packed[..], 3).unwrap();
    assert!(rows(&within).unwrap_err().contains("zstd within another compression"));
    let garbage = [packed.clone(), b"garbage after a frame".to_vec()].concat();
    assert!(rows(&garbage).unwrap_err().starts_with("the zstd stream is damaged"));
    let bomb = zstd(&format!("{HEADER}{}", "\n".repeat(64 << 20)));
    assert!(bomb.len() < 10_000);
    assert_eq!(rows(&bomb), Err("the file is larger than the limit of 8388608 bytes (--max-object-size)".to_owned()));
    // A frame whose window is 128 MiB, as --long=27 and --ultra make them.
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.write_all(format!("{HEADER}{}", LINE.repeat(1000)).as_bytes()).unwrap();
    let told = rows(&encoder.finish().unwrap()).unwrap_err();
    assert!(told.starts_with("the zstd stream is damaged: Frame requires too much memory"), "{told}");
}
