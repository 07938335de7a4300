//! Tests that compare the ways from bytes to rows: canonical lines, plain lines, records, and the auditor's reader.

use crate::formats::BLOCK_BYTES;
use crate::input::audit_reader::InputFile;
use crate::input::block::Parsed;
use crate::input::file::{Blocks, ReadError};
use crate::input::rejects::SHOWN;
use crate::object::ObjectId;
use crate::reference::Catalogue;
use proptest::prelude::*;
use std::io::Cursor;

pub(super) const NOW: i64 = 1_767_225_600; // 2026-01-01T00:00:00Z

fn object() -> ObjectId {
    let version = crate::object::Version::ETag("e".to_owned());
    ObjectId { bucket: "b".to_owned(), key: "incoming/a.csv".to_owned(), version }
}

/// Returns the listed rows of a block.
pub(super) fn listed(parsed: &Parsed) -> Vec<serde_json::Value> {
    parsed.rejects.lines(&object()).map(|(_, line)| serde_json::from_slice(&line).unwrap()).collect()
}

/// The result of one way through a file: its rows as user, track and time, and the reasons of its rejected rows; or the
/// reason why the file is bad.
type Read = Result<(Vec<(i64, String, i64)>, Vec<String>), String>;

async fn by_blocks(text: &[u8], catalogue: &Catalogue) -> Read {
    let read = async {
        let now = jiff::Timestamp::from_second(NOW).unwrap();
        let mut blocks = Blocks::open(Cursor::new(text.to_vec()), u64::MAX, now).await?;
        let (mut rows, mut reasons) = (Vec::new(), Vec::new());
        while let Some(block) = blocks.next().await? {
            let parsed = block.parse(catalogue);
            for (index, &time) in parsed.times.iter().enumerate() {
                let (track, user) = (parsed.tracks[index], parsed.users[index]);
                let track = Parsed::new_position(track)
                    .map_or_else(|| catalogue.song(track).track_id.as_ref(), |new| parsed.new_tracks[new].as_ref());
                let user =
                    Parsed::new_position(user).map_or_else(|| catalogue.user(user).id, |new| parsed.new_users[new]);
                rows.push((user, track.to_owned(), time));
            }
            for reject in listed(&parsed) {
                let lines = reject["lines"].as_u64().unwrap_or(1);
                reasons.push(format!("{} {lines} {} {}", reject["line"], reject["reason"], reject["fields"]));
            }
        }
        Ok((rows, reasons))
    };
    read.await.map_err(|error: ReadError| error.to_string())
}

async fn row_by_row(text: &[u8]) -> Read {
    let read = async {
        let now = jiff::Timestamp::from_second(NOW).unwrap();
        let mut file = InputFile::open(Cursor::new(text.to_vec()), u64::MAX, now).await?;
        let (mut rows, mut reasons) = (Vec::new(), Vec::new());
        while let Some(line) = file.next().await? {
            match line.row {
                Ok(row) => rows.push((row.user_id, row.track_id.to_owned(), row.listen_time)),
                Err(rejection) => {
                    let shown = |field: &[u8]| field[..field.len().min(SHOWN.0)].to_vec();
                    let fields = line.record.iter().take(SHOWN.1).map(shown);
                    let fields: Vec<_> = fields.map(|field| String::from_utf8_lossy(&field).into_owned()).collect();
                    let fields = serde_json::json!(fields);
                    let (number, lines) = (line.number, line.lines);
                    reasons.push(format!("{number} {lines} {} {fields}", serde_json::json!(rejection.to_string())));
                }
            }
        }
        Ok((rows, reasons))
    };
    read.await.map_err(|error: ReadError| error.to_string())
}

pub(super) async fn catalogue() -> Catalogue {
    let songs = "track_id,track_name,artists,track_genre,duration_ms\n\
        5SuOikwiRyPMVoIQDJUgSV,A,X,pop,1\nshort,B,X,pop,1\n0000000000000000000000,C,X,pop,1\n";
    Catalogue::parse(songs.as_bytes(), "user_id,user_country\n7,Peru\n8,Ghana\n".as_bytes()).await.unwrap()
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec![
            "7", "8", "9", "0", "", "007", "-1", "999999999999999999", "9999999999999999999", "9223372036854775807",
            "5SuOikwiRyPMVoIQDJUgSV", "0000000000000000000000", "short", "0123456789012345678901", "unknown", "ä",
            "5SuOikwiRyPMVoIQDJUgS", "2024-06-25 17:43:13", "2024-06-25T17:43:13Z", "2024-06-26 00:00:00",
            "2024-02-30 17:43:13", "2024-06-25 24:43:13", "2024-06-25 24:00:00", "2024-06-25 23:59:60",
            "2024-06-25T00:30+02", "2024-06-25 23:30-02",
            "20240625T174313", "2024-06-25 17:43:1", "2026-01-02 00:00:01", "\u{feff}7",
            "1999-12-31 23:59:59", "2024-06-25 17:43:13.5", "\"7\"", "\"a,b\"", "\"", "\0", " ",
            "\"7\"8", "\"7\"\"8\"", "\"7\"8\"", "a\"b", "\"a\nb\"", "\"a\r\nb\r\"", "\"\"", "\" \"", "\"7\" ",
        ]).prop_map(str::to_owned),
        1 => "[0-9a-z,\"\r\n ]{0,25}",
    ]
}

/// Generates lines that are mostly nearly canonical, with anything between and around them.
fn text() -> impl Strategy<Value = String> {
    let canonical = (0..10_i64, prop::sample::select(vec!["5SuOikwiRyPMVoIQDJUgSV", "0123456789012345678901"]), 0..60)
        .prop_map(|(user, track, second)| format!("{user},{track},2024-06-25 17:43:{second:02}"));
    let odd = prop::sample::select(vec![
        "2024-06-25 24:00:00",
        "2024-06-25 23:59:60",
        "2024-06-25T00:30+02",
        "2024-06-25 23:30-02",
        "2024-06-25T00:00+01",
    ])
    .prop_map(|time| format!("7,5SuOikwiRyPMVoIQDJUgSV,{time}"));
    let line = prop_oneof![
        4 => canonical,
        1 => odd,
        2 => prop::collection::vec(field(), 0..5).prop_map(|fields| fields.join(",")),
        2 => (field(), field(), field()).prop_map(|(a, b, c)| format!("{a},{b},{c}")),
    ];
    let ending =
        prop_oneof![20 => Just("\n"), 2 => Just("\r\n"), 2 => Just("\r"), 1 => Just("\n\n"), 1 => Just("\n\r\r\n")];
    let header = prop::sample::select(vec![
        "user_id,track_id,listen_time\n",
        "user_id,track_id,listen_time\r\n",
        "\u{feff}user_id,track_id,listen_time\n",
        "listen_time,x,track_id,user_id\n",
        "\n\nuser_id,track_id,listen_time\n",
        "\u{feff}\u{feff}user_id,track_id,listen_time\n",
        "\n\u{feff}user_id,track_id,listen_time\n",
        "\"user_id\",track_id,listen_time\n",
        "\"user_i\"d,track_id,listen_time\n",
        "\r\r\nuser_id,track_id,listen_time,\"a\r\nb\"\r",
        "user_id,track_id,listen_time",
        "user_id,track\n",
        "",
        "\n",
    ]);
    (header, prop::collection::vec((line, ending), 0..12), any::<bool>()).prop_map(|(header, lines, cut)| {
        let mut text = header.to_owned();
        lines.iter().for_each(|(line, ending)| text += &format!("{line}{ending}"));
        if cut {
            text.pop();
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn blocks_have_the_rows_that_csv_async_has(text in text()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let catalogue = runtime.block_on(catalogue());
        let expected = runtime.block_on(row_by_row(text.as_bytes()));
        prop_assert_eq!(runtime.block_on(by_blocks(text.as_bytes(), &catalogue)), expected);
    }
}

/// Files of several blocks, a late one of which has a quote, a carriage return or a long line.
#[tokio::test]
async fn a_file_that_ceases_to_be_plain_is_read_on_as_csv() {
    let catalogue = catalogue().await;
    let plain = "7,5SuOikwiRyPMVoIQDJUgSV,2024-06-25 17:43:13\n".repeat(3 * BLOCK_BYTES / 45);
    let long = format!("7,{},2024-06-25 17:43:13\n", "x".repeat(2 * BLOCK_BYTES));
    let endless = format!("7,\"{}", "x".repeat(4 << 20));
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
        let (good, bad) = by_blocks(text.as_bytes(), &catalogue).await.unwrap();
        assert_eq!((good.len(), bad.len()), (rows, rejected), "{}", &middle[..middle.len().min(50)]);
        assert_eq!(row_by_row(text.as_bytes()).await.map(|(good, bad)| (good.len(), bad.len())), Ok((rows, rejected)));
    }
    let text = format!("user_id,track_id,listen_time\n{plain}{endless}");
    let (blocks, rows) = (by_blocks(text.as_bytes(), &catalogue).await, row_by_row(text.as_bytes()).await);
    assert!(blocks.as_ref().unwrap_err().contains(&format!("line {}", lines + 2)), "{blocks:?}");
    assert_eq!(blocks, rows);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

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
                0 => expected.push((line, 1, "bad".to_owned())),
                1 => expected.push((line, 3, format!("b{end}a{end}d"))),
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
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(async {
            let (catalogue, now) = (catalogue().await, jiff::Timestamp::from_second(NOW).unwrap());
            let mut blocks = Blocks::open(Cursor::new(text.into_bytes()), u64::MAX, now).await.unwrap();
            let mut found = Vec::new();
            while let Some(block) = blocks.next().await.unwrap() {
                found.extend(listed(&block.parse(&catalogue)));
            }
            found
        });
        let found: Vec<_> = found.iter().map(|row| {
            let first = row["fields"][0].as_str().unwrap().to_owned();
            (row["line"].as_u64().unwrap(), row["lines"].as_u64().unwrap_or(1), first)
        }).collect();
        prop_assert_eq!(found, expected);
    }
}
