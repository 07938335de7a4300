//! The command line: answers for people and programs, and errors at the start that name their remedy.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use crate::support::data::country;
use crate::support::*;

#[tokio::test]
async fn reports_answer_people_and_programs() {
    let deployment = Deployment::new("reports").await;
    let rows = rows(9000, 3000);
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    deployment.process_all().await;

    let ask = |arguments: &[&str]| {
        let line = [&["report"], arguments, &["--table-prefix", &deployment.table_prefix, "--format", "json"]].concat();
        let ended = program(&line, &[]);
        assert!(ended.success, "{}", ended.stderr);
        serde_json::from_str::<Vec<serde_json::Value>>(&ended.stdout).unwrap()
    };
    // The order by an independent count; ties by id.
    let top = |of: &dyn Fn(&Row) -> Vec<String>, most: usize| {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        rows.iter()
            .filter(|row| row.date == "2024-06-25")
            .flat_map(of)
            .for_each(|id| *counts.entry(id).or_default() += 1);
        let mut order: Vec<_> = counts.into_iter().map(|(id, count)| (-count, id)).collect();
        order.sort();
        order.truncate(most);
        order.into_iter().map(|(count, id)| (id, -count)).collect::<Vec<_>>()
    };
    let found = |answer: Vec<serde_json::Value>, id: &str| {
        let pair =
            |item: &serde_json::Value| (item[id].as_str().unwrap().to_owned(), item["total_listens"].as_i64().unwrap());
        answer.iter().map(pair).collect::<Vec<_>>()
    };
    let songs = songs();
    let track = |row: &Row| {
        songs.get(row.track as usize).map_or(format!("{:05}abcdefghijkmnopq", row.track), |song| song.track_id.clone())
    };
    let genres = |row: &Row| {
        songs
            .get(row.track as usize)
            .map_or(vec!["unknown".to_owned()], |song| song.genres.iter().map(|&genre| genre.to_owned()).collect())
    };
    // An index keeps ties in no particular order, so a cut through a tie is no figure: compare the counts.
    let counts = |pairs: Vec<(String, i64)>| pairs.into_iter().map(|(_, count)| count).collect::<Vec<_>>();
    let day = ["--date", "2024-06-25"];
    assert_eq!(found(ask(&[&["genres"], &day[..], &["--top", "5"]].concat()), "track_genre"), top(&genres, 5));
    assert_eq!(
        counts(found(ask(&[&["tracks"], &day[..], &["--top", "7"]].concat()), "track_id")),
        counts(top(&|row| vec![track(row)], 7))
    );
    let of_jazz = |row: &Row| if genres(row).contains(&"jazz".to_owned()) { vec![track(row)] } else { vec![] };
    assert_eq!(
        counts(found(ask(&[&["tracks"], &day[..], &["--top", "3", "--under", "jazz"]].concat()), "track_id")),
        counts(top(&of_jazz, 3))
    );
    assert_eq!(
        counts(found(ask(&[&["listeners"], &day[..], &["--top", "4"]].concat()), "user_id")),
        counts(top(&|row| vec![row.user.to_string()], 4))
    );
    let artists = |row: &Row| match songs.get(row.track as usize) {
        Some(song) if !song.artists.is_empty() => song.artists.clone(),
        _ => vec!["unknown".to_owned()],
    };
    assert_eq!(found(ask(&[&["artists"], &day[..], &["--top", "5"]].concat()), "artists"), top(&artists, 5));
    let countries = |row: &Row| vec![country(row.user).to_owned()];
    assert_eq!(found(ask(&[&["countries"], &day[..]].concat()), "user_country"), top(&countries, 4));
    let all = top(&|_| vec!["*".to_owned()], 1);
    assert_eq!(found(ask(&[&["days", "*"], &day[..]].concat()), "all"), all);
    let evening = rows.iter().filter(|row| row.date == "2024-06-25" && row.second / 3600 == 21).count() as i64;
    let hour = ask(&["hours", "*", "--date", "2024-06-25T21"]);
    assert_eq!((hour.len(), hour[0]["total_listens"].as_i64()), (1, Some(evening)));
    let busiest = &top(&|row| vec![track(row)], 1)[0];
    let days = ask(&["track", &busiest.0]);
    assert_eq!(
        (days[0]["report_date"].as_str(), days[0]["total_listens"].as_i64()),
        (Some("2024-06-25"), Some(busiest.1))
    );

    let table = program(&["report", "genres", "--date", "2024-06-25", "--table-prefix", &deployment.table_prefix], &[]);
    assert!(table.stdout.contains("track_genre") && table.stdout.contains("jazz"), "{}", table.stdout);
    let nothing =
        program(&["report", "genres", "--date", "2020-01-01", "--table-prefix", &deployment.table_prefix], &[]);
    assert_eq!((nothing.success, nothing.stdout.trim()), (true, "no rows"));
    assert!(!program(&["report", "genres", "--date", "yesterday"], &[]).success);
}

#[tokio::test]
async fn what_is_wrong_at_the_start_is_named_with_its_remedy() {
    let deployment = Deployment::new("wrong").await;
    let run = |arguments: &[&str], environment: &[(&str, &str)]| {
        let names = [
            "run",
            "--queue-url",
            &deployment.queue_url,
            "--bucket",
            &deployment.bucket,
            "--table-prefix",
            &deployment.table_prefix,
        ];
        let ended = program(&[&names[..], arguments].concat(), environment);
        assert!(!ended.success, "{arguments:?} {environment:?}");
        ended.stderr
    };
    let queue = run(&["--queue-url", &deployment.queue_url.replace("wrong", "missing")], &[]);
    assert!(
        queue.contains("sqs:GetQueueAttributes") && queue.contains("missing") && queue.contains("check the name"),
        "{queue}"
    );
    let bucket = run(&["--bucket", "no-such-bucket"], &[]);
    assert!(bucket.contains("s3:ListBucket on s3://no-such-bucket") && bucket.contains("check the name"), "{bucket}");
    let table = run(&["--table-prefix", "absent-"], &[]);
    assert!(table.contains("absent-music_streams_ledger") && table.contains("deploy/template.yaml"), "{table}");
    let endpoint =
        run(&[], &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:9")]);
    assert!(endpoint.contains("nothing answers at the endpoint: check AWS_REGION, AWS_ENDPOINT_URL"), "{endpoint}");
    let window = run(&["--window", "12h"], &[]);
    assert!(window.contains("longer than visibility allows") && window.contains("give at most 11h"), "{window}");
    for (flag, value) in [("--window", "soon"), ("--max-bytes", "many"), ("--receivers", "several"), ("--lease", "5")] {
        let nonsense = run(&[flag, value], &[]);
        assert!(nonsense.contains(flag) && nonsense.contains(value), "{nonsense}");
    }
    deployment.clients.s3.delete_object().bucket(&deployment.bucket).key("reference/songs.csv").send().await.unwrap();
    let catalogue = run(&[], &[]);
    assert!(catalogue.contains("reference/songs.csv") && catalogue.contains("upload it"), "{catalogue}");
}

#[test]
fn a_missing_permission_is_named() {
    // The local stacks allow everything, so this AWS refuses everything.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 8192]);
            let body = r#"{"__type":"AccessDenied","message":"User is not authorized to perform this action"}"#;
            let _ = write!(
                stream,
                "HTTP/1.1 403 Forbidden\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    let ended = program(
        &["run", "--queue-url", &format!("{url}/q"), "--bucket", "bucket"],
        &[("AWS_ENDPOINT_URL", &url), ("AWS_ENDPOINT_URL_SQS", &url)],
    );
    assert!(!ended.success);
    assert!(
        ended.stderr.contains("not authorized")
            && ended.stderr.contains("give the role of this process sqs:GetQueueAttributes"),
        "{}",
        ended.stderr
    );
}

#[test]
fn settings_are_shown_with_their_sources() {
    let names = ["check-config", "--json", "--queue-url", "https://q", "--window", "7m"];
    let ended = program(&names, &[("MUSIC_STREAMS_BUCKET", "bucket-a"), ("MUSIC_STREAMS_LEASE", "90s")]);
    assert!(ended.success, "{}", ended.stderr);
    let settings: Vec<serde_json::Value> = serde_json::from_str(&ended.stdout).unwrap();
    let of = |name: &str| {
        let setting = settings.iter().find(|setting| setting["setting"] == name).unwrap();
        (setting["value"].as_str().unwrap().to_owned(), setting["source"].as_str().unwrap().to_owned())
    };
    assert_eq!(of("--window"), ("7m".to_owned(), "flag --window".to_owned()));
    assert_eq!(of("--bucket"), ("bucket-a".to_owned(), "environment MUSIC_STREAMS_BUCKET".to_owned()));
    assert_eq!(of("--lease"), ("90s".to_owned(), "environment MUSIC_STREAMS_LEASE".to_owned()));
    assert_eq!(of("--max-bytes"), ("128MiB".to_owned(), "default".to_owned()));
    let wrong = program(&["check-config", "--queue-url", "q", "--bucket", "bucket", "--poll-wait", "1m"], &[]);
    assert!(
        !wrong.success && wrong.stderr.contains("--queue-url") && wrong.stderr.contains("--poll-wait"),
        "{}",
        wrong.stderr
    );
}
