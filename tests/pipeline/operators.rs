//! The commands of operators: the audit, the overview, a file's history, the way back from the dead-letter queue.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};

use crate::replay::{OF_ALL, TABLES};
use crate::support::*;

/// Runs a command on a deployment.
pub fn ask(deployment: &Deployment, arguments: &[&str]) -> Ended {
    let environment = [
        ("MUSIC_STREAMS_QUEUE_URL", deployment.queue_url.as_str()),
        ("MUSIC_STREAMS_BUCKET", deployment.bucket.as_str()),
        ("MUSIC_STREAMS_TABLE_PREFIX", deployment.table_prefix.as_str()),
    ];
    program(arguments, &environment)
}

/// Verifies both days of the generated rows. Returns the subject of each difference, all notes and the summary.
pub fn verify(deployment: &Deployment, arguments: &[&str]) -> (bool, Vec<Value>, Vec<String>, Value) {
    let days = ["verify", "--date", "2024-06-24", "--date", "2024-06-25", "--format", "json"];
    let ended = ask(deployment, &[&days, arguments].concat());
    let lines: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| lines.iter().map(|line| line[name].clone()).filter(|it| !it.is_null()).collect::<Vec<_>>();
    let notes = of("note").iter().map(|note| note.as_str().unwrap().to_owned()).collect();
    let summary = of("summary").pop().unwrap_or_else(|| panic!("{}{}", ended.stdout, ended.stderr));
    (ended.success, of("difference"), notes, summary)
}

/// Returns a deployment on which good, bad and broken files were processed in several batches.
async fn worked_off(test: &str) -> (Deployment, Vec<Row>) {
    let deployment = Deployment::new(test).await;
    let mut all = Vec::new();
    for seed in 0..5 {
        let rows = rows(7000 + seed, 500);
        let csv = csv_of(&rows) + "x,bad user,2024-06-25 00:00:00\n7,bad-time,never\n";
        let content = if seed == 2 { gzip(csv.as_bytes()) } else { csv.into_bytes() };
        deployment.put(&format!("incoming/{seed} +é.csv"), content).await;
        all.extend(rows);
    }
    deployment.put("incoming/broken.csv", "no,listening,file\n").await;
    let consumer = deployment.consumer(&["--max-objects", "2"]);
    deployment.settled().await;
    consumer.stop();
    (deployment, all)
}

/// The entry of a top list that an item would make.
fn entry_of(item: &Item, columns: &AttributeValue) -> AttributeValue {
    let value =
        |column: &AttributeValue| item.get(column.as_s().unwrap()).cloned().unwrap_or(AttributeValue::Null(true));
    AttributeValue::L(columns.as_l().unwrap().iter().map(value).collect())
}

#[tokio::test]
async fn the_auditor_agrees_with_what_is_right_and_lists_every_difference() {
    let (deployment, all) = worked_off("verify").await;
    let agreed = verify(&deployment, &[]);
    let (success, differences, notes, summary) = &agreed;
    assert!(success, "{differences:#?}");
    assert_eq!((differences.len(), notes.len()), (0, 0), "{differences:#?} {notes:#?}");
    let mut items = 0;
    for (table, _) in TABLES.into_iter().chain(OF_ALL).filter(|(table, _)| *table != "top_lists") {
        items += deployment.scan(table).await.len();
    }
    let top_lists = deployment.top_lists().await.len();
    assert_eq!(
        *summary,
        json!({"curated_rows": all.len(), "report_items": items, "top_lists": top_lists, "archived_files": 5,
               "batches": deployment.batches().await, "differences": 0})
    );
    // The same with far less memory than the items take, in many passes.
    assert_eq!(verify(&deployment, &["--max-report-items", "50"]), agreed);

    // The same content put there again is no difference, but is noted.
    let archived = deployment.keys("archive/").await;
    let place = |name: &str| archived.iter().find(|key| key.ends_with(name)).unwrap().clone();
    tokio::time::sleep(Duration::from_secs(1)).await;
    deployment.put("incoming/0 +é.csv", deployment.get(&place("0 +é.csv")).await).await;
    let (success, _, notes, _) = verify(&deployment, &[]);
    assert!(
        success && notes == ["incoming/0 +é.csv was put there again with content that was counted before"],
        "{notes:?}"
    );

    // Now everything goes wrong that can.
    let table = |name: &str| format!("{}{name}", deployment.table_prefix);
    let dynamodb = &deployment.clients.dynamodb;
    let tracks = deployment.scan("track_level_reports").await;
    let busiest = tracks.iter().max_by_key(|item| number(item, "total_listens")).unwrap();
    let mut wrong = busiest.clone();
    wrong.insert("total_listens".into(), AttributeValue::N((number(busiest, "total_listens") + 1).to_string()));
    dynamodb.put_item().table_name(table("track_level_reports")).set_item(Some(wrong)).send().await.unwrap();

    let listeners = deployment.scan("listener_level_reports").await;
    let listener = &listeners[0];
    let delete = dynamodb.delete_item().table_name(table("listener_level_reports"));
    let delete = delete.key("user_id", listener["user_id"].clone()).key("report_date", listener["report_date"].clone());
    delete.send().await.unwrap();

    let mut invented = deployment.scan("genre_level_reports").await.remove(0);
    invented.insert("track_genre".into(), AttributeValue::S("invented".into()));
    let date = text(&invented, "report_date").to_owned();
    dynamodb.put_item().table_name(table("genre_level_reports")).set_item(Some(invented)).send().await.unwrap();

    // Of one list the first entry is lost, and another should not be there.
    let mut lists = deployment.scan("top_lists").await;
    let columns = lists.iter().find(|list| text(list, "list") == "tracks").unwrap()["columns"].clone();
    let mut list = lists.remove(0);
    let AttributeValue::L(entries) = list.get_mut("entries").unwrap() else { panic!("no entries") };
    entries.remove(0);
    let (list_name, list_date) = (text(&list, "list").to_owned(), text(&list, "report_date").to_owned());
    dynamodb.put_item().table_name(table("top_lists")).set_item(Some(list.clone())).send().await.unwrap();
    list.insert("list".into(), AttributeValue::S("tracks#track_genre#invented".into()));
    list.insert("entries".into(), AttributeValue::L(vec![entry_of(busiest, &columns)]));
    list.insert("columns".into(), columns);
    dynamodb.put_item().table_name(table("top_lists")).set_item(Some(list)).send().await.unwrap();

    // One archived file lost, one changed in a way that no count shows.
    let s3 = &deployment.clients.s3;
    s3.delete_object().bucket(&deployment.bucket).key(place("1 +é.csv")).send().await.unwrap();
    let csv = String::from_utf8(deployment.get(&place("3 +é.csv")).await).unwrap();
    let first = csv.lines().nth(1).unwrap();
    deployment.put(&place("3 +é.csv"), csv.replacen(first, &format!("1{first}"), 1)).await;
    // One file never left, as far as its batch can know.
    let mut lying = None;
    for key in deployment.keys("batches/").await.into_iter().filter(|key| key.ends_with("manifest.json")) {
        let text = String::from_utf8(deployment.get(&key).await).unwrap();
        let mut manifest: Value = serde_json::from_str(&text).unwrap();
        for object in manifest["objects"].as_array_mut().unwrap() {
            if object["object"]["key"] == "incoming/0 +é.csv" {
                object["created_at"] = json!("2100-01-01T00:00:00Z");
                lying = Some(key.clone());
            }
        }
        deployment.put(&key, manifest.to_string()).await;
    }
    assert!(lying.is_some());

    let (success, differences, _, summary) = verify(&deployment, &["--scan"]);
    assert!(!success);
    let about: Vec<&str> = differences.iter().map(|difference| difference["about"].as_str().unwrap()).collect();
    let require = |start: String, end: &str| {
        let found = about.iter().filter(|about| about.starts_with(&start) && about.ends_with(end)).count();
        assert_eq!(found, 1, "{start} … {end} in {differences:#?}");
    };
    require(format!("{} of {} in ", text(busiest, "track_id"), text(busiest, "report_date")), "track_level_reports");
    require(
        format!("{} of {} in ", text(listener, "user_id"), text(listener, "report_date")),
        "listener_level_reports",
    );
    require(format!("invented of {date} in "), "genre_level_reports");
    require(format!("place 1 of the top list {list_name} of {list_date}"), "");
    require(format!("place 1 of the top list tracks#track_genre#invented of {list_date}"), "");
    require(place("1 +é.csv"), "");
    require("incoming/0 +é.csv".to_owned(), "");
    // The file that is lost and the one that was changed leave their batches short or wrong, on the days of their rows.
    let curated = about.iter().filter(|about| about.starts_with("curated rows of batch ")).count();
    assert!((2..=4).contains(&curated), "{differences:#?}");
    let rejected = about.iter().filter(|about| about.starts_with("rejected rows of batch ")).count();
    assert_eq!(rejected, 1, "of the lost file: {differences:#?}");
    assert_eq!(about.len(), 7 + curated + rejected, "{differences:#?}");
    assert_eq!(summary["differences"], about.len());

    // What no row explains is found by a scan, and not without.
    let (_, without, ..) = verify(&deployment, &[]);
    let of_scan = |about: &&Value| about["about"].as_str().unwrap().contains("invented");
    assert_eq!(without.len() + differences.iter().filter(of_scan).count(), differences.len(), "{without:#?}");

    let people = ask(&deployment, &["verify", "--scan", "--date", "2024-06-24", "--date", "2024-06-25"]);
    assert!(people.stdout.contains(&format!(": {} differences", about.len())), "{}", people.stdout);
    assert!(people.stdout.contains("DIFFERENCE ") && people.stderr.contains("differences"), "{}", people.stderr);
}

#[tokio::test]
async fn the_auditor_works_beside_consumers() {
    let deployment = Deployment::new("beside").await;
    let consumer = deployment.consumer(&["--window", "1s", "--max-objects", "3"]);
    let mut verified = 0;
    for seed in 0..24 {
        deployment.put(&format!("incoming/{seed}.csv"), csv_of(&rows(8000 + seed, 300))).await;
        if seed % 3 == 2 {
            let (success, differences, ..) = verify(&deployment, &[]);
            assert!(success, "{differences:#?}");
            verified += 1;
        }
    }
    deployment.settled().await;
    consumer.stop();
    let (success, differences, notes, summary) = verify(&deployment, &[]);
    assert!(success && notes.is_empty(), "{differences:#?} {notes:?}");
    assert_eq!((verified, &summary["curated_rows"]), (8, &json!(24 * 300)));
}

#[tokio::test]
async fn status_shows_the_work_and_tells_the_story_of_a_file() {
    let (deployment, _) = worked_off("status").await;
    let overview =
        || -> Value { serde_json::from_str(&ask(&deployment, &["status", "--format", "json"]).stdout).unwrap() };
    let status = overview();
    assert_eq!(status["queue"], json!({"waiting": 0, "in_flight": 0, "delayed": 0}));
    assert_eq!((&status["dead_letters"], &status["unfinished_batches"]), (&json!(0), &json!([])));
    let batches = status["recent_batches"].as_array().unwrap();
    let sum = |name: &str| batches.iter().map(|batch| batch[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!(batches.len() as u64, deployment.batches().await);
    assert_eq!((sum("objects"), sum("archived"), sum("quarantined"), sum("gone")), (6, 5, 1, 0));
    assert_eq!((sum("rows"), sum("rejected")), (5 * 502, 10));
    assert!((0..120).contains(&status["lag_s"].as_i64().unwrap()), "{status}");
    let sweep = &status["last_sweep"];
    assert!(sweep["started_at"].is_string() && sweep["finished_at"].is_string() && sweep["found"] == 0, "{status}");

    // The dead consumer's batch stays open, and what it read stays in flight.
    deployment.put("incoming/later.csv", csv_of(&rows(1, 40_000))).await;
    let consumer = deployment.consumer(&["--max-rows-per-second", "4096", "--visibility-timeout", "30s"]);
    let object = |key: &str| format!("s3://{}/{key}", deployment.bucket);
    let story = |key: &str| ask(&deployment, &["status", "--object", &object(key)]).stdout;
    consumer.logged("ready").await;
    let open = eventually_some("the batch is shown as open", Duration::from_secs(60), async || {
        let status = overview();
        let is_open = status["unfinished_batches"][0]["state"] == "open";
        if is_open && story("incoming/later.csv").contains("is open") { Ok(status) } else { Err(status) }
    })
    .await;
    consumer.kill();
    assert_eq!(open["queue"]["in_flight"], 1, "{open}");
    let people = ask(&deployment, &["status"]).stdout;
    assert!(people.contains("1 in flight") && people.contains("At work") && people.contains("Finished"), "{people}");

    let told = story("incoming/2 +é.csv");
    let archived = deployment.keys("archive/").await;
    let place = archived.iter().find(|key| key.ends_with("2 +é.csv")).unwrap();
    assert!(told.contains(&format!("counted, and archived at {place}")), "{told}");
    assert!(told.contains("502 rows, 2 of them rejected\n    rejected rows are listed in quarantine/rows/"), "{told}");
    let told = story("incoming/broken.csv");
    assert!(
        told.contains("quarantined at quarantine/objects/") && told.contains("lacks the columns user_id"),
        "{told}"
    );
    let told = story("incoming/later.csv");
    assert!(told.contains("is being prepared by") && told.contains("lies there since"), "{told}");
    assert!(story("incoming/never.csv").contains("nothing is known of it"));
    deployment.put("incoming/waiting.csv", "x").await;
    assert!(story("incoming/waiting.csv").contains("no batch has it yet"));
    let json = ask(&deployment, &["status", "--format", "json", "--object", &object("incoming/broken.csv")]).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    let claim = &json["contents"][0]["claim"];
    assert_eq!((&claim["state"], &claim["decision"]["fate"]), (&json!("done"), &json!("quarantined")));
    let wrong = ask(&deployment, &["status", "--object", "s3://bucket/archive/x"]);
    assert!(!wrong.success && wrong.stderr.contains("s3://BUCKET/incoming/"), "{}", wrong.stderr);
}

#[tokio::test]
async fn dead_letters_are_shown_with_their_reason_and_can_be_sent_back() {
    let deployment = Deployment::with("dead-letters", &["MaxReceiveCount=2"]).await;
    deployment.send("this is no event").await;
    let consumer = deployment.consumer(&[]);
    eventually("the message is a dead letter", Duration::from_secs(90), async || {
        deployment.messages_in(&deployment.dead_letter_queue_url).await > 0
    })
    .await;
    consumer.stop();
    for _ in 0..2 {
        let shown = ask(&deployment, &["dead-letters", "--format", "json"]).stdout;
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown.as_array().unwrap().len(), 1, "{shown}");
        assert_eq!(shown[0]["body"], "this is no event");
        assert!(shown[0]["reason"].as_str().unwrap().starts_with("not JSON"), "{shown}");
    }
    assert!(ask(&deployment, &["dead-letters"]).stdout.contains("this is no event"));
    if is_ministack() {
        return; // It does not move messages.
    }
    let moved = ask(&deployment, &["dead-letters", "--redrive"]);
    assert!(moved.stdout.contains("1 messages were moved back"), "{}{}", moved.stdout, moved.stderr);
    assert_eq!(deployment.messages_in(&deployment.dead_letter_queue_url).await, 0);
    assert_eq!(ask(&deployment, &["dead-letters"]).stdout, "no dead letters\n");
    assert!(deployment.receive().await.iter().any(|(_, body)| body == "this is no event"));
}

#[tokio::test]
async fn twenty_deployments_in_mid_window_send_nothing_to_the_dead_letters() {
    let deployment = Deployment::new("deployments").await;
    let mut all = Vec::new();
    for deploy in 0..20 {
        for part in 0..2 {
            let rows = rows(9000 + 10 * deploy + part, 200);
            deployment.put(&format!("incoming/{deploy}-{part}.csv"), csv_of(&rows)).await;
            all.extend(rows);
        }
        let consumer = deployment.consumer(&["--window", "11h"]);
        consumer.logged("ready").await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        consumer.stop();
    }
    assert!(deployment.batches().await <= 1, "every stop fell into a window, whose edge may fall into this test");
    deployment.process_all().await;
    deployment.assert_clean().await;
    Expected::of(&all).assert_reported(&deployment).await;
}
