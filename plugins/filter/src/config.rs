//! The configuration, from JSON to rules whose every field is checked. Errors name rule and key.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde_json::{Map, Value};
use sluice_sdk::{direction, unknown_key};

use crate::RULES_MAX;
use crate::clause::{CLAUSES_PER_RULE_MAX, Clause, TooManyClauses};
use crate::column::{self, Column, Values};
use crate::expression::{self, Sets};
use crate::ranges::Ranges;

/// The most named sets.
pub const SETS_MAX: usize = 256;

/// What a rule does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The packet goes on.
    Allow,
    /// The packet is dropped.
    Drop,
}

/// What the keys of a rule without `when` ask for. An empty list asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// The source lies in one of these.
    pub source: Vec<IpNet>,
    /// The destination lies in one of these.
    pub destination: Vec<IpNet>,
    /// The protocol is this.
    pub protocol: Option<u8>,
    /// The packet has ports, and the source port lies in one of these ranges.
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// The packet has ports, and the destination port lies in one of these ranges.
    pub destination_ports: Vec<RangeInclusive<u16>>,
    /// The packet is TCP, and of the flags in the first mask exactly those in the second are set.
    pub tcp_flags: Option<(u8, u8)>,
    /// The packet has this direction, one of [`sluice_sdk::direction`].
    pub direction: Option<u8>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// It does so with packets that meet one of these.
    pub clauses: Vec<Clause>,
}

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What happens to packets that no rule matches.
    pub default: Action,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// The keys of the configuration.
const KEYS: [&str; 3] = ["default", "sets", "rules"];

/// The keys of a rule.
const RULE_KEYS: [&str; 9] = [
    "action",
    "when",
    "source",
    "destination",
    "protocol",
    "source_ports",
    "destination_ports",
    "tcp_flags",
    "direction",
];

/// The keys of what a rule says of TCP flags.
const FLAGS_KEYS: [&str; 2] = ["set", "clear"];

/// A table whose keys are taken one by one.
struct Table {
    place: String,
    entries: Map<String, Value>,
}

impl Table {
    /// A table with keys of its own.
    fn new(place: String, value: Value) -> Result<Self, String> {
        match value {
            Value::Object(entries) => Ok(Self { place, entries }),
            other => Err(format!("{}: {other} is no table", at(&place, ""))),
        }
    }

    /// A table that has no keys but these. Others are told before any is missing: it may be misspelt.
    fn of(place: String, value: Value, keys: &[&str]) -> Result<Self, String> {
        let table = Self::new(place, value)?;
        if let Some(key) = table.entries.keys().find(|key| !keys.contains(&key.as_str())) {
            return Err(unknown_key(at(&table.place, key).trim_matches('`'), keys));
        }
        Ok(table)
    }

    fn take(&mut self, key: &str) -> Option<(String, Value)> {
        Some((at(&self.place, key), self.entries.remove(key)?))
    }
}

fn at(place: &str, key: &str) -> String {
    match (place, key) {
        ("", "") => "the configuration".to_owned(),
        ("", key) => format!("`{key}`"),
        (place, "") => format!("`{place}`"),
        (place, key) => format!("`{place}.{key}`"),
    }
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// A text that names rule and key.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let mut table = Table::of(String::new(), value, &KEYS)?;
        let default = match table.take("default") {
            None => return Err("`default` is missing: \"allow\" or \"drop\"".to_owned()),
            Some((place, value)) => action(&place, &value)?,
        };
        let mut sets = Sets::new();
        if let Some((place, value)) = table.take("sets") {
            sets = named_sets(Table::new(place.trim_matches('`').to_owned(), value)?)?;
        }
        let mut rules = Vec::new();
        if let Some((place, value)) = table.take("rules") {
            let Value::Array(values) = value else {
                return Err(format!("{place}: {value} is no list"));
            };
            if values.len() > RULES_MAX {
                return Err(format!("{place}: more than {RULES_MAX} rules"));
            }
            for (index, value) in values.into_iter().enumerate() {
                let table = Table::of(format!("rules[{index}]"), value, &RULE_KEYS)?;
                rules.push(Rule::parse(table, &sets)?);
            }
        }
        Ok(Self { default, rules })
    }
}

impl Rule {
    fn parse(mut table: Table, sets: &Sets) -> Result<Self, String> {
        let action = match table.take("action") {
            None => {
                let place = at(&table.place, "action");
                return Err(format!("{place} is missing: \"allow\" or \"drop\""));
            }
            Some((place, value)) => action(&place, &value)?,
        };
        let clauses = match table.take("when") {
            None => vec![Fields::parse(table)?.clause()],
            Some((place, value)) => {
                if let Some(key) = table.entries.keys().next() {
                    let other = at(&table.place, key);
                    return Err(format!("{other}: a rule with `when` has no other condition"));
                }
                when(&place, &value, sets)?
            }
        };
        Ok(Self { action, clauses })
    }
}

/// An expression's clauses.
fn when(place: &str, value: &Value, sets: &Sets) -> Result<Vec<Clause>, String> {
    let text = value.as_str().ok_or_else(|| format!("{place}: {value} is no text"))?;
    let condition = expression::parse(text, sets).map_err(|error| format!("{place}, {error}"))?;
    let clauses = condition.clauses().map_err(|TooManyClauses| {
        format!(
            "{place}: written out, the expression has more than {CLAUSES_PER_RULE_MAX} alternatives \
             that differ in several fields; split it into several rules"
        )
    })?;
    // A rule that no packet can match is a mistake.
    if clauses.is_empty() {
        return Err(format!("{place}: no packet can match this"));
    }
    Ok(clauses)
}

/// The sets that expressions refer to.
fn named_sets(table: Table) -> Result<Sets, String> {
    let place = table.place;
    if table.entries.len() > SETS_MAX {
        return Err(format!("`{place}`: more than {SETS_MAX} sets"));
    }
    let mut sets = Sets::new();
    for (name, value) in table.entries {
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(format!("`{place}`: {name:?} is no name: letters, digits and `_`"));
        }
        let values = list(Some((at(&place, &name), value)), |place, value| {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            expression::parse_value(&text).map_err(|error| format!("{place}: {error}"))
        })?;
        let is_number = |value: &expression::Value| matches!(value, expression::Value::Number(..));
        if values.iter().any(is_number) && !values.iter().all(is_number) {
            return Err(format!("{}: addresses and numbers in one set", at(&place, &name)));
        }
        sets.insert(name, values);
    }
    Ok(sets)
}

impl Fields {
    /// The same as values of columns.
    #[must_use]
    pub fn clause(&self) -> Clause {
        let mut clause = Clause::default();
        let mut require = |column, parts: Vec<(usize, Ranges)>| {
            // None of the keys below is satisfied by no packet, and no two are about one column.
            clause.require(column, &Values::new(column, parts));
        };
        for (column, nets) in
            [(Column::Source, &self.source), (Column::Destination, &self.destination)]
        {
            if !nets.is_empty() {
                let of = |family: fn(&IpNet) -> Option<(u128, u128)>| {
                    Ranges::new(nets.iter().filter_map(family))
                };
                require(column, vec![(column::V4, of(v4_range)), (column::V6, of(v6_range))]);
            }
        }
        for (column, ranges) in [
            (Column::SourcePort, &self.source_ports),
            (Column::DestinationPort, &self.destination_ports),
        ] {
            if !ranges.is_empty() {
                let ranges =
                    ranges.iter().map(|range| ((*range.start()).into(), (*range.end()).into()));
                let ranges = Ranges::new(ranges);
                let parts = [column::TCP_PORT, column::UDP_PORT, column::OTHER_PORT];
                require(column, parts.map(|part| (part, ranges.clone())).to_vec());
            }
        }
        if let Some((mask, value)) = self.tcp_flags {
            let bytes = (0..=u8::MAX).filter(|byte| byte & mask == value);
            let ranges = Ranges::new(bytes.map(|byte| (byte.into(), byte.into())));
            require(Column::TcpFlags, vec![(column::TCP, ranges)]);
        }
        for (column, number) in
            [(Column::Protocol, self.protocol), (Column::Direction, self.direction)]
        {
            if let Some(number) = number {
                require(column, vec![(0, Ranges::new([(number.into(), number.into())]))]);
            }
        }
        clause
    }

    fn parse(mut table: Table) -> Result<Self, String> {
        let source = list(table.take("source"), prefix)?;
        let destination = list(table.take("destination"), prefix)?;
        let mut protocol_number = None;
        if let Some((place, value)) = table.take("protocol") {
            protocol_number = Some(protocol(&place, &value)?);
        }
        let source_ports = list(table.take("source_ports"), ports)?;
        let destination_ports = list(table.take("destination_ports"), ports)?;
        let mut tcp_flags = None;
        if let Some((place, value)) = table.take("tcp_flags") {
            tcp_flags = Some(flags(place.trim_matches('`'), value)?);
        }
        let mut direction = None;
        if let Some((place, value)) = table.take("direction") {
            direction = Some(direction_number(&place, &value)?);
        }
        let rule = Self {
            source,
            destination,
            protocol: protocol_number,
            source_ports,
            destination_ports,
            tcp_flags,
            direction,
        };
        rule.check(&table.place)?;
        Ok(rule)
    }

    /// A rule that no packet can match is a mistake.
    fn check(&self, place: &str) -> Result<(), String> {
        if self.tcp_flags.is_some() && self.protocol.is_some_and(|protocol| protocol != TCP) {
            return Err(format!("`{place}.tcp_flags`: `protocol` is not tcp"));
        }
        let icmp = matches!(self.protocol, Some(ICMP | ICMPV6));
        let asks_ports = !self.source_ports.is_empty() || !self.destination_ports.is_empty();
        if icmp && asks_ports {
            return Err(format!("`{place}`: `protocol` has no ports"));
        }
        let mixed = |wanted: fn(&IpNet) -> bool| {
            let none = |list: &[IpNet]| !list.is_empty() && !list.iter().any(wanted);
            none(&self.source) || none(&self.destination)
        };
        if mixed(|net| matches!(net, IpNet::V4(_))) && mixed(|net| matches!(net, IpNet::V6(_))) {
            return Err(format!(
                "`{place}`: `source` and `destination` have no address family in common"
            ));
        }
        Ok(())
    }
}

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

fn action(place: &str, value: &Value) -> Result<Action, String> {
    match value.as_str() {
        Some("allow") => Ok(Action::Allow),
        Some("drop") => Ok(Action::Drop),
        _ => Err(format!("{place}: {value} is neither \"allow\" nor \"drop\"")),
    }
}

/// A list, or a single value that stands for a list of one.
fn list<T>(
    entry: Option<(String, Value)>,
    parse: fn(&str, &Value) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    match entry {
        None => Ok(Vec::new()),
        // Read as "nothing is asked", an empty list would widen the rule to every packet.
        Some((place, Value::Array(values))) if values.is_empty() => {
            Err(format!("{place}: the list is empty; leave the key out to match everything"))
        }
        Some((place, Value::Array(values))) => {
            let place = place.trim_matches('`');
            let values = values.iter().enumerate();
            values.map(|(index, value)| parse(&format!("`{place}[{index}]`"), value)).collect()
        }
        Some((place, value)) => Ok(vec![parse(&place, &value)?]),
    }
}

fn v4_range(net: &IpNet) -> Option<(u128, u128)> {
    match net {
        IpNet::V4(net) => Some((net.network().to_bits().into(), net.broadcast().to_bits().into())),
        IpNet::V6(_) => None,
    }
}

fn v6_range(net: &IpNet) -> Option<(u128, u128)> {
    match net {
        IpNet::V4(_) => None,
        IpNet::V6(net) => Some((net.network().to_bits(), net.broadcast().to_bits())),
    }
}

fn prefix(place: &str, value: &Value) -> Result<IpNet, String> {
    let text = value.as_str().ok_or_else(|| format!("{place}: {value} is no prefix or address"))?;
    prefixes::parse(text).map_err(|error| format!("{place}: {error}"))
}

fn ports(place: &str, value: &Value) -> Result<RangeInclusive<u16>, String> {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    let range = match value {
        Value::Number(number) => {
            number.as_u64().and_then(|port| u16::try_from(port).ok()).map(|port| port..=port)
        }
        Value::String(text) => match text.split_once('-') {
            None => number(text).map(|port| port..=port),
            Some((first, last)) => number(first).zip(number(last)).map(|(a, b)| a..=b),
        },
        _ => None,
    };
    match range {
        Some(range) if !range.is_empty() => Ok(range),
        _ => Err(format!("{place}: {value} is no port or range of ports such as \"1000-2000\"")),
    }
}

fn protocol(place: &str, value: &Value) -> Result<u8, String> {
    let number = match value {
        Value::Number(number) => number.as_u64().and_then(|number| u8::try_from(number).ok()),
        Value::String(name) => match name.as_str() {
            "icmp" => Some(ICMP),
            "tcp" => Some(TCP),
            "udp" => Some(17),
            "gre" => Some(47),
            "esp" => Some(50),
            "icmpv6" => Some(ICMPV6),
            "sctp" => Some(132),
            _ => None,
        },
        _ => None,
    };
    number.ok_or_else(|| {
        format!(
            "{place}: {value} is no protocol: icmp, tcp, udp, gre, esp, icmpv6, sctp or a number"
        )
    })
}

fn flag(place: &str, value: &Value) -> Result<u8, String> {
    const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];
    let bit = value.as_str().and_then(|name| NAMES.iter().position(|known| *known == name));
    bit.map(|bit| 1 << bit)
        .ok_or_else(|| format!("{place}: {value} is no TCP flag: {}", NAMES.join(", ")))
}

fn flags(place: &str, value: Value) -> Result<(u8, u8), String> {
    let mut table = Table::of(place.to_owned(), value, &FLAGS_KEYS)?;
    let set = list(table.take("set"), flag)?.into_iter().fold(0, |mask, bit| mask | bit);
    let clear = list(table.take("clear"), flag)?.into_iter().fold(0, |mask, bit| mask | bit);
    if set & clear != 0 {
        return Err(format!("`{place}`: a flag is both in `set` and in `clear`"));
    }
    if set | clear == 0 {
        return Err(format!("`{place}`: neither `set` nor `clear` names a flag"));
    }
    Ok((set | clear, set))
}

fn direction_number(place: &str, value: &Value) -> Result<u8, String> {
    match value.as_str() {
        Some("transit") => Ok(direction::TRANSIT),
        Some("outbound") => Ok(direction::OUTBOUND),
        Some("inbound") => Ok(direction::INBOUND),
        _ => Err(format!("{place}: {value} is none of \"transit\", \"outbound\", \"inbound\"")),
    }
}
