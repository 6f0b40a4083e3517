//! Raw to checked: each value is parsed into what it means, each name is resolved.
//!
//! A check never stops: what is refused is replaced by a stand-in, so that the positions of its
//! neighbors stay right and the rest of the file is checked as well. A stand-in never gets out,
//! since one error is enough for [`Checker::finish`] to return none of it.

mod actions;
mod egress;
mod interfaces;
mod plugins;
mod process;
mod routes;
mod topology;
mod tunnel;

use std::collections::{HashMap, HashSet};
use std::io::BufRead;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::Spanned;

use crate::error::{ConfigError, ConfigErrors};
use crate::model::Checked;
use crate::raw::{Field, RawConfig};
use crate::read::{Lines, Reading, read};
use crate::reason::{Known, Place, Reason};

/// Opens a file that the configuration names.
pub(crate) type Open<'a> = &'a mut dyn FnMut(&Path) -> std::io::Result<Box<dyn BufRead>>;

/// Reads and checks a text. `file` is its name in messages, and relative paths in it start from
/// the directory of `file`; `open` opens the route files that it names, `None` refuses them.
pub(crate) fn check(
    text: &str,
    file: &Path,
    open: Option<Open<'_>>,
) -> Result<Checked, ConfigErrors> {
    let lines = Lines::of(text);
    let Reading { raw, errors, spoiled } = read(text, &lines);
    let mut checker = Checker { file, lines: &lines, spoiled: HashSet::new(), errors: Vec::new() };
    for (at, reason) in errors {
        checker.refuse(&at, reason);
    }
    checker.spoiled = spoiled;
    let checked = raw.map(|raw| checker.check(&raw, open));
    checker.finish(checked)
}

/// Collects errors while a configuration is checked.
struct Checker<'a> {
    file: &'a Path,
    lines: &'a Lines,
    spoiled: HashSet<String>,
    errors: Vec<ConfigError>,
}

impl Checker<'_> {
    fn check(&mut self, raw: &RawConfig, open: Option<Open<'_>>) -> Checked {
        let (interfaces, links) = self.interfaces(&raw.interface);
        let router = self.router(raw, &links);
        let hold = self.hold(raw, router.frames_per_worker);
        let fragments = self.fragments(raw, router.frames_per_worker);
        let topology = self.topology(raw, &links);
        self.ends_of_tunnels(raw, &topology);
        let (tunnel, gue_port) = self.tunnel(raw, &topology);
        let (egress, slices) = self.egress(&raw.egress, &topology);
        let routes = self.routes(&raw.route, &links);
        let route_files = self.route_files(raw.route_files.as_deref(), &links, open);
        let (next_hops, hop_names) = self.next_hops(&raw.next_hop, &links, &topology);
        Checked {
            file: self.file.to_owned(),
            workers: self.workers(raw),
            kernel: self.kernel(raw),
            validation: Self::validation(raw),
            route_options: self.route_options(raw),
            icmp: self.icmp(raw),
            punt: self.punt(raw),
            tunnel,
            gue_port,
            neighbors: self.neighbors(&raw.neighbor, &links),
            egress_tags: self.egress_tags(&raw.egress_tag, (&next_hops, &hop_names)),
            classes: self.classes(&raw.class),
            next_hops,
            plugins: self.plugins(&raw.plugin),
            plugin_options: self.plugin_options(raw, &router.control_socket),
            local_node: topology.local.map(|node| usize::from(node.0)),
            sites: topology.sites,
            nodes: topology.nodes,
            owners: topology.owners,
            router,
            hold,
            fragments,
            interfaces,
            routes,
            route_files,
            egress,
            slices,
        }
    }

    fn finish(self, checked: Option<Checked>) -> Result<Checked, ConfigErrors> {
        match checked {
            Some(checked) if self.errors.is_empty() => Ok(checked),
            _ => Err(ConfigErrors::new(self.errors)),
        }
    }

    /// Notes an error, unless the reader took the key out and has reported it.
    fn refuse(&mut self, at: &Place, reason: Reason) {
        if !self.spoiled.contains(&at.key) {
            let Place { key, line } = at.clone();
            self.errors.push(ConfigError { file: self.file.to_owned(), line, key, reason });
        }
    }

    /// Whether the reader took this key of a table out, and has reported it.
    fn is_spoiled(&self, table: &Place, name: &str) -> bool {
        self.spoiled.contains(&format!("{}.{name}", table.key))
    }

    /// The value, or nothing and an error.
    fn accept<T>(&mut self, at: &Place, result: Result<T, Reason>) -> Option<T> {
        result.map_err(|reason| self.refuse(at, reason)).ok()
    }

    /// Place of something that stands in the file.
    fn place<T>(&self, key: String, spanned: &Spanned<T>) -> Place {
        Place { key, line: Some(self.lines.line(spanned.span().start)) }
    }

    /// Place of a table `[name]`, which may be missing.
    fn table<T>(&self, name: &str, table: &Field<T>) -> Place {
        let line = table.as_ref().map(|table| self.lines.line(table.span().start));
        Place { key: name.to_owned(), line }
    }

    /// Place of a key in a table; a key that is missing has the line of its table.
    fn key<T>(&self, table: &Place, name: &str, field: &Field<T>) -> Place {
        let line = field.as_ref().map(|field| self.lines.line(field.span().start));
        Place { key: format!("{}.{name}", table.key), line: line.or(table.line) }
    }

    /// A value that must be there, with its place. `meaning` says what is missing.
    fn required<'r, T>(
        &mut self,
        table: &Place,
        name: &str,
        field: &'r Field<T>,
        meaning: &str,
    ) -> Option<(&'r T, Place)> {
        let at = self.key(table, name, field);
        match field {
            Some(value) => Some((value.get_ref(), at)),
            None => {
                self.refuse(&at, Reason::Missing(meaning.to_owned()));
                None
            }
        }
    }

    /// A number within bounds, or `default`.
    fn number(
        &mut self,
        table: &Place,
        name: &str,
        field: &Field<i64>,
        bounds: RangeInclusive<u32>,
        default: u32,
    ) -> u32 {
        let Some(value) = field else { return default };
        let at = self.key(table, name, field);
        self.accept(&at, bounded(*value.get_ref(), bounds)).unwrap_or(default)
    }

    /// A path, joined to the directory of the configuration file.
    fn path(&mut self, at: &Place, text: &str) -> PathBuf {
        if text.is_empty() {
            self.refuse(at, Reason::EmptyPath);
        }
        self.file.parent().unwrap_or(Path::new("")).join(text)
    }
}

/// A number within bounds.
fn bounded(value: i64, bounds: RangeInclusive<u32>) -> Result<u32, Reason> {
    let within = u32::try_from(value).ok().filter(|value| bounds.contains(value));
    within.ok_or_else(|| Reason::OutOfBounds {
        value,
        least: (*bounds.start()).into(),
        most: (*bounds.end()).into(),
    })
}

/// The names of one kind of thing, each with what it names and where it stands.
pub(crate) struct Names<T> {
    what: &'static str,
    places: HashMap<String, (T, Place)>,
    order: Vec<String>,
}

impl<T: Copy> Names<T> {
    fn new(what: &'static str) -> Self {
        Self { what, places: HashMap::new(), order: Vec::new() }
    }

    /// Adds a name that must not be there yet.
    fn add(&mut self, name: &str, value: T, at: &Place) -> Result<(), Reason> {
        if let Some((_, other)) = self.places.get(name) {
            return Err(Reason::Duplicate { value: name.to_owned(), other: other.clone() });
        }
        self.places.insert(name.to_owned(), (value, at.clone()));
        self.order.push(name.to_owned());
        Ok(())
    }

    /// What the name names.
    pub(crate) fn find(&self, name: &str) -> Result<T, Reason> {
        self.places.get(name).map(|(value, _)| *value).ok_or_else(|| Reason::Unknown {
            what: self.what,
            name: name.to_owned(),
            known: Known::of(&self.order),
        })
    }

    /// Where the name stands.
    fn place(&self, name: &str) -> Option<&Place> {
        self.places.get(name).map(|(_, place)| place)
    }
}

/// Names of instances and plugins become file names and metric labels.
fn check_name(name: &str) -> Result<String, Reason> {
    let fits = (1..=32).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if fits { Ok(name.to_owned()) } else { Err(Reason::BadName(name.to_owned())) }
}

/// Names of nodes, sites, owners and slices become metric labels and words of commands.
fn check_label(name: &str) -> Result<String, Reason> {
    let of_labels =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':' | b'/');
    let fits = (1..=64).contains(&name.len()) && name.bytes().all(of_labels);
    if fits { Ok(name.to_owned()) } else { Err(Reason::BadLabel(name.to_owned())) }
}

/// Names of interfaces, by `dev_valid_name` of the kernel (net/core/dev.c).
fn check_interface_name(name: &str) -> Result<String, Reason> {
    let fits = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if fits { Ok(name.to_owned()) } else { Err(Reason::BadInterfaceName(name.to_owned())) }
}
