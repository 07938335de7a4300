//! The reading side: command line, API and page give the same figures, those of an independent fold; and a reader asks
//! the tables only for what may have changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde_json::Value;

use crate::served::{Answer, Served};
use crate::support::data::{songs_csv, track_id};
use crate::support::*;

const DATES: [&str; 10] = [
    "2024-06-16",
    "2024-06-17",
    "2024-06-18",
    "2024-06-19",
    "2024-06-20",
    "2024-06-21",
    "2024-06-22",
    "2024-06-23",
    "2024-06-24",
    "2024-06-25",
];

/// Listens of ten days, more on some of them.
fn listens(seed: u64, count: usize) -> Vec<Row> {
    let listen = |(index, row): (usize, Row)| Row { date: DATES[(index * index + index / 7) % DATES.len()], ..row };
    rows(seed, count).into_iter().enumerate().map(listen).collect()
}

/// The figures of an id by a plain fold.
#[derive(Default)]
struct Sum {
    listens: u64,
    ms: u64,
    users: BTreeSet<u64>,
}

/// Folds listens between two dates by the ids that each has.
fn fold(rows: &[Row], dates: &[&str], ids: impl Fn(&Row) -> Vec<String>) -> HashMap<String, Sum> {
    let (songs, mut sums) = (songs(), HashMap::<String, Sum>::new());
    for row in rows.iter().filter(|row| dates.contains(&row.date)) {
        for id in ids(row) {
            let sum = sums.entry(id).or_default();
            sum.listens += 1;
            sum.ms += songs.get(row.track as usize).map_or(0, |song| song.duration_ms);
            sum.users.insert(row.user);
        }
    }
    sums
}

fn genres(row: &Row) -> Vec<String> {
    let songs = songs();
    songs
        .get(row.track as usize)
        .map_or(vec!["unknown".to_owned()], |song| song.genres.iter().map(|genre| (*genre).to_owned()).collect())
}

fn track(row: &Row) -> Vec<String> {
    vec![track_id(row.track)]
}

/// The greatest, in the order of rankings.
fn greatest(sums: &HashMap<String, Sum>, most: usize) -> Vec<(String, u64)> {
    let mut order: Vec<_> = sums.iter().map(|(id, sum)| (std::cmp::Reverse(sum.listens), id.clone())).collect();
    order.sort();
    order.into_iter().take(most).map(|(listens, id)| (id, listens.0)).collect()
}

/// Asserts that values are those of a sum: exact ones, and the estimate within its bounds.
fn assert_values(item: &Value, sum: &Sum, what: &str) {
    assert_eq!(item["total_listens"].as_u64(), Some(sum.listens), "{what}: {item}");
    let seconds = item["total_listening_time"].as_f64().unwrap();
    assert_eq!((seconds * 1000.0).round() as u64, sum.ms, "{what}");
    let between = item["unique_users_between"].as_array().unwrap();
    let [low, high] = [0, 1].map(|index| between[index].as_u64().unwrap());
    let users = sum.users.len() as u64;
    assert!((low..=high).contains(&users), "{what}: {users} users are not within {low} to {high}");
}

fn pairs(answer: &Value, key: &str) -> Vec<(String, u64)> {
    let pair = |item: &Value| (item[key].as_str().unwrap().to_owned(), item["total_listens"].as_u64().unwrap());
    answer["items"].as_array().unwrap().iter().map(pair).collect()
}

/// Waits until the figures have settled, so that what is read is kept.
async fn settled() {
    tokio::time::sleep(Duration::from_secs(6)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_over_days_are_those_of_an_independent_fold_whoever_asks() {
    let deployment = Deployment::new("reading").await;
    let rows = listens(41, 6000);
    deployment.put("incoming/a.csv", csv_of(&rows[..3500])).await;
    deployment.put("incoming/b.csv", csv_of(&rows[3500..])).await;
    deployment.process_all().await;
    let served = Served::start(&deployment, &["--personal"], &[]).await;
    let range = "from=2024-06-21&to=2024-06-25";
    let (now, before) = (&DATES[5..], &DATES[..5]);

    // Rankings, of all and under a value.
    let of_tracks = fold(&rows, now, track);
    let of_genres = fold(&rows, now, genres);
    let tracks = served.get(&format!("/api/v1/top/tracks?{range}&limit=12")).await.json();
    assert_eq!(pairs(&tracks, "track_id"), greatest(&of_tracks, 12));
    assert_eq!((&tracks["exact"], &tracks["truncated"]), (&true.into(), &true.into()));
    for item in tracks["items"].as_array().unwrap() {
        assert_values(item, &of_tracks[item["track_id"].as_str().unwrap()], "a track over days");
        let by_day: u64 = item["points"].as_array().unwrap().iter().map(|point| point.as_u64().unwrap()).sum();
        assert_eq!(Some(by_day), item["total_listens"].as_u64());
    }
    let jazz = |row: &Row| if genres(row).contains(&"jazz".to_owned()) { track(row) } else { Vec::new() };
    let of_jazz = served.get(&format!("/api/v1/top/tracks?{range}&under=track_genre:jazz&limit=5")).await.json();
    assert_eq!(pairs(&of_jazz, "track_id"), greatest(&fold(&rows, now, jazz), 5));
    let share = of_jazz["items"][0]["share"].as_f64().unwrap();
    let whole = of_genres["jazz"].listens as f64;
    let first = of_jazz["items"][0]["total_listens"].as_f64().unwrap();
    assert!((share - first / whole).abs() < 0.0001, "a share of the genre: {share}");

    // One item by day, with the days before.
    let series = served.get(&format!("/api/v1/series/genres?id=pop&{range}")).await.json();
    assert_values(&series["totals"], &of_genres["pop"], "a genre over days");
    for point in series["points"].as_array().unwrap() {
        let date = point["report_date"].as_str().unwrap();
        assert_eq!(point["total_listens"].as_u64(), Some(fold(&rows, &[date], genres)["pop"].listens), "{date}");
    }
    let of_before = fold(&rows, before, genres)["pop"].listens;
    assert_eq!(series["against"]["totals"]["total_listens"].as_u64(), Some(of_before));
    let change = series["against"]["change"]["total_listens"].as_f64().unwrap();
    let expected = of_genres["pop"].listens as f64 / of_before as f64 - 1.0;
    assert!((change - expected).abs() < 0.0001, "{change}, not {expected}");

    // Days before the first one are no days with nothing: no change is said against them.
    let earlier = served.get("/api/v1/series/genres?id=pop&from=2024-06-18&to=2024-06-25").await.json();
    assert!(earlier["against"]["change"]["total_listens"].is_null(), "{earlier}");
    assert_eq!(earlier["against"]["points"][0]["counted"], false);

    // The command line says the same, and the page shows it.
    let command = |arguments: &[&str]| {
        let days = ["--from", "2024-06-21", "--to", "2024-06-25", "--table-prefix", &deployment.table_prefix];
        let ended = program(&[&["report"], arguments, &days].concat(), &[]);
        assert!(ended.success, "{}", ended.stderr);
        ended
    };
    let said: Vec<Value> =
        serde_json::from_str(&command(&["tracks", "--top", "12", "--format", "json"]).stdout).unwrap();
    assert_eq!(pairs(&serde_json::json!({ "items": said }), "track_id"), greatest(&of_tracks, 12));
    for (said, answered) in said.iter().zip(tracks["items"].as_array().unwrap()) {
        for measure in ["total_listens", "unique_users", "total_listening_time", "avg_listening_time_per_user"] {
            assert_eq!(said[measure], answered[measure], "{measure}");
        }
    }
    let ended = command(&["tracks", "--top", "12", "--format", "csv"]);
    let over_http = served.get(&format!("/api/v1/top/tracks?{range}&limit=12&format=csv")).await;
    assert_eq!(ended.stdout.trim_end(), over_http.body.replace("\r\n", "\n").trim_end());
    assert!(ended.stderr.contains("exact · figures of") && ended.stderr.contains("read units"), "{}", ended.stderr);
    let page = served.get(&format!("/?{range}")).await;
    assert_eq!(page.status, 200, "{}", page.body);
    for (id, listens) in greatest(&of_tracks, 10) {
        let shown = grouped(listens);
        assert!(page.body.contains(&format!("id={id}")) && page.body.contains(&shown), "{id} with {shown}");
    }
    assert!(page.body.contains(&grouped(rows.iter().filter(|row| now.contains(&row.date)).count() as u64)));
    let once = program(
        &["serve", "--once", &format!("/api/v1/top/tracks?{range}&limit=12"), "--personal"],
        &[("MUSIC_STREAMS_TABLE_PREFIX", &deployment.table_prefix)],
    );
    assert_eq!(serde_json::from_str::<Value>(&once.stdout).unwrap()["items"], tracks["items"], "{}", once.stderr);

    // Persons only where they are asked for.
    let closed = Served::start(&deployment, &[], &[]).await;
    assert_eq!(closed.get("/api/v1/top/listeners?days=1").await.status, 404);
    assert!(!closed.get("/api/v1/openapi.json").await.body.contains("listeners"));
    assert!(!closed.get("/").await.body.contains("report=listeners"));
    let open = served.get("/api/v1/top/listeners?days=1").await;
    assert_eq!((open.status, open.header("cache-control")), (200, "no-store"));
}

/// A number as people read it: 12,345.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_holds_until_a_batch_touches_its_days() {
    let deployment = Deployment::new("etags").await;
    let rows = listens(42, 2000);
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    deployment.process_all().await;
    settled().await;
    let [served, other] = [Served::start(&deployment, &[], &[]).await, Served::start(&deployment, &[], &[]).await];
    let (old, new) = ("/api/v1/top/tracks?from=2024-06-16&to=2024-06-20", "/api/v1/top/tracks?from=2024-06-25&days=1");
    let (of_old, of_new) = (served.get(old).await, served.get(new).await);
    let etag = |answer: &Answer| answer.header("etag").to_owned();
    assert_eq!(etag(&of_old), etag(&other.get(old).await), "two servers agree");
    assert_eq!(served.get(old).await.calls(), 0, "kept as long as the ledger is not looked at again");
    let again = |path: &'static str, etag: String| {
        let served = &served;
        async move { served.get_with(path, &[("If-None-Match", &etag)]).await }
    };
    assert_eq!(again(old, etag(&of_old)).await.status, 304);

    // A batch of another day: these days were not touched, and no item of theirs is read but the marks.
    let late = |date, seed| rows_of(seed, date, 40);
    deployment.put("incoming/today.csv", csv_of(&late("2024-06-25", 43))).await;
    deployment.process_all().await;
    settled().await;
    let same = again(old, etag(&of_old)).await;
    assert_eq!(same.status, 304, "{}", same.body);
    assert!(same.calls() <= 8, "{} calls for days that nothing has touched", same.calls());
    let changed = again(new, etag(&of_new)).await;
    assert_eq!(changed.status, 200);
    let all: Vec<Row> = rows.iter().cloned().chain(late("2024-06-25", 43)).collect();
    assert_eq!(pairs(&changed.json(), "track_id"), greatest(&fold(&all, &["2024-06-25"], track), 10));

    // A late file of one of the days, and a rebuild of another, change what is said of them.
    deployment.put("incoming/late.csv", csv_of(&late("2024-06-17", 44))).await;
    deployment.process_all().await;
    settled().await;
    let later = again(old, etag(&of_old)).await;
    assert_eq!(later.status, 200);
    let all: Vec<Row> = all.into_iter().chain(late("2024-06-17", 44)).collect();
    let expected = greatest(&fold(&all, &DATES[..5], track), 10);
    assert_eq!(pairs(&later.json(), "track_id"), expected);
    deployment.put("reference/songs.csv", songs_csv().replace("\"Song ", "\"Tune ")).await;
    let rebuilt = program(
        &["replay", "--date", "2024-06-18", "--rebuild"],
        &[("MUSIC_STREAMS_BUCKET", &deployment.bucket), ("MUSIC_STREAMS_TABLE_PREFIX", &deployment.table_prefix)],
    );
    assert!(rebuilt.success, "{}", rebuilt.stderr);
    settled().await;
    let day = served.get("/api/v1/top/tracks?from=2024-06-18&to=2024-06-18").await;
    assert!(day.body.contains("Tune "), "a rebuild is seen: {}", day.body);
    assert_eq!(pairs(&again(old, etag(&of_old)).await.json(), "track_id"), expected, "and figures are as before");
}

/// Listens of one day.
fn rows_of(seed: u64, date: &'static str, count: usize) -> Vec<Row> {
    rows(seed, count).into_iter().map(|row| Row { date, ..row }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_is_a_problem_that_says_what_to_do() {
    let deployment = Deployment::new("problems").await;
    let served = Served::start(&deployment, &[], &[]).await;
    // Nothing was counted yet.
    let page = served.get("/").await;
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(page.body.contains("incoming/"), "the empty page says what to do");
    assert_eq!(served.get("/api/v1/top/tracks").await.json()["items"], serde_json::json!([]));

    for (path, status, words) in [
        ("/api/v1/top/track", 404, "the reports are tracks"),
        ("/api/v1/top/tracks?dayz=3", 400, "the parameters are days"),
        ("/api/v1/top/tracks?days=0", 400, "from 1 to 400"),
        ("/api/v1/top/tracks?limit=1000&days=400", 400, "at most 10000"),
        ("/api/v1/top/tracks?under=jazz", 400, "track_genre:VALUE"),
        ("/api/v1/series/tracks", 400, "track_id"),
        ("/api/v2", 404, "/api/v1"),
    ] {
        let answer = served.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, "application/problem+json"), "{path}");
        let problem = answer.json();
        assert!(problem["detail"].as_str().unwrap().contains(words), "{path}: {problem}");
        assert_eq!(problem["status"].as_u64(), Some(status.into()));
    }
    for path in ["/", "/pipeline", "/api", "/api/v1", "/api/v1/freshness", "/api/v1/pipeline", "/live", "/ready"] {
        let answer = served.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(!answer.body.contains("style=") && !answer.body.contains("https://fonts"), "{path}");
    }
    // Its style, script and icon are there, under names that change with them.
    let names: BTreeMap<&str, &str> = page
        .body
        .split('"')
        .filter(|part| part.contains("assets/"))
        .map(|part| (part, part.rsplit('.').next().unwrap()))
        .collect();
    assert!(names.len() >= 3, "{names:?}");
    for name in names.keys() {
        let asset = served.get(&format!("/{}", name.trim_start_matches("./"))).await;
        assert_eq!(asset.status, 200, "{name}");
        assert!(asset.header("cache-control").contains("immutable"));
    }

    // Names of elsewhere that lead here, other methods, and addresses that others can reach.
    assert_eq!(served.get_with("/api/v1", &[("Host", "evil.example")]).await.status, 421);
    assert_eq!(served.ask(reqwest::Method::POST, "/api/v1", &[]).await.status, 405);
    let head = served.ask(reqwest::Method::HEAD, "/api/v1", &[]).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let gzip = served.get_with("/api/v1/openapi.json", &[("Accept-Encoding", "gzip")]).await;
    assert_eq!(gzip.header("content-encoding"), "gzip");
    let open = program(&["serve", "--address", "0.0.0.0:0"], &[]);
    assert!(!open.success && open.stderr.contains("--auth"), "{}", open.stderr);

    let token = "a token of more than thirty-two bytes";
    let guarded = Served::start(&deployment, &["--auth", "token"], &[("MUSIC_STREAMS_SERVE_TOKEN", token)]).await;
    let without = guarded.get("/api/v1").await;
    assert_eq!((without.status, without.header("www-authenticate").starts_with("Basic")), (401, true));
    let page = guarded.get("/").await;
    assert!(page.status == 401 && !page.body.contains("Figures of"), "nothing is told: {}", page.body);
    assert_eq!(guarded.get_with("/api/v1", &[("Authorization", &format!("Bearer {token}"))]).await.status, 200);
    assert_eq!(guarded.get_with("/api/v1", &[("Authorization", "Bearer wrong")]).await.status, 401);
    assert_eq!(guarded.get("/live").await.status, 200, "a load balancer has no token");
}
