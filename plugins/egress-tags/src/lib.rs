//! The egress path of users' traffic by their country, trust and product. See `README.md`.
//!
//! ```text
//!  from a users' interface? --no--> left alone
//!       | yes
//!  DNS? --yes--> the site's tag
//!       | no
//!  source --tables--> country, trust, product --policy--> tag of the first rule | the site's tag
//! ```
//!
//! Deliberately absent: the way itself. A tag is a name for one, and the router knows where it leads.
#![deny(unsafe_code)]

mod policy;

use policy::{COLUMNS, Policy, Rule};
use serde::Deserialize;
use sluice_sdk::{BATCH_MAX, Batch, Descriptor, EgressTag, Plugin, Table, flags, interface_named};

/// The most rules: each has a counter.
pub const RULES_MAX: usize = 256;
/// The most interfaces by which users come in.
pub const INTERFACES_MAX: usize = 64;
/// The most ports of DNS.
pub const DNS_PORTS_MAX: usize = 16;
/// The most words that rules may name in one column: the number of a class is a byte.
pub const WORDS_MAX: usize = 255;

/// The configuration.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    site_tag: String,
    interfaces: Vec<InterfaceConfig>,
    #[serde(default)]
    rules: Vec<RuleConfig>,
    #[serde(default = "dns_ports")]
    dns_ports: Vec<u16>,
}

#[derive(Clone, Debug, Deserialize)]
struct InterfaceConfig {
    name: String,
    product: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct RuleConfig {
    country: Option<Vec<String>>,
    trust: Option<Vec<String>>,
    product: Option<Vec<String>>,
    tag: String,
}

fn dns_ports() -> Vec<u16> {
    vec![53, 853]
}

const COUNTRY: usize = 0;
const TRUST: usize = 1;
const PRODUCT: usize = 2;
/// The columns' keys in a rule, and their tables.
const NAMES: [(&str, &str); COLUMNS] =
    [("country", "countries"), ("trust", "trust"), ("product", "products")];

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The words of one column, and how they are recognised in packets.
#[derive(Debug)]
struct Column {
    table: Table,
    /// The words of the rules; the class of each is its position plus 1.
    words: Vec<String>,
    /// The class by the table's value, in order of values.
    classes: Vec<(u32, u8)>,
    /// What the table says of each packet of a batch.
    values: Box<[u32; BATCH_MAX]>,
}

impl Column {
    fn new(table: &str) -> Result<Self, String> {
        Ok(Self {
            table: Table::open(table)?,
            words: Vec::new(),
            classes: Vec::new(),
            values: Box::new([0; BATCH_MAX]),
        })
    }

    /// The class of a word that stands at `place`.
    fn class(&mut self, place: &str, word: &str) -> Result<u8, String> {
        let position = self.words.iter().position(|known| known == word);
        let position = match position {
            Some(position) => position,
            None if self.words.len() == WORDS_MAX => {
                return Err(format!("`{place}`: more than {WORDS_MAX} different words"));
            }
            None => {
                self.words.push(word.to_owned());
                self.words.len() - 1
            }
        };
        let class = position as u8 + 1;
        if let Some(value) = self.table.word(word)
            && !self.classes.contains(&(value, class))
        {
            self.classes.push((value, class));
            self.classes.sort_unstable();
        }
        Ok(class)
    }

    /// Whether the table has a word for a class.
    fn is_in_table(&self, class: u8) -> bool {
        self.classes.iter().any(|(_, known)| *known == class)
    }

    /// The class of packet number `index`, if the table says one that a rule asks about.
    #[inline]
    fn found(&self, index: usize) -> Option<u8> {
        let value = self.values[index];
        let position = self.classes.binary_search_by_key(&value, |(known, _)| *known).ok()?;
        Some(self.classes[position].1)
    }
}

/// A place where users come in.
#[derive(Clone, Copy, Debug)]
struct Interface {
    number: u16,
    /// The class of the product that it serves, or 0.
    product: u8,
}

/// The plugin.
#[derive(Debug)]
pub struct EgressTags {
    columns: [Column; COLUMNS],
    interfaces: Vec<Interface>,
    dns_ports: Vec<u16>,
    policy: Policy,
    tags: Vec<EgressTag>,
    site_tag: EgressTag,
}

fn at_most(key: &str, len: usize, most: usize) -> Result<(), String> {
    if len > most {
        return Err(format!("`{key}`: more than {most}"));
    }
    Ok(())
}

fn tag(place: &str, name: &str) -> Result<EgressTag, String> {
    EgressTag::named(name).map_err(|error| format!("`{place}`: {error}"))
}

impl Config {
    fn check(&self) -> Result<(), String> {
        at_most("rules", self.rules.len(), RULES_MAX)?;
        at_most("interfaces", self.interfaces.len(), INTERFACES_MAX)?;
        at_most("dns_ports", self.dns_ports.len(), DNS_PORTS_MAX)?;
        if self.interfaces.is_empty() {
            return Err("`interfaces`: the list is empty, and no packet would be judged".to_owned());
        }
        Ok(())
    }
}

impl EgressTags {
    #[inline]
    fn is_dns(&self, packet: &Descriptor) -> bool {
        matches!(packet.protocol, TCP | UDP)
            && packet.flags & flags::PORTS != 0
            && self.dns_ports.contains(&packet.destination_port)
    }
}

#[sluice_sdk::plugin(manifest = "manifest.toml")]
impl Plugin for EgressTags {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        config.check()?;
        let [country, trust, product] = NAMES.map(|(_, table)| Column::new(table));
        let mut columns = [country?, trust?, product?];
        let mut interfaces: Vec<Interface> = Vec::new();
        for (index, interface) in config.interfaces.iter().enumerate() {
            let place = format!("interfaces[{index}]");
            let number = interface_named(&interface.name)
                .map_err(|error| format!("`{place}.name`: {error}"))?;
            if interfaces.iter().any(|known| known.number == number) {
                return Err(format!("`{place}.name`: {} stands there twice", interface.name));
            }
            let product = match &interface.product {
                None => 0,
                Some(word) => columns[PRODUCT].class(&format!("{place}.product"), word)?,
            };
            interfaces.push(Interface { number, product });
        }
        let (mut rules, mut tags) = (Vec::new(), Vec::new());
        for (index, config) in config.rules.iter().enumerate() {
            let mut rule = Rule::default();
            let wanted = [&config.country, &config.trust, &config.product];
            for (column, words) in wanted.into_iter().enumerate() {
                let Some(words) = words else { continue };
                let place = format!("rules[{index}].{}", NAMES[column].0);
                // Read as "nothing is asked", an empty list would widen the rule to everybody.
                if words.is_empty() {
                    return Err(format!("`{place}`: the list is empty; leave the key out instead"));
                }
                for word in words {
                    let class = columns[column].class(&place, word)?;
                    let is_served = column == PRODUCT
                        && interfaces.iter().any(|interface| interface.product == class);
                    if !is_served && !columns[column].is_in_table(class) {
                        let table = NAMES[column].1;
                        return Err(format!("`{place}`: the table `{table}` has no `{word}`"));
                    }
                    rule[column].push(class);
                }
            }
            rules.push(rule);
            tags.push(tag(&format!("rules[{index}].tag"), &config.tag)?);
        }
        let classes = [COUNTRY, TRUST, PRODUCT].map(|column| columns[column].words.len() + 1);
        let policy = Policy::new(classes, &rules)
            .ok_or("`rules`: their words have more than 65536 combinations")?;
        let site_tag = tag("site_tag", &config.site_tag)?;
        Ok(Self { columns, interfaces, dns_ports: config.dns_ports, policy, tags, site_tag })
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let descriptors = batch.descriptors();
        let interface = |interfaces: &[Interface], packet: &Descriptor| {
            interfaces.iter().find(|known| known.number == packet.ingress).copied()
        };
        if !descriptors.iter().any(|packet| interface(&self.interfaces, packet).is_some()) {
            return;
        }
        for (index, column) in self.columns.iter_mut().enumerate() {
            // Countries are always looked up: who has none is counted. A product that the table says goes
            // before the interface's, also one that no rule asks about.
            let is_asked = match index {
                COUNTRY => true,
                PRODUCT => !column.words.is_empty(),
                _ => !column.classes.is_empty(),
            };
            if is_asked {
                column.table.lookup_sources(descriptors, &mut column.values[..descriptors.len()]);
            }
        }
        let (packets, mut counters) = batch.split();
        for (index, mut packet) in packets.enumerate() {
            let Some(interface) = interface(&self.interfaces, &packet) else { continue };
            let [country, trust, product] = &self.columns;
            if self.is_dns(&packet) {
                counters.add(counter::DNS, 1);
                packet.set_tag(self.site_tag);
                continue;
            }
            counters.add(counter::UNKNOWN_COUNTRY, u64::from(country.values[index] == 0));
            let classes = [
                country.found(index).unwrap_or(0),
                trust.found(index).unwrap_or(0),
                match product.values[index] {
                    0 => interface.product,
                    _ => product.found(index).unwrap_or(0),
                },
            ];
            match self.policy.first(classes) {
                Some(rule) => {
                    counters.add(counter::RULE_HITS.at(rule.into()), 1);
                    packet.set_tag(self.tags[usize::from(rule)]);
                }
                None => {
                    counters.add(counter::NO_RULE, 1);
                    packet.set_tag(self.site_tag);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
