//! `sdk/c/sluice.h` says what `sdk/abi` says: every size, offset and constant of the released table, held
//! by clang; and no constant besides.

use std::{collections::BTreeSet, fmt::Write as _, path::Path, process::Command};

/// The table that `sdk/abi` is held against.
const RELEASED: &str = include_str!("../abi/tests/v1.0.txt");
const HEADER: &str = include_str!("../c/sluice.h");

/// `PayloadHeader` as `payload_header`.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// The table as assertions in C, and the names of its constants.
fn assertions() -> (String, BTreeSet<String>) {
    let mut text = String::from("#include \"sluice.h\"\n");
    let mut constants = BTreeSet::new();
    for line in RELEASED.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<_> = line.split(' ').collect();
        let condition = match words[..] {
            ["struct", name, size, align] => {
                let name = snake(name);
                format!(
                    "sizeof(struct sluice_{name}) == {size} && _Alignof(struct sluice_{name}) == {align}"
                )
            }
            ["field", name, offset, size] => {
                let (structure, field) = name.split_once('.').expect("STRUCT.NAME");
                let structure = snake(structure);
                // A word of C++.
                let field = if field == "class" { "class_" } else { field };
                format!(
                    "offsetof(struct sluice_{structure}, {field}) == {offset} && \
                     sizeof(((struct sluice_{structure} *)0)->{field}) == {size}"
                )
            }
            ["const", name, value] => {
                let name = format!("SLUICE_{}", name.replace("::", "_").to_ascii_uppercase());
                let condition = format!("{name} == {value}");
                constants.insert(name);
                condition
            }
            _ => panic!("{line}"),
        };
        writeln!(text, "_Static_assert({condition}, \"{line}\");").expect("a string");
    }
    (text, constants)
}

#[test]
fn the_header_agrees_with_the_released_table() {
    if Command::new("clang").arg("--version").output().is_err() {
        eprintln!("SKIPPED the_header_agrees_with_the_released_table: no clang here");
        return;
    }
    let (text, _) = assertions();
    let folder = tempfile::tempdir().expect("a folder");
    let compile = |file: &str, text: &str, arguments: &[&str]| {
        let file = folder.path().join(file);
        std::fs::write(&file, text).expect("written");
        let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("c");
        Command::new("clang")
            .args(["--target=wasm32", "-fsyntax-only", "-ffreestanding", "-Wall", "-Werror", "-I"])
            .args([&header, &file])
            .args(arguments)
            .output()
            .expect("clang runs")
    };
    let output = compile("table.c", &text, &["-std=c11"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // What the assertions are worth: one that is wrong fails.
    let wrong = text.replace("SLUICE_ACTION_DROP == 1", "SLUICE_ACTION_DROP == 2");
    assert!(!compile("wrong.c", &wrong, &["-std=c11"]).status.success());
    let output = compile("plus.cc", "#include \"sluice.h\"\n", &["-std=c++17"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_header_has_no_constant_besides() {
    let (_, constants) = assertions();
    let defined = HEADER.lines().filter_map(|line| {
        let mut words = line.strip_prefix("#define ")?.split_whitespace();
        let name = words.next()?;
        // Not those that take arguments, nor the guard.
        (words.next().is_some() && !name.contains('(')).then(|| name.to_owned())
    });
    let defined: BTreeSet<_> = defined.collect();
    assert_eq!(defined, constants);
}
