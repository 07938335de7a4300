//! The tutorials, as a reader follows them: every block of commands is run by the shell, in order, and what it says is
//! what the block of text behind it shows. `make` is a stand-in that looks at what it is asked for: the whole pipeline
//! needs a local AWS.

use std::path::Path;
use std::process::Command;

const DOCUMENT: &str = "docs/tutorials.md";
const MAX_DEFINITION_LINES: usize = 25;

/// Says nothing if the definition and the data are there; the targets and variables are compared with the Makefile.
const MAKE: &str = r#"#!/bin/sh
for argument; do
  case $argument in
    DEFINITION=*) test -f "${argument#*=}" ;;
    DATA=*) test -d "${argument#*=}" ;;
    -C | ../.. | build | local) ;;
    *) false ;;
  esac || { echo "make: $argument"; exit 1; }
done
"#;

/// A block between fences: its language, and its place in the document.
struct Block<'t> {
    language: &'t str,
    place: std::ops::Range<usize>,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let fences: Vec<usize> = text.match_indices("\n```").map(|(at, _)| at + 1).collect();
    let line_end = |at: usize| at + text[at..].find('\n').unwrap() + 1;
    let block = |fence: &[usize]| Block {
        language: text[fence[0]..line_end(fence[0])].trim_matches(['`', '\n']),
        place: line_end(fence[0])..fence[1],
    };
    fences.chunks(2).map(block).collect()
}

/// The texts between `<<'END'` and `END`, with the names of their files.
fn files(script: &str) -> Vec<(&str, &str)> {
    let after = script.split("cat > ").skip(1);
    after.map(|after| after.split("\nEND\n").next().unwrap().split_once(" <<'END'\n").unwrap()).collect()
}

fn run(script: &str, folder: &Path, path: &str) -> String {
    let mut command = Command::new("sh");
    let output =
        command.args(["-eu", "-c", script]).current_dir(folder).env_clear().env("PATH", path).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{script}{}", String::from_utf8_lossy(&said));
    String::from_utf8(said).unwrap()
}

#[test]
fn the_tutorials_can_be_followed() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(repository.join(DOCUMENT)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("target/release");
    std::fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_music-streams"), bin.join("music-streams")).unwrap();
    std::fs::write(bin.join("make"), MAKE).unwrap();
    let mut permissions = std::fs::metadata(bin.join("make")).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    std::fs::set_permissions(bin.join("make"), permissions).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());

    let blocks = blocks(&text);
    let script = |block: &Block<'_>| &text[block.place.clone()];
    let (first, others) = blocks.split_first().unwrap();
    assert_eq!(run(script(first), folder.path(), &path), "");
    let work = folder.path().join("target/tutorials");
    let mut shown = Vec::new();
    for (index, block) in others.iter().enumerate() {
        match block.language {
            "sh" => {
                let said = run(script(block), &work, &path);
                match others.get(index + 1).filter(|next| next.language == "text") {
                    Some(next) => shown.push((next, said)),
                    None => assert_eq!(said, "", "{}", script(block)),
                }
            }
            "text" => assert_eq!(others[index - 1].language, "sh"),
            other => panic!("a block of {other} is not tested"),
        }
    }
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        let mut updated = text.clone();
        shown.iter().rev().for_each(|(block, said)| updated.replace_range(block.place.clone(), said));
        std::fs::write(repository.join(DOCUMENT), updated).unwrap();
        return;
    }
    for (block, said) in shown {
        assert_eq!(script(block), said);
    }
}

/// Each tutorial is whole: files, a short definition, a look at it, and the way to run it.
#[test]
fn every_tutorial_goes_from_a_file_to_a_figure() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(repository.join(DOCUMENT)).unwrap();
    let makefile = std::fs::read_to_string(repository.join("Makefile")).unwrap();
    assert!(["\nbuild:", "\nlocal:", "$(DEFINITION)", "$(DATA)"].iter().all(|it| makefile.contains(it)));
    let sections: Vec<&str> = text.split("\n## ").skip(1).collect();
    let (_, tutorials) = sections.split_last().unwrap();
    assert_eq!(tutorials.len(), 5);
    for tutorial in tutorials {
        let files = files(tutorial);
        let (definitions, data): (Vec<_>, Vec<_>) = files.iter().partition(|(name, _)| name.ends_with(".toml"));
        let [(name, definition)] = definitions[..] else { panic!("{tutorial}") };
        let folder = name.strip_suffix(".toml").unwrap();
        assert!(definition.lines().count() <= MAX_DEFINITION_LINES, "{name}");
        assert!(!data.is_empty() && data.iter().all(|(file, _)| file.starts_with(&format!("{folder}/"))), "{name}");
        for command in [
            format!("\nmusic-streams definition try {name} {folder}\n"),
            format!("\nmake -C ../.. local DEFINITION=$PWD/{name} DATA=$PWD/{folder}\n"),
        ] {
            assert!(tutorial.contains(&command), "{name}: {command}");
        }
    }
}
