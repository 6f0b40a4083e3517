//! [`Outcome`]: what a configuration makes of a packet, in an operator's terms, and how two of them
//! differ.

use forward::{Next, PacketRecord, Stage, StageRecord};
use frame::Verdict;
use serde::{Deserialize, Serialize};
use tables::{AdjacencyState, Encapsulation};
use wire::{InterfaceId, IpVersion, MacAddress, ethernet, ipv4, ipv6, protocol, tcp};

use crate::explain::{Names, interface_name, ip, owner_words, peer_words, verdict_report};

/// What becomes of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// `sent`, `sent in fragments`, `to the kernel`, or why it is dropped.
    pub(crate) end: String,
    /// The owner of the slice that it is addressed to.
    pub(crate) owner: Option<String>,
    /// The tunnel that it goes into.
    pub(crate) tunnel: Option<String>,
    /// The interface that it leaves by.
    pub(crate) interface: Option<String>,
    /// The neighbor that it is sent to.
    pub(crate) next_hop: Option<String>,
    /// What leaves, without what no two packets share (the sequence number of a GRE tunnel).
    pub(crate) sent: Vec<u8>,
}

/// What differs, the most important first: a packet is counted under the first that holds for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// It is dropped, delivered or sent where it was not, or dropped for another reason.
    Verdict,
    /// Another machine or workload owns its slice.
    Owner,
    /// It goes into another tunnel, or into one at all.
    Tunnel,
    /// It leaves by another interface.
    Interface,
    /// It is sent to another neighbor on the same link.
    NextHop,
    /// The same way with other bytes.
    Rewrite,
}

impl Kind {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::Owner => "owner",
            Self::Tunnel => "tunnel",
            Self::Interface => "interface",
            Self::NextHop => "next hop",
            Self::Rewrite => "rewrite",
        }
    }
}

impl Outcome {
    pub(crate) fn new(record: &PacketRecord, names: Names<'_>) -> Self {
        let mut outcome = Self {
            end: end(record, names),
            owner: record
                .owner
                .and_then(|asked| asked.hit.ok())
                .map(|hit| owner_words(hit.owner, names)),
            ..Self::default()
        };
        let leaves =
            matches!(record.verdict, Verdict::Transmit(_) | Verdict::Fragment(_) | Verdict::Hold);
        if !leaves {
            return outcome;
        }
        let Some(last) = record.stages.last() else { return outcome };
        outcome.tunnel = last.path.encapsulate.and_then(|id| {
            let kind = match names.snapshot.peer(id)?.encapsulation {
                Encapsulation::Gue { port } => format!("GUE (port {port})"),
                Encapsulation::Gre(_) => "GRE".to_owned(),
                Encapsulation::Ipip => "IP in IP".to_owned(),
            };
            Some(format!("{kind} to {}", peer_words(id, names)?))
        });
        if let Some((interface, next_hop)) = way(last, names) {
            outcome.interface = Some(interface_name(interface, names).to_owned());
            outcome.next_hop = Some(next_hop);
        }
        outcome.sent = comparable(record, last, names);
        outcome
    }

    /// In a line.
    pub(crate) fn words(&self) -> String {
        let mut words = self.end.clone();
        if let Some(owner) = &self.owner {
            words += &format!(", slice of {owner}");
        }
        if let Some(tunnel) = &self.tunnel {
            words += &format!(", in {tunnel}");
        }
        if let (Some(next_hop), Some(interface)) = (&self.next_hop, &self.interface) {
            words += &format!(", via {next_hop} on {interface}");
        }
        words
    }

    /// What is different in `after`, with both in words; `None` if nothing is.
    pub(crate) fn difference(&self, after: &Self) -> Option<(Kind, String, String)> {
        let kind = if self.end != after.end {
            Kind::Verdict
        } else if self.owner != after.owner {
            Kind::Owner
        } else if self.tunnel != after.tunnel {
            Kind::Tunnel
        } else if self.interface != after.interface {
            Kind::Interface
        } else if self.next_hop != after.next_hop {
            Kind::NextHop
        } else if self.sent != after.sent {
            let way = self.words();
            let (old, new) = differing_bytes(&self.sent, &after.sent);
            return Some((Kind::Rewrite, format!("{way}: {old}"), format!("{way}: {new}")));
        } else {
            return None;
        };
        Some((kind, self.words(), after.words()))
    }
}

/// A packet that is held for its next hop is as good as sent: how long that takes is no matter of the
/// configuration, and that it is not resolved stands with the next hop.
fn end(record: &PacketRecord, names: Names<'_>) -> String {
    match record.verdict {
        Verdict::Transmit(_) | Verdict::Hold => "sent".to_owned(),
        Verdict::Fragment(_) => "sent in fragments".to_owned(),
        verdict => {
            verdict_report(verdict, record.blame, &names.config.interfaces, names.plugins).words()
        }
    }
}

/// Interface and next hop. A neighbor to which its own packets go is not named, so that the hosts of a
/// link are one next hop.
fn way(last: &StageRecord, names: Names<'_>) -> Option<(InterfaceId, String)> {
    let (destination, own) = match last.path.encapsulate.and_then(|id| names.snapshot.peer(id)) {
        Some(peer) => (peer.remote, "its far end itself"),
        None => (ip(&last.descriptor.destination), "the destination itself"),
    };
    match last.path.next {
        Next::Send(id) | Next::Await(id) => {
            let adjacency = names.snapshot.adjacency(id)?;
            let mut words = if adjacency.address == destination {
                own.to_owned()
            } else {
                adjacency.address.to_string()
            };
            if adjacency.state != AdjacencyState::Resolved {
                words += " (not resolved yet)";
            }
            Some((adjacency.interface, words))
        }
        Next::Seek(interface) => Some((interface, format!("{own} (not resolved yet)"))),
        Next::Punt => None,
    }
}

/// What leaves. The sequence number of a GRE tunnel, and the checksum over it, differ from packet to
/// packet: such a header is left out.
fn comparable(record: &PacketRecord, last: &StageRecord, names: Names<'_>) -> Vec<u8> {
    let sent = &record.sent;
    let peer = last.path.encapsulate.and_then(|id| names.snapshot.peer(id));
    let is_numbered = peer.is_some_and(
        |peer| matches!(&peer.encapsulation, Encapsulation::Gre(gre) if gre.sequence.is_some()),
    );
    if !is_numbered {
        return sent.clone();
    }
    let inner = usize::from(record.after(Stage::Routes).map_or(0, |at| at.descriptor.length));
    let outer = match sent.get(ethernet::HEADER_LEN).copied().and_then(IpVersion::of_first_byte) {
        Some(IpVersion::V6) => ipv6::HEADER_LEN,
        _ => ipv4::HEADER_LEN,
    };
    let front = sent.get(..ethernet::HEADER_LEN + outer).unwrap_or(sent);
    let back = sent.get(sent.len().saturating_sub(inner)..).unwrap_or_default();
    [front, back].concat()
}

/// The first thing in which two frames that go the same way differ, in words.
fn differing_bytes(old: &[u8], new: &[u8]) -> (String, String) {
    if old.len() != new.len() {
        return (format!("{} bytes", old.len()), format!("{} bytes", new.len()));
    }
    let mac = |at: usize, frame: &[u8]| {
        let bytes = frame.get(at..).and_then(|rest| rest.first_chunk::<6>());
        bytes.map(|bytes| MacAddress(*bytes).to_string())
    };
    for (name, at) in [("destination MAC", 0), ("source MAC", 6)] {
        if let (Some(old), Some(new)) = (mac(at, old), mac(at, new))
            && old != new
        {
            return (format!("{name} {old}"), format!("{name} {new}"));
        }
    }
    if let (Some(old), Some(new)) = (mss(old), mss(new))
        && old != new
    {
        return (format!("MSS {old}"), format!("MSS {new}"));
    }
    let at = old.iter().zip(new).position(|(old, new)| old != new).unwrap_or_default();
    let byte = |frame: &[u8]| format!("byte {at} is {:#04x}", frame.get(at).copied().unwrap_or(0));
    (byte(old), byte(new))
}

/// The MSS that a TCP segment without a tunnel names.
fn mss(frame: &[u8]) -> Option<u16> {
    let packet = frame.get(ethernet::HEADER_LEN..)?;
    let first = *packet.first()?;
    let (protocol_at, header_len) = match IpVersion::of_first_byte(first)? {
        IpVersion::V4 => (9, usize::from(first & 0xf) * 4),
        IpVersion::V6 => (6, ipv6::HEADER_LEN),
    };
    if *packet.get(protocol_at)? != protocol::TCP {
        return None;
    }
    let segment = tcp::Tcp::parse(packet.get(header_len..)?).ok()?;
    let mut options = segment.options();
    // RFC 9293 section 3.2: kinds 0 and 1 are a single byte, all others have a length; the MSS is kind 2.
    loop {
        match *options {
            [] | [0, ..] => return None,
            [1, ref rest @ ..] => options = rest,
            [2, 4, high, low, ..] => return Some(u16::from_be_bytes([high, low])),
            [_, length, ..] => options = options.get(usize::from(length).max(2)..)?,
            [_] => return None,
        }
    }
}
