//! What all of them judge: packets, and rules as data, with the answer of a plain scan.
//!
//! One packet in ten is matched, two come near a rule (its source, another port), one is IPv6, and the
//! rest are of no rule's concern, in random order.

use std::fmt::Write as _;

use benches::random::Random;
use sluice_abi::{Descriptor, flags};

/// Packets that are judged in turn.
pub(super) const PACKETS: usize = 4096;
/// Rules of the filter.
pub(super) const RULES: usize = 100;

/// A rule as every engine here can say it: prefixes of IPv4 (0.0.0.0/0 is any), a protocol, ranges of
/// ports. What it matches is dropped.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    source: (u32, u8),
    destination: (u32, u8),
    protocol: u8,
    source_ports: (u16, u16),
    destination_ports: (u16, u16),
}

const ANY_PORT: (u16, u16) = (0, u16::MAX);
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The rules, of four kinds.
pub(super) fn rules() -> Vec<Rule> {
    let any = (0, 0);
    (0..RULES as u32)
        .map(|n| {
            let port = 1000 + n as u16 * 100;
            let rule = Rule {
                source: any,
                destination: any,
                protocol: TCP,
                source_ports: ANY_PORT,
                destination_ports: ANY_PORT,
            };
            match n % 4 {
                0 => Rule {
                    source: (0xac10_0000 | n << 8, 24),
                    destination_ports: (port, port + 49),
                    ..rule
                },
                1 => Rule {
                    source: (0xac20_0000 | n << 12, 20),
                    protocol: UDP,
                    destination_ports: (port, port),
                    ..rule
                },
                2 => Rule {
                    destination: (0xc612_0000 | n << 8, 24),
                    destination_ports: (port, port + 9),
                    ..rule
                },
                _ => Rule {
                    destination: (0xcb00_7100 | n, 32),
                    protocol: UDP,
                    source_ports: (port, port + 99),
                    ..rule
                },
            }
        })
        .collect()
}

fn prefix((bits, length): (u32, u8)) -> String {
    format!("{}/{length}", std::net::Ipv4Addr::from(bits))
}

const fn mask(length: u8) -> u32 {
    match length {
        0 => 0,
        length => u32::MAX << (32 - length),
    }
}

impl Rule {
    fn matches(&self, packet: &Descriptor) -> bool {
        let is_in = |(bits, length): (u32, u8), address: [u8; 16]| {
            let [.., a, b, c, d] = address;
            (u32::from_be_bytes([a, b, c, d]) ^ bits) & mask(length) == 0
        };
        let has = |(first, last), port| (first..=last).contains(&port);
        packet.flags & flags::IPV6 == 0
            && packet.protocol == self.protocol
            && is_in(self.source, packet.source)
            && is_in(self.destination, packet.destination)
            && has(self.source_ports, packet.source_port)
            && has(self.destination_ports, packet.destination_port)
    }

    /// As the plugin `filter` is configured.
    pub(super) fn toml(&self) -> String {
        let mut text = "[[rules]]\naction = \"drop\"\n".to_owned();
        for (key, value) in [("source", self.source), ("destination", self.destination)] {
            if value.1 > 0 {
                let _ = writeln!(text, "{key} = [\"{}\"]", prefix(value));
            }
        }
        let protocol = if self.protocol == TCP { "tcp" } else { "udp" };
        let _ = writeln!(text, "protocol = \"{protocol}\"");
        let ranges =
            [("source_ports", self.source_ports), ("destination_ports", self.destination_ports)];
        for (key, (first, last)) in ranges.into_iter().filter(|(_, range)| *range != ANY_PORT) {
            let _ = writeln!(text, "{key} = [\"{first}-{last}\"]");
        }
        text
    }

    /// In the language of wirefilter.
    pub(super) fn expression(&self) -> String {
        let mut text = format!("ip.proto == {}", self.protocol);
        for (field, value) in [("ip.src", self.source), ("ip.dst", self.destination)] {
            if value.1 > 0 {
                let _ = write!(text, " and {field} in {{{}}}", prefix(value));
            }
        }
        for (field, (first, last)) in
            [("srcport", self.source_ports), ("dstport", self.destination_ports)]
        {
            if (first, last) != ANY_PORT {
                let _ = write!(text, " and {field} in {{{first}..{last}}}");
            }
        }
        text
    }

    /// As a line of C, in terms of the variables of `policy.bpf.c`.
    pub(super) fn c(&self, number: usize) -> String {
        let mut text = format!("if (protocol == {}", self.protocol);
        for (name, (bits, length)) in [("source", self.source), ("destination", self.destination)] {
            if length > 0 {
                let _ = write!(text, " && ({name} & {:#x}u) == {bits:#x}u", mask(length));
            }
        }
        for (name, (first, last)) in
            [("source_port", self.source_ports), ("destination_port", self.destination_ports)]
        {
            if (first, last) != ANY_PORT {
                let _ = write!(text, " && {name} >= {first} && {name} <= {last}");
            }
        }
        let _ = writeln!(text, ") return {number};");
        text
    }

    /// A packet that matches.
    fn packet(&self, random: &mut Random) -> Descriptor {
        let address = |(bits, length), random: &mut Random| match length {
            0 => elsewhere(random),
            length => bits | random.next() as u32 & !mask(length),
        };
        let port = |(first, last): (u16, u16), random: &mut Random| {
            first + random.below(u64::from(last - first) + 1) as u16
        };
        let (source, destination) =
            (address(self.source, random), address(self.destination, random));
        let ports = (port(self.source_ports, random), port(self.destination_ports, random));
        packet((source, destination), ports, self.protocol, random)
    }
}

/// An address of no rule, of 256 networks of 24 bits.
fn elsewhere(random: &mut Random) -> u32 {
    0x0a00_0000 | random.next() as u32 & 0xffff
}

fn packet(
    (source, destination): (u32, u32),
    (source_port, destination_port): (u16, u16),
    protocol: u8,
    random: &mut Random,
) -> Descriptor {
    let mapped = |address: u32| (0xffff_u128 << 32 | u128::from(address)).to_be_bytes();
    Descriptor {
        source: mapped(source),
        destination: mapped(destination),
        source_port,
        destination_port,
        protocol,
        tcp_flags: if protocol == TCP { 0x10 } else { 0 },
        flags: flags::PORTS,
        length: 64 + random.below(1400) as u16,
        hash: random.next() as u32,
        l3_offset: 14,
        l4_offset: 34,
        ttl: 40 + random.below(24) as u8,
        ..Descriptor::default()
    }
}

/// The packets.
pub(super) fn packets(rules: &[Rule]) -> Vec<Descriptor> {
    let mut random = Random(1);
    let mut packets: Vec<_> = (0..PACKETS)
        .map(|n| {
            let random = &mut random;
            let protocol = if random.below(3) == 0 { UDP } else { TCP };
            let ports = (random.next() as u16, random.next() as u16);
            match n % 10 {
                0 => random.pick(rules).packet(random),
                1 | 2 => {
                    let near = random.pick(rules).packet(random);
                    Descriptor { destination_port: ports.1, source_port: ports.0, ..near }
                }
                3 => Descriptor {
                    source: (0x2001_0db8_u128 << 96 | u128::from(random.below(256)) << 64)
                        .to_be_bytes(),
                    destination: (0x2001_0db8_u128 << 96 | 1).to_be_bytes(),
                    flags: flags::PORTS | flags::IPV6,
                    l4_offset: 54,
                    ..packet((0, 0), ports, protocol, random)
                },
                // One of the networks sends more than a rate of its own would let through.
                4 | 5 => packet((0x0a00_0000, elsewhere(random)), ports, protocol, random),
                _ => packet((elsewhere(random), elsewhere(random)), ports, protocol, random),
            }
        })
        .collect();
    random.shuffle(&mut packets);
    packets
}

/// For each packet the number of the first rule that it meets, from 1 on, or 0.
pub(super) fn scan(rules: &[Rule], packets: &[Descriptor]) -> Vec<u8> {
    let first = |packet| rules.iter().position(|rule| rule.matches(packet));
    packets.iter().map(|packet| first(packet).map_or(0, |rule| rule as u8 + 1)).collect()
}
