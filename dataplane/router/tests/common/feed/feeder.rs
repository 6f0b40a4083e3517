//! [`Feeder`]: a BIRD that tells the router's routing daemon of the table, and changes its mind.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::{BACKUP, Bird, FLAPPING, GROUPS, Table};
use crate::net::Namespace;

/// A BIRD with a static protocol for each group and family, and a session for each family.
pub(crate) struct Feeder(pub(crate) Bird);

impl Feeder {
    pub(crate) fn start(namespace: &Namespace, table: &Table) -> Self {
        let (files, config) = feeder_config(table);
        Self(Bird::start(namespace, &files, &config))
    }

    /// Tells of the group's routes again.
    #[track_caller]
    pub(crate) fn enable(&self, group: usize) {
        self.switch("enable", group);
    }

    /// Withdraws the group's routes; those of the group [`FLAPPING`] go by [`BACKUP`] instead.
    #[track_caller]
    pub(crate) fn disable(&self, group: usize) {
        self.switch("disable", group);
    }

    #[track_caller]
    fn switch(&self, verb: &str, group: usize) {
        for family in [0, 1] {
            let said = self.0.control(&[verb, &format!("p{family}g{group}")]);
            assert!(said.contains(&format!("{verb}d")), "{said}");
        }
    }
}

fn feeder_config(table: &Table) -> (Vec<(String, String)>, String) {
    let mut files = Vec::new();
    let mut config = String::from("router id 10.9.0.2;\nprotocol device { scan time 3600; }\n");
    let mut filters = [String::new(), String::new()];
    for (family, name) in [(0, "ipv4"), (1, "ipv6")] {
        let prefixes: Vec<(IpNet, usize)> = if family == 0 {
            table.v4.iter().map(|(prefix, group)| (prefix.into(), *group)).collect()
        } else {
            table.v6.iter().map(|(prefix, group)| (prefix.into(), *group)).collect()
        };
        let mut protocol = |protocol: String, group: usize, hop: u8, preference: u32| {
            let mut lines = String::new();
            for (prefix, _) in prefixes.iter().filter(|(_, of)| *of == group) {
                writeln!(lines, "route {prefix} blackhole;").expect("a string");
            }
            writeln!(
                config,
                "protocol static {protocol} {{ {name} {{ preference {preference}; }};\n\
                 include \"{protocol}.conf\";\n}}"
            )
            .expect("a string");
            let next_hop = if family == 0 {
                format!("10.1.0.{}", 10 + hop)
            } else {
                format!("2001:db8:1::{:x}", 0x10 + u32::from(hop))
            };
            writeln!(filters[family], "if proto = \"{protocol}\" then bgp_next_hop = {next_hop};")
                .expect("a string");
            files.push((format!("{protocol}.conf"), lines));
        };
        for group in 0..GROUPS {
            protocol(format!("p{family}g{group}"), group, group as u8, 200);
        }
        protocol(format!("p{family}backup"), FLAPPING, BACKUP, 100);
    }
    for (family, filter) in filters.iter().enumerate() {
        writeln!(config, "filter out{family} {{ {filter} accept; }}").expect("a string");
    }
    config += "
        protocol bgp to4 { local 10.9.0.2 as 64501; neighbor 10.9.0.1 as 64500; connect retry time 1;
            connect delay time 1; error wait time 1, 2;
            ipv4 { import none; export filter out0; next hop keep; }; }
        protocol bgp to6 { local 2001:db8:9::2 as 64501; neighbor 2001:db8:9::1 as 64500;
            connect retry time 1; connect delay time 1; error wait time 1, 2;
            ipv6 { import none; export filter out1; next hop keep; }; }\n";
    (files, config)
}
