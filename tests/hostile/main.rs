//! Hostile input: bad files, bad messages, and inputs that a fuzzer found, each with the outcome that it must have.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs
)]

mod definition;
mod dialects;
mod files;
mod messages;
mod properties;

use music_streams::compute::deltas::decode;
use music_streams::plan::Plan;
use music_streams::reports::figures::{Delta, Label};

/// A delta file with damaged bytes, on which the decoder's crate panics.
#[test]
fn a_panic_of_the_decoder_becomes_an_error() {
    let damaged = include_bytes!("damaged-deltas.parquet");
    let error = decode(damaged, &Plan::built_in().unwrap()).unwrap_err().to_string();
    assert_eq!(error, "the Parquet file cannot be decoded: its bytes are damaged");
}

/// A delta file that the version before definitions wrote, of five listens.
///
/// ```csv
/// 17,5SuOikwiRyPMVoIQDJUgSV,2024-06-25 17:43:13
/// 18,5SuOikwiRyPMVoIQDJUgSV,2024-06-25 17:44:13
/// 17,5SuOikwiRyPMVoIQDJUgSV,2024-06-25 23:59:59
/// 17,4qPNDBW1i3p13qLCt0Ki3A,2024-06-26 00:00:00
/// 99,unknown-track,2024-06-26 01:00:00
/// ```
#[test]
fn deltas_of_the_version_before_are_read() {
    let (file, plan) = (include_bytes!("deltas-before-definitions.parquet"), Plan::built_in().unwrap());
    let label = |label: &Label| match label {
        Label::One(text) => text.clone().unwrap_or_else(|| "-".to_owned()),
        Label::Many(texts) => texts.iter().cloned().collect::<Vec<_>>().join(";"),
    };
    let shown = |delta: Delta| {
        let Delta { key, figures, labels } = delta;
        let labels: Vec<String> = labels.0.iter().map(label).collect();
        let (rows, milliseconds) = (figures.slots[0].unwrap(), figures.slots[1].unwrap());
        let distinct = figures.distinct[0].as_ref().unwrap().count();
        let report = &plan.reports[key.report].name;
        format!("{report} {} {}: {rows} {milliseconds} {distinct} {}", key.id, key.period, labels.join(" | "))
    };
    let mut found: Vec<String> = decode(file, &plan).unwrap().into_iter().map(shown).collect();
    found.sort();
    let expected = [
        "genres acoustic 2024-06-25: 3 691998 2 ",
        "genres acoustic 2024-06-26: 1 149610 1 ",
        "genres j-pop 2024-06-25: 3 691998 2 ",
        "genres unknown 2024-06-26: 1 0 1 ",
        "listeners 17 2024-06-25: 2 461332 1 Peru",
        "listeners 17 2024-06-26: 1 149610 1 Peru",
        "listeners 18 2024-06-25: 1 230666 1 unknown",
        "listeners 99 2024-06-26: 1 0 1 unknown",
        "tracks 4qPNDBW1i3p13qLCt0Ki3A 2024-06-26: 1 149610 1 Ghost | Ben Woodward | acoustic",
        "tracks 5SuOikwiRyPMVoIQDJUgSV 2024-06-25: 3 691998 2 Comedy | Gen Hoshino | acoustic;j-pop",
        "tracks unknown-track 2024-06-26: 1 0 1 - |  | unknown",
    ];
    assert_eq!(found, expected);
}

/// The files of the fuzz targets' corpora: one or two for each outcome that the fuzzer has found, named by it.
#[test]
fn the_corpora_hold_no_surprise() {
    let corpora = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    type Property = fn(&[u8]);
    let targets: [(&str, Property); 12] = [
        ("notification", properties::notification),
        ("row", properties::row),
        ("file", properties::file),
        ("gzip", properties::gzip),
        ("zstd", properties::zstd),
        ("tsv", properties::tsv),
        ("w3c", properties::w3c),
        ("json", properties::json),
        ("pattern", properties::pattern),
        ("items", properties::items),
        ("deltas", properties::deltas),
        ("definition", definition::definition),
    ];
    for (name, property) in targets {
        let mut count = 0;
        for entry in std::fs::read_dir(corpora.join(name)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let held = std::panic::catch_unwind(|| property(&bytes));
            assert!(held.is_ok(), "{}", path.display());
            count += 1;
        }
        assert!(count >= 3, "the corpus of {name} is nearly empty");
    }
}
