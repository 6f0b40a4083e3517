//! The page about every table and key of a configuration, made of what stands at each in `raw.rs`: so neither is
//! without the other.

use std::fmt::Write as _;

const SOURCE: &str = include_str!("raw.rs");

/// A table of the configuration.
#[derive(Debug, Default)]
struct Table {
    /// The type's name in the source.
    name: String,
    doc: String,
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    name: String,
    /// Its type in the source.
    source_type: String,
    doc: String,
}

/// Every table and key with its type, default and bounds, in Markdown.
#[must_use]
pub fn reference() -> String {
    let tables = tables(SOURCE);
    let (top, others) = tables.split_first().expect("the source begins with the top level");
    let mut page = String::from(
        "# Keys of a configuration\nEvery table and key, with defaults and bounds. A key that is not listed is \
         refused, and what is wrong with a file is told all at once (`sluice check`). Paths are relative to the \
         directory of the file. Examples: [configs](../configs). Made from `config/src/raw.rs`; `sluice init \
         --reference` prints the same.\n\n## Top level\n",
    );
    for key in &top.keys {
        if !is_table(&key.source_type) {
            entry(&mut page, key);
        }
    }
    for table in others {
        let (heading, rest) = heading(&table.doc);
        let _ = writeln!(page, "\n## {heading}");
        let of_this =
            |key: &&Key| is_table(&key.source_type) && key.source_type.contains(&table.name);
        let about = top.keys.iter().find(of_this).map(|key| key.doc.as_str());
        for words in [about.unwrap_or_default(), rest].into_iter().filter(|words| !words.is_empty())
        {
            let _ = writeln!(page, "{words}\n");
        }
        for key in &table.keys {
            entry(&mut page, key);
        }
    }
    page
}

fn entry(page: &mut String, Key { name, source_type, doc }: &Key) {
    // A String takes writes without an error.
    let _ = writeln!(page, "- **`{name}`** ({}): {doc}", type_words(source_type));
}

/// Whether a key of the top level is a table of its own.
fn is_table(source_type: &str) -> bool {
    source_type.starts_with("Tables<") || source_type.starts_with("Field<Raw")
}

/// The type in TOML's words.
fn type_words(source_type: &str) -> &'static str {
    match source_type {
        "Field<bool>" => "boolean",
        "Field<i64>" => "integer",
        "Field<Texts>" | "Field<WordOr<Vec<Spanned<String>>>>" => "string or list of strings",
        "Field<WordOr<Vec<Spanned<i64>>>>" => "string or list of integers",
        "Field<WordOr<i64>>" => "string or integer",
        "Option<Vec<Spanned<i64>>>" => "list of integers",
        "Field<toml::Table>" => "table",
        "BTreeMap<String, Spanned<String>>" => "table of strings",
        text if text.starts_with("Option<Vec<Spanned<WordOr") => "list of strings or tables",
        text if text.starts_with("Option<Vec") || text.starts_with("Field<Vec") => {
            "list of strings"
        }
        text if text.starts_with("Field<WordOr<Raw") => "string or table",
        text if text.starts_with("Tables<") => "list of tables",
        text if text.starts_with("Field<Raw") && !text.contains("Kind") => "table",
        _ => "string",
    }
}

/// The heading of a table and what else is said of it: the first words up to a full stop or colon that stands
/// outside code.
fn heading(doc: &str) -> (&str, &str) {
    let mut is_code = false;
    for (at, letter) in doc.char_indices() {
        match letter {
            '`' => is_code = !is_code,
            '.' | ':' if !is_code => return (&doc[..at], doc[at + 1..].trim_start()),
            _ => {}
        }
    }
    (doc, "")
}

/// The structs of the source with their fields.
fn tables(source: &str) -> Vec<Table> {
    let (mut tables, mut doc, mut renamed) = (Vec::<Table>::new(), String::new(), None);
    let (mut is_in_struct, mut is_in_attribute) = (false, false);
    for line in source.lines().map(str::trim) {
        if is_in_attribute || line.starts_with("#[") {
            is_in_attribute = !line.ends_with(']');
            if let Some((_, rest)) = line.split_once("rename = \"") {
                renamed = rest.split('"').next().map(str::to_owned);
            }
        } else if let Some(words) = line.strip_prefix("///") {
            let space = if doc.is_empty() { "" } else { " " };
            doc = doc + space + words.trim();
        } else if let Some(name) = line.strip_prefix("pub(crate) struct ") {
            let name = name.trim_end_matches(['{', ' ']).to_owned();
            tables.push(Table { name, doc: std::mem::take(&mut doc), keys: Vec::new() });
            is_in_struct = true;
        } else if let (true, Some(field)) = (is_in_struct, line.strip_prefix("pub(crate) "))
            && let Some((name, source_type)) = field.split_once(": ")
            && let Some(table) = tables.last_mut()
        {
            table.keys.push(Key {
                name: renamed.take().unwrap_or_else(|| name.to_owned()),
                source_type: source_type.trim_end_matches(',').to_owned(),
                doc: std::mem::take(&mut doc),
            });
        } else {
            is_in_struct &= line != "}";
            doc.clear();
            renamed = None;
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_without_a_word() {
        let tables = tables(SOURCE);
        assert!(tables.len() > 20, "{} tables", tables.len());
        let keys = tables.iter().flat_map(|table| table.keys.iter().map(move |key| (table, key)));
        for (table, key) in keys {
            assert!(key.doc.len() > 5, "{} of {}", key.name, table.name);
        }
        // As many fields as serde knows, whatever stands between them.
        let fields = SOURCE.lines().filter(|line| line.starts_with("    pub(crate) ")).count();
        assert_eq!(tables.iter().map(|table| table.keys.len()).sum::<usize>(), fields);
        let of_route = tables.iter().find(|table| table.name == "RawRoute").expect("a table");
        assert!(of_route.keys.iter().any(|key| key.name == "type"), "by its name in TOML");
    }

    #[test]
    fn headings_end_outside_of_code() {
        assert_eq!(heading("`a.b`: c. d"), ("`a.b`", "c. d"));
        assert_eq!(heading("`[a]`, and `b`."), ("`[a]`, and `b`", ""));
        assert_eq!(heading("`[a]`"), ("`[a]`", ""));
    }

    /// With `SLUICE_BLESS=1` the page is written instead of compared.
    #[test]
    fn the_page_of_keys_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../CONFIGURATION.md");
        if std::env::var_os("SLUICE_BLESS").is_some() {
            std::fs::write(path, reference()).expect("the page can be written");
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == reference(),
            "dataplane/CONFIGURATION.md is out of date: run this test with SLUICE_BLESS=1"
        );
    }
}
