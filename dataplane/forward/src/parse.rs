//! Headers to descriptors: the first stage of a turn, and the only one that judges whether a frame
//! is a packet at all.

use frame::{Batch, Descriptor, DropReason, Frame, Verdict};
use sluice_abi::{direction, flags};
use tables::{HeaderRules, Interface, Snapshot, prefetch};
use wire::{ethernet, flow, icmp, icmpv6, ipv4, ipv6, protocol, tcp};

/// How many frames ahead of the parser headers are asked for. Fewer leave part of the wait, which is
/// about 70 ns from the third cache level; with more than the 12 ways of a first-level set they throw
/// each other out again.
const PREFETCH_AHEAD: usize = 8;

/// Asks for the line that holds the headers of a packet. Chunks are pages, so that all headers
/// compete for the same few sets of the first cache levels, and most are read from the third.
#[inline]
fn prefetch_header(frame: &Frame) {
    if let Some(first) = frame.bytes().first() {
        prefetch(first);
    }
}

/// Headers to descriptors, and bad frames to their verdicts. Returns the flags that any packet has, and
/// perhaps others that stood in the descriptors of bad ones.
#[inline]
pub(crate) fn run(batch: &mut Batch, snapshot: &Snapshot) -> u8 {
    let mut seen = 0;
    let Batch { frames, descriptors, verdicts, .. } = batch;
    for frame in frames.iter().take(PREFETCH_AHEAD) {
        prefetch_header(frame);
    }
    for (position, ((frame, descriptor), verdict)) in
        frames.iter().zip(descriptors.iter_mut()).zip(verdicts.iter_mut()).enumerate()
    {
        if let Some(ahead) = frames.get(position + PREFETCH_AHEAD) {
            prefetch_header(ahead);
        }
        let ingress = frame.ingress();
        descriptor.ingress = u16::from(ingress.0);
        descriptor.vrf = 0;
        // What it was of the packet that was here before; the look-up will say.
        descriptor.direction = direction::TRANSIT;
        descriptor.slice = 0;
        descriptor.next_hop = 0;
        descriptor.egress = 0;
        let parsed = match snapshot.interface(ingress) {
            Some(interface) => self::frame(frame.bytes(), interface, snapshot.rules, descriptor),
            None => Err(DropReason::OtherHost),
        };
        seen |= descriptor.flags;
        if let Err(reason) = parsed {
            *verdict = Verdict::Drop(reason);
        }
    }
    seen
}

/// Parses a received frame into `descriptor`, whose `ingress` the caller has set.
#[inline]
fn frame(
    bytes: &[u8],
    interface: &Interface,
    rules: HeaderRules,
    descriptor: &mut Descriptor,
) -> Result<(), DropReason> {
    let Some((header, _)) = bytes.split_first_chunk::<{ ethernet::HEADER_LEN }>() else {
        return Err(DropReason::FrameTruncated);
    };
    let [d0, d1, d2, d3, d4, d5, _, _, _, _, _, _, t0, t1] = *header;
    if [d0, d1, d2, d3, d4, d5] != interface.mac.0 {
        return Err(if d0 & 1 == 1 {
            DropReason::LinkLayerMulticast
        } else {
            DropReason::OtherHost
        });
    }
    match u16::from_be_bytes([t0, t1]) {
        ethernet::ETHERTYPE_IPV4 => packet_v4(bytes, ethernet::HEADER_LEN, 0, rules, descriptor),
        ethernet::ETHERTYPE_IPV6 => packet_v6(bytes, ethernet::HEADER_LEN, 0, rules, descriptor),
        _ => Err(DropReason::NotIp),
    }
}

/// Parses the IPv4 packet at `l3_offset` of `bytes`.
#[inline]
pub(crate) fn packet_v4(
    bytes: &[u8],
    l3_offset: usize,
    flags: u8,
    rules: HeaderRules,
    descriptor: &mut Descriptor,
) -> Result<(), DropReason> {
    let packet = bytes.get(l3_offset..).unwrap_or_default();
    let header = ipv4::Ipv4::parse(packet).map_err(|error| match error {
        ipv4::Ipv4Error::Truncated => DropReason::Ipv4Truncated,
        ipv4::Ipv4Error::Version => DropReason::Ipv4Version,
        ipv4::Ipv4Error::HeaderLength => DropReason::Ipv4HeaderLength,
        ipv4::Ipv4Error::TotalLength => DropReason::Ipv4TotalLength,
        ipv4::Ipv4Error::Checksum => DropReason::Ipv4Checksum,
    })?;
    let (source, destination) = (header.source(), header.destination());
    judge_v4(u32::from_be_bytes(source), u32::from_be_bytes(destination), rules)?;
    let fragment =
        header.is_fragment().then(|| Fragment { offset_bytes: header.fragment_offset_bytes() });
    let (source, destination) = (flow::mapped(source), flow::mapped(destination));
    descriptor.source = source;
    descriptor.destination = destination;
    descriptor.protocol = header.protocol();
    descriptor.flags = flags;
    descriptor.length = header.total_len();
    descriptor.ttl = header.ttl();
    descriptor.traffic_class = header.traffic_class();
    descriptor.l3_offset = offset(l3_offset);
    descriptor.l4_offset = offset(l3_offset + header.header_len());
    if header.header_len() > ipv4::HEADER_LEN {
        judge_options(&header, rules, descriptor)?;
    }
    transport(header.payload(), fragment, (&source, &destination), descriptor)
}

/// RFC 7126 sections 4.3 and 4.4 have source routes dropped; RFC 1812 section 4.3.3.5 has the sender told of
/// options that do not add up, for which the descriptor says what forbids that.
#[cold]
fn judge_options(
    header: &ipv4::Ipv4<'_>,
    rules: HeaderRules,
    descriptor: &mut Descriptor,
) -> Result<(), DropReason> {
    match header.has_source_route() {
        Ok(true) if rules.drops_source_routes => Err(DropReason::Ipv4SourceRoute),
        Ok(_) => {
            descriptor.flags |= flags::OPTIONS;
            Ok(())
        }
        Err(_) => {
            if header.fragment_offset_bytes() > 0 {
                descriptor.flags |= flags::LATER_FRAGMENT;
            } else {
                icmp_message(header.payload(), descriptor);
            }
            Err(DropReason::Ipv4Options)
        }
    }
}

/// Parses the IPv6 packet at `l3_offset` of `bytes`. Its rules have no switches.
pub(crate) fn packet_v6(
    bytes: &[u8],
    l3_offset: usize,
    flags: u8,
    _: HeaderRules,
    descriptor: &mut Descriptor,
) -> Result<(), DropReason> {
    let packet = bytes.get(l3_offset..).unwrap_or_default();
    let header = ipv6::Ipv6::parse(packet).map_err(|error| match error {
        ipv6::Ipv6Error::Truncated => DropReason::Ipv6Truncated,
        ipv6::Ipv6Error::Version => DropReason::Ipv6Version,
        ipv6::Ipv6Error::PayloadLength => DropReason::Ipv6PayloadLength,
    })?;
    judge_v6(header.source(), header.destination())?;
    let payload = header.payload();
    let upper = match ipv6::walk_extensions(header.next_header(), payload) {
        Ok(upper) => upper,
        Err(_) => return Err(unwalkable_chain(&header, l3_offset, flags, descriptor)),
    };
    // RFC 6946: an atomic fragment is a whole packet.
    let fragment = upper
        .fragment
        .filter(|fragment| !fragment.is_atomic())
        .map(|fragment| Fragment { offset_bytes: fragment.offset_bytes });
    let options = if upper.offset > 0 { flags::OPTIONS } else { 0 };
    let (source, destination) = (*header.source(), *header.destination());
    descriptor.source = source;
    descriptor.destination = destination;
    descriptor.protocol = upper.protocol;
    descriptor.flags = flags | flags::IPV6 | options;
    descriptor.length = offset(ipv6::HEADER_LEN + usize::from(header.payload_len()));
    descriptor.ttl = header.hop_limit();
    descriptor.traffic_class = header.traffic_class();
    descriptor.l3_offset = offset(l3_offset);
    descriptor.l4_offset = offset(l3_offset + ipv6::HEADER_LEN + upper.offset);
    let segment = payload.get(upper.offset..).unwrap_or_default();
    transport(segment, fragment, (&source, &destination), descriptor)
}

/// Leaves in the descriptor what it takes to tell the sender that nobody can follow its headers. Whether
/// they would lead to an ICMPv6 error is not known; those that routers send have no extension headers.
#[cold]
fn unwalkable_chain(
    header: &ipv6::Ipv6<'_>,
    l3_offset: usize,
    flags: u8,
    descriptor: &mut Descriptor,
) -> DropReason {
    descriptor.source = *header.source();
    descriptor.destination = *header.destination();
    descriptor.protocol = header.next_header();
    descriptor.flags = flags | flags::IPV6 | flags::OPTIONS;
    descriptor.length = offset(ipv6::HEADER_LEN + usize::from(header.payload_len()));
    descriptor.ttl = header.hop_limit();
    descriptor.traffic_class = header.traffic_class();
    descriptor.l3_offset = offset(l3_offset);
    descriptor.l4_offset = offset(l3_offset + ipv6::HEADER_LEN);
    DropReason::Ipv6ExtensionChain
}

/// Addresses that must not be on a wire: RFC 1812 section 5.3.7, and RFC 3927 section 2.7.
#[inline]
pub(crate) fn judge_v4(
    source: u32,
    destination: u32,
    rules: HeaderRules,
) -> Result<(), DropReason> {
    // One comparison sorts out everything from 224.0.0.0 on: multicast, class E and broadcast.
    let is_special =
        |address: u32| address >= 0xe000_0000 || matches!(address >> 24, 0 | 127 | 169);
    if is_special(source) || is_special(destination) {
        return judge_special_v4(source, destination, rules);
    }
    Ok(())
}

/// Section 5.3.7 has a switch for the tests of martian addresses: it "MUST default to performing the
/// checks". What no host can have, or what nobody could be told about, is dropped all the same.
#[cold]
fn judge_special_v4(source: u32, destination: u32, rules: HeaderRules) -> Result<(), DropReason> {
    let is_multicast = |address: u32| address >> 28 == 0xe;
    let is_never_a_host = |address: u32| matches!(address, 0 | u32::MAX) || address >> 24 == 127;
    let is_martian = |address: u32| {
        is_never_a_host(address)
            || rules.drops_martians && (address >> 28 == 0xf || address >> 24 == 0)
    };
    // RFC 3927 section 2.7: "any network device receiving such a packet MUST NOT forward it, regardless
    // of the TTL in the IPv4 header".
    let is_link_local = |address: u32| address >> 16 == 0xa9fe;
    if is_multicast(source) || is_martian(source) {
        return Err(DropReason::MartianSource);
    }
    if is_multicast(destination) {
        return Err(DropReason::MulticastDestination);
    }
    if is_martian(destination) {
        return Err(DropReason::MartianDestination);
    }
    if is_link_local(source) || is_link_local(destination) {
        return Err(DropReason::Ipv4LinkLocal);
    }
    Ok(())
}

/// RFC 4291 sections 2.5.2, 2.5.3, 2.5.6 and 2.7: unspecified, loopback and link-local addresses are
/// never forwarded, and a multicast address is never a source.
#[inline]
pub(crate) fn judge_v6(source: &[u8; 16], destination: &[u8; 16]) -> Result<(), DropReason> {
    if ipv6::is_ipv4_mapped(source) || ipv6::is_ipv4_mapped(destination) {
        return Err(DropReason::Ipv6MappedAddress);
    }
    let (from, to) = (u128::from_be_bytes(*source), u128::from_be_bytes(*destination));
    let link_local = |address: u128| address >> 118 == 0x3fa;
    if from >> 120 == 0xff || from <= 1 || link_local(from) {
        return Err(DropReason::MartianSource);
    }
    if to >> 120 == 0xff {
        return Err(DropReason::MulticastDestination);
    }
    if to <= 1 || link_local(to) {
        return Err(DropReason::MartianDestination);
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Fragment {
    offset_bytes: u16,
}

/// Ports, flags and hash. `segment` starts at the transport header and ends with the packet;
/// `ends` are the addresses, by value so that the hash need not wait until they are in memory.
#[inline(always)]
fn transport(
    segment: &[u8],
    fragment: Option<Fragment>,
    ends: (&[u8; 16], &[u8; 16]),
    descriptor: &mut Descriptor,
) -> Result<(), DropReason> {
    let protocol = descriptor.protocol;
    let (mut source_port, mut destination_port) = (0, 0);
    descriptor.tcp_flags = 0;
    if let Some(fragment) = &fragment {
        judge_fragment(fragment, segment, protocol, descriptor.flags & flags::IPV6 != 0)?;
        descriptor.flags |= flags::FRAGMENT;
        if fragment.offset_bytes > 0 {
            descriptor.flags |= flags::LATER_FRAGMENT;
        }
    }
    if descriptor.flags & flags::LATER_FRAGMENT == 0 {
        match protocol {
            protocol::TCP => {
                if let Some((source, destination, tcp_flags)) = tcp::ports_and_flags(segment) {
                    (source_port, destination_port) = (source, destination);
                    descriptor.tcp_flags = tcp_flags;
                    descriptor.flags |= flags::PORTS;
                }
            }
            _ if protocol::has_ports(protocol) => {
                if let Some(&[s0, s1, d0, d1, _, _, _, _]) = segment.first_chunk::<8>() {
                    source_port = u16::from_be_bytes([s0, s1]);
                    destination_port = u16::from_be_bytes([d0, d1]);
                    descriptor.flags |= flags::PORTS;
                }
            }
            protocol::ICMP | protocol::ICMPV6 => {
                if let Some(identifier) = icmp_message(segment, descriptor) {
                    (source_port, destination_port) = (identifier, identifier);
                    descriptor.flags |= flags::PORTS;
                }
            }
            _ => {}
        }
    }
    descriptor.source_port = source_port;
    descriptor.destination_port = destination_port;
    // All fragments of a packet take one path, and only the first of them has ports.
    let (from, to) = if fragment.is_some() { (0, 0) } else { (source_port, destination_port) };
    descriptor.hash = flow::hash(ends.0, ends.1, from, to, protocol);
    Ok(())
}

/// Fragments that are made to slip past filters.
#[cold]
fn judge_fragment(
    fragment: &Fragment,
    segment: &[u8],
    protocol: u8,
    is_v6: bool,
) -> Result<(), DropReason> {
    // RFC 1858 section 3.2: "IF FO=1 and PROTOCOL=TCP then DROP PACKET"; RFC 3128 shows why the other
    // method of that section is not enough.
    if fragment.offset_bytes == 8 && protocol == protocol::TCP {
        return Err(DropReason::TinyFragment);
    }
    // RFC 1858 section 3: a first fragment that hides ports or flags. RFC 7112 section 5: in IPv6 it "MUST
    // include the entire IPv6 Header Chain", the upper-layer header included.
    let least = match (protocol, is_v6) {
        (protocol::TCP, true) => {
            segment.get(12).map_or(20, |byte| usize::from(byte >> 4) * 4).max(20)
        }
        (protocol::TCP, false) => 16,
        (protocol::UDP, _) => 8,
        (protocol::SCTP, true) => 12,
        (protocol::ICMPV6, true) => 8,
        _ => 0,
    };
    if fragment.offset_bytes == 0 && segment.len() < least {
        return Err(DropReason::TinyFragment);
    }
    Ok(())
}

/// The identifier of an echo, which stands for both ports. An error is only marked. ICMP of the
/// other family means nothing.
fn icmp_message(message: &[u8], descriptor: &mut Descriptor) -> Option<u16> {
    let kind = message.first().copied()?;
    let is_v6 = descriptor.flags & flags::IPV6 != 0;
    let (is_error, identifier) = match (descriptor.protocol, is_v6) {
        (protocol::ICMP, false) => (icmp::is_error(kind), icmp::echo_identifier(message)),
        (protocol::ICMPV6, true) => (icmpv6::is_error(kind), icmpv6::echo_identifier(message)),
        _ => return None,
    };
    if is_error {
        descriptor.flags |= flags::ICMP_ERROR;
    }
    identifier
}

/// Offsets and lengths within a chunk of 4096 bytes, or of an IP packet that fits one.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "bounded by the size of a chunk")]
fn offset(value: usize) -> u16 {
    debug_assert!(value <= usize::from(u16::MAX));
    value as u16
}
