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

/// A delta file with damaged bytes, on which the decoder's crate panics.
#[test]
fn a_panic_of_the_decoder_becomes_an_error() {
    let damaged = include_bytes!("damaged-deltas.parquet");
    let plan = music_streams::plan::Plan::built_in().unwrap();
    let error = music_streams::compute::deltas::decode(damaged, &plan).unwrap_err().to_string();
    assert_eq!(error, "the Parquet file cannot be decoded: its bytes are damaged");
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
