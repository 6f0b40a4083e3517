//! Tables that plugins look keys up in: from files that the configuration names, read by all workers.
//!
//! ```text
//!  file --parse--> Table --Update::Tables--> each instance, between two turns
//!                    ^                            | the old one
//!                    +------ its words            v
//!                                      back to the control thread, which frees it
//! ```
//!
//! Invariants: a table never changes; a file that changed makes a new one. A word keeps its number as
//! long as the plugin runs, whatever becomes of the file, because a plugin asks for it once. A file with a
//! fault is refused as a whole, with the line, and the table before it goes on.

mod lpm;
mod reload;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use serde::Serialize;

use crate::{
    Manifest, PluginFault,
    module::read_file,
    watch::{FileStamp, file_stamp},
};
use lpm::{Lpm, Prefix};

/// The largest file of a table, in bytes.
const FILE_BYTES_MAX: usize = 64 << 20;
/// The most entries of a table.
const ENTRIES_MAX: usize = 1 << 21;
/// The most words of a table, those included that earlier versions of its file had.
const WORDS_MAX: usize = 65_536;
/// The longest word, in bytes.
pub(crate) const WORD_BYTES_MAX: usize = 64;

/// A loaded file.
#[derive(Debug)]
pub(crate) struct Table {
    stamp: FileStamp,
    lpm: Lpm,
    entries: usize,
    /// Words of this file, with their numbers.
    words: HashMap<Box<str>, u32>,
    /// Words of this file and of those before it.
    numbers: HashMap<Box<str>, u32>,
}

impl Table {
    /// Reads a file. Words that an earlier version of the table has keep their numbers.
    pub(crate) fn load(path: &Path, before: Option<&Self>) -> Result<Self, PluginFault> {
        // Before it is read: a change in between is then seen by the next look.
        let stamp = file_stamp(path);
        let bytes = read_file(path, FILE_BYTES_MAX)?;
        let fault = |line, reason| PluginFault::Table { path: path.to_owned(), line, reason };
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
            fault(line, "it is no UTF-8".to_owned())
        })?;
        let numbers = before.map(|before| before.numbers.clone()).unwrap_or_default();
        let parsed = Parsed::of(text, numbers).map_err(|(line, reason)| fault(line, reason))?;
        let Parsed { prefixes, words, numbers, .. } = parsed;
        let lpm =
            Lpm::build(&prefixes.iter().map(|(prefix, (value, _))| (*prefix, *value)).collect());
        Ok(Self { stamp, lpm, entries: prefixes.len(), words, numbers })
    }

    /// The state of its file before it was read.
    pub(crate) fn stamp(&self) -> FileStamp {
        self.stamp
    }

    /// The value that stands for a word, or 0.
    pub(crate) fn word(&self, word: &str) -> u32 {
        self.words.get(word).copied().unwrap_or(0)
    }

    /// The values of keys, each 0 for a miss.
    #[inline]
    pub(crate) fn lookup_batch(&self, keys: &[u128], results: &mut [u32]) {
        self.lpm.lookup_batch(keys, results);
    }

    /// Entries of the file.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// Bytes that look-ups read.
    pub(crate) fn bytes(&self) -> usize {
        self.lpm.bytes()
    }
}

/// What a line says that its key stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    Numbers,
    Words,
}

struct Parsed {
    /// With the line that each stands in.
    prefixes: BTreeMap<Prefix, (u32, usize)>,
    words: HashMap<Box<str>, u32>,
    numbers: HashMap<Box<str>, u32>,
    /// What the file has, and the first line that shows it.
    values: Option<(Values, usize)>,
}

impl Parsed {
    /// Reads the lines of a file. An error comes with its line, from 1 on.
    fn of(text: &str, numbers: HashMap<Box<str>, u32>) -> Result<Self, (usize, String)> {
        let mut parsed =
            Self { prefixes: BTreeMap::new(), words: HashMap::new(), numbers, values: None };
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.split('#').next().unwrap_or_default();
            parsed.line(line, text).map_err(|reason| (line, reason))?;
        }
        Ok(parsed)
    }

    fn line(&mut self, line: usize, text: &str) -> Result<(), String> {
        let mut fields = text.split_whitespace();
        let Some(key) = fields.next() else { return Ok(()) };
        let prefix = parse_key(key)?;
        let value = self.value(line, fields.next())?;
        if let Some(more) = fields.next() {
            return Err(format!("`{}` is more than a key and a value", shown(more)));
        }
        if let Some((_, other)) = self.prefixes.insert(prefix, (value, line)) {
            return Err(format!("`{}` is in line {other} already", shown(key)));
        }
        if self.prefixes.len() > ENTRIES_MAX {
            return Err(format!("there are more than {ENTRIES_MAX} entries"));
        }
        Ok(())
    }

    fn value(&mut self, line: usize, field: Option<&str>) -> Result<u32, String> {
        let is_word = field.is_some_and(|field| !field.bytes().all(|b| b.is_ascii_digit()));
        let values = if is_word { Values::Words } else { Values::Numbers };
        let (found, first) = *self.values.get_or_insert((values, line));
        if found != values {
            // A number could pass for a word otherwise.
            let what =
                if is_word { "a word, and line {} has none" } else { "no word, and line {} has" };
            return Err(format!("it has {}", what.replace("{}", &first.to_string())));
        }
        match field {
            None => Ok(1),
            Some(word) if is_word => self.word(word),
            Some(number) => match number.parse::<u32>() {
                Ok(0) | Err(_) => {
                    Err(format!("`{}` is no number from 1 to {}", shown(number), u32::MAX))
                }
                Ok(number) => Ok(number),
            },
        }
    }

    fn word(&mut self, word: &str) -> Result<u32, String> {
        if let Some(number) = self.words.get(word) {
            return Ok(*number);
        }
        if word.len() > WORD_BYTES_MAX || word.chars().any(char::is_control) {
            let shown = shown(word);
            return Err(format!("`{shown}` is no word of up to {WORD_BYTES_MAX} bytes"));
        }
        let next = self.numbers.len() + 1;
        let number = match self.numbers.get(word) {
            Some(number) => *number,
            None if next > WORDS_MAX => {
                return Err(format!(
                    "there are more than {WORDS_MAX} words, with those of the file's earlier versions"
                ));
            }
            None => {
                let next = u32::try_from(next).unwrap_or(u32::MAX);
                self.numbers.insert(word.into(), next);
                next
            }
        };
        self.words.insert(word.into(), number);
        Ok(number)
    }
}

/// A piece of a file, for a person.
fn shown(text: &str) -> String {
    let clean = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
    let mut shown: String = text.chars().take(64).map(clean).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// An address, a prefix, or 32 hexadecimal digits.
fn parse_key(text: &str) -> Result<Prefix, String> {
    if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let bits = u128::from_str_radix(text, 16).map_err(|error| error.to_string())?;
        return Ok(Prefix::new(bits, 128));
    }
    let bad = || format!("`{}` is no address, prefix or key of 32 hexadecimal digits", shown(text));
    let (address, length) = match text.split_once('/') {
        None => (text, None),
        Some((address, length)) => (address, Some(length)),
    };
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let (bits, longest, shift) = match address {
        IpAddr::V4(address) => (address.to_ipv6_mapped().to_bits(), 32, 96),
        IpAddr::V6(address) => (address.to_bits(), 128, 0),
    };
    let length = match length {
        None => longest,
        Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            length.parse::<u8>().ok().filter(|length| *length <= longest).ok_or_else(|| {
                format!("`{}`: the length is not from 0 to {longest}", shown(text))
            })?
        }
        Some(_) => return Err(bad()),
    };
    let prefix = Prefix::new(bits, shift + length);
    if prefix.bits != bits {
        return Err(format!("`{}` has bits behind its length", shown(text)));
    }
    Ok(prefix)
}

/// Empty tables in the place of those that a plugin wants, until it is given them.
pub(crate) fn no_tables(manifest: &Manifest) -> Tables {
    let empty = Arc::new(Table {
        stamp: None,
        lpm: Lpm::build(&BTreeMap::new()),
        entries: 0,
        words: HashMap::new(),
        numbers: HashMap::new(),
    });
    manifest.tables.iter().map(|_| Arc::clone(&empty)).collect()
}

/// What `sluice status` shows of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableStatus {
    /// What the manifest calls it.
    pub name: String,
    /// Entries of its file.
    pub entries: usize,
    /// Memory that look-ups read, in bytes.
    pub bytes: usize,
}

/// The tables of a version of a plugin, in the order in which its manifest names them.
pub(crate) type Tables = Arc<[Arc<Table>]>;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Parsed, (usize, String)> {
        Parsed::of(text, HashMap::new())
    }

    fn refusal(text: &str) -> String {
        let Err((line, reason)) = parse(text) else { panic!("{text:?} was taken") };
        format!("{line}: {reason}")
    }

    #[test]
    fn every_form_of_a_line_is_taken() {
        let text = "# a table\n\n10.0.0.0/8 5 # ours\n192.0.2.1\t7\r\n2001:db8::/32\n::1 4294967295\n\
                    0123456789abcdef0123456789ABCDEF 9";
        let parsed = parse(text).expect("a table");
        let found: Vec<_> =
            parsed.prefixes.iter().map(|(p, (value, line))| (p.length, *value, *line)).collect();
        assert_eq!(found, [(128, u32::MAX, 6), (104, 5, 3), (128, 7, 4), (128, 9, 7), (32, 1, 5)]);
    }

    #[test]
    fn words_have_numbers_from_1_on_and_keep_them() {
        let first = parse("10.0.0.1 de\n10.0.0.2 fr\n10.0.0.3 de\n").expect("a table");
        assert_eq!((first.words["de"], first.words["fr"]), (1, 2));
        let second = Parsed::of("10.0.0.1 nl\n10.0.0.2 fr\n", first.numbers).expect("a table");
        assert_eq!((second.words["nl"], second.words["fr"]), (3, 2));
        assert!(!second.words.contains_key("de"));
        assert_eq!(second.numbers["de"], 1);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, expected) in [
            ("10.0.0.0/8\n10.0.0/8", "2: `10.0.0/8` is no address"),
            ("10.0.0.0/33", "1: `10.0.0.0/33`: the length is not from 0 to 32"),
            ("::/129", "1: `::/129`: the length is not from 0 to 128"),
            ("::/+1", "1: `::/+1` is no address"),
            ("10.0.0.1/8", "1: `10.0.0.1/8` has bits behind its length"),
            ("10.0.0.1 0", "1: `0` is no number from 1"),
            ("10.0.0.1 4294967296", "1: `4294967296` is no number"),
            ("10.0.0.1 1 2", "1: `2` is more than"),
            ("\n::1 de\n::2", "3: it has no word, and line 2 has"),
            ("::1\n::2 de", "2: it has a word, and line 1 has none"),
            ("10.0.0.1\n#\n::ffff:10.0.0.1", "3: `::ffff:10.0.0.1` is in line 1 already"),
        ] {
            let found = refusal(text);
            assert!(found.starts_with(expected), "{text:?}: {found}");
        }
        assert!(refusal(&format!("::1 {}", "w".repeat(65))).contains("no word of up to 64 bytes"));
        parse(&format!("::1 {}", "w".repeat(64))).expect("64 bytes are a word");
        let words = |count: u32| (0..count).map(|n| format!("{n:032x} w{n}\n")).collect::<String>();
        parse(&words(65_536)).expect("as many words as there may be");
        assert!(refusal(&words(65_537)).starts_with("65537: there are more than 65536 words"));
    }
}
