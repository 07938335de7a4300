//! Input: odd, damaged and hostile files, and one with rows of thousands of days.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::*;

#[tokio::test]
async fn odd_files_get_their_answer_and_harm_no_other() {
    let deployment = Deployment::new("odd").await;
    let good = rows(5000, 600);
    let csv = csv_of(&good);
    let third = good.len() / 3;
    let crlf_bom_quotes =
        format!("\u{feff}{}", csv_of(&good[..third])).replace('\n', "\r\n").replace("user_id", "\"user_id\"");
    let reordered: String = std::iter::once("extra,listen_time,track_id,user_id\n".to_owned())
        .chain(csv_of(&good[2 * third..]).lines().skip(1).map(|line| {
            let fields: Vec<_> = line.split(',').collect();
            format!("\"a \"\"b\"\", c\nd\",{}Z,{},{}\n", fields[2].replace(' ', "T"), fields[1], fields[0])
        }))
        .collect();
    let two_members = [gzip(&csv.as_bytes()[..5000]), gzip(&csv.as_bytes()[5000..])].concat();
    let long_field = "x".repeat(1 << 20);
    let mut invalid_utf8 = csv.clone().into_bytes();
    invalid_utf8.extend_from_slice(b"7,ab\xff\xfe,2024-06-25 00:00:00\n");
    let truncated = gzip(csv.as_bytes());
    for (key, content) in [
        ("crlf.csv", crlf_bom_quotes.into_bytes()),
        ("gzip.csv", gzip(csv_of(&good[third..2 * third]).as_bytes())),
        ("reordered.csv", reordered.into_bytes()),
        ("members.csv", two_members),
        ("header-only.csv", b"user_id,track_id,listen_time\n".to_vec()),
        ("invalid-utf8.csv", invalid_utf8),
        ("long-line.csv", format!("{csv}7,{long_field},2024-06-25 00:00:00\n").into_bytes()),
        ("zero.csv", Vec::new()),
        ("missing-column.csv", b"user_id,track_id\n1,a\n".to_vec()),
        ("binary.csv", b"\x89PNG\r\n\x1a\n\0\0\0".to_vec()),
        ("truncated.csv.gz", truncated[..truncated.len() - 20].to_vec()),
        ("damaged.csv.gz", [&truncated[..100], &[0xff; 300], &truncated[400..]].concat()),
        ("unclosed-quote.csv", format!("{csv}\"{}", "no end\n".repeat(900_000)).into_bytes()),
    ] {
        deployment.put(&format!("incoming/{key}"), content).await;
    }
    // Not a file at all; it stays.
    deployment.put("incoming/folder/", "").await;
    let consumer = deployment.consumer(&[]);
    eventually("all files are moved", Duration::from_secs(120), async || {
        deployment.keys("incoming/").await.len() <= 1 && deployment.messages_in(&deployment.queue_url).await == 0
    })
    .await;
    consumer.stop();
    deployment.assert_clean().await;

    let mut reasons = BTreeMap::new();
    for key in deployment.keys("quarantine/objects/").await {
        if let Some(file) = key.strip_suffix(".reason.json") {
            let note: serde_json::Value = serde_json::from_slice(&deployment.get(&key).await).unwrap();
            reasons.insert(file.rsplit('/').next().unwrap().to_owned(), note["reason"].as_str().unwrap().to_owned());
        }
    }
    let reason = |file: &str| reasons.get(file).unwrap_or_else(|| panic!("{file} is not in {reasons:?}")).as_str();
    assert_eq!(reason("zero.csv"), "the file is empty: not even a header");
    assert_eq!(
        reason("missing-column.csv"),
        "the file does not have the columns of the definition: the header lacks the column listen_time; the header is \
         \"user_id,track_id\""
    );
    assert_eq!(reason("binary.csv"), "the file is not CSV: its first line is binary");
    assert_eq!(reason("truncated.csv.gz"), "the gzip stream is cut off");
    assert!(reason("damaged.csv.gz").starts_with("the gzip stream is damaged"), "{}", reason("damaged.csv.gz"));
    assert!(
        reason("unclosed-quote.csv").contains("the record at line 602 is longer than"),
        "{}",
        reason("unclosed-quote.csv")
    );
    assert_eq!(reasons.len(), 6, "{reasons:#?}");

    let mut rejected = Vec::new();
    for key in deployment.keys("quarantine/rows/").await {
        for line in String::from_utf8(deployment.get(&key).await).unwrap().lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            rejected.push((
                row["object"].as_str().unwrap().to_owned(),
                row["line"].as_u64().unwrap(),
                row["reason"].as_str().unwrap().to_owned(),
            ));
        }
    }
    rejected.sort();
    let bad_track = "track_id is not 1 to 64 visible ASCII characters".to_owned();
    assert_eq!(
        rejected,
        [
            ("incoming/invalid-utf8.csv".to_owned(), 602, bad_track.clone()),
            ("incoming/long-line.csv".to_owned(), 602, bad_track),
        ]
    );

    // Every good row once from the three files that share them, and once from each file that has all of them.
    let counted: Vec<Row> = std::iter::repeat_n(good, 4).flatten().collect();
    Expected::of(&counted).assert_reported(&deployment).await;
    assert_eq!(curated_rows(&deployment, "pyarrow").await, expected_rows(&counted));
    assert_eq!(deployment.keys("archive/").await.len(), 7);
}

/// Rows from before the first accepted day to after the last: one curated file for each of thousands of days.
#[tokio::test]
async fn thousands_of_dates_in_one_file() {
    let deployment = Deployment::new("dates").await;
    let first = jiff::civil::date(1999, 12, 1);
    let tomorrow = jiff::Timestamp::now().as_second() / 86_400 + 1;
    let epoch = jiff::civil::date(1970, 1, 1);
    let mut csv = String::from("user_id,track_id,listen_time\n");
    let (mut good, mut bad) = (0, 0);
    for day in 0..2500 {
        let date = first.checked_add(jiff::Span::new().days(4 * day)).unwrap();
        csv += &format!("7,one-track,{date} 00:00:00\n");
        let days_since_epoch = i64::from(date.since(epoch).unwrap().get_days());
        if date.year() >= 2000 && days_since_epoch <= tomorrow { good += 1 } else { bad += 1 }
    }
    deployment.put("incoming/dates.csv", csv).await;
    deployment.put("incoming/other.csv", "user_id,track_id,listen_time\n8,other,2024-06-25 00:00:00\n").await;
    let consumer = deployment.consumer(&[]);
    // Each day has seven items and six lists: some 31,000 writes, which the local stack makes one after the other.
    deployment.settled_within(3 * PATIENCE).await;
    consumer.stop();
    deployment.assert_clean().await;
    let items = deployment.scan("track_level_reports").await;
    assert_eq!(items.iter().filter(|item| text(item, "track_id") == "one-track").count(), good);
    assert_eq!(items.iter().filter(|item| text(item, "track_id") == "other").count(), 1);
    let mut rejected = 0;
    for key in deployment.keys("quarantine/rows/").await {
        rejected += String::from_utf8(deployment.get(&key).await).unwrap().lines().count();
    }
    assert_eq!(rejected, bad);
    assert!(bad > 0 && good > 2300);
    assert!(deployment.keys("curated/report_date=").await.len() >= good);
}
