//! Definitions as they are written: examples, rules, and several problems at once.

use music_streams::definition::Definition;
use music_streams::definition::columns::{Place, Source, Type};
use music_streams::definition::problems::Problems;

use crate::rules::{GOOD, RULES};

/// The examples, by name.
pub const EXAMPLES: [(&str, &str); 4] = [
    ("rides", GOOD),
    ("plays", include_str!("examples/plays.toml")),
    ("requests", include_str!("examples/requests.toml")),
    ("readings", include_str!("examples/readings.toml")),
];

pub fn good(text: &str) -> Definition {
    Definition::parse(text.as_bytes()).unwrap_or_else(|problems| panic!("{}", problems.describe("it")))
}

fn problems(text: &str) -> Problems {
    Definition::parse(text.as_bytes()).expect_err("it has a problem")
}

/// The digest names the built-in definition in ledgers and manifests. It changes only with its meaning.
#[test]
fn the_built_in_definition_is_good_and_keeps_its_digest() {
    let definition = Definition::built_in().unwrap_or_else(|problems| panic!("{}", problems.describe("it")));
    assert_eq!(definition.digest(), "a04557d4eb797f3d61364637259544be835646bf5d0e205502880723cd90ff79");
}

#[test]
fn the_examples_are_good_and_survive_their_canonical_form() {
    for (name, text) in EXAMPLES {
        let definition = good(text);
        assert_eq!(definition.name, name);
        let canonical = definition.canonical();
        assert_eq!(good(&canonical), definition, "{canonical}");
        assert_eq!(good(&canonical).canonical(), canonical);
    }
}

#[test]
fn each_rule_has_its_message() {
    let mut wrong = Vec::new();
    for rule in RULES.iter().flat_map(|(_, rules)| *rules) {
        assert_eq!(GOOD.matches(rule.find).count(), 1, "the example has this once: {}", rule.find);
        let text = GOOD.replace(rule.find, rule.write);
        let found = match Definition::parse(text.as_bytes()) {
            Ok(_) => "none".to_owned(),
            Err(problems) => {
                let marks = |problem: &music_streams::definition::problems::Problem| {
                    let width = problems
                        .describe("it")
                        .lines()
                        .filter(|line| line.contains('^'))
                        .map(|line| line.matches('^').count())
                        .next()
                        .unwrap();
                    problem.text.chars().skip(problem.column - 1).take(width).collect::<String>()
                };
                problems
                    .shown
                    .iter()
                    .map(|problem| format!("[{}] {}", marks(problem), problem.message))
                    .collect::<Vec<_>>()
                    .join("\n    ")
            }
        };
        let expected = format!("[{}] {}", rule.marks, rule.says);
        if found != expected {
            wrong.push(format!("{}\n  expected\n    {expected}\n  found\n    {found}", rule.write));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// The form of messages: the position, the line, and a mark under the part.
#[test]
fn all_problems_are_found_at_once() {
    let text = "\
name = \"songs\"
time = \"listen_time\"

[input]
format = \"csv\"

[columns]
user_id = \"id\"
track_id = \"id\"
listen_time = \"time\"

[references.songs]
file = \"songs.csv\"
key = \"track_id\"
[references.songs.columns]
track_name = { type = \"text\", optional = true }
artists = \"text\"

[reports.songs]
key = \"track_id\"
[reports.songs.measures]
unique_users = { distinct = \"userid\" }
total_listening_time = { sum = \"listen_time\" }

[reports.names]
key = \"track_name\"
[reports.names.measures]
listens = \"count\"

[reports.users]
key = \"user_id\"
attributes = [\"listen_time\", \"artists\"]
[reports.users.measures]
listens = \"count\"
";
    let expected = "\
broken.toml:22:30: unique_users is the distinct of 'userid', which is no column or attribute; write 'user_id'
     22 | unique_users = { distinct = \"userid\" }
        |                              ^^^^^^
broken.toml:23:33: total_listening_time: times are not added up; take min or max
     23 | total_listening_time = { sum = \"listen_time\" }
        |                                 ^^^^^^^^^^^
broken.toml:26:8: a row may have no 'track_name'; say what it is counted under: unknown = \"unknown\" in the column
     26 | key = \"track_name\"
        |        ^^^^^^^^^^
broken.toml:32:31: 'artists' follows from 'track_id', not from this report's key 'user_id'
     32 | attributes = [\"listen_time\", \"artists\"]
        |                               ^^^^^^^";
    assert_eq!(problems(text).describe("broken.toml"), expected);
}

/// A problem in one place does not make others of what refers to it.
#[test]
fn a_problem_causes_no_others() {
    let of = |find: &str, write: &str| {
        assert!(GOOD.contains(find), "{find}");
        problems(&GOOD.replace(find, write)).all
    };
    assert_eq!(of("metres   = { type = \"integer\", min = 0 }", "metres   = \"nothing\""), 1);
    assert_eq!(of("fares = { sum = \"fare\"", "fares = { sum = \"fair\""), 1);
    assert_eq!(of("format = \"csv\"", "format = \"cvs\""), 1);
    assert_eq!(of("[references.bikes.columns]", "[references.bikes.column]"), 2);
    assert_eq!(of("[columns]", "[column]"), 2);
}

#[test]
fn places_fit_the_format() {
    let with = |format: &str, columns: &str| {
        format!(
            "name = \"x\"\ntime = \"at\"\n[input]\n{format}\n[columns]\n{columns}\n[reports.all]\nkey = \"*\"\n\
             measures = {{ rows = \"count\" }}\n"
        )
    };
    let says = |format: &str, columns: &str| {
        let problems = problems(&with(format, columns));
        assert_eq!(problems.all, 1, "{}", problems.describe("it"));
        problems.shown[0].message.clone()
    };
    let source = |format: &str, columns: &str| good(&with(format, columns)).columns[0].source.clone();
    let one = |place: Place| Source::Places(vec![place]);

    assert_eq!(source("format = \"csv\"", "at = \"time\""), one(Place::Name("at".to_owned())));
    assert_eq!(source("format = \"csv\"", "at = { type = \"time\", from = 3 }"), one(Place::Number(3)));
    let path = ["meta", "sent"].map(str::to_owned).to_vec();
    assert_eq!(source("format = \"json\"", "at = { type = \"time\", from = \"meta.sent\" }"), one(Place::Path(path)));
    assert_eq!(
        says("format = \"tsv\"\nheader = false", "at = \"time\""),
        "the file has no header; say which field 'at' is, from 1: from = 1"
    );
    assert_eq!(
        says("format = \"tsv\"\nheader = false", "at = { type = \"time\", from = \"at\" }"),
        "the files have no header, so 'at' cannot be found; write the number of the field, from 1"
    );
    assert_eq!(
        says("format = \"json\"", "at = { type = \"time\", from = 1 }"),
        "JSON has no numbered fields; write the path to the value"
    );
    assert_eq!(
        says("format = \"json\"", "at = { type = \"time\", from = \"meta..sent\" }"),
        "a path is of 1 to 16 keys with a point between them, such as customer.id"
    );
    assert_eq!(
        says("format = \"w3c\"", "at = { type = \"time\", from = 1 }"),
        "#Fields: names the fields; write the name"
    );
}

#[test]
fn limits_hold() {
    let columns = |count: usize| (0..count).map(|index| format!("c{index} = \"id\"\n")).collect::<String>();
    let with = |columns: &str, rest: &str| {
        format!(
            "name = \"x\"\ntime = \"at\"\n[input]\nformat = \"csv\"\n[columns]\nat = \"time\"\n{columns}\n{rest}\n\
             [reports.all]\nkey = \"*\"\nmeasures = {{ rows = \"count\" }}\n"
        )
    };
    good(&with(&columns(63), ""));
    let said = |text: &str| problems(text).shown.iter().map(|it| it.message.clone()).collect::<Vec<_>>();
    assert_eq!(said(&with(&columns(64), "")), ["at most 64 columns, not 65"]);
    let reference = "[references.r]\nfile = \"r.csv\"\nkey = \"c0\"\ncolumns = { a = \"id\", b = \"id\" }";
    good(&with(&columns(61), reference));
    assert_eq!(said(&with(&columns(62), reference)), ["more than 64 columns and attributes"]);
    let reports = |count: usize| {
        let report = |index| format!("[reports.r{index}0]\nkey = \"*\"\nmeasures = {{ rows = \"count\" }}\n");
        (0..count).map(report).collect::<String>()
    };
    good(&with("", &reports(15)));
    assert_eq!(said(&with("", &reports(16))), ["at most 16 reports, not 17"]);
    let distinct = |count: usize| {
        let measure = |index| format!("m{index} = {{ distinct = \"c{index}\" }}\n");
        let measures: String = (0..count).map(measure).collect();
        with(&columns(5), &format!("[reports.some]\nkey = \"*\"\n[reports.some.measures]\n{measures}"))
    };
    good(&distinct(4));
    assert_eq!(said(&distinct(5)), ["more than 4 distinct counts: an item holds the sketch of each, up to 8 KiB"]);
    assert_eq!(said(&with("", "").replace("[reports.all]", "[reports]\n[other]")).len(), 2);
    let long = format!("{}{}", with("", ""), "#".repeat(70_000));
    assert_eq!(said(&long), [format!("a definition has at most 65536 bytes, not {}", long.len())]);
    let mut bytes = with("", "").into_bytes();
    bytes.push(0xff);
    let problems = Definition::parse(&bytes).unwrap_err();
    assert_eq!((problems.shown[0].line, &*problems.shown[0].message), (12, "this is no UTF-8, from here on"));
}

/// `[where]` may make sure that an optional column is there.
#[test]
fn a_column_that_is_asked_for_is_not_missing() {
    let without = GOOD.replace("optional = true, unknown = \"guest\" }\ncity", "optional = true }\ncity");
    let with_key = without.replace("key = \"place\"", "key = \"rider_id\"");
    assert_eq!(
        problems(&with_key).shown[0].message,
        "a row may have no 'rider_id'; say what it is counted under: unknown = \"unknown\" in the column"
    );
    for asked in ["{ present = true }", "\"r1\"", "[\"r1\", \"r2\"]"] {
        let definition = good(&with_key.replace("fare = { max = 500 }", &format!("rider_id = {asked}")));
        let rider = definition.field("rider_id").unwrap();
        assert!(!definition.may_lack(rider), "{asked}");
        assert!(definition.column("rider_id").unwrap().is_optional);
    }
    let not = with_key.replace("fare = { max = 500 }", "rider_id = { not = \"r1\" }");
    assert_eq!(problems(&not).all, 1);
}

#[test]
fn defaults_are_filled_in() {
    let definition = good(&GOOD.replace("earliest = \"2015-01-01\"\nfuture = \"2h\"\n", ""));
    assert_eq!((definition.earliest, definition.future.as_secs()), (10_957, 86_400));
    assert_eq!(definition.column("status").unwrap().type_, Type::Id { max_bytes: 64 });
    let ratio = |name: &str| definition.reports[0].measure(name).unwrap().aggregate.places(&definition);
    assert_eq!(["kilometres", "fares", "fare_per_ride", "rides", "longest"].map(ratio), [3, 2, 2, 0, 0]);
    assert_eq!(definition.reports[1].table, "places");
}

/// What means the same has the same digest, and what does not has another.
#[test]
fn the_digest_is_that_of_the_meaning() {
    let digest = good(GOOD).digest();
    let same = [
        ("# Rides", "# Journeys"),
        ("balance  = \"integer\"", "balance = { type = \"integer\", optional = false, min = -9223372036854775808 }"),
        ("every = \"hour\"", "every = 'hour'"),
        ("key = \"place\"", "key = \"place\"\ntable = \"places\""),
        ("max = 999.99", "max = 999.990"),
        ("future = \"2h\"", "future = \"120m\""),
        ("zone = \"Europe/Lisbon\"\nearliest", "zone = \"europe/lisbon\"\nearliest"),
        (
            "fare_per_ride = { ratio = [\"fares\", \"rides\"] }",
            "fare_per_ride = { ratio = [\"fares\", \"rides\"], places = 2 }",
        ),
    ];
    for (find, write) in same {
        assert!(GOOD.contains(find), "{find}");
        assert_eq!(good(&GOOD.replace(find, write)).digest(), digest, "{write}");
    }
    let other = [("max = 999.99", "max = 999.98"), ("keep = 20", "keep = 21"), ("key_from = \"number\"\n", "")];
    for (find, write) in other {
        assert!(GOOD.contains(find), "{find}");
        assert_ne!(good(&GOOD.replace(find, write)).digest(), digest, "{write}");
    }
    // TSV is CSV with tabs and without quotes.
    let [tsv, csv] = ["format = \"tsv\"", "format = \"csv\"\ndelimiter = \"\\t\"\nquote = \"\""]
        .map(|format| good(&GOOD.replace("format = \"csv\"\ndelimiter = \";\"\nquote = \"'\"", format)).digest());
    assert_eq!(tsv, csv);
}
