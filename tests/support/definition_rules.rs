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
    rule("name = \"rides\"", "name = rides", "rides", "this is no TOML: string values must be quoted, expected literal string"),
    rule("zone = \"Europe/Lisbon\"\n", "zone = \"UTC\"\nzone = \"UTC\"\n", "zone", "this is no TOML: duplicate key"),
    rule("name = \"rides\"\n", "", "#", "the definition lacks 'name', which takes a text in quotes of 1 to 63 bytes"),
    rule("delimiter = \";\"", "delimeter = \";\"", "delimeter", "[input] has no key 'delimeter'; write 'delimiter'"),
    rule("format = \"csv\"", "format = \"csv\"\nfuture = \"2h\"", "future", "[input] has no key 'future'; 'future' stands in the top of the file, above the first heading"),
    rule("earliest = \"2015-01-01\"", "delimiter = \";\"", "delimiter", "the definition has no key 'delimiter'; 'delimiter' stands in [input]"),
    rule("earliest = \"2015-01-01\"", "unique = [\"ride_id\"]", "unique", "the definition has no key 'unique'; a file counts once, but its rows are not compared with others; { distinct = … } of an event's id counts each event once"),
    rule("comment = \"#\"", "comment = 1", "1", "'comment' takes a text in quotes of 1 to 16 bytes, not a number"),
    rule("format = \"csv\"", "format = \"cvs\"", "cvs", "'format' takes \"csv\", \"tsv\", \"w3c\" or \"json\", not 'cvs'; write 'csv'"),
    rule("format = \"csv\"", "format = \"parquet\"", "parquet", "'format' takes \"csv\", \"tsv\", \"w3c\" or \"json\", not 'parquet'; such files are not read"),
    rule("balance  = \"integer\"", "balance  = \"float\"", "float", "'type' takes \"id\", \"text\", \"integer\", \"decimal\" or \"time\", not 'float'; write 'decimal' with 'places': a sum of floating point numbers depends on their order"),
    rule("balance  = \"integer\"", "balance  = \"boolean\"", "boolean", "'type' takes \"id\", \"text\", \"integer\", \"decimal\" or \"time\", not 'boolean'; write 'id', which takes true and false as their words"),
];

/// The rules on the top of the file and on its format.
pub const FILES: &[Rule] = &[
    rule("name = \"rides\"", "name = \"My Rides\"", "My Rides", "'My Rides' is no name of a pipeline: a to z, 0 to 9 and -, with a letter first; write 'my-rides'"),
    rule("time = \"ended_at\"", "time = \"endet_at\"", "endet_at", "'endet_at' is no column; write 'ended_at'"),
    rule("time = \"ended_at\"", "time = \"city\"", "city", "'city' is a text; the column that says when is a time"),
    rule("format = \"%d.%m.%Y %H:%M:%S\", ", "format = \"%d.%m.%Y %H:%M:%S\", optional = true, ", "ended_at", "every row has a time: 'ended_at' says when, so it is not optional"),
    rule("time = \"ended_at\"\nzone = \"Europe/Lisbon\"", "time = \"ended_at\"\nzone = \"Europe/Lisabon\"", "Europe/Lisabon", "'Europe/Lisabon' is no IANA name of a time zone; write 'Europe/Lisbon'"),
    rule("time = \"ended_at\"\nzone = \"Europe/Lisbon\"", "time = \"ended_at\"\nzone = \"+01:00\"", "+01:00", "'+01:00' is no IANA name of a time zone; write one such as 'Europe/Lisbon': offsets change with summer time, names do not"),
    rule("earliest = \"2015-01-01\"", "earliest = \"2015-02-29\"", "2015-02-29", "'2015-02-29' is no day of the calendar, YYYY-MM-DD"),
    rule("future = \"2h\"", "future = \"2 years\"", "2 years", "'2 years' is no time such as 90m, 12h or 2d, of whole seconds and at most 366 days"),
    rule("format = \"csv\"\ndelimiter = \";\"\nquote", "format = \"tsv\"\nquote", "quote", "'quote' is for csv, not for tsv"),
    rule("delimiter = \";\"", "delimiter = \"';'\"", "';'", "'delimiter' takes one ASCII character in quotes"),
    rule("delimiter = \";\"", "delimiter = \"\\n\"", "\\n", "'delimiter' is no character that ends a line"),
    rule("delimiter = \";\"", "delimiter = \"'\"", "'", "'delimiter' and 'quote' are the same"),
];
