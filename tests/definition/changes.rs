//! Changes from one definition to another, and what each means.

use music_streams::definition::change::{Class, changes};

use crate::rules::GOOD;
use crate::written::good;

use Class::{Compatible, OldDaysStay, Refused};

/// The parts that are other ones after an edit, with the consequences.
fn after(find: &str, write: &str) -> Vec<(String, Class)> {
    assert_eq!(GOOD.matches(find).count(), 1, "{find}");
    let changes = changes(&good(GOOD), &good(&GOOD.replace(find, write)));
    changes.into_iter().map(|change| (change.part, change.class)).collect()
}

#[test]
fn each_change_has_its_consequence() {
    let cases = [
        ("name = \"rides\"", "name = \"rides-2\"", "name", Compatible),
        ("future = \"2h\"", "future = \"3h\"", "future", Compatible),
        ("delimiter = \";\"", "delimiter = \",\"", "input", Compatible),
        ("status = [\"done\", \"cancelled\"]", "status = \"done\"", "where", Compatible),
        ("ride_id  = \"id\"", "ride_id = { type = \"id\", from = \"Ride\" }", "columns.ride_id", Compatible),
        ("balance  = \"integer\"", "balance = \"integer\"\nhelmet = \"id\"", "columns.helmet", Compatible),
        ("balance  = \"integer\"\n", "", "columns.balance", Compatible),
        ("ride_id  = \"id\"", "ride_id = { type = \"id\", max = 80 }", "columns.ride_id", Compatible),
        ("ride_id  = \"id\"", "ride_id = \"text\"", "columns.ride_id", Compatible),
        ("ride_id  = \"id\"", "ride_id = { type = \"id\", max = 8 }", "columns.ride_id", OldDaysStay),
        ("city     = \"text\"", "city = \"id\"", "columns.city", OldDaysStay),
        ("balance  = \"integer\"", "balance = { type = \"integer\", min = 0 }", "columns.balance", OldDaysStay),
        (
            "balance  = \"integer\"",
            "balance = { type = \"integer\", min = 0, max = 2147483647 }",
            "columns.balance",
            Refused,
        ),
        ("balance  = \"integer\"", "balance = { type = \"integer\", optional = true }", "columns.balance", Compatible),
        ("unknown = \"guest\"", "unknown = \"nobody\"", "columns.rider_id", OldDaysStay),
        ("balance  = \"integer\"", "balance = \"id\"", "columns.balance", Refused),
        ("key_from = \"number\"", "key_from = \"no\"", "references.bikes", Compatible),
        ("file = \"bikes.csv.gz\"", "file = \"bikes.csv\"", "references.bikes", Compatible),
        ("key = \"place\"", "key = \"city\"", "reports.places", Refused),
        ("every = \"hour\"", "every = \"day\"", "reports.places", Refused),
        ("table = \"bike_reports\"", "table = \"bikes\"", "reports.bikes", Compatible),
        (
            "attributes = [\"model\", \"tags\", \"city\"]",
            "attributes = [\"model\"]",
            "reports.bikes.attributes",
            Compatible,
        ),
        ("under = [\"tags\"], ", "", "reports.bikes.top", OldDaysStay),
        ("riders = { distinct = \"rider_id\" }\n", "", "reports.bikes.measures.riders", Compatible),
        ("divide = 1000", "divide = 100", "reports.bikes.measures.kilometres", Refused),
        ("sum = \"fare\", where = { status = \"done\" }", "sum = \"fare\"", "reports.bikes.measures.fares", Refused),
        (
            "longest = { max = \"metres\" }\nfare",
            "longest = { min = \"metres\" }\nfare",
            "reports.bikes.measures.longest",
            Refused,
        ),
        (
            "first_ride = {",
            "last_ride_but_one = \"count\"\nfirst_ride = {",
            "reports.places.measures.last_ride_but_one",
            Compatible,
        ),
    ];
    for (find, write, part, class) in cases {
        let found = after(find, write);
        assert!(found.contains(&(part.to_owned(), class)), "{write}: {found:?}");
        // A report with another table is a new one, and the old one is gone.
        assert!(found.len() == 1 || write.contains("table") || write.contains("fares"), "{write}: {found:?}");
    }
}

#[test]
fn a_change_of_days_is_refused_where_figures_would_mix() {
    let part = |part: &str, class| (part.to_owned(), class);
    let found = after("time = \"ended_at\"\nzone = \"Europe/Lisbon\"", "time = \"ended_at\"\nzone = \"Europe/Madrid\"");
    let days = ["bikes", "tags", "totals"].map(|report| part(&format!("reports.{report}"), Refused));
    assert_eq!(found, [&[part("zone", OldDaysStay)][..], &days].concat());
}

/// The digits of a column are in what is added up.
#[test]
fn other_places_are_other_figures() {
    let found = after("fare     = { type = \"decimal\", places = 2", "fare     = { type = \"decimal\", places = 3");
    let refused: Vec<&str> =
        found.iter().filter(|(_, class)| *class == Refused).map(|(part, _)| part.as_str()).collect();
    assert_eq!(refused, ["columns.fare", "reports.bikes.measures.fares", "reports.bikes.measures.fare_per_ride"]);
}

#[test]
fn what_means_the_same_is_no_change() {
    assert!(changes(&good(GOOD), &good(&good(GOOD).canonical())).is_empty());
}
