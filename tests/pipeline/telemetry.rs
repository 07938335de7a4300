//! Telemetry as a receiver of OTLP gets it: every metric of the table with its right value, and the traces of batches.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use axum::Router;
use axum::routing::{get, put};
use music_streams::telemetry::metrics::TABLE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::receiver::{Receiver, labels, listen};
use crate::served::Served;
use crate::support::*;

/// Starts a proxy to the service at `upstream` that answers the first request with a 503.
async fn refusing_once(upstream: String) -> String {
    let (listener, url) = listen().await;
    tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        let _ = first.read(&mut [0; 16_384]).await;
        let refusal = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        first.write_all(refusal).await.unwrap();
        drop(first);
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(upstream.strip_prefix("http://").unwrap()).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    url
}

/// Starts an ECS agent. Returns its URL, and the requests for protection that it gets.
async fn ecs_agent() -> (String, Arc<Mutex<Vec<String>>>) {
    let (listener, url) = listen().await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let protection = Arc::clone(&asked);
    let container = r#"{"DockerId": "abc-1", "Name": "consumer",
                        "ContainerARN": "arn:aws:ecs:eu-west-1:111122223333:container/c/1"}"#;
    let task = r#"{"Cluster": "c", "Family": "music-streams", "Revision": "7", "AvailabilityZone": "eu-west-1a",
                   "TaskARN": "arn:aws:ecs:eu-west-1:111122223333:task/c/158d1c", "LaunchType": "FARGATE"}"#;
    let routes =
        Router::new().route("/v4", get(async move || container)).route("/v4/task", get(async move || task)).route(
            "/task-protection/v1/state",
            put(async move |body: String| {
                protection.lock().unwrap().push(body);
                "{}"
            }),
        );
    tokio::spawn(async { axum::serve(listener, routes).await });
    (url, asked)
}

async fn registry_of(deployment: &Deployment, last: u64, batch: u64, state: &str, version: u64) {
    let number = |number: u64| AttributeValue::N(number.to_string());
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let entry = [("state", text(state)), ("owner", text("dead")), ("beat", number(7)), ("since", number(0))];
    let entry: HashMap<_, _> = entry.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let batches = AttributeValue::M([(batch.to_string(), AttributeValue::M(entry))].into());
    let table = format!("{}music_streams_ledger", deployment.table_prefix);
    let put = deployment.clients.dynamodb.put_item().table_name(table);
    let put = put.item("pk", text("registry")).item("sk", text("registry")).item("version", number(version));
    put.item("last", number(last)).item("batches", batches).send().await.unwrap();
}

async fn count_of_messages(deployment: &Deployment, count: u32) {
    eventually(format!("the queue has {count} messages"), Duration::from_secs(30), async || {
        deployment.messages_in(&deployment.queue_url).await == count
    })
    .await;
}

/// One run in which every counted event happens.
#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_exported_with_its_value() {
    let deployment = Deployment::new("metrics").await;
    let good: Vec<_> = (0..4).map(|seed| (seed, csv_of(&rows(9000 + seed, 300)))).collect();
    // A batch of a consumer that died, and a file whose notification is lost.
    registry_of(&deployment, 1, 1, "open", 1).await;
    deployment.put("incoming/found.csv", good[3].1.clone()).await;
    // That of the file, and the one that S3 tries the queue with.
    let sqs = &deployment.clients.sqs;
    for _ in 0..2 {
        let receive = sqs.receive_message().queue_url(&deployment.queue_url).wait_time_seconds(5);
        let received = receive.max_number_of_messages(1).send().await.unwrap();
        let handle = received.messages()[0].receipt_handle().unwrap();
        sqs.delete_message().queue_url(&deployment.queue_url).receipt_handle(handle).send().await.unwrap();
    }
    count_of_messages(&deployment, 0).await;
    // Only this one will be old enough for a sweep before it is claimed.
    tokio::time::sleep(Duration::from_secs(16)).await;

    let rejected = [
        ("width", "1,short\n"),
        ("missing", "1,,2024-06-25 00:00:00\n"),
        ("user_id", "x,track,2024-06-25 00:00:00\n"),
        ("track_id", "7,bad track,2024-06-25 00:00:00\n"),
        ("track_id", "7,bad \u{fc}track,2024-06-25 00:00:00\n"),
        ("listen_time", "7,track,never\n"),
        ("listen_time_range", "7,track,1999-12-31 00:00:00\n"),
    ];
    let bad_rows: String = rejected.iter().map(|(_, row)| *row).collect();
    let contents = [good[0].1.clone() + &bad_rows, good[1].1.clone(), good[2].1.clone()];
    for (name, content) in ["rejected.csv", "plain.csv", "same.csv"].into_iter().zip(&contents) {
        deployment.put(&format!("incoming/{name}"), content.clone()).await;
    }
    let broken = "no listening file\n";
    deployment.put("incoming/broken.csv", broken).await;
    deployment.put("incoming/gone.csv", "x").await;
    let s3 = &deployment.clients.s3;
    s3.delete_object().bucket(&deployment.bucket).key("incoming/gone.csv").send().await.unwrap();
    count_of_messages(&deployment, 5).await;

    let receiver = Receiver::default();
    let (ecs, protection) = ecs_agent().await;
    let environment = [
        ("AWS_ENDPOINT_URL", &refusing_once(std::env::var("AWS_ENDPOINT_URL").unwrap()).await),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.over_grpc().await),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", &"grpc".to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", &"300".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", &"deployment.environment.name=test".to_owned()),
        ("ECS_CONTAINER_METADATA_URI_V4", &format!("{ecs}/v4")),
        ("ECS_AGENT_URI", &ecs),
    ];
    let environment = environment.map(|(name, value)| (name, value.as_str()));
    let consumer = deployment.consumer_in(&["--sweep-interval", "2s", "--sweep-age", "40s"], &environment);
    deployment.settled().await;
    deployment.registry_is_empty().await;
    receiver.reads("music_streams.ledger.recoveries", &[("what", "abandoned")], 1.0).await;
    // A counted file is put there again; then an unreadable message arrives.
    deployment.put("incoming/same.csv", contents[2].clone()).await;
    receiver.reads("music_streams.objects", &[("outcome", "duplicate")], 1.0).await;
    deployment.send("not an event").await;
    receiver.reads("music_streams.queue.messages", &[("state", "in_flight")], 1.0).await;
    receiver.reads("music_streams.queue.in_flight_share", &[], 1.0 / 120_000.0).await;
    eventually("a sweep finds what lies there again", Duration::from_secs(180), async || {
        receiver.sum("music_streams.sweep.objects", &[("finding", "left_over")]).value >= 1.0
    })
    .await;
    // A server of the figures exports its own. It ends first, so that the last values of all others are the consumer's.
    let served = Served::start(&deployment, &[], &environment).await;
    assert_eq!(served.get("/api/v1").await.status, 200);
    receiver.reads("music_streams.serve.requests", &[("status", "2xx")], 1.0).await;
    drop(served);
    let log = consumer.log();
    consumer.stop();

    let value = |name: &str, of: &[(&str, &str)]| receiver.sum(&format!("music_streams.{name}"), of).value;
    let rows_read = 4 * 300 + rejected.len();
    assert_eq!(value("rows.read", &[]), rows_read as f64);
    assert_eq!(value("rows.curated", &[]), 1200.0);
    for (reason, _) in rejected {
        let expected = rejected.iter().filter(|(other, _)| *other == reason).count();
        assert_eq!(value("rows.rejected", &[("reason", reason)]), expected as f64, "{reason}");
    }
    for (outcome, expected) in [("archived", 4), ("quarantined", 1), ("superseded", 1), ("duplicate", 1)] {
        assert_eq!(value("objects", &[("outcome", outcome)]), f64::from(expected), "{outcome}");
    }
    let bytes = contents.iter().map(String::len).sum::<usize>() + good[3].1.len() + broken.len() + "x".len();
    assert_eq!(value("objects.size", &[]), bytes as f64);
    for (report, table) in [
        ("tracks", "track_level_reports"),
        ("genres", "genre_level_reports"),
        ("listeners", "listener_level_reports"),
        ("artists", "artist_level_reports"),
        ("countries", "country_level_reports"),
        ("days", "day_level_reports"),
        ("hours", "hour_level_reports"),
        ("top_list", "top_lists"),
    ] {
        // Each write counts the version up.
        let written: u64 = deployment.scan(table).await.iter().map(|item| number(item, "version")).sum();
        assert_eq!(value("report_items.written", &[("report", report)]), written as f64, "{report}");
    }
    assert_eq!(value("report_items.conflicts", &[]), 0.0, "nobody else wrote");
    let ledger = deployment.scan("music_streams_ledger").await;
    let done = ledger.iter().filter(|item| text(item, "state") == "done").count();
    assert_eq!(
        (value("batches", &[("outcome", "done")]), value("batches", &[("outcome", "failed")])),
        (done as f64, 0.0)
    );
    for stage in ["claim", "transform", "commit", "upsert", "publish", "archive"] {
        let took = receiver.sum("music_streams.batch.stage.duration", &[("stage", stage)]);
        assert_eq!(took.count, done as u64, "{stage}");
        assert!(took.value > 0.0 && took.value < 60.0, "{stage}: {took:?}");
    }
    let freshness = receiver.sum("music_streams.freshness", &[]);
    assert_eq!(freshness.count, 4, "an object that is counted");
    assert!(freshness.value > 2.0 && freshness.value < 240.0, "{freshness:?}");
    assert_eq!(value("ledger.recoveries", &[("what", "adopted")]), 0.0);
    assert_eq!(value("sweep.objects", &[("finding", "found")]), 1.0);
    assert_eq!((value("window.objects", &[]), value("window.fill", &[])), (0.0, 0.0));
    assert!((0.0..60.0).contains(&value("queue.oldest_message_age", &[])));
    assert_eq!(
        value("aws.requests", &[("rpc.method", "CopyObject"), ("outcome", "ok")]),
        5.0,
        "archived or quarantined"
    );
    let requests = || receiver.readings().into_iter().filter(|((name, _), _)| name == "music_streams.aws.requests");
    let throttled = || requests().filter(|((_, labels), _)| labels["outcome"] == "throttled").collect::<Vec<_>>();
    assert_eq!(value("aws.requests", &[("outcome", "throttled")]), 1.0, "{:?}", throttled());
    assert_eq!(value("aws.retries", &[]), 1.0);
    assert!(receiver.sum("messaging.client.consumed.messages", &[]).value >= 7.0);
    assert!((10e6..1e9).contains(&receiver.sum("process.memory.usage", &[]).value));
    let seen: BTreeSet<_> = receiver.readings().into_keys().map(|(name, _)| name).collect();
    assert_eq!(seen, TABLE.iter().map(|metric| metric.name.to_owned()).collect(), "every metric of the table");
    for (name, labels) in receiver.readings().into_keys() {
        let known = TABLE.iter().find(|metric| metric.name == name).unwrap();
        let names: BTreeSet<_> = known.labels.iter().map(|(label, _)| (*label).to_owned()).collect();
        assert_eq!(labels.keys().cloned().collect::<BTreeSet<_>>(), names, "{name}");
        for (label, values) in known.labels.iter().filter(|(_, values)| !values.is_empty()) {
            assert!(values.contains(&labels[*label].as_str()), "{name} {label}={}", labels[*label]);
        }
    }

    let resource = receiver.resource();
    for (name, expected) in [
        ("service.name", "music-streams"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("deployment.environment.name", "test"),
        ("cloud.platform", "aws_ecs"),
        ("cloud.region", "eu-west-1"),
        ("aws.ecs.task.id", "158d1c"),
        ("container.name", "consumer"),
    ] {
        assert_eq!(resource.get(name).map(String::as_str), Some(expected), "{name}");
    }
    // A batch protects the task from its commit to its end.
    let protection: Vec<serde_json::Value> =
        protection.lock().unwrap().iter().map(|body| serde_json::from_str(body).unwrap()).collect();
    assert_eq!(protection.first().unwrap()["ProtectionEnabled"], true);
    assert_eq!(protection.last().unwrap()["ProtectionEnabled"], false);

    // A span for each batch, with its stages below it, and its id in the log.
    let spans = receiver.spans();
    let batches: Vec<_> = spans.iter().filter(|span| span.name == "batch").collect();
    let with_rows: Vec<_> = batches.iter().filter(|span| labels(&span.attributes).contains_key("rows")).collect();
    assert_eq!(with_rows.len(), done);
    for batch in with_rows {
        let stages: Vec<_> =
            spans.iter().filter(|span| span.parent_span_id == batch.span_id).map(|span| span.name.as_str()).collect();
        assert_eq!(stages, ["claim", "transform", "commit", "upsert", "publish", "archive"]);
        let trace_id: String = batch.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let line = log.lines().find(|line| line.contains("batch done") && line.contains(&trace_id));
        assert!(line.is_some(), "no line of trace {trace_id} in\n{log}");
    }
    let rows: u64 = batches.iter().filter_map(|span| labels(&span.attributes).get("rows")?.parse::<u64>().ok()).sum();
    assert_eq!(rows, rows_read as u64);
}

/// A consumer that finishes another's batch continues its trace.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_one_trace_whoever_finishes_it() {
    let deployment = Deployment::new("traces").await;
    let receiver = Receiver::default();
    let url = receiver.over_http().await;
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_SERVICE_NAME", "streams-of-a-test")];
    let rows = rows(9100, 200);
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    let first = deployment.consumer_in(&[], &environment);
    deployment.settled().await;
    first.stop();
    // As if it had died right before it said that it was done.
    registry_of(&deployment, 1, 1, "committed", 9).await;
    let second = deployment.consumer_in(&[], &environment);
    second.logged("batch done after recovery").await;
    second.stop();
    deployment.assert_clean().await;
    Expected::of(&rows).assert_reported(&deployment).await;

    let spans = receiver.spans();
    let find = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let (batch, recovery) = (find("batch"), find("batch recovery"));
    assert_eq!(recovery.trace_id, batch.trace_id);
    assert_eq!(recovery.parent_span_id, batch.span_id);
    assert_eq!(receiver.sum("music_streams.ledger.recoveries", &[("what", "adopted")]).value, 1.0);
    assert_eq!(receiver.resource()["service.name"], "streams-of-a-test");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_exported_unless_an_endpoint_is_given() {
    let deployment = Deployment::new("silent").await;
    // The default ports of exporters. One that another program has cannot be checked.
    let mut defaults = Vec::new();
    for port in [4317, 4318] {
        defaults.extend(TcpListener::bind(("127.0.0.1", port)).await.ok());
    }
    let (elsewhere, url) = listen().await;
    let environments = [
        vec![("OTEL_METRIC_EXPORT_INTERVAL", "100"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
        vec![("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())],
        vec![
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ],
    ];
    for (seed, environment) in (9200..).zip(environments) {
        deployment.put("incoming/a.csv", csv_of(&rows(seed, 50))).await;
        let consumer = deployment.consumer_in(&["--window", "1s"], &environment);
        deployment.settled().await;
        consumer.stop();
    }
    for listener in defaults.iter().chain([&elsewhere]) {
        let connected = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
        assert!(connected.is_err(), "somebody connected to {:?}", listener.local_addr());
    }
}

/// An endpoint that does not answer delays neither work nor shutdown.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_down_holds_nothing_up() {
    let deployment = Deployment::new("down").await;
    let mut all = Vec::new();
    // Takes connections and never says anything.
    let (_mute, url) = listen().await;
    for (seed, protocol) in [(9300, "grpc"), (9301, "http/protobuf")] {
        let rows = rows(seed, 100);
        deployment.put("incoming/a.csv", csv_of(&rows)).await;
        all.extend(rows);
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
        ];
        let consumer = deployment.consumer_in(&[], &environment);
        deployment.settled().await;
        deployment.registry_is_empty().await;
        let stopping = Instant::now();
        consumer.stop();
        assert!(stopping.elapsed() < Duration::from_secs(10), "{protocol}: {:?}", stopping.elapsed());
    }
    Expected::of(&all).assert_reported(&deployment).await;
}
