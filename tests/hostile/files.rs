//! Bad files, and files with bad rows.

use std::io::Write;

use crate::properties::read;

const HEADER: &str = "user_id,track_id,listen_time\n";
const GOOD: &str = "7,abc,2024-06-25 17:43:13\n";
const GOOD_ROW: &str = "7 abc 1719337393000000";
const LIMIT_BYTES: u64 = 8 << 20;

fn gzip(content: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content.as_ref()).unwrap();
    encoder.finish().unwrap()
}

fn cut<T>(bytes: &[T], count: usize) -> &[T] {
    &bytes[..bytes.len() - count]
}

/// Files that cannot be counted, with the beginning of the reason that is written beside them.
fn bad_files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let csv = format!("{HEADER}{}", GOOD.repeat(200));
    let packed = gzip(&csv);
    let damaged = |position: usize| {
        let mut bytes = packed.clone();
        bytes[position] ^= 0x55;
        bytes
    };
    let text = |text: &str| text.as_bytes().to_vec();
    let utf16 = |text: &str| [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let empty = "the file is empty: not even a header";
    let binary = "the file is not CSV: its first line is binary";
    let no_column = "the file does not have the columns of the definition: the header lacks the column";
    let cut_off = "the gzip stream is cut off";
    let broken = "the gzip stream is damaged";
    vec![
        ("nothing", vec![], empty),
        ("a byte-order mark and nothing else", text("\u{feff}"), empty),
        ("newlines only", text("\n\n\r\n\n"), empty),
        ("carriage returns only", text("\r\r\r"), empty),
        ("gzip of nothing", gzip(""), empty),
        ("gzip of newlines", gzip("\n\n"), empty),
        ("a space", text(" "), no_column),
        ("one word", text("hello"), no_column),
        ("no header, a good row", text(GOOD), no_column),
        ("another table's header", text("track_id,artists,duration_ms\n"), no_column),
        (
            "no listen_time",
            text("user_id,track_id\n1,a\n"),
            "the file does not have the columns of the definition: the header lacks the column listen_time",
        ),
        (
            "no user_id",
            text("track_id,listen_time\n"),
            "the file does not have the columns of the definition: the header lacks the column user_id",
        ),
        (
            "no track_id",
            text("user_id,listen_time\n"),
            "the file does not have the columns of the definition: the header lacks the column track_id",
        ),
        ("semicolons", text("user_id;track_id;listen_time\n"), no_column),
        ("tabs", text("user_id\ttrack_id\tlisten_time\n"), no_column),
        ("pipes", text("user_id|track_id|listen_time\n"), no_column),
        ("a header in one quoted field", text("\"user_id,track_id,listen_time\"\n"), no_column),
        ("a header with quotes of the wrong kind", text("'user_id','track_id','listen_time'\n"), no_column),
        ("a header with hyphens", text("user-id,track-id,listen-time\n"), no_column),
        ("a header in Cyrillic look-alikes", text("usеr_id,track_id,listen_time\n"), no_column),
        ("zero-width space in the header", text("user_id\u{200b},track_id,listen_time\n"), no_column),
        (
            "two user_id",
            text("user_id,user_id,track_id,listen_time\n"),
            "the file does not have the columns of the definition: the header names column user_id twice",
        ),
        (
            "two track_id, one in capitals",
            text("user_id,track_id,TRACK_ID,listen_time\n"),
            "the file does not have the columns of the definition: the header names column track_id twice",
        ),
        (
            "two listen_time, one with spaces",
            text("user_id,track_id,listen_time, listen_time \n"),
            "the file does not have the columns of the definition: the header names column listen_time twice",
        ),
        ("a comment before the header", text("# exported\nuser_id,track_id,listen_time\n"), no_column),
        ("sep= before the header", text("sep=,\nuser_id,track_id,listen_time\n"), no_column),
        ("JSON", text("{\"user_id\": 1}\n"), no_column),
        ("JSON Lines", text("{\"user_id\":1,\"track_id\":\"a\",\"listen_time\":\"x\"}\n"), no_column),
        ("XML", text("<?xml version=\"1.0\"?>\n<listens/>\n"), no_column),
        ("HTML", text("<!DOCTYPE html>\n<html>\n"), no_column),
        ("S3's error page", text("<Error><Code>AccessDenied</Code></Error>"), no_column),
        ("a shell script", text("#!/bin/sh\nrm -rf /\n"), no_column),
        ("a formula", text("=cmd|' /C calc'!A0\n"), no_column),
        ("a log with colours", text("\u{1b}[31merror\u{1b}[0m\n"), no_column),
        ("a very long first line", format!("{}\n", "x".repeat(1 << 20)).into_bytes(), no_column),
        ("a hundred thousand columns", format!("{}\n", "c,".repeat(100_000)).into_bytes(), no_column),
        (
            "five thousand columns, and those that are needed",
            format!("{}{HEADER}", "c,".repeat(5000)).into_bytes(),
            "the file does not have the columns of the definition: the header has 5003 columns, and at most 4096 are \
             read",
        ),
        ("UTF-16", utf16(HEADER), binary),
        ("Latin-1", b"user_id,track_id,k\xfcnstler\n".to_vec(), binary),
        ("PNG", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(), binary),
        ("JPEG", b"\xff\xd8\xff\xe0\0\x10JFIF\0".to_vec(), binary),
        ("Parquet", b"PAR1\x15\x04\x15\0\x15\0\x4c".to_vec(), binary),
        ("ZIP", b"PK\x03\x04\x14\0\0\0\x08\0".to_vec(), binary),
        ("zstd's beginning", b"\x28\xb5\x2f\xfd\x24\0\x01\0\0".to_vec(), "the zstd stream is cut off"),
        ("bzip2", b"BZh91AY&SY\xee\x11\0\0".to_vec(), binary),
        ("xz", b"\xfd7zXZ\0\0\x04".to_vec(), binary),
        ("SQLite", b"SQLite format 3\0\x10\0".to_vec(), binary),
        ("an ELF program", b"\x7fELF\x02\x01\x01\0\0\0".to_vec(), binary),
        ("a PDF", b"%PDF-1.7\r%\xe2\xe3\xcf\xd3\r".to_vec(), no_column),
        ("zeros", vec![0; 4096], binary),
        ("every byte", (0..=255).collect(), binary),
        ("a NUL in the header", text("user_id,track_id,listen_time\0\n"), binary),
        ("gzip of a PNG", gzip(b"\x89PNG\r\n\x1a\n\0\0"), binary),
        ("gzip of gzip", gzip(&packed), binary),
        ("gzip of another table", gzip("a,b\n"), no_column),
        ("gzip's first two bytes", vec![0x1f, 0x8b], cut_off),
        ("gzip's header", cut(&packed, packed.len() - 10).to_vec(), cut_off),
        ("gzip's header, cut", cut(&packed, packed.len() - 5).to_vec(), cut_off),
        ("gzip without its last byte", cut(&packed, 1).to_vec(), cut_off),
        ("gzip without its length", cut(&packed, 4).to_vec(), cut_off),
        ("gzip without its trailer", cut(&packed, 8).to_vec(), cut_off),
        ("half a gzip", cut(&packed, packed.len() / 2).to_vec(), cut_off),
        ("a good member, then half of one", [packed.clone(), cut(&packed, 9).to_vec()].concat(), cut_off),
        ("gzip of an unknown method", damaged(2), broken),
        ("gzip with a damaged body", damaged(20), broken),
        ("gzip with a wrong checksum", damaged(packed.len() - 8), broken),
        ("gzip with a wrong length", damaged(packed.len() - 1), broken),
        (
            "a good member, then garbage",
            [packed.clone(), b"garbage, and long enough for a header".to_vec()].concat(),
            broken,
        ),
        ("gzip's magic before text", [&[0x1f, 0x8b][..], csv.as_bytes()].concat(), broken),
        (
            "a quote that never closes",
            format!("{csv}\"{}", "no end\n".repeat(900_000)).into_bytes(),
            "the file is not CSV: the record at line 202 is longer than 100 lines",
        ),
        (
            "a quote that never closes, in a short file",
            format!("{csv}7,\"abc,2024-06-25 17:43:13\n{GOOD}").into_bytes(),
            "the file is not CSV: it ends within the quotes that line 202 opens",
        ),
        (
            "a quote that never closes, on one line",
            format!("{csv}\"{}", "no end ".repeat(900_000)).into_bytes(),
            "the file is not CSV: the record at line 202 is longer than 2097152 bytes",
        ),
        (
            "a quote that never closes in the header",
            format!("\"{}", "no end\n".repeat(900_000)).into_bytes(),
            "the file is not CSV: the record at line 1 is longer than 100 lines",
        ),
        (
            "a line that never ends",
            format!("{csv}{}", "x".repeat(6 << 20)).into_bytes(),
            "the file is not CSV: the record at line 202 is longer than",
        ),
        (
            "commas that never end",
            format!("{csv}{}", ",".repeat(6 << 20)).into_bytes(),
            "the file is not CSV: the record at line 202 is longer than",
        ),
        ("too large", GOOD.repeat(400_000).into_bytes(), no_column),
        (
            "too large, with a header",
            format!("{HEADER}{}", GOOD.repeat(400_000)).into_bytes(),
            "the file is larger than the limit of 8388608 bytes",
        ),
        (
            "a small gzip of a large file",
            gzip(format!("{HEADER}{}", GOOD.repeat(400_000))),
            "the file is larger than the limit of 8388608 bytes",
        ),
        (
            "a gzip bomb",
            gzip(format!("{HEADER}{}", "\n".repeat(64 << 20))),
            "the file is larger than the limit of 8388608 bytes",
        ),
    ]
}

#[test]
fn bad_files_are_refused_with_their_reason() {
    let files = bad_files();
    assert!(files.len() >= 75, "{}", files.len());
    for (name, bytes, reason) in files {
        for step in [usize::MAX, 64 << 10] {
            let answer = read(&bytes, step, LIMIT_BYTES).map(|rows| rows.len()).map_err(|bad| bad.to_string());
            let found = answer.as_ref().err().unwrap_or_else(|| panic!("{name}: taken for good: {answer:?}"));
            assert!(found.starts_with(reason), "{name}: {found}");
        }
    }
}

/// Replacements of a good row's fields, with the reason for which the row is rejected.
fn bad_rows() -> Vec<(&'static str, &'static str)> {
    let (user, track, time) = (
        "user_id is not a positive integer",
        "track_id is not 1 to 64 visible ASCII characters",
        "listen_time is not a time like 2024-06-25 17:43:13 or 2024-06-25T17:43:13Z",
    );
    let quotes = "text follows the quote that closes a field";
    let range = "listen_time is before 2000-01-01 or more than a day in the future";
    vec![
        ("7,abc", "2 fields, the header has 3"),
        ("7", "1 fields, the header has 3"),
        ("7,abc,2024-06-25 17:43:13,", "4 fields, the header has 3"),
        ("7,a,b,2024-06-25 17:43:13", "4 fields, the header has 3"),
        ("\"7,abc,2024-06-25 17:43:13\"", "1 fields, the header has 3"),
        (",abc,2024-06-25 17:43:13", "user_id is empty"),
        ("7,,2024-06-25 17:43:13", "track_id is empty"),
        ("7,abc,", "listen_time is empty"),
        (",,", "user_id is empty"),
        ("\"\",\"\",\"\"", "user_id is empty"),
        ("0,abc,2024-06-25 17:43:13", user),
        ("-7,abc,2024-06-25 17:43:13", user),
        ("+7,abc,2024-06-25 17:43:13", user),
        ("7.5,abc,2024-06-25 17:43:13", user),
        ("7e3,abc,2024-06-25 17:43:13", user),
        ("0x7,abc,2024-06-25 17:43:13", user),
        (" 7,abc,2024-06-25 17:43:13", user),
        ("7 ,abc,2024-06-25 17:43:13", user),
        ("1_000,abc,2024-06-25 17:43:13", user),
        ("９,abc,2024-06-25 17:43:13", user),
        ("٧,abc,2024-06-25 17:43:13", user),
        ("NaN,abc,2024-06-25 17:43:13", user),
        ("null,abc,2024-06-25 17:43:13", user),
        ("9223372036854775808,abc,2024-06-25 17:43:13", user),
        ("99999999999999999999999999,abc,2024-06-25 17:43:13", user),
        ("=1+1,abc,2024-06-25 17:43:13", user),
        ("user_id,track_id,listen_time", user),
        ("7,a b,2024-06-25 17:43:13", track),
        ("7, abc,2024-06-25 17:43:13", track),
        ("7,a\tb,2024-06-25 17:43:13", track),
        ("7,a\0b,2024-06-25 17:43:13", track),
        ("7,a\u{7f}b,2024-06-25 17:43:13", track),
        ("7,\u{1b}[2J,2024-06-25 17:43:13", track),
        ("7,ä,2024-06-25 17:43:13", track),
        ("7,🎵,2024-06-25 17:43:13", track),
        ("7,\"a\nb\",2024-06-25 17:43:13", track),
        ("\"7\"0,abc,2024-06-25 17:43:13", quotes),
        ("7,\"abc\" ,2024-06-25 17:43:13", quotes),
        ("7,aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa,2024-06-25 17:43:13", track),
        ("7,abc,yesterday", time),
        ("7,abc,2024-06-25", time),
        ("7,abc,17:43:13", time),
        ("7,abc,1719337393", time),
        ("7,abc,25.06.2024 17:43:13", time),
        ("7,abc,06/25/2024 17:43:13", time),
        ("7,abc,2024-6-25 17:43:13", time),
        ("7,abc,2024-06-25  17:43:13", time),
        ("7,abc,2024-06-25 17:4", time),
        ("7,abc,2024-06-25 17.5", time),
        ("7,abc,2024-06-25 17:43:13 UTC", time),
        ("7,abc,2024-06-25 5:43:13 PM", time),
        ("7,abc,2024-02-30 17:43:13", time),
        ("7,abc,2023-02-29 17:43:13", time),
        ("7,abc,2024-13-01 17:43:13", time),
        ("7,abc,2024-00-10 17:43:13", time),
        ("7,abc,2024-06-00 17:43:13", time),
        ("7,abc,2024-06-25 24:00:01", time),
        ("7,abc,2024-W54-1 17:43:13", time),
        ("7,abc,2023-366 17:43:13", time),
        ("7,abc,2024-06-25 17:60:00", time),
        ("7,abc,2024-06-25 17:43:60", time),
        ("7,abc,-024-06-25 17:43:13", time),
        ("7,abc,2024-06-25T17:43:13+99:00", time),
        ("7,abc,2024-06-25T17:43:13.Z", time),
        ("7,abc,２024-06-25 17:43:13", time),
        ("7,abc,0000-00-00 00:00:00", time),
        ("7,abc,0001-01-01 00:00:00", range),
        ("7,abc,1970-01-01 00:00:00", range),
        ("7,abc,1999-12-31 23:59:59", range),
        ("7,abc,2026-01-02 00:00:01", range),
        ("7,abc,9999-12-31 23:59:59", range),
    ]
}

#[test]
fn bad_rows_are_rejected_with_their_line_and_take_no_good_row_with_them() {
    let rows = bad_rows();
    assert!(rows.len() >= 60, "{}", rows.len());
    for (bad, reason) in &rows {
        let file = format!("{HEADER}{GOOD}{bad}\n{GOOD}");
        let expected = [GOOD_ROW.to_owned(), format!("line 3: {reason}"), GOOD_ROW.to_owned()];
        assert_eq!(read(file.as_bytes(), usize::MAX, LIMIT_BYTES), Ok(expected.to_vec()), "{bad}");
    }
    // All of them in one file, compressed, with Windows' line ends.
    let all: String = rows.iter().map(|(bad, _)| format!("{bad}\r\n{}", GOOD.replace('\n', "\r\n"))).collect();
    let found = read(&gzip(format!("\u{feff}{HEADER}{all}")), 1000, LIMIT_BYTES).unwrap();
    assert_eq!(found.iter().filter(|row| *row == GOOD_ROW).count(), rows.len());
    assert_eq!(found.len(), 2 * rows.len());
}

#[test]
fn what_looks_dangerous_is_data() {
    for track in [
        "=1+1",
        "@SUM(A1)",
        "-2",
        "'--",
        "$(id)",
        "`id`",
        "{{7*7}}",
        "../../etc/passwd",
        "<script>",
        "%00",
        "a;b",
        "a|b",
        "\\",
    ] {
        let file = format!("{HEADER}7,{track},2024-06-25 17:43:13\n");
        assert_eq!(read(file.as_bytes(), usize::MAX, LIMIT_BYTES), Ok(vec![format!("7 {track} 1719337393000000")]));
    }
}
