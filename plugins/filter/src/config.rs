//! The configuration, from JSON to rules whose every field is checked. Errors name rule and key.

use std::{net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use serde_json::{Map, Value};
use sluice_sdk::direction;

use crate::RULES_MAX;

/// What a rule does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The packet goes on.
    Allow,
    /// The packet is dropped.
    Drop,
}

/// One rule. An empty list asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub action: Action,
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

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What happens to packets that no rule matches.
    pub default: Action,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// A table whose keys are taken one by one; what is left over was not known.
struct Table {
    place: String,
    entries: Map<String, Value>,
}

impl Table {
    fn new(place: String, value: Value) -> Result<Self, String> {
        match value {
            Value::Object(entries) => Ok(Self { place, entries }),
            other => Err(format!("{}: {other} is no table", at(&place, ""))),
        }
    }

    fn take(&mut self, key: &str) -> Option<(String, Value)> {
        Some((at(&self.place, key), self.entries.remove(key)?))
    }

    fn finish(self) -> Result<(), String> {
        match self.entries.keys().next() {
            None => Ok(()),
            Some(key) => Err(format!("{}: unknown key", at(&self.place, key))),
        }
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
        let mut table = Table::new(String::new(), value)?;
        let default = match table.take("default") {
            None => return Err("`default` is missing: \"allow\" or \"drop\"".to_owned()),
            Some((place, value)) => action(&place, &value)?,
        };
        let mut rules = Vec::new();
        if let Some((place, value)) = table.take("rules") {
            let Value::Array(values) = value else {
                return Err(format!("{place}: {value} is no list"));
            };
            if values.len() > RULES_MAX {
                return Err(format!("{place}: more than {RULES_MAX} rules"));
            }
            for (index, value) in values.into_iter().enumerate() {
                rules.push(Rule::parse(Table::new(format!("rules[{index}]"), value)?)?);
            }
        }
        table.finish()?;
        Ok(Self { default, rules })
    }
}

impl Rule {
    pub(crate) fn source(&self) -> &[IpNet] {
        &self.source
    }

    pub(crate) fn destination(&self) -> &[IpNet] {
        &self.destination
    }

    fn parse(mut table: Table) -> Result<Self, String> {
        let action = match table.take("action") {
            None => {
                let place = at(&table.place, "action");
                return Err(format!("{place} is missing: \"allow\" or \"drop\""));
            }
            Some((place, value)) => action(&place, &value)?,
        };
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
        let place = table.place.clone();
        table.finish()?;
        let rule = Self {
            action,
            source,
            destination,
            protocol: protocol_number,
            source_ports,
            destination_ports,
            tcp_flags,
            direction,
        };
        rule.check(&place)?;
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

pub(crate) const TCP: u8 = 6;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

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

fn prefix(place: &str, value: &Value) -> Result<IpNet, String> {
    let no_prefix = || format!("{place}: {value} is no prefix or address");
    let text = value.as_str().ok_or_else(no_prefix)?;
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<IpAddr>().map_err(|_| no_prefix())?),
    };
    if net.addr() != net.network() {
        return Err(format!(
            "{place}: {text} has bits set behind the prefix; {} has none",
            net.trunc()
        ));
    }
    if let IpNet::V6(net) = net
        && net.addr().segments().starts_with(&[0, 0, 0, 0, 0, 0xffff])
    {
        return Err(format!("{place}: write {text} as an IPv4 prefix"));
    }
    Ok(net)
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
    let mut table = Table::new(place.to_owned(), value)?;
    let set = list(table.take("set"), flag)?.into_iter().fold(0, |mask, bit| mask | bit);
    let clear = list(table.take("clear"), flag)?.into_iter().fold(0, |mask, bit| mask | bit);
    table.finish()?;
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
