//! What `SPECIFICATION.md` names is there: files, scenarios and tests.

use std::fs;
use std::path::{Path, PathBuf};

/// Stands where a behaviour has no test.
const NO_TEST: &str = "no test of its own";

/// `dataplane/`.
fn root() -> PathBuf {
    // At run time, because the build products may come from another clone.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs this test");
    Path::new(&package).join("..")
}

/// What stands between backticks.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether there is a test `crate::file::test`, in a file of the crate's `tests/` or `src/`.
fn has_test(root: &Path, name: &str) -> bool {
    let parts: Vec<&str> = name.split("::").collect();
    let [package, file @ .., test] = &*parts else { return false };
    let head = format!("fn {test}(");
    ["tests", "src"].iter().any(|folder| {
        let path = root.join(package).join(folder).join(file.join("/")).with_extension("rs");
        fs::read_to_string(path).is_ok_and(|source| source.contains(&head))
    })
}

/// What is wrong with one row of a table with the columns behaviour, clause, code and tests.
fn faults(root: &Path, row: &str) -> Vec<String> {
    let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
    let [_, _, code, held_by] = *cells else {
        return vec![format!("{} columns", cells.len())];
    };
    let mut faults = Vec::new();
    if names(code).next().is_none() {
        faults.push("no file".to_owned());
    }
    for file in names(code).filter(|file| !root.join(file).is_file()) {
        faults.push(format!("no file {file}"));
    }
    if names(held_by).next().is_none() && held_by != NO_TEST {
        faults.push(format!("neither a test nor \"{NO_TEST}\""));
    }
    for name in names(held_by) {
        let scenario = root.join("router/scenarios").join(name).join("config.toml");
        if !name.contains("::") && !scenario.is_file() {
            faults.push(format!("no scenario {name}"));
        }
    }
    faults
}

#[test]
fn what_the_page_names_is_there() {
    let root = root();
    let page = fs::read_to_string(root.join("SPECIFICATION.md")).expect("SPECIFICATION.md");
    let (held, _) = page.split_once("\n## Left out\n").expect("a chapter of what is left out");
    let mut rows = 0;
    let mut wrong = Vec::new();
    for (line, text) in (1..).zip(page.lines()) {
        for name in names(text).filter(|name| name.contains("::") && !name.starts_with("crate::")) {
            if !name.contains(' ') && !name.starts_with("::") && !has_test(&root, name) {
                wrong.push(format!("line {line}: no test {name}"));
            }
        }
    }
    for (line, text) in (1..).zip(held.lines()) {
        if text.starts_with("| ") && !text.starts_with("| behaviour |") {
            rows += 1;
            wrong.extend(faults(&root, text).iter().map(|fault| format!("line {line}: {fault}")));
        }
    }
    assert!(rows > 50, "{rows} rows: is the page still read as it is written?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_not_there_is_found() {
    let root = root();
    assert!(has_test(&root, "xtask::specification::what_is_not_there_is_found"));
    assert!(!has_test(&root, "xtask::specification::what_is_there"));
    assert!(!has_test(&root, "xtask::nothing::what_is_not_there_is_found"));
    let row = "| b | c | `wire/src/none.rs` | `no-such-scenario` |";
    assert_eq!(faults(&root, row), ["no file wire/src/none.rs", "no scenario no-such-scenario"]);
    assert_eq!(faults(&root, "| b | c | `wire/src/lib.rs` | by hand |").len(), 1);
    assert_eq!(faults(&root, "| b | c | `wire/src/lib.rs` | no test of its own |").len(), 0);
}
