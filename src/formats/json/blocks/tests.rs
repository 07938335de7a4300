use super::*;
use crate::formats::json::{Paths, Scanner, lone_value};

/// Returns the records of a file, each as its line and its text; `!` stands before a broken one, and `?` before a value
/// that is no object.
async fn read(text: &[u8], records: Option<&str>) -> Result<Vec<String>, String> {
    let bad = |error: FileError| error.to_string();
    let (paths, mut found) = (Paths::new([]), Vec::new());
    let mut blocks = Blocks::open(text, u64::MAX, records).await.map_err(bad)?;
    while let Some(block) = blocks.next().await.map_err(bad)? {
        for piece in block.pieces() {
            let mut text = block.text(piece);
            let as_text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
            match piece.holds {
                Pieces::Broken => found.push(format!("{} !{}", piece.line, as_text(text))),
                Pieces::NoObject => found.push(format!("{} ?{}", piece.line, as_text(text))),
                Pieces::NoList => found.push(format!("{} no list", piece.line)),
                Pieces::Records => {
                    let mut scanner = Scanner::new(&paths);
                    while let Some(start) = crate::formats::json::next_record(text) {
                        text = &text[start..];
                        let scanned = match text[0] {
                            b'{' => scanner.scan(text, &mut []).map(|length| ("", length)),
                            _ => lone_value(text, true).map(|length| ("?", length)),
                        };
                        let (mark, length) = scanned.unwrap_or(("!", text.len()));
                        found.push(format!("{} {mark}{}", piece.line, as_text(&text[..length])));
                        text = &text[length..];
                    }
                }
            }
        }
    }
    Ok(found)
}

#[tokio::test]
async fn every_shape_has_its_records() {
    for (text, expected) in [
        ("{\"a\":1}\n{\"b\":2}\n", vec!["1 {\"a\":1}", "2 {\"b\":2}"]),
        ("{\"a\":1}\r\n{\"b\":2}", vec!["1 {\"a\":1}", "2 {\"b\":2}"]),
        ("\n {\"a\":1}\n\n\t{\"b\":2}\n\n", vec!["2 {\"a\":1}", "4 {\"b\":2}"]),
        ("{\"a\":1}{\"b\":2}{}", vec!["1 {\"a\":1}", "1 {\"b\":2}", "1 {}"]),
        ("{\"a\":1}{\"b\":2}\n{}{}\n{}", vec!["1 {\"a\":1}", "1 {\"b\":2}", "2 {}", "2 {}", "3 {}"]),
        ("[{\"a\":1},{\"b\":2}]", vec!["1 {\"a\":1}", "1 {\"b\":2}"]),
        ("[\n {\"a\":1},\n {\"b\":[\n{},\n{}]}\n]\n", vec!["2 {\"a\":1}", "3 {\"b\":[\n{},\n{}]}"]),
        ("{\n\"a\":\n1}\n\n{\n}", vec!["1 {\n\"a\":\n1}", "5 {\n}"]),
        ("[{}][{}],{}\n[[{}]]", vec!["1 {}", "1 {}", "1 {}", "2 {}"]),
        ("\u{feff}{}", vec!["1 {}"]),
        ("[]", vec![]),
        ("{\"a\":\"}\\n{\"}\n{}", vec!["1 {\"a\":\"}\\n{\"}", "2 {}"]),
    ] {
        assert_eq!(
            read(text.as_bytes(), None).await,
            Ok(expected.iter().map(|it| (*it).to_owned()).collect()),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_broken_record_is_rejected_alone_or_the_file_is_bad() {
    for (text, expected) in [
        ("{\"a\":\n{\"b\":2}\n{}", Ok(vec!["1 !{\"a\":", "2 {\"b\":2}", "3 {}"])),
        ("{\"a\":1}\n{\"b\":\"x}\n{}\n{}", Ok(vec!["1 {\"a\":1}", "2 !{\"b\":\"x}", "3 {}", "4 {}"])),
        ("{}{\"b\":x}{}\n{}\n{}", Ok(vec!["1 {}", "1 !{\"b\":x}{}", "2 {}", "3 {}"])),
        ("{} 1x {}\n\n{}", Ok(vec!["1 {}", "1 !1x {}", "3 {}"])),
        ("{\"a\":1\n{\"b\":2}\n{}\n", Ok(vec!["1 !{\"a\":1", "2 {\"b\":2}", "3 {}"])),
        ("{\"a\":[1\n{\"b\":2}\n{}\n", Ok(vec!["1 !{\"a\":[1", "2 {\"b\":2}", "3 {}"])),
        ("{}\n{\"a\":", Ok(vec!["1 {}", "2 !{\"a\":"])),
        ("{}\n{\"a\":\n\n", Ok(vec!["1 {}", "2 !{\"a\":"])),
        ("{}\n{}{\"a\":", Err("the file is not JSON: the record at line 2 is broken")),
        ("{\"a\":", Err("the file is not JSON: the record at line 1 is broken")),
        ("{}\n{\"a\":\n\"b\n}", Err("the file is not JSON: the record at line 2 is broken")),
        ("{}\n{\"a\":1}}\n[{}]", Err("the file is not JSON: the record at line 2 is broken")),
        (
            "a,b\n1,2\n",
            Err("the file is not JSON: the record at line 1 is broken, and the next line begins no other: \"a,b\""),
        ),
        ("[{},\n{}", Err("the file is cut off")),
        ("[{},\n{}\n,{\"a\":", Err("the file is cut off")),
        ("", Err("the file is empty")),
        (" \n\n", Err("the file is empty")),
        ("PK\u{3}\u{4}", Err("the file is not JSON: its first line is binary (a ZIP archive")),
    ] {
        let found = read(text.as_bytes(), None).await;
        match expected {
            Ok(expected) => assert_eq!(found, Ok(expected.iter().map(|it| (*it).to_owned()).collect()), "{text}"),
            Err(expected) => assert!(found.as_ref().is_err_and(|it| it.starts_with(expected)), "{text} {found:?}"),
        }
    }
}

/// A value that is no object swallows no record, so that it is rejected alone, wherever it stands.
#[tokio::test]
async fn a_value_that_is_no_object_is_rejected_alone() {
    for (text, expected) in [
        ("{}\nnull\n{}", Ok(vec!["1 {}", "2 ?null", "3 {}"])),
        ("[{},null,{}]", Ok(vec!["1 {}", "1 ?null", "1 {}"])),
        ("[null,{},-1.5e3,true,false,\"a]{\",{}]", {
            Ok(vec!["1 ?null", "1 {}", "1 ?-1.5e3", "1 ?true", "1 ?false", "1 ?\"a]{\"", "1 {}"])
        }),
        ("[\n {},\n 7\n]\n", Ok(vec!["2 {}", "3 ?7"])),
        ("[1,2]", Ok(vec!["1 ?1", "1 ?2"])),
        ("{} 1 {}\n\n{}", Ok(vec!["1 {}", "1 ?1", "1 {}", "3 {}"])),
        ("{}null{}\n{}", Ok(vec!["1 {}", "1 ?null", "1 {}", "2 {}"])),
        ("{}5\"a\":1}\n{}", Ok(vec!["1 {}", "1 !5\"a\":1}", "2 {}"])),
        ("{}\n5", Ok(vec!["1 {}", "2 ?5"])),
        ("{}\n\"x\"\n", Ok(vec!["1 {}", "2 ?\"x\""])),
        // It ends its line, as other broken records do.
        ("{}\nnul\n{}", Ok(vec!["1 {}", "2 !nul", "3 {}"])),
        ("[{},nul,{}]", Err("the file is not JSON: the record at line 1 is broken")),
        ("[{},01,{}]", Err("the file is not JSON: the record at line 1 is broken")),
        ("[{},\"a\":1,{}]", Err("the file is not JSON: the record at line 1 is broken")),
        ("[{},null", Err("the file is cut off")),
        // A file that begins like this may be of another format.
        ("1,2\n3,4\n", Err("the file is not JSON: the record at line 1 is broken")),
        ("7", Err("the file is not JSON: the record at line 1 is broken")),
    ] {
        let found = read(text.as_bytes(), None).await;
        match expected {
            Ok(expected) => assert_eq!(found, Ok(expected.iter().map(|it| (*it).to_owned()).collect()), "{text}"),
            Err(expected) => assert!(found.as_ref().is_err_and(|it| it.starts_with(expected)), "{text} {found:?}"),
        }
    }
}

#[tokio::test]
async fn envelopes_have_their_records_in_a_list() {
    for (text, expected) in [
        ("{\"Records\":[{\"a\":1},{}]}", Ok(vec!["1 {\"a\":1}", "1 {}"])),
        ("{\"x\":[{}],\"Records\" : [ {} , {} ] ,\"y\":{\"Records\":[1]}}\n{\"Records\":[]}", Ok(vec!["1 {}", "1 {}"])),
        (
            "{\"x\":1}{\"Records\":null}\n{}{\"\\u0052ecords\":[{}]}",
            Ok(vec!["1 no list", "1 no list", "2 no list", "2 {}"]),
        ),
        ("{\"Records\":[[{}],{}]}", Ok(vec!["1 {}", "1 {}"])),
        ("{\"Records\":[{}", Err("the file is cut off")),
        ("{\"Records\":[{}]", Err("the file is cut off")),
        ("{\"Records\":[{}", Err("the file is cut off")),
        ("{\"Records\":[1,{},null,\"x\"]}", Ok(vec!["1 ?1", "1 {}", "1 ?null", "1 ?\"x\""])),
        ("{\"Records\":[1x]}", Err("the file is not JSON: the document at line 1 is broken: \"1x]}\"")),
        ("{\"Records\":[1", Err("the file is cut off")),
        ("{\"Records\":[tru", Err("the file is not JSON: the document at line 1 is broken: \"tru\"")),
        ("{\"Records\":[{}],\"Records\":[{}]}", Err("the file is not JSON: the document at line 1 is broken")),
        ("{\"a\":1\n\"Records\":[{}]}", Err("the file is not JSON: the document at line 2 is broken")),
        ("{\"a\":1,}", Err("the file is not JSON: the document at line 1 is broken")),
        ("1", Err("the file is not JSON: the document at line 1 is broken: \"1\"")),
    ] {
        let found = read(text.as_bytes(), Some("Records")).await;
        match expected {
            Ok(expected) => assert_eq!(found, Ok(expected.iter().map(|it| (*it).to_owned()).collect()), "{text}"),
            Err(expected) => assert!(found.as_ref().is_err_and(|it| it.starts_with(expected)), "{text} {found:?}"),
        }
    }
}

/// Files of many blocks, in every shape, whose records differ in length.
#[tokio::test]
async fn blocks_are_cut_between_records() {
    let records: Vec<String> =
        (0..4000).map(|index| format!("{{\"i\":{index},\"x\":\"{}\"}}", "y".repeat(index % 700))).collect();
    let large = format!("{{\"x\":\"{}\"}}", "z".repeat(MAX_RECORD_BYTES - 20));
    let all: Vec<&str> = records.iter().chain([&large]).chain(&records).map(String::as_str).collect();
    let pretty = all.join(",\n  ").replace(":", ":\n    ");
    for (text, envelope, unpretty) in [
        (all.join("\n"), None, false),
        (all.join("\r\n") + "\r\n", None, false),
        (all.concat(), None, false),
        (format!("[{}]", all.join(",")), None, false),
        (format!("[\n  {pretty}\n]\n"), None, true),
        (format!("{{\"a\":{{\"Records\":[{{}}]}},\"Records\":[{}]}}", all.join(", ")), Some("Records"), false),
    ] {
        let found = read(text.as_bytes(), envelope).await.unwrap();
        let bare = |text: &String| {
            let text = text.split_once(' ').unwrap().1;
            if unpretty { text.replace(":\n    ", ":") } else { text.to_owned() }
        };
        assert_eq!(found.len(), all.len());
        assert!(found.iter().map(bare).eq(all.iter().map(|it| (*it).to_owned())), "{}", &text[..40]);
    }
    for (more, is_read) in [(12, true), (13, false)] {
        let longest = large.replacen('z', &"z".repeat(1 + more), 1);
        for text in [format!("{{}}\n{longest} \n{{}}"), format!("[{longest}]")] {
            assert_eq!(read(text.as_bytes(), None).await.is_ok(), is_read, "{}", longest.len());
        }
    }
    let told = read(format!("{{}}\n{}", "{\"a\":[".repeat(10) + &"1,".repeat(MAX_RECORD_BYTES)).as_bytes(), None).await;
    assert_eq!(
        told,
        Err(format!("the file is not JSON: the record at line 2 is longer than {MAX_RECORD_BYTES} bytes"))
    );
}
