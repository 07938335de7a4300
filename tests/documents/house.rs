//! The rules of the house: floors of `src`, sizes of its files and functions, first words of item documentation, and
//! lengths of lines. `docs/adr/0017-house.md` has the reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::document;

/// The floors of `src`, highest first. A folder imports from lower floors only. `docs/architecture.md` states the same.
const FLOORS: [&str; 22] = [
    "main",
    "command_line",
    "commands",
    "web",
    "reading",
    "service",
    "lake",
    "batch",
    "compute",
    "input",
    "reference",
    "ledger",
    "reports",
    "intake",
    "plan",
    "formats",
    "aws",
    "telemetry",
    "process",
    "definition",
    "values",
    "ground",
];
/// The files directly under `src`, but for `main.rs`, `command_line.rs` and `lib.rs`: the ground floor. They may import
/// each other.
const GROUND: [&str; 6] = ["calendar", "object", "counts", "protocol", "layout", "memory"];

const MAX_COLUMNS: usize = 120;
const MAX_FILE_LINES: usize = 450;
const MAX_FUNCTION_LINES: usize = 70;
/// Words that withhold an item's noun, and the share of item docs that may begin with one, in percent.
const WITHHOLDING: [&str; 8] = ["what", "whether", "how", "where", "which", "why", "when", "who"];
const MAX_WITHHOLDING_PERCENT: f64 = 3.0;

/// Every file below a folder with this extension, in order, except build output.
pub fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![document(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.extend((!path.ends_with("target")).then_some(path));
            } else if path.extension().is_some_and(|it| it == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The path as people write it, from the root of the repository.
fn shown(path: &Path) -> String {
    path.strip_prefix(document("")).unwrap().display().to_string()
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The modules of `src` that are there for tests only, as paths without ending.
static TEST_MODULES: LazyLock<BTreeSet<PathBuf>> = LazyLock::new(|| {
    let of_file = |path: PathBuf| {
        let folder = match path.ends_with("mod.rs") || path.ends_with("lib.rs") {
            true => path.parent().unwrap().to_owned(),
            false => path.with_extension(""),
        };
        let text = read(&path);
        let after = text.split("#[cfg(test)]\n").skip(1).filter_map(|after| after.lines().next());
        let names = after.filter_map(|line| Some(line.strip_suffix(';')?.rsplit_once("mod ")?.1.to_owned()));
        names.map(move |name| folder.join(name)).collect::<Vec<_>>()
    };
    files("src", "rs").into_iter().flat_map(of_file).collect()
});

/// The lines of a file outside `#[cfg(test)]` items, with their numbers.
fn without_tests(path: &Path, text: &str) -> Vec<(usize, String)> {
    if path.with_extension("").ancestors().any(|module| TEST_MODULES.contains(module)) {
        return Vec::new();
    }
    let mut kept = Vec::new();
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push((number, line.to_owned()));
            continue;
        }
        // The item ends with its closing brace, or is a line without a body.
        let end = format!("{}}}", " ".repeat(indentation(line)));
        let mut opened = false;
        for (_, line) in lines.by_ref() {
            opened |= line.ends_with('{');
            if line == end || (!opened && line.ends_with(';')) {
                break;
            }
        }
    }
    kept
}

/// The part of a line before a comment.
fn code(line: &str) -> &str {
    if line.trim_start().starts_with("//") { "" } else { line }
}

/// A file of `src` without comments and tests.
pub fn code_of(path: &Path) -> String {
    without_tests(path, &read(path)).iter().map(|(_, line)| format!("{}\n", code(line))).collect()
}

/// The room that a file or a module of `src` belongs to.
fn room(name: &str) -> &str {
    if GROUND.contains(&name) { "ground" } else { name }
}

/// The rooms that code imports: the names behind `crate::`, several where braces follow. The program's own file says
/// `music_streams::`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for root in ["crate::", "music_streams::"] {
        for (_, after) in code.match_indices(root).map(|(at, root)| code.split_at(at + root.len())) {
            let names = match after.strip_prefix('{') {
                None => vec![after],
                Some(group) => {
                    // Only what stands at the group's own level names a room.
                    let mut depth = 0;
                    let at_level = |c: char| {
                        depth += i32::from(c == '{') - i32::from(c == '}');
                        c == ',' && depth == 0
                    };
                    let end = group.char_indices().scan(1, |open, (at, c)| {
                        *open += i32::from(c == '{') - i32::from(c == '}');
                        Some((at, *open))
                    });
                    let end = end.into_iter().find(|&(_, open)| open == 0).map_or(group.len(), |(at, _)| at);
                    group[..end].split(at_level).collect()
                }
            };
            for name in names {
                let name: String = name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                // `crate::say!` and `crate::Name` are of the root itself.
                if name.starts_with(|c: char| c.is_lowercase()) && FLOORS.contains(&room(&name)) {
                    rooms.insert(room(&name).to_owned());
                }
            }
        }
    }
    rooms
}

/// Which rooms each room of `src` imports, with the files that do.
fn import_graph() -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let mut graph: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for path in files("src", "rs") {
        let inside = path.strip_prefix(document("src")).unwrap();
        let first = inside.iter().next().unwrap().to_str().unwrap();
        let name = room(first.strip_suffix(".rs").unwrap_or(first)).to_owned();
        // It has no code but the names of its modules.
        if name == "lib" {
            continue;
        }
        assert!(FLOORS.contains(&name.as_str()), "{} has no floor; see FLOORS in this test", shown(&path));
        let of_room = graph.entry(name.clone()).or_default();
        for imported in imports(&code_of(&path)).into_iter().filter(|imported| *imported != name) {
            of_room.entry(imported).or_default().insert(shown(&path));
        }
    }
    graph
}

#[test]
fn no_import_runs_up() {
    let graph = import_graph();
    let floor = |name: &str| FLOORS.iter().position(|floor| *floor == name).unwrap();
    let mut problems = Vec::new();
    for name in FLOORS {
        let Some(imported) = graph.get(name) else { panic!("there is no {name} any more; see FLOORS in this test") };
        println!("{name}: {}", imported.keys().cloned().collect::<Vec<_>>().join(" "));
        for (lower, by) in imported {
            if floor(lower) <= floor(name) {
                problems.push(format!("{name} imports {lower}, which is above it, in {by:?}"));
            }
            if name < lower.as_str() && graph[lower].contains_key(name) {
                problems.push(format!("{name} and {lower} import each other"));
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn imports_are_found_in_every_form() {
    let of = |code: &str| imports(code).into_iter().collect::<Vec<_>>();
    assert_eq!(of("use crate::aws::s3::Bucket;"), ["aws"]);
    assert_eq!(of("pub(crate) use crate::layout::{self, INCOMING};"), ["ground"]);
    assert_eq!(
        of("use crate::{\n    batch::{manifest, prepare},\n    ledger,\n};\nlet batch = x;"),
        ["batch", "ledger"]
    );
    assert_eq!(of("let day = crate::calendar::parse_date(text)? + crate::reports::x();"), ["ground", "reports"]);
    assert_eq!(of("let nothing = crate::something_else(); use super::x;"), Vec::<String>::new());
}

#[test]
fn the_map_has_the_floors() {
    let text = read(&document("docs/architecture.md"));
    let (_, map) = text.split_once("## The map\n").unwrap();
    let map = map.split("\n## ").next().unwrap();
    let paragraphs = map.split("\n\n").filter_map(|paragraph| paragraph.strip_prefix("**`src/"));
    let names: Vec<&str> = paragraphs.map(|paragraph| paragraph.split(['/', '.', '`']).next().unwrap()).collect();
    let rooms: Vec<&str> = FLOORS.into_iter().filter(|floor| *floor != "ground").collect();
    let (folders, ground) = names.split_at(rooms.len().min(names.len()));
    assert_eq!(folders, rooms, "docs/architecture.md has a paragraph for each floor, highest first");
    assert_eq!(ground, ["*"], "then one for the files of the ground floor");
    for name in GROUND {
        assert!(map.contains(&format!("`{name}.rs`")), "docs/architecture.md lacks {name}.rs");
    }
}

#[test]
fn an_item_is_described_by_its_noun_or_verb() {
    let (mut all, mut offenders) = (0, Vec::new());
    for path in files("src", "rs") {
        let mut is_first = true;
        for (number, line) in without_tests(&path, &read(&path)) {
            let Some(doc) = line.trim_start().strip_prefix("///") else {
                is_first = true;
                continue;
            };
            if std::mem::replace(&mut is_first, false) {
                all += 1;
                let word = doc.trim_start().split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
                if WITHHOLDING.contains(&word.to_lowercase().as_str()) {
                    offenders.push(format!("{}:{number}:{doc}", shown(&path)));
                }
            }
        }
    }
    let percent = 100.0 * offenders.len() as f64 / f64::from(all);
    println!("{} of {all} item docs, {percent:.1} %, begin with one of {WITHHOLDING:?}", offenders.len());
    assert!(percent <= MAX_WITHHOLDING_PERCENT, "{percent:.1} %:\n{}", offenders.join("\n"));
}

/// A line that cannot be broken: a link alone, behind no more than a mark of a comment or a list.
fn is_bare_link(line: &str) -> bool {
    let mut words = line.split_whitespace().filter(|word| !["//", "///", "//!", "-", "*", "#"].contains(word));
    words.next().is_some_and(|word| word.contains("://")) && words.next().is_none()
}

fn is_table_row(line: &str) -> bool {
    line.trim_start().trim_start_matches(['/', '!']).trim_start().starts_with('|')
}

#[test]
fn no_line_is_too_long() {
    let too_long = |line: &str| line.chars().count() > MAX_COLUMNS && !is_table_row(line) && !is_bare_link(line);
    let mut offenders = Vec::new();
    let code = ["src", "tests", "benches"].into_iter().flat_map(|folder| files(folder, "rs"));
    for path in code {
        let text = read(&path);
        let lines = text.lines().enumerate().filter(|(_, line)| too_long(line));
        offenders.extend(lines.map(|(index, _)| format!("{}:{}", shown(&path), index + 1)));
    }
    let documents = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(document);
    for path in documents.into_iter().chain(files("docs", "md")) {
        let mut in_fence = false;
        for (index, line) in read(&path).lines().enumerate() {
            in_fence ^= line.trim_start().starts_with("```");
            if !in_fence && too_long(line) {
                offenders.push(format!("{}:{}", shown(&path), index + 1));
            }
        }
    }
    assert!(offenders.is_empty(), "{} lines are too long:\n{}", offenders.len(), offenders.join("\n"));
}

/// The functions of a file with their lengths in lines: from `fn` to the closing brace, or the semicolon, below it.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let is_function = |line: &str| {
        let code = code(line).trim_start();
        let mut words = code.split_whitespace().take_while(|word| !word.contains('"'));
        let marks = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "default"];
        words.find(|word| !marks.contains(word)) == Some("fn")
    };
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
        let indent = " ".repeat(indentation(line));
        let (close, declared) = (format!("{indent}}}"), |line: &str| line.trim_end().ends_with(';'));
        // A body on the same line, or none.
        if line.ends_with('}') || declared(line) {
            continue;
        }
        let at_level = |line: &&str| indentation(line) == indent.len() && !line.trim().is_empty();
        let end = lines[start + 1..].iter().position(|line| *line == close || (at_level(line) && declared(line)));
        found.extend(end.map(|lines_after| (start + 1, lines_after + 2)));
    }
    found
}

#[test]
fn files_and_functions_are_short() {
    let mut offenders = Vec::new();
    let mut sizes = Vec::new();
    for path in files("src", "rs") {
        let text = read(&path);
        let lines = text.lines().count();
        sizes.push(lines);
        if lines > MAX_FILE_LINES {
            offenders.push(format!("{} has {lines} lines", shown(&path)));
        }
        for (start, lines) in functions(&text).into_iter().filter(|&(_, lines)| lines > MAX_FUNCTION_LINES) {
            offenders.push(format!("{}:{start}: a function of {lines} lines", shown(&path)));
        }
    }
    sizes.sort_unstable();
    println!("{} files of {} lines in the median, {:?} at most", sizes.len(), sizes[sizes.len() / 2], sizes.last());
    assert!(offenders.is_empty(), "{}", offenders.join("\n"));
}

#[test]
fn functions_are_measured_from_their_name_to_their_brace() {
    let text = "\
impl X {
    pub fn short(&self) -> bool { true }

    pub(crate) async fn long(
        &self,
    ) -> bool
    where
        Self: Sized,
    {
        if true {
            false
        }
    }

    fn declared(
        &self,
    ) -> bool;
}
// A fn that is only spoken of.
fn last() {
}
";
    assert_eq!(functions(text), [(4, 10), (15, 3), (20, 2)]);
}

/// Words of the built-in definition. The program knows columns, attributes and reports, and none of these.
const WORDS_OF_THE_DEFINITION: [&str; 9] =
    ["track", "genre", "listener", "song", "user", "listen", "listening", "artist", "country"];
/// Where a word has another meaning: the file, and what stands there. Here it is that of a socket, and of SVG.
const OTHER_MEANINGS: [(&str, &str); 5] = [
    ("src/web/server.rs", "TcpListener"),
    ("src/web/chart.rs", "userSpaceOnUse"),
    ("src/service/health.rs", "listen"),
    ("src/service/health.rs", "TcpListener"),
    ("src/service/mod.rs", "health.listen("),
];

/// The words of a line in lower case, identifiers taken apart, plurals as the singular.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let mut was_lower = false;
    for c in line.chars().chain([' ']) {
        if !c.is_ascii_alphabetic() || (c.is_ascii_uppercase() && was_lower) {
            words.push(std::mem::take(&mut word));
        }
        if c.is_ascii_alphabetic() {
            word.push(c.to_ascii_lowercase());
        }
        was_lower = c.is_ascii_lowercase();
    }
    words.retain(|word| !word.is_empty());
    let singular = |word: String| match word.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => word.strip_suffix('s').map_or(word.clone(), str::to_owned),
    };
    words.into_iter().map(singular).collect()
}

/// The definition says what files are like and what is reported; the code does not.
#[test]
fn no_word_of_the_definition_is_in_the_code() {
    let mut found = Vec::new();
    for path in files("src", "rs") {
        let shown = shown(&path);
        for (number, line) in without_tests(&path, &read(&path)) {
            let is_other = OTHER_MEANINGS.iter().any(|(file, text)| shown == *file && line.contains(text));
            if !is_other && words(&line).iter().any(|word| WORDS_OF_THE_DEFINITION.contains(&word.as_str())) {
                found.push(format!("{shown}:{number}: {}", line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "the built-in definition is known to the code at\n{}", found.join("\n"));
}

#[test]
fn words_are_found_in_identifiers_and_in_the_plural() {
    let found = words("let unknownGenres = self.user_ids(COUNTRIES)");
    assert_eq!(found, ["let", "unknown", "genre", "self", "user", "id", "country"]);
}
