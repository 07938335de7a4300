//! Data: the files to read, and the keys that they would have in the bucket.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use crate::commands::definition::name;
use crate::commands::definition::trial::TrialError;
use crate::layout::INCOMING;

/// Most files that are tried at a time: as many as a batch has.
const MAX_FILES: usize = 10_000;
/// Deepest folder that is looked into.
const MAX_DEPTH: usize = 32;

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DataFile {
    pub(super) path: PathBuf,
    /// The key that it would have in the bucket.
    pub(super) key: String,
    pub(super) size: u64,
}

/// Returns the files that are given, and those in the folders that are given, in the order of their names. Hidden ones
/// are left out, and so is what lies in a folder and is no data: the definition, and the folder of the references.
/// `key` is that of the only file.
pub(super) fn files(data: &[PathBuf], no_data: &[&Path], key: Option<&str>) -> Result<Vec<DataFile>, TrialError> {
    let no_data: Vec<PathBuf> = no_data.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let mut found = Vec::new();
    for path in data {
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => TrialError::Data(format!("{} is not there", name(path))),
            _ => TrialError::Data(format!("{} cannot be read: {error}", name(path))),
        };
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if metadata.is_dir() {
            let before = found.len();
            search(path, (path, &no_data), 1, &mut found)?;
            if found.len() == before {
                return Err(TrialError::Data(format!("there is no file in the folder {}", name(path))));
            }
        } else {
            add(path, path.parent().unwrap_or(path), &metadata, &mut found)?;
        }
    }
    match (key, found.as_mut_slice()) {
        (None, _) => {}
        (Some(key), [only]) => only.key = format!("{INCOMING}{}", key.strip_prefix(INCOMING).unwrap_or(key)),
        (Some(_), all) => {
            let count = all.len();
            return Err(TrialError::Data(format!("--key is the key of one file, and there are {count} files")));
        }
    }
    Ok(found)
}

/// Adds the files of a folder, and of the folders in it. Keys begin below the folder `top`.
fn search(
    folder: &Path,
    (top, no_data): (&Path, &[PathBuf]),
    depth: usize,
    found: &mut Vec<DataFile>,
) -> Result<(), TrialError> {
    let unreadable =
        |path: &Path, error: io::Error| TrialError::Data(format!("{} cannot be read: {error}", name(path)));
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut paths: Vec<PathBuf> =
        entries.map_err(|error| unreadable(folder, error))?.iter().map(std::fs::DirEntry::path).collect();
    paths.retain(|path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')));
    paths.retain(|path| !path.canonicalize().is_ok_and(|path| no_data.contains(&path)));
    paths.sort();
    for path in paths {
        let is_link = path.is_symlink();
        let metadata = std::fs::metadata(&path).map_err(|error| unreadable(&path, error))?;
        if metadata.is_file() {
            add(&path, top, &metadata, found)?;
        } else if metadata.is_dir() && !is_link && depth < MAX_DEPTH {
            search(&path, (top, no_data), depth + 1, found)?;
        }
    }
    Ok(())
}

fn add(path: &Path, top: &Path, metadata: &Metadata, found: &mut Vec<DataFile>) -> Result<(), TrialError> {
    if found.len() == MAX_FILES {
        let problem = format!("there are more than {MAX_FILES} files, more than a batch has; try fewer at a time");
        return Err(TrialError::Data(problem));
    }
    let key = format!("{INCOMING}{}", path.strip_prefix(top).unwrap_or(path).to_string_lossy());
    found.push(DataFile { path: path.to_owned(), key, size: metadata.len() });
    Ok(())
}
