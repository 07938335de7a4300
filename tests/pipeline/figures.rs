//! Figures: every report item and curated row is that of an independent fold, for few and many files and several
//! consumers.

use crate::support::*;

#[tokio::test]
async fn every_figure_is_that_of_an_independent_fold() {
    let deployment = Deployment::new("figures").await;
    let files: Vec<_> = (0..4).map(|seed| (format!("incoming/streams {seed}+ü.csv"), rows(seed, 2800))).collect();
    for (key, rows) in &files {
        deployment.put(key, csv_of(rows)).await;
    }
    deployment.process_all().await;
    deployment.assert_clean().await;

    let all: Vec<Row> = files.iter().flat_map(|(_, rows)| rows.clone()).collect();
    Expected::of(&all).assert_reported(&deployment).await;
    for reader in ["duckdb", "pyarrow", "polars"] {
        assert_eq!(curated_rows(&deployment, reader).await, expected_rows(&all), "as {reader} reads it");
    }
    // The archive holds each file byte for byte, under the name that a person knows.
    let archived = deployment.keys("archive/").await;
    assert_eq!(archived.len(), files.len());
    for (key, rows) in &files {
        let name = key.strip_prefix("incoming").unwrap();
        let place = archived.iter().find(|place| place.ends_with(name)).unwrap();
        assert_eq!(deployment.get(place).await, csv_of(rows).as_bytes());
    }
    assert!(deployment.keys("quarantine/").await.is_empty());
    assert_eq!(
        deployment.keys("curated/report_date=").await.len() as u64,
        2 * deployment.batches().await,
        "a file a day and batch"
    );
}

#[tokio::test]
async fn two_consumers_share_the_work() {
    let deployment = Deployment::new("two").await;
    let consumers = [deployment.consumer(&["--max-objects", "3"]), deployment.consumer(&["--max-objects", "3"])];
    let mut all = Vec::new();
    for seed in 0..12 {
        let rows = rows(2000 + seed, 400);
        deployment.put(&format!("incoming/{seed}.csv"), csv_of(&rows)).await;
        all.extend(rows);
    }
    deployment.settled().await;
    consumers.into_iter().for_each(Consumer::stop);
    deployment.assert_clean().await;
    Expected::of(&all).assert_reported(&deployment).await;
}

#[tokio::test]
async fn consumers_with_company_end_their_windows_at_moments_of_their_own() {
    let deployment = Deployment::new("company").await;
    let [one, other] = [(); 2].map(|()| deployment.consumer(&["--window", "1s", "--max-objects", "1"]));
    let (mut all, mut seed) = (Vec::new(), 4000);
    let mut put_until = async |what: &str, is_so: &dyn Fn() -> bool| {
        eventually(what, PATIENCE, async || {
            // Never more than they can process on a busy machine.
            if deployment.keys("incoming/").await.len() < 4 {
                let rows = rows(seed, 20);
                deployment.put(&format!("incoming/{seed}.csv"), csv_of(&rows)).await;
                (seed, all) = (seed + 1, [std::mem::take(&mut all), rows].concat());
            }
            is_so()
        })
        .await;
    };
    let company = "as other consumers share the queue";
    put_until("both see each other", &|| one.log().contains(company) && other.log().contains(company)).await;
    other.stop();
    // A window without company may have come before that, and is said once.
    let alone = "windows end 0s after the clock, as no other consumer shares the queue";
    let is_alone = || one.log().rfind(alone) > one.log().rfind(company);
    put_until("the other one is gone", &is_alone).await;
    deployment.settled().await;
    one.stop();
    Expected::of(&all).assert_reported(&deployment).await;
}

#[tokio::test]
async fn two_hundred_small_files_make_one_batch() {
    let deployment = Deployment::new("small").await;
    let mut all = Vec::new();
    for seed in 0..200 {
        let rows = rows(3000 + seed, 5);
        deployment.put(&format!("incoming/{seed}.csv"), csv_of(&rows)).await;
        all.extend(rows);
    }
    // Four seconds are enough to receive 200 messages; the batch itself may take as long as it takes.
    let consumer = deployment.consumer(&["--window", "10s"]);
    deployment.settled().await;
    consumer.stop();
    deployment.assert_clean().await;
    Expected::of(&all).assert_reported(&deployment).await;
    assert!(deployment.batches().await <= 2, "a clock edge may split them once");
}

#[tokio::test]
async fn the_catalogue_is_loaded_again_when_it_changes() {
    let deployment = Deployment::new("catalogue").await;
    let consumer = deployment.consumer(&["--window", "1s"]);
    let row = "user_id,track_id,listen_time\n1,new-track,2024-06-25 00:00:00\n";
    deployment.put("incoming/before.csv", row).await;
    deployment.settled().await;
    let mut songs = String::from_utf8(deployment.get("reference/songs.csv").await).unwrap();
    songs += "0,new-track,Someone,Album,New,1,90500,False,\"blues;fado\"\n";
    deployment.put("reference/songs.csv", songs).await;
    deployment.put("incoming/after.csv", row.replace("1,new", "2,new")).await;
    deployment.settled().await;
    // A catalogue that cannot be read does not stop anything.
    deployment.put("reference/songs.csv", "not,a,catalogue\n").await;
    deployment.put("incoming/still.csv", row.replace("1,new", "3,new")).await;
    deployment.settled().await;
    consumer.logged("going on with the catalogue loaded before").await;
    consumer.stop();
    let items = deployment.scan("track_level_reports").await;
    assert_eq!(items.len(), 1);
    assert_eq!((number(&items[0], "total_listens"), number(&items[0], "total_listening_time")), (3, 181));
    assert_eq!((text(&items[0], "track_name"), text(&items[0], "track_genre")), ("New", "blues;fado;unknown"));
}
