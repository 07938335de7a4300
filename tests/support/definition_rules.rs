//! The rules of a definition: for each an edit of a good one, and the message. `docs/definition.md` lists them.

/// The definition that is edited.
pub const GOOD: &str = include_str!("../definition/examples/rides.toml");

/// A rule.
pub struct Rule {
    /// The text in the good definition.
    pub find: &'static str,
    /// The text in its place.
    pub write: &'static str,
    /// The part that the message is about, as it is marked.
    pub marks: &'static str,
    /// The message.
    pub says: &'static str,
}

const fn rule(find: &'static str, write: &'static str, marks: &'static str, says: &'static str) -> Rule {
    Rule { find, write, marks, says }
}

/// The rules on the form of the file: keys, and forms of values.
pub const FORM: &[Rule] = &[
    rule(
        "name = \"rides\"",
        "name = rides",
        "rides",
        "this is no TOML: string values must be quoted, expected literal string",
    ),
    rule("zone = \"Europe/Lisbon\"\n", "zone = \"UTC\"\nzone = \"UTC\"\n", "zone", "this is no TOML: duplicate key"),
    rule("name = \"rides\"\n", "", "#", "the definition lacks 'name', which takes a text in quotes of 1 to 63 bytes"),
    rule("delimiter = \";\"", "delimeter = \";\"", "delimeter", "[input] has no key 'delimeter'; write 'delimiter'"),
    rule(
        "format = \"csv\"",
        "format = \"csv\"\nfuture = \"2h\"",
        "future",
        "[input] has no key 'future'; 'future' stands in the top of the file, above the first heading",
    ),
    rule(
        "earliest = \"2015-01-01\"",
        "delimiter = \";\"",
        "delimiter",
        "the definition has no key 'delimiter'; 'delimiter' stands in [input]",
    ),
    rule(
        "earliest = \"2015-01-01\"",
        "unique = [\"ride_id\"]",
        "unique",
        "the definition has no key 'unique'; a file counts once, but its rows are not compared with others; { \
         distinct = … } of an event's id counts each event once",
    ),
    rule("comment = \"#\"", "comment = 1", "1", "'comment' takes a text in quotes of 1 to 16 bytes, not a number"),
    rule(
        "format = \"csv\"",
        "format = \"cvs\"",
        "cvs",
        "'format' takes \"csv\", \"tsv\", \"w3c\" or \"json\", not 'cvs'; write 'csv'",
    ),
    rule(
        "format = \"csv\"",
        "format = \"parquet\"",
        "parquet",
        "'format' takes \"csv\", \"tsv\", \"w3c\" or \"json\", not 'parquet'; such files are not read",
    ),
    rule(
        "balance  = \"integer\"",
        "balance  = \"float\"",
        "float",
        "'type' takes \"id\", \"text\", \"integer\", \"decimal\" or \"time\", not 'float'; write 'decimal' with \
         'places': a sum of floating point numbers depends on their order",
    ),
    rule(
        "balance  = \"integer\"",
        "balance  = \"boolean\"",
        "boolean",
        "'type' takes \"id\", \"text\", \"integer\", \"decimal\" or \"time\", not 'boolean'; write 'id', which \
         takes true and false as their words",
    ),
];

/// The rules on the top of the file and on its format.
pub const FILES: &[Rule] = &[
    rule(
        "name = \"rides\"",
        "name = \"My Rides\"",
        "My Rides",
        "'My Rides' is no name of a pipeline: a to z, 0 to 9 and -, with a letter first; write 'my-rides'",
    ),
    rule("time = \"ended_at\"", "time = \"endet_at\"", "endet_at", "'endet_at' is no column; write 'ended_at'"),
    rule("time = \"ended_at\"", "time = \"city\"", "city", "'city' is a text; the column that says when is a time"),
    rule(
        "format = \"%d.%m.%Y %H:%M:%S\", ",
        "format = \"%d.%m.%Y %H:%M:%S\", optional = true, ",
        "ended_at",
        "every row has a time: 'ended_at' says when, so it is not optional",
    ),
    rule(
        "time = \"ended_at\"\nzone = \"Europe/Lisbon\"",
        "time = \"ended_at\"\nzone = \"Europe/Lisabon\"",
        "Europe/Lisabon",
        "'Europe/Lisabon' is no IANA name of a time zone; write 'Europe/Lisbon'",
    ),
    rule(
        "time = \"ended_at\"\nzone = \"Europe/Lisbon\"",
        "time = \"ended_at\"\nzone = \"+01:00\"",
        "+01:00",
        "'+01:00' is no IANA name of a time zone; write one such as 'Europe/Lisbon': offsets change with summer \
         time, names do not",
    ),
    rule(
        "earliest = \"2015-01-01\"",
        "earliest = \"2015-02-29\"",
        "2015-02-29",
        "'2015-02-29' is no day of the calendar, YYYY-MM-DD",
    ),
    rule(
        "future = \"2h\"",
        "future = \"2 years\"",
        "2 years",
        "'2 years' is no time such as 90m, 12h or 2d, of whole seconds and at most 366 days",
    ),
    rule(
        "format = \"csv\"\ndelimiter = \";\"\nquote",
        "format = \"tsv\"\nquote",
        "quote",
        "'quote' is for csv, not for tsv",
    ),
    rule("delimiter = \";\"", "delimiter = \"';'\"", "';'", "'delimiter' takes one ASCII character in quotes"),
    rule("delimiter = \";\"", "delimiter = \"\\n\"", "\\n", "'delimiter' is no character that ends a line"),
    rule("delimiter = \";\"", "delimiter = \"'\"", "'", "'delimiter' and 'quote' are the same"),
];

/// The rules on columns.
pub const COLUMNS: &[Rule] = &[
    rule(
        "ride_id  = \"id\"",
        "Ride-ID  = \"id\"",
        "Ride-ID",
        "'Ride-ID' is no name: a to z, 0 to 9 and _, with a letter first, 63 at most; write 'ride_id'",
    ),
    rule("ride_id  = \"id\"", "version  = \"id\"", "version", "'version' is a name of the program's own; take another"),
    rule(
        "ride_id  = \"id\"",
        "sketch_1 = \"id\"",
        "sketch_1",
        "names that begin with 'sketch' are the program's own; take another",
    ),
    rule(
        "ride_id  = \"id\"",
        "model    = \"id\"",
        "model",
        "'model' is a column already; columns and attributes are columns of the curated files, each under a name \
         of its own",
    ),
    rule(
        "balance  = \"integer\"",
        "balance  = \"decimal\"",
        "balance",
        "the column 'balance' lacks 'places', which takes a whole number from 1 to 9",
    ),
    rule(
        "balance  = \"integer\"",
        "balance  = { type = \"integer\", cut = true }",
        "cut",
        "'cut' is for text, not for integer",
    ),
    rule("places = 2, min = 0, max", "places = 10, min = 0, max", "10", "'places' takes a whole number from 1 to 9"),
    rule(
        "places = 2, min = 0, max",
        "places = 2, min = 0.001, max",
        "0.001",
        "'min' has more than 2 digits after the point",
    ),
    rule(
        "metres   = { type = \"integer\", min = 0 }",
        "metres   = { type = \"integer\", min = 0.5 }",
        "0.5",
        "'min' is no whole number",
    ),
    rule(
        "metres   = { type = \"integer\", min = 0 }",
        "metres   = { type = \"integer\", min = 0, max = 9223372036854775808 }",
        "9223372036854775808",
        "'max' is beyond 64 bits",
    ),
    rule("min = 1, max = 99999", "min = 1, max = 0", "1", "'min' is above 'max'"),
    rule(
        "station  = { type = \"text\", max = 200",
        "station  = { type = \"text\", max = 2000",
        "2000",
        "'max' of an id or a text is the most bytes, from 1 to 1024",
    ),
    rule(
        "status   = \"id\"",
        "status   = { type = \"id\", unknown = \"none\" }",
        "none",
        "a row without 'status' is rejected; 'unknown' is for what may be missing: write optional = true",
    ),
    rule(
        "from = [\"Day\", \"Time\"]",
        "from = []",
        "[]",
        "'from' takes a name, a number from 1, or a list of 2 to 4 of them",
    ),
    rule("from = [\"Day\", \"Time\"]", "from = 0", "0", "fields have numbers from 1 to 4096"),
    rule(
        "status   = \"id\"",
        "status   = { type = \"id\", from = [\"a\", \"b\"] }",
        "[\"a\", \"b\"]",
        "several places are joined by a blank, which only texts and times have",
    ),
    rule(
        "status   = \"id\"",
        "status   = { type = \"id\", from = \"@key.\" }",
        "@key.",
        "'@key.' is no part of an object's key; write '@key.1' to '@key.32' for a part of the key, or \
         '@key.tenant' for that of tenant=…",
    ),
    rule(
        "format = \"%d.%m.%Y %H:%M:%S\"",
        "format = \"epoch\"",
        "epoch",
        "'epoch' is no format of times; there is 'iso', 'unix', 'unix_ms' and 'unix_us', or a pattern such as \
         %Y-%m-%d",
    ),
    rule(
        "format = \"%d.%m.%Y %H:%M:%S\"",
        "format = \"%d.%m. %H:%M:%S\"",
        "%d.%m. %H:%M:%S",
        "'%d.%m. %H:%M:%S' is no pattern of times: it has no date of year, month and day",
    ),
    rule(
        "format = \"%d.%m.%Y %H:%M:%S\"",
        "format = \"%d.%m.%Y %H:%M:%S %Q\"",
        "%d.%m.%Y %H:%M:%S %Q",
        "the pattern '%d.%m.%Y %H:%M:%S %Q' has %Q; known are %Y %y %m %b %B %d %e %j %a %A %H %k %I %l %p %M %S %f \
         %.f %z %:z %s %F %T %R %D %%",
    ),
    rule(
        "format = \"%d.%m.%Y %H:%M:%S\"",
        "format = \"%d.%m.%Y %I:%M:%S\"",
        "%d.%m.%Y %I:%M:%S",
        "the pattern '%d.%m.%Y %I:%M:%S' has hours of half a day (%I) without %p, or the reverse, or hours twice",
    ),
    rule(
        "format = \"%d.%m.%Y %H:%M:%S\", zone = \"Europe/Lisbon\"",
        "format = \"unix\", zone = \"Europe/Lisbon\"",
        "Europe/Lisbon",
        "times of this format state their zone; leave 'zone' out",
    ),
    rule(
        "join = [\"city\", \"station\"]",
        "join = [\"city\", \"statoin\"]",
        "statoin",
        "'statoin' is no column; write 'station'",
    ),
    rule(
        "join = [\"city\", \"station\"]",
        "join = [\"city\", \"model\"]",
        "model",
        "'model' is an attribute of the reference 'bikes', and no column",
    ),
    rule(
        "join = [\"city\", \"station\"]",
        "join = [\"city\", \"place\"]",
        "place",
        "'place' is a join; write the columns that it is made of",
    ),
    rule(
        "join = [\"city\", \"station\"]",
        "join = [\"city\", \"metres\"]",
        "metres",
        "'metres' is an integer; a join is of ids and texts",
    ),
    rule("join = [\"city\", \"station\"]", "join = [\"city\"]", "[\"city\"]", "'join' takes a list of 2 to 4 names"),
    rule(
        "with = \", \" }",
        "with = \", \", optional = true }",
        "optional",
        "the join 'place' has no key 'optional'; 'optional' stands in a column",
    ),
];

/// The rules on conditions.
pub const CONDITIONS: &[Rule] = &[
    rule(
        "status = [\"done\", \"cancelled\"]",
        "state = [\"done\", \"cancelled\"]",
        "state",
        "'state' is no column; write 'status'",
    ),
    rule(
        "status = [\"done\", \"cancelled\"]",
        "model = \"x\"",
        "model",
        "'model' is an attribute of the reference 'bikes', and no column",
    ),
    rule(
        "status = [\"done\", \"cancelled\"]",
        "place = \"x\"",
        "place",
        "'place' is a join; write conditions of 'city' and 'station'",
    ),
    rule(
        "status = [\"done\", \"cancelled\"]",
        "status = 404",
        "404",
        "'status' is an id, whose values are texts: write \"404\"",
    ),
    rule(
        "status = [\"done\", \"cancelled\"]",
        "status = true",
        "true",
        "'status' is an id, whose values are texts: write \"true\"",
    ),
    rule(
        "status = [\"done\", \"cancelled\"]",
        "status = \"so so\"",
        "so so",
        "'status' is an id of visible ASCII characters, so no row has this value",
    ),
    rule(
        "status = [\"done\", \"cancelled\"]",
        "status = \"\"",
        "\"\"",
        "'status' is never empty; of rows without it write { present = false }",
    ),
    rule("status = [\"done\", \"cancelled\"]", "status = [\"done\", \"done\"]", "done", "this value is there twice"),
    rule(
        "status = [\"done\", \"cancelled\"]",
        "status = { min = 5 }",
        "5",
        "'status' is an id; 'min' is for integers and decimals",
    ),
    rule(
        "status = [\"done\", \"cancelled\"]",
        "status = { present = true }",
        "status",
        "every row has a 'status': 'present' is for optional columns",
    ),
    rule(
        "status = [\"done\", \"cancelled\"]",
        "status = {}",
        "{}",
        "the condition of 'status' is empty; write min, max, not or present",
    ),
    rule(
        "status = [\"done\", \"cancelled\"]",
        "bike_id = \"7\"",
        "7",
        "'bike_id' is an integer: write 7 without quotes",
    ),
    rule(
        "status = [\"done\", \"cancelled\"]",
        "bike_id = 100000",
        "100000",
        "'bike_id' is never 100000, by its own 'min' and 'max'",
    ),
    rule(
        "status = [\"done\", \"cancelled\"]",
        "ended_at = { min = 5 }",
        "5",
        "'ended_at' is a time; 'earliest' and 'future' bound times, conditions only ask whether one is present",
    ),
    rule(
        "fare = { max = 500 }",
        "fare = { max = 499.995 }",
        "499.995",
        "'fare' is a decimal, and 499.995 has more than 2 digits after the point",
    ),
    rule("fare = { max = 500 }", "fare = { min = 500, max = 5 }", "500", "'min' is above 'max'"),
];

/// The rules on references.
pub const REFERENCES: &[Rule] = &[
    rule(
        "file = \"bikes.csv.gz\"",
        "file = \"bikes.xlsx\"",
        "bikes.xlsx",
        "a reference is a file below reference/ whose name ends with .csv or .tsv, or with .gz or .zst behind that",
    ),
    rule(
        "key = \"bike_id\"\nkey_from",
        "key = \"bikeid\"\nkey_from",
        "bikeid",
        "'bikeid' is no column; write 'bike_id'",
    ),
    rule(
        "key = \"bike_id\"\nkey_from",
        "key = \"fare\"\nkey_from",
        "fare",
        "'fare' is a decimal; ids, texts and integers are looked up",
    ),
    rule("key_from = \"number\"", "key_from = 0", "0", "fields have numbers from 1 to 4096"),
    rule(
        "price = { type = \"decimal\", places = 2, optional = true }",
        "price = \"time\"",
        "time",
        "'type' takes \"id\", \"text\", \"integer\" or \"decimal\", not 'time'",
    ),
    rule(
        "price = { type = \"decimal\", places = 2",
        "price = { type = \"decimal\", places = 2, many = \"|\"",
        "many",
        "'many' is for id and text, not for decimal",
    ),
    rule(
        "many = \"|\"",
        "many = \" \"",
        " ",
        "'many' takes a visible ASCII character other than a quote, such as \";\"",
    ),
    rule(
        "unknown = \"none\"",
        "unknown = \"red|old\"",
        "red|old",
        "'unknown' is one value, and '|' is between two of them",
    ),
];

/// The rules on reports and top lists.
pub const REPORTS: &[Rule] = &[
    rule("key = \"place\"", "key = \"places\"", "places", "the key 'places' is no column or attribute; write 'place'"),
    rule(
        "key = \"place\"",
        "key = \"fare\"",
        "fare",
        "the key 'fare' is a decimal; items are of ids, texts and integers",
    ),
    rule(
        "unknown = \"none\" }",
        "}",
        "tags",
        "a row may have no 'tags'; say what it is counted under: unknown = \"unknown\" in the column",
    ),
    rule("every = \"hour\"", "every = \"week\"", "week", "'every' takes \"day\" or \"hour\", not 'week'"),
    rule(
        "table = \"bike_reports\"",
        "table = \"places\"",
        "places",
        "the report 'bikes' has the table 'places' already; take another",
    ),
    rule(
        "table = \"bike_reports\"",
        "table = \"top_lists\"",
        "top_lists",
        "'top_lists' is a table of the pipeline itself; take another",
    ),
    rule(
        "table = \"bike_reports\"",
        "table = \"bike reports\"",
        "bike reports",
        "'bike reports' is no table of DynamoDB: 3 to 200 of a to z, A to Z, 0 to 9, _, . and -",
    ),
    rule(
        "attributes = [\"model\", \"tags\", \"city\"]",
        "attributes = [\"bike_id\"]",
        "bike_id",
        "'bike_id' is the key, which every item has",
    ),
    rule(
        "attributes = [\"model\", \"tags\", \"city\"]",
        "attributes = [\"city\", \"city\"]",
        "city",
        "'city' is there twice",
    ),
    rule(
        "key = \"place\"\nevery = \"hour\"",
        "key = \"place\"\nattributes = [\"model\"]",
        "model",
        "'model' follows from 'bike_id', not from this report's key 'place'",
    ),
    rule("key = \"*\"", "key = \"*\"\nattributes = [\"city\"]", "city", "a report of all rows has no attributes"),
    rule(
        "key = \"*\"",
        "key = \"*\"\ntop = { by = \"rides\" }",
        "{ by = \"rides\" }",
        "a report of all rows has one item, and no top list",
    ),
    rule("by = \"rides\"", "by = \"ride\"", "ride", "'ride' is no measure of this report; write 'rides'"),
    rule(
        "by = \"rides\"",
        "by = \"riders\"",
        "riders",
        "'riders' is a distinct count, whose estimate may fall by a little; top lists are ordered by what never \
         falls: a count, a max, or a sum of a column with a 'min' of 0 or more",
    ),
    rule(
        "by = \"rides\"",
        "by = \"fare_per_ride\"",
        "fare_per_ride",
        "'fare_per_ride' is a ratio, which may fall; top lists are ordered by what never falls: a count, a max, \
         or a sum of a column with a 'min' of 0 or more",
    ),
    rule(
        "under = [\"tags\"]",
        "under = [\"city\"]",
        "city",
        "'city' does not follow from this report's key 'bike_id': the figures under each of its values would be \
         others, which is a report of its own",
    ),
    rule(
        "under = [\"tags\"]",
        "under = [\"price\"]",
        "price",
        "'price' is a decimal; lists are under ids, texts and integers",
    ),
    rule("keep = 20", "keep = 5000", "5000", "'keep' takes a whole number from 1 to 1000"),
    rule(
        "key = \"place\"",
        "key = \"place\"\ntop = { by = \"rides\", keep = 400 }",
        "{ by = \"rides\", keep = 400 }",
        "400 entries with keys of up to 1024 bytes may be more than an item of DynamoDB holds, 400 KB; write keep \
         = 320, or a smaller 'max' of the key",
    ),
];

/// The rules on measures.
pub const MEASURES: &[Rule] = &[
    rule("riders = {", "bike_id = {", "bike_id", "'bike_id' is the key of the items; give the measure another name"),
    rule("riders = {", "model = {", "model", "'model' is an attribute of this report; give the measure another name"),
    rule(
        "riders = { distinct = \"rider_id\" }",
        "riders = \"distinct\"",
        "distinct",
        "'riders' takes \"count\", or a table such as { sum = \"amount\" }; write { distinct = \"…\" }",
    ),
    rule(
        "distinct = \"rider_id\"",
        "distinct = \"rider_ids\"",
        "rider_ids",
        "riders is the distinct of 'rider_ids', which is no column or attribute; write 'rider_id'",
    ),
    rule(
        "distinct = \"rider_id\"",
        "distinct = \"fare\"",
        "fare",
        "riders: 'fare' is a decimal; ids, texts and integers are counted as distinct",
    ),
    rule(
        "distinct = \"rider_id\"",
        "distinct = \"tags\"",
        "tags",
        "riders: a row may have several 'tags'; make it the key of a report",
    ),
    rule(
        "distinct = \"rider_id\"",
        "distinct = \"bike_id\"",
        "bike_id",
        "riders: 'bike_id' is the key, of which each item has one",
    ),
    rule("sum = \"fare\"", "sum = \"ended_at\"", "ended_at", "fares: times are not added up; take min or max"),
    rule("sum = \"fare\"", "sum = \"city\"", "city", "fares: 'city' is a text; integers and decimals are added up"),
    rule("divide = 1000", "divide = 60", "60", "'divide' takes 10, 100, 1000 or 1000000"),
    rule(
        "longest = { max = \"metres\" }\nfare",
        "longest = { max = \"status\" }\nfare",
        "status",
        "longest: 'status' is an id; a max is of integers, decimals and times",
    ),
    rule(
        "longest = { max = \"metres\" }\nfare",
        "longest = { max = \"metres\", min = \"metres\" }\nfare",
        "longest",
        "'longest' has min and max; write a measure of its own for each",
    ),
    rule(
        "longest = { max = \"metres\" }\nfare",
        "longest = { where = { status = \"done\" } }\nfare",
        "longest",
        "'longest' is to have one of count, sum, min, max, distinct and ratio",
    ),
    rule(
        "longest = { max = \"metres\" }\nfare",
        "longest = { median = \"metres\" }\nfare",
        "median",
        "the measure 'longest' has no key 'median'; quantiles depend on the order in which parts are merged, so \
         there are none",
    ),
    rule(
        "longest = { max = \"metres\" }\nfare",
        "longest = { avg = \"metres\" }\nfare",
        "avg",
        "the measure 'longest' has no key 'avg'; an average is the ratio of a sum and a count",
    ),
    rule("longest = { max = \"metres\" }\nfare", "longest = { count = false }\nfare", "false", "'count' takes true"),
    rule(
        "ratio = [\"fares\", \"rides\"]",
        "ratio = [\"fares\", \"ride\"]",
        "ride",
        "'ride' is no measure of this report; write 'rides'",
    ),
    rule(
        "ratio = [\"fares\", \"rides\"]",
        "ratio = [\"fares\", \"longest\"]",
        "longest",
        "'longest' is a max; a ratio is of counts, sums and distinct counts",
    ),
    rule(
        "ratio = [\"fares\", \"rides\"]",
        "ratio = [\"fares\", \"fare_per_ride\"]",
        "fare_per_ride",
        "'fare_per_ride' is a ratio itself; write the measures that it is made of",
    ),
    rule(
        "ratio = [\"fares\", \"rides\"] }",
        "ratio = [\"fares\", \"rides\"], where = { status = \"done\" } }",
        "where",
        "'where' is for count, sum, min, max and distinct, not for ratio",
    ),
];

/// All rules, under their headings.
pub const RULES: &[(&str, &[Rule])] = &[
    ("The form of the file", FORM),
    ("The file's format, days and zones", FILES),
    ("Columns", COLUMNS),
    ("Conditions", CONDITIONS),
    ("References", REFERENCES),
    ("Reports and top lists", REPORTS),
    ("Measures", MEASURES),
];
