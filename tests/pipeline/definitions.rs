//! Definitions that come into force: under load, on an empty pipeline, and those that cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};

use crate::operators::{ask, verify};
use crate::support::data::country;
use crate::support::*;

/// A report that the built-in definition does not have.
const LANDS: &str = r#"
[reports.lands]
key = "user_country"
[reports.lands.measures]
listens = "count"
tracks = { distinct = "track_id" }
"#;

/// Makes a report's table.
async fn make_table(deployment: &Deployment, table: &str, keys: [&str; 2]) {
    let attribute = |name: &str| {
        let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
        attribute.build().unwrap()
    };
    let key = |name: &str, type_| KeySchemaElement::builder().attribute_name(name).key_type(type_).build().unwrap();
    let create = deployment.clients.dynamodb.create_table().billing_mode(BillingMode::PayPerRequest);
    let create = create.table_name(format!("{}{table}", deployment.table_prefix));
    let create = create.attribute_definitions(attribute(keys[0])).attribute_definitions(attribute(keys[1]));
    let create = create.key_schema(key(keys[0], KeyType::Hash)).key_schema(key(keys[1], KeyType::Range));
    create.send().await.unwrap();
}

/// Writes a definition to a file of its own.
fn file_of(deployment: &Deployment, definition: &str) -> String {
    static FILES: AtomicUsize = AtomicUsize::new(0);
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("{}-{number}.toml", deployment.bucket));
    std::fs::write(&path, definition).unwrap();
    path.to_str().unwrap().to_owned()
}

fn built_in() -> String {
    program(&["definition", "show"], &[]).stdout
}

/// Puts a definition in force. Returns what was said.
fn apply(deployment: &Deployment, definition: &str, arguments: &[&str]) -> Ended {
    let file = file_of(deployment, definition);
    let ended = ask(deployment, &[&["definition", "apply", &file, "--yes"], arguments].concat());
    std::fs::remove_file(file).unwrap();
    ended
}

/// The items of the new report, as country and day, and those that rows make by a plain fold.
async fn lands(deployment: &Deployment) -> BTreeMap<(String, String), (u64, u64)> {
    let items = deployment.scan("lands").await;
    let key = |item: &Item| (text(item, "user_country").to_owned(), text(item, "report_date").to_owned());
    items.iter().map(|item| (key(item), (number(item, "listens"), number(item, "tracks")))).collect()
}

fn lands_of(rows: &[Row]) -> BTreeMap<(String, String), (u64, u64)> {
    let mut tracks: BTreeMap<(String, String), (u64, BTreeSet<u64>)> = BTreeMap::new();
    for row in rows {
        let of_item = tracks.entry((country(row.user).to_owned(), row.date.to_owned())).or_default();
        of_item.0 += 1;
        of_item.1.insert(row.track);
    }
    tracks.into_iter().map(|(key, (listens, tracks))| (key, (listens, tracks.len() as u64))).collect()
}

/// The digests that the manifests of finished batches name, by batch.
async fn digests(deployment: &Deployment) -> BTreeMap<u64, String> {
    let mut digests = BTreeMap::new();
    for key in deployment.keys("batches/").await.into_iter().filter(|key| key.ends_with("manifest.json")) {
        let manifest: serde_json::Value = serde_json::from_slice(&deployment.get(&key).await).unwrap();
        digests.insert(manifest["batch"].as_u64().unwrap(), manifest["definition"].as_str().unwrap().to_owned());
    }
    digests
}

#[tokio::test]
async fn a_definition_comes_into_force_under_load() {
    let deployment = Deployment::new("under-load").await;
    let consumers: Vec<_> = (0..3).map(|_| deployment.consumer(&["--window", "1s", "--max-objects", "2"])).collect();
    let mut all = Vec::new();
    let put = async |numbers: std::ops::Range<u64>| {
        let mut added = Vec::new();
        for number in numbers {
            let rows = rows(30_000 + number, 200);
            deployment.put(&format!("incoming/{number}.csv"), csv_of(&rows)).await;
            added.extend(rows);
        }
        added
    };
    all.extend(put(0..8).await);
    eventually("some batches are done", Duration::from_secs(60), async || digests(&deployment).await.len() >= 2).await;
    all.extend(put(8..20).await);
    let definition = built_in() + LANDS;
    let early = apply(&deployment, &definition, &[]);
    assert!(!early.success && early.stderr.contains("lands is not there"), "{}{}", early.stdout, early.stderr);
    make_table(&deployment, "lands", ["user_country", "report_date"]).await;
    let applied = apply(&deployment, &definition, &[]);
    assert!(
        applied.success && applied.stdout.contains("lands (table lands) counts from "),
        "{}{}",
        applied.stdout,
        applied.stderr
    );
    all.extend(put(20..30).await);
    deployment.settled_within(Duration::from_secs(180)).await;
    deployment.registry_is_empty().await;

    // Some batches are of the one definition and some of the other, and the later of the later.
    let digests = digests(&deployment).await;
    let names: Vec<&String> = digests.values().collect();
    let changes = names.windows(2).filter(|two| two[0] != two[1]).count();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 2, "{digests:?}");
    assert!(changes <= consumers.len() * 2, "{digests:?}");
    Expected::of(&all).assert_reported(&deployment).await;
    assert!(deployment.scan("lands").await.is_empty(), "it counts no day that was counted before");
    let (success, differences, ..) = verify(&deployment, &[]);
    assert!(success, "{differences:#?}");

    // A rebuild that does not end is gone on with by the next one.
    let archived = deployment.keys("archive/").await.remove(0);
    let content = deployment.get(&archived).await;
    let delete = deployment.clients.s3.delete_object().bucket(&deployment.bucket).key(&archived);
    delete.send().await.unwrap();
    let broken = ask(&deployment, &["replay", "--rebuild", "--date", "2024-06-24"]);
    assert!(!broken.success && broken.stderr.contains("is missing"), "{}{}", broken.stdout, broken.stderr);
    let status = ask(&deployment, &["status"]).stdout;
    assert!(status.contains("lands counts from 2024-06-24, and its PAST IS INCOMPLETE"), "{status}");
    deployment.put(&archived, content).await;

    // The past is filled by a rebuild, of the later day too; and what comes later is counted.
    let rebuilt = ask(&deployment, &["replay", "--rebuild", "--date", "2024-06-24"]);
    assert!(rebuilt.success && rebuilt.stdout.contains("2024-06-25: rebuilt"), "{}{}", rebuilt.stdout, rebuilt.stderr);
    assert_eq!(lands(&deployment).await, lands_of(&all));
    all.extend(put(30..33).await);
    deployment.settled().await;
    assert_eq!(lands(&deployment).await, lands_of(&all));
    Expected::of(&all).assert_reported(&deployment).await;
    let (success, differences, ..) = verify(&deployment, &[]);
    assert!(success, "{differences:#?}");
    let report = ask(&deployment, &["report", "lands", "Peru", "--date", "2024-06-25"]);
    assert!(report.success && report.stdout.contains("listens"), "{}{}", report.stdout, report.stderr);
    let status = ask(&deployment, &["status"]).stdout;
    assert!(status.contains("lands counts from 2024-06-24") && !status.contains("INCOMPLETE"), "{status}");

    // A measure that was taken away does not come again: items have what they had.
    let less = built_in() + &LANDS.replace("tracks = { distinct = \"track_id\" }\n", "");
    let applied = apply(&deployment, &less, &[]);
    assert!(applied.success && applied.stdout.contains("it is gone"), "{}{}", applied.stdout, applied.stderr);
    let again = apply(&deployment, &definition, &[]);
    assert!(!again.success && again.stderr.contains("give the measure another name"), "{}", again.stderr);
    // A new one is in items that have it from their first batch on, and in all after a rebuild.
    let more = less + "listeners = { distinct = \"user_id\" }\n";
    let applied = apply(&deployment, &more, &[]);
    assert!(applied.success, "{}{}", applied.stdout, applied.stderr);
    all.extend(put(33..34).await);
    deployment.settled().await;
    assert!(deployment.scan("lands").await.iter().all(|item| !item.contains_key("listeners")));
    let (success, differences, ..) = verify(&deployment, &[]);
    assert!(success, "{differences:#?}");
    let rebuilt = ask(&deployment, &["replay", "--rebuild", "--date", "2024-06-25"]);
    assert!(rebuilt.success, "{}{}", rebuilt.stdout, rebuilt.stderr);
    let mut listeners: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for row in all.iter().filter(|row| row.date == "2024-06-25") {
        listeners.entry(country(row.user)).or_default().insert(row.user);
    }
    let items = deployment.scan("lands").await;
    for item in items.iter().filter(|item| text(item, "report_date") == "2024-06-25") {
        assert_eq!(number(item, "listeners"), listeners[text(item, "user_country")].len() as u64);
    }
    // Neither does a report, under the table that it had: its items are still there.
    let without = apply(&deployment, &built_in(), &[]);
    assert!(without.success && without.stdout.contains("its table stays"), "{}{}", without.stdout, without.stderr);
    let again = apply(&deployment, &more, &[]);
    assert!(!again.success && again.stderr.contains("was taken away before"), "{}{}", again.stdout, again.stderr);
    make_table(&deployment, "other_lands", ["user_country", "report_date"]).await;
    let other = more.replacen("[reports.lands]", "[reports.lands]\ntable = \"other_lands\"", 1);
    let applied = apply(&deployment, &other, &[]);
    assert!(
        applied.success && applied.stdout.contains("lands (table other_lands) counts from "),
        "{}{}",
        applied.stdout,
        applied.stderr
    );
    consumers.into_iter().for_each(Consumer::stop);
    deployment.assert_clean().await;
}

#[tokio::test]
async fn a_definition_that_cannot_come_into_force_changes_nothing() {
    let deployment = Deployment::new("refused").await;
    let rows = rows(31_000, 50);
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    deployment.process_all().await;
    let before = deployment.ledger_item("registry").await["definition"].clone();
    let good = built_in();
    let file = file_of(&deployment, &good.replacen("\n", "\nfuture = \"2d\"\n", 1));
    let unasked = ask(&deployment, &["definition", "apply", &file]);
    for (what, ended, told) in [
        ("a fault", apply(&deployment, &good.replace("format = \"csv\"", "format = \"cvs\""), &[]), "write 'csv'"),
        (
            "another key",
            apply(
                &deployment,
                &good.replace("[reports.genres]\nkey = \"track_genre\"", "[reports.genres]\nkey = \"user_country\""),
                &[],
            ),
            "its items have another key",
        ),
        ("no table", apply(&deployment, &(good.clone() + LANDS), &[]), "deploy the template"),
        (
            "old days",
            apply(&deployment, &good.replace("track_id = \"id\"", "track_id = { type = \"id\", max = 30 }"), &[]),
            "add --old-days-stay",
        ),
        ("nobody to ask", unasked, "nobody can be asked"),
    ] {
        assert!(!ended.success, "{what}: {}", ended.stdout);
        assert!(ended.stderr.contains(told) || ended.stdout.contains(told), "{what}: {}{}", ended.stdout, ended.stderr);
    }
    std::fs::remove_file(file).unwrap();
    let again = apply(&deployment, &good, &[]);
    assert!(again.success && again.stdout.contains("in force already"), "{}{}", again.stdout, again.stderr);
    assert_eq!(deployment.ledger_item("registry").await["definition"], before);
    make_table(&deployment, "lands", ["report_date", "user_country"]).await;
    let keys = apply(&deployment, &(good + LANDS), &[]);
    assert!(!keys.success && keys.stderr.contains("has the keys report_date and user_country"), "{}", keys.stderr);
}

#[tokio::test]
async fn a_definition_that_a_consumer_does_not_understand_stops_nobody_but_it() {
    let deployment = Deployment::new("unknown").await;
    make_table(&deployment, "lands", ["user_country", "report_date"]).await;
    let consumer = deployment.consumer(&["--window", "1s"]);
    consumer.logged("\"ready\"").await;
    let applied = apply(&deployment, &(built_in() + LANDS), &[]);
    assert!(applied.success, "{}", applied.stderr);
    let digest = applied.stdout.rsplit(' ').next().unwrap().trim().to_owned();
    // As if a later program had written it.
    let table = format!("{}music_streams_ledger", deployment.table_prefix);
    let key = format!("definition#{digest}");
    let stored = deployment.ledger_item(&key).await;
    let mut unknown = stored.clone();
    unknown.insert("text".into(), aws_sdk_dynamodb::types::AttributeValue::S("format = \"next\"".into()));
    let put = |item: Item| deployment.clients.dynamodb.put_item().table_name(&table).set_item(Some(item)).send();
    put(unknown).await.unwrap();
    let rows = rows(32_000, 50);
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    consumer.logged("needs another version of music-streams").await;
    assert_eq!(deployment.batches().await, 0, "no batch is opened");
    // A program that understands it takes the file up.
    put(stored).await.unwrap();
    deployment.settled().await;
    Expected::of(&rows).assert_reported(&deployment).await;
    consumer.stop();
}

#[tokio::test]
async fn orders_are_counted_as_a_plain_fold_counts_them() {
    let deployment = Deployment::new("orders").await;
    let definition = r#"
        name = "orders"
        time = "at"
        zone = "Europe/Lisbon"
        [input]
        format = "json"
        [columns]
        at = { type = "time", format = "unix" }
        sku = "id"
        customer = { type = "id", from = "customer.id", optional = true }
        amount = { type = "decimal", places = 2, min = 0 }
        [reports.skus]
        key = "sku"
        top = { by = "revenue" }
        [reports.skus.measures]
        orders = "count"
        customers = { distinct = "customer" }
        revenue = { sum = "amount" }
        [reports.hours]
        key = "*"
        every = "hour"
        [reports.hours.measures]
        orders = "count"
        least = { min = "amount" }
    "#;
    make_table(&deployment, "skus", ["sku", "report_date"]).await;
    make_table(&deployment, "hours", ["all", "report_hour"]).await;
    let applied = apply(&deployment, definition, &[]);
    assert!(applied.success && !applied.stdout.contains("counts from"), "{}{}", applied.stdout, applied.stderr);

    let mut random = Random(7);
    let (mut skus, mut hours) = (BTreeMap::new(), BTreeMap::new());
    for file in 0..6 {
        let mut lines = String::new();
        for _ in 0..300 {
            // 2026-03-28T20:00:00Z and two days on: the night in which the clocks of Lisbon go forward is among them.
            let at = 1_774_728_000 + random.below(2 * 86_400) as i64;
            let (sku, customer, cents) = (random.below(40), random.below(60), random.below(100_000));
            let amount = format!("{}.{:02}", cents / 100, cents % 100);
            lines += &format!(
                "{{\"at\":{at},\"customer\":{{\"id\":\"c{customer}\"}},\"sku\":\"s{sku}\",\"amount\":{amount}}}"
            );
            let time = jiff::Timestamp::from_second(at).unwrap();
            let day = time.to_zoned(jiff::tz::TimeZone::get("Europe/Lisbon").unwrap()).strftime("%Y-%m-%d").to_string();
            let item = skus.entry((format!("s{sku}"), day)).or_insert((0_u64, BTreeSet::new(), 0_u64));
            item.0 += 1;
            item.1.insert(customer);
            item.2 += cents;
            let hour = hours.entry(time.strftime("%Y-%m-%dT%H").to_string()).or_insert((0_u64, u64::MAX));
            *hour = (hour.0 + 1, hour.1.min(cents));
        }
        deployment.put(&format!("incoming/{file}.jsonl"), lines).await;
    }
    let consumer = deployment.consumer(&["--window", "1s", "--max-objects", "2"]);
    deployment.settled().await;
    consumer.stop();

    let cents = |item: &Item, name: &str| (item[name].as_n().unwrap().parse::<f64>().unwrap() * 100.0).round() as u64;
    let key = |item: &Item| (text(item, "sku").to_owned(), text(item, "report_date").to_owned());
    let found: BTreeMap<_, _> = deployment
        .scan("skus")
        .await
        .iter()
        .map(|item| (key(item), (number(item, "orders"), number(item, "customers"), cents(item, "revenue"))))
        .collect();
    let expected: BTreeMap<_, _> = skus
        .into_iter()
        .map(|(key, (orders, customers, cents))| (key, (orders, customers.len() as u64, cents)))
        .collect();
    assert_eq!(found, expected);
    let of_hour = |item: &Item| (text(item, "report_hour").to_owned(), (number(item, "orders"), cents(item, "least")));
    assert_eq!(deployment.scan("hours").await.iter().map(of_hour).collect::<BTreeMap<_, _>>(), hours);
    let days = ["2026-03-28", "2026-03-29", "2026-03-30"].map(|day| ["--date", day]).concat();
    let verified = ask(&deployment, &[&["verify"], &days[..]].concat());
    assert!(verified.success, "{}{}", verified.stdout, verified.stderr);
    let top = ask(&deployment, &["report", "skus", "--date", "2026-03-29", "--top", "3"]);
    assert!(top.success && top.stdout.contains("revenue"), "{}{}", top.stdout, top.stderr);
}
