//! What came out for one packet, in words, and what differs between two frames of the same words.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::packet::{ICMP, ICMPV6};
use crate::net::Captured;

/// A frame that came out, cut into what is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Output {
    /// Such as `forward p1`, `icmp 11/0 p0 from 10.0.0.1`.
    pub(crate) words: String,
    /// Every part of the frame by its name.
    pub(crate) parts: Vec<(&'static str, Vec<u8>)>,
}

fn at(bytes: &[u8], from: usize, count: usize) -> Vec<u8> {
    bytes.iter().skip(from).take(count).copied().collect()
}

/// Whether the router itself sent this: the address is one of its own.
fn is_own(address: &str) -> bool {
    super::OWN.contains(&address)
}

impl Output {
    /// `None` for what the router's kernel says by itself, whatever it is asked: ARP, neighbor
    /// discovery, group membership.
    pub(crate) fn of(captured: &Captured) -> Option<Self> {
        let Captured { port, frame } = captured;
        let mut parts =
            vec![("link-layer", at(frame, 0, 14)), ("port", vec![u8::try_from(*port).ok()?])];
        let packet = frame.get(14..)?;
        let words = match at(frame, 12, 2)[..] {
            [0x08, 0x00] => v4(packet, *port, &mut parts),
            [0x86, 0xdd] => v6(packet, *port, &mut parts)?,
            [0x08, 0x06] => return None,
            _ => {
                parts.push(("payload", packet.to_vec()));
                format!("frame p{port}")
            }
        };
        Some(Self { words, parts })
    }

    /// Names of the parts that differ.
    pub(crate) fn differing(&self, other: &Self) -> Vec<&'static str> {
        let part = |of: &Self, name: &&str| of.parts.iter().find(|part| part.0 == *name).cloned();
        let names = self.parts.iter().chain(&other.parts).map(|part| part.0);
        let mut names: Vec<_> =
            names.filter(|name| part(self, name) != part(other, name)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn message(
    family: &str,
    own: bool,
    port: usize,
    source: &str,
    body: &[u8],
    parts: &mut Vec<(&'static str, Vec<u8>)>,
) -> Option<String> {
    let [kind, code, ..] = *body else { return None };
    let is_error = if family == "icmp6" { kind < 128 } else { matches!(kind, 3 | 4 | 5 | 11 | 12) };
    if !own || !is_error || body.len() < 8 {
        return None;
    }
    parts.push(("rest", at(body, 4, 4)));
    parts.push(("quote-length", (body.len() - 8).to_be_bytes().to_vec()));
    // A quote that is only longer or shorter differs in length alone.
    parts.push(("quote", at(body, 8, 28)));
    let is_too_big = matches!((family, kind, code), ("icmp", 3, 4) | ("icmp6", 2, _));
    let mtu = if is_too_big {
        format!(" mtu {}", u32::from_be_bytes([body[4], body[5], body[6], body[7]]))
    } else {
        String::new()
    };
    Some(format!("{family} {kind}/{code}{mtu} p{port} from {source}"))
}

fn v4(packet: &[u8], port: usize, parts: &mut Vec<(&'static str, Vec<u8>)>) -> String {
    let length = (usize::from(packet.first().copied().unwrap_or_default() & 0xf) * 4).max(20);
    let total = packet.get(2..4).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let source = at(packet, 12, 4);
    let source =
        <[u8; 4]>::try_from(source).map_or(String::new(), |ip| Ipv4Addr::from(ip).to_string());
    let own = is_own(&source);
    let body = packet.get(length..).unwrap_or_default();
    let said = (packet.get(9) == Some(&ICMP))
        .then(|| message("icmp", own, port, &source, body, parts))
        .flatten();
    let header = packet.get(..length).unwrap_or(packet);
    parts.extend([
        ("version-ihl", at(packet, 0, 1)),
        ("tos", at(packet, 1, 1)),
        ("id", at(packet, 4, 2)),
        ("fragment", at(packet, 6, 2)),
        ("ttl", at(packet, 8, 1)),
        ("protocol", at(packet, 9, 1)),
        ("addresses", at(packet, 12, 8)),
        ("options", at(header, 20, 40)),
    ]);
    if super::packet::ones_sum(&[header]) != 0xffff {
        parts.push(("checksum-wrong", Vec::new()));
    }
    match said {
        Some(words) => {
            if super::packet::ones_sum(&[body]) != 0xffff {
                parts.push(("icmp-checksum-wrong", Vec::new()));
            }
            words
        }
        None => {
            parts.push(("length", total.to_be_bytes().to_vec()));
            parts.push(("checksum", if own { Vec::new() } else { at(packet, 10, 2) }));
            parts.push(("payload", body.to_vec()));
            if own { format!("answer p{port} from {source}") } else { format!("forward p{port}") }
        }
    }
}

fn v6(packet: &[u8], port: usize, parts: &mut Vec<(&'static str, Vec<u8>)>) -> Option<String> {
    let source = <[u8; 16]>::try_from(at(packet, 8, 16)).ok().map(Ipv6Addr::from)?.to_string();
    let own = is_own(&source) || source.starts_with("fe80:");
    let body = packet.get(40..).unwrap_or_default();
    let kind = body.first().copied().unwrap_or_default();
    let is_icmp = packet.get(6) == Some(&ICMPV6);
    // Hop-by-hop with a router alert: MLD.
    let is_mld = packet.get(6) == Some(&0) && body.first() == Some(&ICMPV6) && own;
    if own && (is_mld || is_icmp && (130..=137).contains(&kind)) {
        return None;
    }
    let said = is_icmp.then(|| message("icmp6", own, port, &source, body, parts)).flatten();
    parts.extend([
        ("version-class", at(packet, 0, 2).iter().zip([0xff, 0xf0]).map(|(a, b)| a & b).collect()),
        (
            "flow-label",
            at(packet, 1, 3).iter().zip([0xf, 0xff, 0xff]).map(|(a, b)| a & b).collect(),
        ),
        ("next-header", at(packet, 6, 1)),
        ("hop-limit", at(packet, 7, 1)),
        ("addresses", at(packet, 8, 32)),
    ]);
    Some(match said {
        Some(words) => {
            let pseudo = [&(body.len() as u32).to_be_bytes()[..], &[0, 0, 0, ICMPV6]].concat();
            if super::packet::ones_sum(&[&at(packet, 8, 32), &pseudo, body]) != 0xffff {
                parts.push(("icmp-checksum-wrong", Vec::new()));
            }
            words
        }
        None => {
            parts.push(("length", at(packet, 4, 2)));
            parts.push(("payload", body.to_vec()));
            if own { format!("answer p{port} from {source}") } else { format!("forward p{port}") }
        }
    })
}

/// What came out in all, in words.
pub(crate) fn words(outputs: &[Output]) -> String {
    if outputs.is_empty() {
        return "nothing".to_owned();
    }
    outputs.iter().map(|output| output.words.as_str()).collect::<Vec<_>>().join(" + ")
}
