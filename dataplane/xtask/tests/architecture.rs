//! The picture of rooms, held against the workspace: which crate may import which, who may name the
//! big outer crates, and where the source may be unsafe or unfinished.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What each crate may import of this workspace, apart from tests. A crate that is not listed fails:
/// it needs a room first.
const ROOMS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("sluice-abi", &[]),
    ("frame", &["wire", "sluice-abi"]),
    ("tables", &["wire"]),
    ("forward", &["frame", "wire", "tables", "sluice-abi"]),
    ("xdp", &["frame", "wire"]),
    ("sim", &["frame", "wire"]),
    ("policy", &["frame", "tables", "sluice-abi", "sluice-manifest"]),
    ("config", &["wire", "tables"]),
    ("control", &["config", "tables", "wire"]),
    ("load", &["wire", "frame", "xdp"]),
    ("network", &["wire", "frame", "tables", "forward", "sim", "policy", "config", "control"]),
    (
        "router",
        &[
            "wire",
            "sluice-abi",
            "sluice-sdk",
            "frame",
            "tables",
            "forward",
            "xdp",
            "sim",
            "network",
            "policy",
            "config",
            "control",
            "load",
        ],
    ),
    (
        "fuzz",
        &[
            "wire",
            "sluice-abi",
            "frame",
            "tables",
            "forward",
            "sim",
            "policy",
            "config",
            "control",
            "network",
        ],
    ),
    ("xtask", &[]),
    ("sluice-manifest", &["sluice-abi"]),
    ("sluice-macros", &["sluice-manifest"]),
    ("sluice-sdk", &["sluice-abi", "sluice-macros"]),
    ("prefixes", &[]),
    ("filter", &["sluice-sdk", "prefixes"]),
    ("hop-distance", &["sluice-sdk", "prefixes"]),
    ("syn-guard", &["sluice-sdk"]),
    ("egress-tags", &["sluice-sdk"]),
    ("rate-limit", &["sluice-sdk"]),
    (
        "benches",
        &[
            "wire",
            "sluice-abi",
            "frame",
            "tables",
            "forward",
            "xdp",
            "sim",
            "policy",
            "config",
            "control",
        ],
    ),
];

/// Crates from outside that only one room may name, whatever for.
const OUTSIDE: &[(&str, &str)] = &[
    ("wasmtime", "policy"),
    ("xsk-rs", "xdp"),
    ("libxdp-sys", "xdp"),
    ("libbpf-sys", "xdp"),
    ("aya", "xdp"),
];

/// Where the source may be unsafe, as starts of paths from the root.
const UNSAFE_ALLOWED: &[&str] = &[
    "dataplane/xdp/",
    "dataplane/policy/",
    "sdk/",
    "dataplane/tables/src/hardware/",
    "dataplane/frame/src/tsc.rs",
];

/// Who may read the wall clock, by the starts of paths from the root, and what for. Whatever decides
/// something about packets, time-outs or limits takes the time as an argument or has it from `Instant`,
/// which is `CLOCK_MONOTONIC`.
const WALL_CLOCK_ALLOWED: &[(&str, &str)] = &[
    ("dataplane/router/src/run/taps.rs", "time stamps in captures; fixed when the router starts"),
    ("dataplane/router/src/bench/document.rs", "when a measurement began, in its document"),
    ("dataplane/xtask/src/changes/report.rs", "when a measurement was written"),
    ("dataplane/xtask/src/peers/report.rs", "when a measurement was written"),
    ("dataplane/router/tests/clock.rs", "compares the time stamps of a log"),
];

/// What a wall clock is called in Rust's library, in crates and in C.
const WALL_CLOCKS: &[&str] = &[
    "SystemTime",
    "UNIX_EPOCH",
    "CLOCK_REALTIME",
    "CLOCK_REALTIME_COARSE",
    "CLOCK_TAI",
    "now_utc",
    "now_local",
    "chrono",
    "jiff",
    "gettimeofday",
    "clock_settime",
    "bpf_ktime_get_tai_ns",
];

fn root() -> PathBuf {
    // At run time, because the build products may come from another clone.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs this test");
    Path::new(&package).join("../..").canonicalize().expect("the workspace")
}

#[derive(Debug)]
struct Import {
    from: String,
    to: String,
    is_for_tests: bool,
}

/// All that the workspace's crates import, by what their manifests say.
fn imports() -> (BTreeSet<String>, Vec<Import>) {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut crates = BTreeSet::new();
    let mut imports = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let from = package["name"].as_str().expect("a name");
        crates.insert(from.to_owned());
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            imports.push(Import {
                from: from.to_owned(),
                to: dependency["name"].as_str().expect("a name").to_owned(),
                is_for_tests: dependency["kind"].as_str() == Some("dev"),
            });
        }
    }
    (crates, imports)
}

#[test]
fn crates_import_what_the_picture_allows() {
    let rooms: BTreeMap<_, _> = ROOMS.iter().copied().collect();
    let (crates, imports) = imports();
    let listed: BTreeSet<_> = rooms.keys().map(|&name| name.to_owned()).collect();
    assert_eq!(crates, listed, "the workspace's crates (left) and the picture's (right) differ");
    let mut wrong = Vec::new();
    for import in imports.iter().filter(|import| rooms.contains_key(import.to.as_str())) {
        let allowed = rooms[import.from.as_str()].contains(&import.to.as_str());
        match (allowed, import.is_for_tests) {
            (true, _) => {}
            (false, true) => println!("for tests only: {} -> {}", import.from, import.to),
            (false, false) => wrong.push(format!("{} -> {}", import.from, import.to)),
        }
    }
    assert!(wrong.is_empty(), "imports against the picture of rooms: {}", wrong.join(", "));
}

#[test]
fn the_picture_has_no_circle() {
    // Each round removes the rooms that import nothing that is left.
    let mut left: BTreeMap<_, _> = ROOMS.iter().copied().collect();
    while !left.is_empty() {
        let names: BTreeSet<_> = left.keys().copied().collect();
        left.retain(|_, imports| imports.iter().any(|import| names.contains(import)));
        assert!(left.len() < names.len(), "these rooms import each other: {names:?}");
    }
}

#[test]
fn outer_crates_stay_in_their_rooms() {
    let (_, imports) = imports();
    let wrong: Vec<_> = imports
        .iter()
        .filter(|import| {
            OUTSIDE.iter().any(|(name, room)| *name == import.to && *room != import.from)
        })
        .map(|import| format!("{} names {}", import.from, import.to))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join(", "));
}

/// Every Rust and C file of the repository, by its path from the root.
fn sources() -> Vec<(String, String)> {
    fn visit(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("a kind");
            let is_built = name == "target" || name.starts_with("target-");
            if kind.is_dir() && !is_built && !name.starts_with('.') {
                visit(&entry.path(), found);
            } else if kind.is_file()
                && [".rs", ".c", ".h"].iter().any(|ending| name.ends_with(ending))
            {
                found.push(entry.path());
            }
        }
    }
    let root = root();
    let mut paths = Vec::new();
    visit(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 20, "only {} sources under {}", paths.len(), root.display());
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a source in UTF-8");
            let name = path.strip_prefix(&root).expect("below the root").display().to_string();
            (name, text)
        })
        .collect()
}

/// The code of a source: comments and the content of strings and characters are blank, lines stay.
fn code(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut out = String::with_capacity(source.len());
    let mut index = 0;
    while index < chars.len() {
        let start = index;
        match at(index) {
            '/' if at(index + 1) == '/' => {
                while index < chars.len() && at(index) != '\n' {
                    index += 1;
                }
            }
            '/' if at(index + 1) == '*' => {
                let mut depth = 0;
                loop {
                    if at(index) == '/' && at(index + 1) == '*' {
                        depth += 1;
                        index += 2;
                    } else if at(index) == '*' && at(index + 1) == '/' {
                        depth -= 1;
                        index += 2;
                    } else {
                        index += 1;
                    }
                    if depth == 0 || index >= chars.len() {
                        break;
                    }
                }
            }
            // Raw strings end at a quote with as many signs as they started with. The letter may
            // also be the end of a word, which no raw string follows.
            'r' if matches!(at(index + 1), '"' | '#') && !is_word(at(index.wrapping_sub(1))) => {
                let signs = chars[index + 1..].iter().take_while(|&&c| c == '#').count();
                index += 1 + signs;
                if at(index) == '"' {
                    index += 1;
                    while index < chars.len()
                        && !(at(index) == '"'
                            && chars[index + 1..].iter().take(signs).all(|&c| c == '#'))
                    {
                        index += 1;
                    }
                    index += 1 + signs;
                }
            }
            '"' => {
                index += 1;
                while index < chars.len() && at(index) != '"' {
                    index += if at(index) == '\\' { 2 } else { 1 };
                }
                index += 1;
            }
            // A lifetime is left alone: it has no quote two characters on.
            '\'' if at(index + 1) == '\\' => {
                index += 3;
                while index < chars.len() && at(index) != '\'' {
                    index += 1;
                }
                index += 1;
            }
            '\'' if at(index + 2) == '\'' => index += 3,
            other => {
                out.push(other);
                index += 1;
                continue;
            }
        }
        let end = index.min(chars.len());
        out.extend(chars[start..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The numbers, from 1, of the lines of `code` that hold `word` as a word of its own.
fn lines_with(code: &str, word: &str) -> Vec<usize> {
    code.lines()
        .enumerate()
        .filter(|(_, line)| {
            line.match_indices(word).any(|(start, _)| {
                let before = line[..start].chars().next_back().is_some_and(is_word);
                let after = line[start + word.len()..].chars().next().is_some_and(is_word);
                !before && !after
            })
        })
        .map(|(index, _)| index + 1)
        .collect()
}

/// `file:line` of every line of code that holds one of `words`, in files that `is_searched`.
fn places(words: &[&str], is_searched: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| is_searched(name)) {
        let code = code(text);
        for word in words {
            found.extend(lines_with(&code, word).iter().map(|line| format!("{name}:{line}")));
        }
    }
    found
}

#[test]
fn the_source_is_unsafe_only_where_it_may_be() {
    let found =
        places(&["unsafe"], |name| !UNSAFE_ALLOWED.iter().any(|place| name.starts_with(place)));
    assert!(found.is_empty(), "unsafe code outside {UNSAFE_ALLOWED:?}:\n{}", found.join("\n"));
}

#[test]
fn the_wall_clock_is_read_only_where_it_decides_nothing() {
    let is_allowed =
        |name: &str| WALL_CLOCK_ALLOWED.iter().any(|(place, _)| name.starts_with(place));
    // The list names clocks in strings, which are no code.
    let found = places(WALL_CLOCKS, |name| !is_allowed(name));
    assert!(found.is_empty(), "the wall clock is read in:\n{}", found.join("\n"));
    for (place, _) in WALL_CLOCK_ALLOWED {
        let found = places(WALL_CLOCKS, |name| name.starts_with(place));
        assert!(!found.is_empty(), "{place} reads no wall clock: take it from the list");
    }
}

#[test]
fn nothing_is_left_to_do() {
    let found = places(&["todo!", "unimplemented!"], |_| true);
    assert!(found.is_empty(), "unfinished code:\n{}", found.join("\n"));
}

/// Lines of errors by `thiserror` whose text holds that of their cause, which they give as their source
/// besides: whoever prints the chain says it twice.
fn causes_said_twice(source: &str) -> Vec<usize> {
    let begin = "#[error(";
    let says_twice = |at: usize| {
        let rest = &source[at + begin.len()..];
        let (text, rest) = rest.split_once(")]")?;
        let end = rest.find(begin).into_iter().chain(rest.find("\n}")).min()?;
        let variant = &rest[..end];
        let mark = ["#[source]", "#[from]"].iter().find_map(|mark| variant.split_once(mark));
        let field = match mark {
            Some((before, _)) if before.trim_end().ends_with('(') => "0",
            Some((_, after)) => after.split(':').next()?.trim().trim_start_matches("pub "),
            None if variant.contains(" source:") => "source",
            None => return Some(false),
        };
        let said = [format!("{{{field}}}"), format!("{{{field}:"), format!(" .{field}")];
        Some(said.iter().any(|said| text.contains(said)))
    };
    let starts = source.match_indices(begin).map(|(at, _)| at);
    let found = starts.filter(|at| says_twice(*at).unwrap_or(false));
    found.map(|at| source[..at].lines().count() + 1).collect()
}

#[test]
fn an_error_says_its_cause_or_gives_it_as_its_source() {
    let mut found = Vec::new();
    for (name, text) in
        sources().iter().filter(|(name, _)| name != "dataplane/xtask/tests/architecture.rs")
    {
        found.extend(causes_said_twice(text).iter().map(|line| format!("{name}:{line}")));
    }
    assert!(found.is_empty(), "errors that say their cause twice:\n{}", found.join("\n"));
    let source = "enum E {\n\
        #[error(\"a: {source}\")]\nA { source: io::Error },\n\
        #[error(\"b: {0}\")]\nB(#[from] io::Error),\n\
        #[error(\"c: {cause:?}\")]\nC { at: u8,\n#[source]\ncause: io::Error },\n\
        #[error(transparent)]\nD(#[from] io::Error),\n\
        #[error(\"e\")]\nE { source: io::Error },\n\
        #[error(\"f: {0}\")]\nF(io::Error),\n\
        #[error(\"g: {error}\")]\nG { error: io::Error },\n}\n";
    assert_eq!(causes_said_twice(source), [2, 4, 6]);
}

#[test]
fn the_scan_sees_code_and_nothing_else() {
    let source = r###"
        // unsafe in a comment
        /* unsafe /* nested unsafe */ unsafe */ let a = 'u';
        let quote = '"'; let b = "unsafe \" unsafe"; let escaped = '\'';
        let c = r#"unsafe " unsafe"#; let d: &'static str = r"unsafe\"; let for_ = 1;
        #![forbid(unsafe_code)] let not_unsafe = unsafely;
        unsafe { a() }
        let e = br"x"; unsafe fn f() {}
        #[unsafe(no_mangle)] todo!()
    "###;
    assert_eq!(lines_with(&code(source), "unsafe"), [7, 8, 9]);
    assert_eq!(lines_with(&code(source), "todo!"), [9]);
    assert_eq!(code(source).lines().count(), source.lines().count());
}
