//! The documents of a folder: every `*.json` in it, or everything that is wrong with them.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::document::Document;

/// A document larger than this is refused unread. A search of a day with a trial a second is below
/// 40 MiB; something larger is no document, and would only exhaust memory.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A document and the file it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The name of the file without its folder.
    pub file: String,
    /// What it says.
    pub document: Document,
}

/// A file that is not a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFile {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, in words.
    pub reason: String,
}

/// Why a folder cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The folder itself cannot be listed.
    #[error("{}: {reason}", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// There is nothing to report.
    #[error("{}: no *.json documents in it", .0.display())]
    Empty(PathBuf),
    /// Files that are not documents: all of them, so that one attempt shows everything to mend.
    #[error("{}", list(.0))]
    BadFiles(Vec<BadFile>),
}

fn list(files: &[BadFile]) -> String {
    let noun = if files.len() == 1 { "file is" } else { "files are" };
    let mut text = format!("{} {noun} not a document of a measurement:", files.len());
    for BadFile { path, reason } in files {
        // A line each: writing to a string cannot fail.
        let _ = write!(text, "\n  {}: {reason}", path.display());
    }
    text
}

/// Reads every `*.json` of a folder (not of the folders in it), in the order of their names.
///
/// # Errors
/// The folder cannot be listed or has no such file, or at least one of them is not a document: then
/// all that are not are named, and none is used.
pub fn read_dir(dir: &Path) -> Result<Vec<Source>, ReadError> {
    let folder = |reason| ReadError::Folder { dir: dir.to_owned(), reason };
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(folder)? {
        let path = entry.map_err(folder)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(ReadError::Empty(dir.to_owned()));
    }
    let mut sources = Vec::new();
    let mut bad = Vec::new();
    for path in paths {
        match read(&path) {
            Ok(document) => {
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                sources.push(Source { file, document });
            }
            Err(reason) => bad.push(BadFile { path, reason }),
        }
    }
    if bad.is_empty() { Ok(sources) } else { Err(ReadError::BadFiles(bad)) }
}

fn read(path: &Path) -> Result<Document, String> {
    let about = fs::metadata(path).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("not a regular file".to_owned());
    }
    if about.len() > FILE_BYTES_MAX {
        return Err(format!("{} bytes; a document has at most {FILE_BYTES_MAX}", about.len()));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(&bytes).map_err(|error| error.to_string())?;
    Document::parse(text)
}
