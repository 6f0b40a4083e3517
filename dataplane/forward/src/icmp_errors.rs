//! ICMP errors that the router originates: RFC 1812 section 4.3.2 and RFC 4443 section 2.4.
//!
//! "An ICMP error message MUST NOT be sent as the result of receiving: An ICMP error message, or [...] A
//! packet destined to an IP broadcast or IP multicast address, or A packet sent as a Link Layer broadcast
//! or multicast, or [...] Any fragment of a datagram other then the first fragment" (RFC 1812 section
//! 4.3.2.7). The parser refuses the addresses; the rest is asked here.

use frame::{Descriptor, DropReason, Frame, Nanos, Pool};
use sluice_abi::flags;
use tables::{IcmpLimits, Interface, Snapshot};
use wire::ipv6::ExtensionError;
use wire::{ethernet, icmp, icmpv6, ipv4, ipv6, protocol};

use crate::address::{v4_bits, v6_bits};
use crate::bucket::Bucket;
use crate::sources;

/// How many source prefixes are told apart by the rate limit. Two that share an entry share its
/// rate; fewer entries make that likelier, more take more cache.
const PREFIXES: usize = 1024;

/// What is to be said about a drop.
struct Complaint {
    kind: u8,
    code: u8,
    rest: u32,
}

/// Originates ICMP errors for one worker, within limits.
#[derive(Debug)]
pub(crate) struct IcmpErrors {
    interfaces: Vec<Bucket>,
    prefixes: Box<[Bucket; PREFIXES]>,
}

/// A packet that an error may be about: one that was dropped here, or in a tunnel from here, of which
/// another error told.
pub(crate) struct Dropped<'a> {
    /// The frame that it is in, or a part of it.
    pub(crate) frame: &'a Frame,
    /// Where it stands there.
    pub(crate) descriptor: &'a Descriptor,
    pub(crate) reason: DropReason,
    /// The MTU to report, where it was too big.
    pub(crate) mtu: u16,
}

/// Why no error was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The standards want none.
    Proper,
    /// The rate limit is reached.
    Limited,
    /// No chunk or no address to make it with.
    Lost,
}

impl IcmpErrors {
    pub(crate) fn new(interfaces: usize) -> Self {
        Self {
            interfaces: vec![Bucket::default(); interfaces],
            prefixes: Box::new([Bucket::default(); PREFIXES]),
        }
    }

    /// Makes the error for a dropped frame. It begins with room for an Ethernet header, and is
    /// charged to the interface that received the frame.
    pub(crate) fn originate(
        &mut self,
        about: &Dropped<'_>,
        snapshot: &Snapshot,
        pool: &mut Pool,
        now: Nanos,
    ) -> Result<Frame, Silence> {
        let &Dropped { frame: dropped, descriptor, reason, mtu } = about;
        let is_v6 = descriptor.flags & flags::IPV6 != 0;
        let complaint = match reason {
            DropReason::Ipv4Options | DropReason::Ipv6ExtensionChain => {
                let is_believed = sources::is_believed(dropped.ingress(), descriptor, snapshot);
                parameter_problem(about).filter(|_| is_believed)
            }
            _ => complaint(reason, is_v6, mtu),
        };
        let complaint = complaint.ok_or(Silence::Proper)?;
        if is_beyond_complaint(descriptor) {
            return Err(Silence::Proper);
        }
        let interface = snapshot.interface(dropped.ingress()).ok_or(Silence::Lost)?;
        self.admit(descriptor, dropped, &snapshot.icmp, is_v6, now)?;
        let mut frame = pool.take().ok_or(Silence::Lost)?;
        frame.set_ingress(dropped.ingress());
        let written = write(&mut frame, dropped, descriptor, interface, snapshot, &complaint);
        match written {
            Some(len) if frame.set_len(len) => Ok(frame),
            _ => {
                pool.give(frame);
                Err(Silence::Lost)
            }
        }
    }

    /// RFC 4443 section 2.4 (f): "an IPv6 node MUST limit the rate of ICMPv6 error messages it
    /// originates"; RFC 1812 section 4.3.2.8 for IPv4.
    fn admit(
        &mut self,
        descriptor: &Descriptor,
        dropped: &Frame,
        limits: &IcmpLimits,
        is_v6: bool,
        now: Nanos,
    ) -> Result<(), Silence> {
        let prefix = if is_v6 {
            u64::try_from(v6_bits(&descriptor.source) >> 64).unwrap_or_default()
        } else {
            u64::from(v4_bits(&descriptor.source) >> 8)
        };
        // Fibonacci hashing: the upper bits of the product are well mixed.
        let position = prefix.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PREFIXES.ilog2());
        let prefix = usize::try_from(position).ok().and_then(|at| self.prefixes.get_mut(at));
        let interface = self.interfaces.get_mut(dropped.ingress().index());
        let (Some(prefix), Some(interface)) = (prefix, interface) else {
            return Err(Silence::Limited);
        };
        // The prefix first: a flood from one source must not use up the interface's rate.
        if prefix.take(limits.prefix_per_s, now) && interface.take(limits.interface_per_s, now) {
            Ok(())
        } else {
            Err(Silence::Limited)
        }
    }
}

/// RFC 4443 section 2.4 (e) makes no exception for later fragments, and the sender of a fragment that
/// is too big has to know; but a later fragment of an ICMPv6 message may be part of an error.
fn is_beyond_complaint(descriptor: &Descriptor) -> bool {
    let is_v6 = descriptor.flags & flags::IPV6 != 0;
    let may_be_error = !is_v6 || descriptor.protocol == protocol::ICMPV6;
    descriptor.flags & flags::ICMP_ERROR != 0
        || descriptor.flags & flags::LATER_FRAGMENT != 0 && may_be_error
}

/// RFC 792, RFC 1812 section 5.2.7 and RFC 4443 section 3: which error stands for a drop.
fn complaint(reason: DropReason, is_v6: bool, mtu: u16) -> Option<Complaint> {
    let (v4, v6) = match reason {
        DropReason::TtlExceeded => (
            (icmp::TIME_EXCEEDED, icmp::CODE_TTL_EXCEEDED),
            (icmpv6::TIME_EXCEEDED, icmpv6::CODE_HOP_LIMIT_EXCEEDED),
        ),
        DropReason::NoRoute | DropReason::PluginNextHop => (
            (icmp::DESTINATION_UNREACHABLE, icmp::CODE_NETWORK_UNREACHABLE),
            (icmpv6::DESTINATION_UNREACHABLE, icmpv6::CODE_NO_ROUTE),
        ),
        DropReason::Unreachable => (
            (icmp::DESTINATION_UNREACHABLE, icmp::CODE_HOST_UNREACHABLE),
            (icmpv6::DESTINATION_UNREACHABLE, icmpv6::CODE_NO_ROUTE),
        ),
        DropReason::LinkDown | DropReason::NeighborFailed | DropReason::HoldTimeout => (
            (icmp::DESTINATION_UNREACHABLE, icmp::CODE_HOST_UNREACHABLE),
            (icmpv6::DESTINATION_UNREACHABLE, icmpv6::CODE_ADDRESS_UNREACHABLE),
        ),
        DropReason::Prohibited => (
            (icmp::DESTINATION_UNREACHABLE, icmp::CODE_PROHIBITED),
            (icmpv6::DESTINATION_UNREACHABLE, icmpv6::CODE_PROHIBITED),
        ),
        DropReason::SliceSender => (
            (icmp::DESTINATION_UNREACHABLE, icmp::CODE_PROHIBITED),
            (icmpv6::DESTINATION_UNREACHABLE, icmpv6::CODE_SOURCE_POLICY),
        ),
        DropReason::MtuExceeded => (
            (icmp::DESTINATION_UNREACHABLE, icmp::CODE_FRAGMENTATION_NEEDED),
            (icmpv6::PACKET_TOO_BIG, 0),
        ),
        _ => return None,
    };
    let (kind, code) = if is_v6 { v6 } else { v4 };
    let rest = if reason == DropReason::MtuExceeded { u32::from(mtu) } else { 0 };
    Some(Complaint { kind, code, rest })
}

/// The error about a header that does not add up, with a pointer to where that shows.
///
/// IPv4 options: RFC 1812 section 4.3.3.5; the pointer is to the option's first byte. IPv6 extension
/// headers: hop-by-hop options that are not the first header are what RFC 8200 section 4 has an
/// unrecognised Next Header value reported as; a first fragment without the whole chain may be reported by
/// RFC 7112 section 5; and the bounds of this router by RFC 8883. A packet that merely ends too
/// soon, or has two fragment headers, is not worth an answer.
fn parameter_problem(about: &Dropped<'_>) -> Option<Complaint> {
    let packet = original(about)?;
    if about.descriptor.flags & flags::IPV6 == 0 {
        let header = ipv4::Ipv4::parse(packet).ok()?;
        let offset = header.has_source_route().err()?.offset;
        // The pointer is the first byte of the rest of the header.
        let rest = u32::from(offset) << 24;
        return Some(Complaint { kind: icmp::PARAMETER_PROBLEM, code: icmp::CODE_POINTER, rest });
    }
    let header = ipv6::Ipv6::parse(packet).ok()?;
    let (next, payload) = (header.next_header(), header.payload());
    let (error, at) = ipv6::locate_extension_error(next, payload)?;
    let at = u32::try_from(ipv6::HEADER_LEN + at).ok()?;
    let (code, rest) = match error {
        ExtensionError::HopByHopNotFirst => (icmpv6::CODE_NEXT_HEADER, at),
        ExtensionError::TooLong => (icmpv6::CODE_CHAIN_TOO_LONG, at),
        ExtensionError::TooMany => (icmpv6::CODE_TOO_MANY_HEADERS, at),
        ExtensionError::Truncated | ExtensionError::SecondFragment => return None,
    };
    Some(Complaint { kind: icmpv6::PARAMETER_PROBLEM, code, rest })
}

/// The packet that an error is about.
fn original<'a>(about: &Dropped<'a>) -> Option<&'a [u8]> {
    let l3 = usize::from(about.descriptor.l3_offset);
    about.frame.bytes().get(l3..l3 + usize::from(about.descriptor.length))
}

/// Writes the error behind room for an Ethernet header. Returns the length in all.
fn write(
    frame: &mut Frame,
    dropped: &Frame,
    descriptor: &Descriptor,
    interface: &Interface,
    snapshot: &Snapshot,
    complaint: &Complaint,
) -> Option<usize> {
    let l3 = usize::from(descriptor.l3_offset);
    let original = dropped.bytes().get(l3..l3 + usize::from(descriptor.length))?;
    let out = frame.reset(ethernet::HEADER_LEN + icmpv6::ERROR_LEN_MAX)?;
    let out = out.get_mut(ethernet::HEADER_LEN..)?;
    let &Complaint { kind, code, rest } = complaint;
    let len = if descriptor.flags & flags::IPV6 == 0 {
        let source = first_of(interface, snapshot, |interface| interface.address4)?;
        let destination = v4_bits(&descriptor.source).to_be_bytes();
        icmp::emit_error_v4(
            out,
            &icmp::ErrorRepr { source: source.octets(), destination, kind, code, rest },
            original,
        )?
    } else {
        let source = first_of(interface, snapshot, |interface| interface.address6)?;
        let destination = descriptor.source;
        icmpv6::emit_error_v6(
            out,
            &icmpv6::ErrorRepr { source: source.octets(), destination, kind, code, rest },
            original,
        )?
    };
    Some(ethernet::HEADER_LEN + len)
}

/// Gives an error of IPv4 the address of the interface that it leaves by, which is known only when it
/// is routed. RFC 1812 section 4.3.2.4: "Except where this document specifies otherwise, the IP source
/// address in an ICMP message originated by the router MUST be one of the IP addresses associated with
/// the physical interface over which the ICMP message is transmitted." RFC 4443 section 2.2 leaves the
/// choice free: an error of IPv6 keeps the address at which the packet arrived.
pub(crate) fn leave_by(frame: &mut Frame, descriptor: &Descriptor, interface: &Interface) {
    if descriptor.flags & flags::IPV6 != 0 {
        return;
    }
    let l3 = usize::from(descriptor.l3_offset);
    let header = frame.bytes_mut().get_mut(l3..).and_then(<[u8]>::first_chunk_mut);
    if let (Some(address), Some(header)) = (interface.address4, header) {
        ipv4::set_source(header, address.octets());
    }
}

/// The address of the interface that received the packet; without one, any other of the router's.
fn first_of<A>(
    interface: &Interface,
    snapshot: &Snapshot,
    address: impl Fn(&Interface) -> Option<A>,
) -> Option<A> {
    address(interface).or_else(|| snapshot.interfaces.iter().find_map(address))
}
